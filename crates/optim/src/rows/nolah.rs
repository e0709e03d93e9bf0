//! NOLAH: Muon on gated gradients, with momentum scaled down where gradients are large, and a self-gated update.
//!
//! ```text
//! M <- mu M + gate(G)            gate: tanh(G) |G|, sigmoid(G) G, or max(G, 0)
//! M_ij <- s M_ij                 where |G_ij| > 95th percentile of |G|; stays in the buffer
//! W <- W - rate polar(M sigmoid(M))
//! ```

use crate::kernels::Gate;
use crate::pipeline::{MomentumScale, Plan};
use crate::settings::{Default, Key};
use crate::{Build, LrHint, Row};

/// The row of `nolah`.
pub(crate) const ROW: Row = Row {
    name: "nolah",
    about: "Muon with gated gradients, momentum scaled down where they are large, and a self-gated update",
    own: &[
        Key::new(
            "gate",
            Default::Choice { words: &["tanh", "sigmoid", "relu"], default: "tanh" },
            "what gradients go through",
        ),
        Key::new("momentum_scale", Default::Number(0.95), "factor of the momentum where gradients are large"),
        Key::new("quantile", Default::Number(0.95), "large: above this quantile of the magnitudes"),
    ],
    lr: LrHint::Spectral,
    state_bytes: 4,
    build: Build::Matrices(|settings| {
        let quantile = f64::from(settings.number("quantile"));
        if quantile > 1.0 {
            return Err(settings.refuse("quantile", "takes a number from 0 to 1"));
        }
        Ok(Plan {
            gate: match settings.word("gate") {
                "sigmoid" => Gate::Sigmoid,
                "relu" => Gate::Relu,
                _ => Gate::Tanh,
            },
            momentum_scale: Some(MomentumScale { quantile, factor: settings.number("momentum_scale") }),
            self_gate: true,
            ..Plan::shared(settings)?
        })
    }),
};
