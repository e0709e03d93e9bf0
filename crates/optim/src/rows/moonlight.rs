//! Moonlight's Muon (arXiv 2502.16982): Nesterov momentum, five quintic Newton-Schulz steps, the factor
//! `0.2 sqrt(max(out, in))`, which gives the update the root mean square of `AdamW`'s, and decoupled weight decay.
//! The buffer is a running mean, `M <- mu M + (1 - mu) G`, as in `torch.optim.Muon`: the same direction.

use crate::pipeline::Plan;
use crate::pipeline::keys::{NESTEROV, ORTHO, SCALE, WEIGHT_DECAY};
use crate::settings::Default;
use crate::{Build, LrHint, Row};

/// The row of `moonlight`.
pub(crate) const ROW: Row = Row {
    name: "moonlight",
    about: "Muon at AdamW's update size, with weight decay",
    own: &[
        NESTEROV.or(Default::Switch(true)),
        ORTHO.or_word("newton-schulz"),
        SCALE.or_word("match-rms"),
        WEIGHT_DECAY.or(Default::Number(0.1)),
    ],
    lr: LrHint::Rms,
    state_bytes: 4,
    build: Build::Matrices(|settings| {
        let shared = Plan::shared(settings)?;
        Ok(Plan { gradient_weight: 1.0 - shared.momentum, ..shared })
    }),
};
