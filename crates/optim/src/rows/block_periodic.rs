//! Block-periodic Muon (`MuonBP`, arXiv 2510.16981): tiles on most steps, the whole matrix in the first of every `P`, with
//! a learning rate for each.

use super::block_muon::{self, BLOCK_SIZE};
use crate::pipeline::keys::{ORTHO, SCALE, WEIGHT_DECAY};
use crate::pipeline::{Blocks, Plan};
use crate::settings::{Default, Key};
use crate::{Build, LrHint, Row};

/// The row of `block-periodic`.
pub(crate) const ROW: Row = Row {
    name: "block-periodic",
    about: "Muon on tiles, and on whole matrices every few steps",
    own: &[
        BLOCK_SIZE,
        Key::new("period", Default::Count(5), "one step in so many takes whole matrices"),
        Key::new(
            "block_lr_ratio",
            Default::Number(1.0),
            "rate of the steps in tiles, in units of the others'",
        ),
        ORTHO.or_word("newton-schulz"),
        SCALE.or_word("match-rms"),
        WEIGHT_DECAY.or(Default::Number(0.1)),
    ],
    lr: LrHint::Rms,
    state_bytes: 4,
    build: Build::Matrices(|settings| {
        let period = settings.count("period");
        if period == 0 {
            return Err(settings.refuse("period", "takes a whole number from 1"));
        }
        let size = block_muon::size(settings)?;
        let rate_ratio = settings.number("block_lr_ratio");
        let blocks = Blocks { size, period, rate_ratio, scale_by_tile: true };
        Ok(Plan { blocks: Some(blocks), ..Plan::shared(settings)? })
    }),
};
