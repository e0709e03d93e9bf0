//! The published set-up in one table: what the two published experiments did, with those of its flaws
//! that are a setting.
//!
//! `--published` puts [`VALUES`] over the defaults, and the training defaults of the published models (steps, batch,
//! rates: [`models::presets::Defaults::for_size`]) over those of the preset. File, environment and flags go over it.
//!
//! Not repeated, because it cannot run or is no setting: noise of a wide matrix from a QR decomposition of the wrong
//! orientation (the shapes do not fit), a cubic iteration on an unscaled buffer (it diverges), a Gaussian control
//! `sqrt(max(m, n))` times too large, a loss over padding, momentum lost when a run was resumed.

/// One value of the published set-up.
#[derive(Debug, Clone, Copy)]
pub struct Value {
    /// Dotted key of the recipe.
    pub key: &'static str,
    /// Its value, as a flag would give it.
    pub value: &'static str,
    /// The optimizers that it concerns.
    pub optimizers: &'static [&'static str],
    /// What it does, and what is wrong with it.
    pub why: &'static str,
}

const MATRIX: &[&str] = &["muon", "nolah", "orthonoise", "isotropic"];
const NOISE: &[&str] = &["orthonoise", "isotropic"];
const BLOCK: &[&str] = &["block-muon"];

/// The optimizers that the published experiments ran.
pub const OPTIMIZERS: &[&str] = &["muon", "nolah", "orthonoise", "isotropic", "block-muon", "adamw"];

const fn value(
    key: &'static str,
    value: &'static str,
    optimizers: &'static [&'static str],
    why: &'static str,
) -> Value {
    Value { key, value, optimizers, why }
}

/// The published set-up, where it is not a matter of the model's size.
pub const VALUES: &[Value] = &[
    value(
        "train.precision",
        "bf16",
        OPTIMIZERS,
        "weights of record in bf16, coarser than most updates at rate 1e-4: 99.5 % of the entries of a weight of deviation 0.1 do not move",
    ),
    value(
        "train.rounding",
        "nearest",
        OPTIMIZERS,
        "what is less than half a step of bf16 is lost, every time",
    ),
    value("train.schedule", "constant", OPTIMIZERS, "warm-up, then a constant rate"),
    value(
        "train.warmup_rest",
        "false",
        OPTIMIZERS,
        "the warm-up touched the matrices' rate only; AdamW began at its full rate",
    ),
    value("train.clip", "0", OPTIMIZERS, "no clipping"),
    value(
        "data.packing",
        "truncate",
        OPTIMIZERS,
        "one document a row, cut or padded (pads are masked out of the loss here; they were not)",
    ),
    value(
        "optimizer.route",
        "all-2d",
        MATRIX,
        "every two-dimensional weight goes to the matrix rule, the tied embedding too",
    ),
    value("optimizer.split", "none", MATRIX, "a fused weight is orthogonalised as one matrix"),
    value(
        "optimizer.ortho",
        "svd",
        MATRIX,
        "a singular value decomposition of each matrix: exact, and the slowest way",
    ),
    value("optimizer.nesterov", "false", MATRIX, "plain momentum"),
    value(
        "optimizer.scale",
        "none",
        MATRIX,
        "no shape scale: the root mean square of an update falls with the larger side",
    ),
    value("optimizer.weight_decay", "0", MATRIX, "no decay of the matrices"),
    value(
        "optimizer.noise_target",
        "momentum",
        NOISE,
        "the noise was added to the momentum buffer and stayed there",
    ),
    value(
        "optimizer.scale_shape",
        "full",
        BLOCK,
        "the scale of the whole matrix on each tile: the update grows as tiles shrink",
    ),
];

/// The values that concern an optimizer.
pub fn values(optimizer: &str) -> impl Iterator<Item = &'static Value> {
    VALUES.iter().filter(move |value| value.optimizers.contains(&optimizer))
}
