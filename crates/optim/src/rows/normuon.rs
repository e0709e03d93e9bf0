//! `NorMuon` (arXiv 2510.05491): Muon whose update is normalised neuron by neuron.
//!
//! ```text
//! M <- b1 M + (1 - b1) G,  O = NS5(M)
//! v <- b2 v + (1 - b2) mean over each row of O * O
//! O' = O / (sqrt(v) + eps), row by row
//! W <- W - rate decay W - rate 0.2 sqrt(m n) / norm_F(O') O'
//! ```
//!
//! Rows run along the in axis: one a neuron. The norm is that of the whole weight, split or not.

use crate::pipeline::keys::{MOMENTUM, ORTHO, WEIGHT_DECAY};
use crate::pipeline::{Neurons, Plan, Scale};
use crate::settings::{Default, Key};
use crate::{Build, LrHint, Row};

/// The row of `normuon`.
pub(crate) const ROW: Row = Row {
    name: "normuon",
    about: "Muon with each neuron's update normalised by its running size",
    own: &[
        Key::new("beta2", Default::Number(0.95), "decay of the neurons' mean squares"),
        Key::new("eps", Default::Number(1e-8), "added to their roots"),
        MOMENTUM,
        ORTHO.or_word("newton-schulz"),
        WEIGHT_DECAY.or(Default::Number(0.1)),
    ],
    lr: LrHint::Rms,
    state_bytes: 4,
    build: Build::Matrices(|settings| {
        let beta = settings.number("beta2");
        if beta >= 1.0 {
            return Err(settings.refuse("beta2", "must be below 1"));
        }
        if settings.word("scale") != "none" {
            return Err(settings.refuse("scale", "has no effect: the update's norm is fixed; leave it none"));
        }
        let shared = Plan::shared(settings)?;
        Ok(Plan {
            gradient_weight: 1.0 - shared.momentum,
            neurons: Some(Neurons { beta, eps: settings.number("eps") }),
            scale: Scale::None,
            ..shared
        })
    }),
};
