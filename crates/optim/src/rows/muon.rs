//! Muon with the exact polar factor: `M <- mu M + G`, `W <- W - rate polar(M)` (Jordan 2024, without Nesterov
//! momentum, shape scale and weight decay; polar(U S V^T) = U V^T).

use crate::pipeline::Plan;
use crate::{Build, LrHint, Row};

/// The row of `muon`.
pub(crate) const ROW: Row = Row {
    name: "muon",
    about: "momentum, then the polar factor of each matrix; AdamW on the rest",
    own: &[],
    lr: LrHint::Spectral,
    state_bytes: 4,
    build: Build::Matrices(Plan::shared),
};
