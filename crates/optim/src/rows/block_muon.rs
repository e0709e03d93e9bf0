//! Block Muon: tiles of side `b` (smaller at the edges) are orthogonalised instead of whole matrices.
//!
//! With `scale_shape = "full"`, as published, the factor `0.2 sqrt(max(out, in))` is that of the whole matrix: a tile's
//! update then has a root mean square of `0.2 sqrt(max(out, in) / b)` rates, which grows as `b` shrinks. With `"block"`
//! it is that of the tile, and the root mean square is 0.2 rates whatever `b`.

use crate::pipeline::keys::{NESTEROV, ORTHO, SCALE, WEIGHT_DECAY};
use crate::pipeline::{Blocks, Plan};
use crate::settings::{Default, Key, Settings};
use crate::{Build, LrHint, Row};

pub(crate) const BLOCK_SIZE: Key = Key::new("block_size", Default::Count(128), "side of a tile");

/// The row of `block-muon`.
pub(crate) const ROW: Row = Row {
    name: "block-muon",
    about: "Muon on square tiles of each matrix",
    own: &[
        BLOCK_SIZE,
        Key::new(
            "scale_shape",
            Default::Choice { words: &["block", "full"], default: "block" },
            "whether the shape scale is that of the tile or, as published, of the matrix",
        ),
        NESTEROV.or(Default::Switch(true)),
        ORTHO.or_word("jordan-bf16"),
        SCALE.or_word("match-rms"),
        WEIGHT_DECAY.or(Default::Number(0.1)),
    ],
    lr: LrHint::Rms,
    state_bytes: 4,
    build: Build::Matrices(|settings| {
        let scale_by_tile = settings.word("scale_shape") == "block";
        let blocks = Blocks { size: size(settings)?, period: 0, rate_ratio: 1.0, scale_by_tile };
        Ok(Plan { blocks: Some(blocks), ..Plan::shared(settings)? })
    }),
};

/// The side of a tile.
pub(super) fn size(settings: &Settings) -> crate::Result<usize> {
    match settings.count("block_size") {
        0 => Err(settings.refuse("block_size", "takes a whole number from 1")),
        size => Ok(size),
    }
}
