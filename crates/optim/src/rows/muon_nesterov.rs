//! Muon as first published (Jordan 2024): Nesterov momentum, five quintic Newton-Schulz steps, and the factor
//! `sqrt(max(1, out / in))`. The buffer is a running mean, `M <- mu M + (1 - mu) G`, as in `torch.optim.Muon`: the same
//! direction.

use crate::pipeline::Plan;
use crate::pipeline::keys::{NESTEROV, ORTHO, SCALE};
use crate::settings::Default;
use crate::{Build, LrHint, Row};

/// The row of `muon-nesterov`.
pub(crate) const ROW: Row = Row {
    name: "muon-nesterov",
    about: "Jordan's Muon: Nesterov momentum, five quintic steps, scale by shape",
    own: &[NESTEROV.or(Default::Switch(true)), ORTHO.or_word("newton-schulz"), SCALE.or_word("original")],
    lr: LrHint::Spectral,
    state_bytes: 4,
    build: Build::Matrices(|settings| {
        let shared = Plan::shared(settings)?;
        Ok(Plan { gradient_weight: 1.0 - shared.momentum, ..shared })
    }),
};
