//! The keys that all matrix rules share, with the defaults of `muon`; a row changes a default by a key of the same name.

use crate::ortho::Method;
use crate::pipeline::shape_scale::Scale;
use crate::routing::{Route, Split};
use crate::settings::{Default, Key};

pub(crate) const MOMENTUM: Key = Key::new("momentum", Default::Number(0.95), "decay of the momentum buffer");
pub(crate) const NESTEROV: Key =
    Key::new("nesterov", Default::Switch(false), "orthogonalise gradient + momentum * buffer");
pub(crate) const ORTHO: Key = Key::new(
    "ortho",
    Default::Choice { words: Method::NAMES, default: "polar" },
    "how the polar factor is computed",
);
pub(crate) const COEFFICIENTS: Key = Key::new(
    "coefficients",
    Default::Text(""),
    "of newton-schulz, jordan-bf16 and gram: jordan, you, convergent, or a,b,c; a,b,c; empty: the method's own",
);
pub(crate) const ORTHO_STEPS: Key =
    Key::new("ortho_steps", Default::Count(0), "iterations of the fixed-step methods; 0: the method's own");
pub(crate) const ORTHO_DTYPE: Key = Key::new(
    "ortho_dtype",
    Default::Choice { words: &["bf16", "f32"], default: "bf16" },
    "arithmetic of newton-schulz, polar-express and gram: bf16, as published (the cpu rounds to it after every product), or f32",
);
pub(crate) const SCALE: Key = Key::new(
    "scale",
    Default::Choice { words: Scale::NAMES, default: "none" },
    "factor of the update by the matrix's shape",
);
pub(crate) const WEIGHT_DECAY: Key =
    Key::new("weight_decay", Default::Number(0.0), "decoupled weight decay of the matrices");
pub(crate) const ROUTE: Key = Key::new(
    "route",
    Default::Choice { words: Route::NAMES, default: "hidden" },
    "which weights are matrices: those inside the layers, or all with two axes",
);
pub(crate) const SPLIT: Key = Key::new(
    "split",
    Default::Choice { words: Split::NAMES, default: "none" },
    "whether a fused weight is one matrix, one a segment, or one a head",
);

/// All of them.
pub(crate) const SHARED: &[Key] =
    &[MOMENTUM, NESTEROV, ORTHO, COEFFICIENTS, ORTHO_STEPS, ORTHO_DTYPE, SCALE, WEIGHT_DECAY, ROUTE, SPLIT];
