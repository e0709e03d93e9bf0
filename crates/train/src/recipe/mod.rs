//! The recipe: everything that decides a run, strongly typed, from TOML.
//!
//! [`resolve`] puts its layers over one another: defaults, those of the optimizer and of the model preset, on request
//! the [published] set-up, a recipe file, the environment (`MUON_<SECTION>__<KEY>`) and the flags; what is still unset
//! scales with steps and model size as published. The result is a [`Recipe`] together with the [`Origin`] of every
//! value.
//!
//! [`Recipe::freeze`] writes it back as TOML. That text resolves to the same recipe again, and its BLAKE3 hash
//! ([`fingerprint`]) identifies it. Where things are kept (`[run]` and `data.cache_dir`) is no part of it, so that one
//! experiment has one hash whatever its name.
//!
//! ```
//! use train::recipe::{Setting, Sources, resolve};
//!
//! let flags = [Setting { key: "train.steps".into(), value: "20".into(), flag: "--steps".into() }];
//! let resolved = resolve(&Sources { flags: &flags, ..Sources::default() })?;
//! assert_eq!(resolved.recipe.train.steps, 20);
//! assert_eq!(resolved.origin("train.steps").to_string(), "--steps");
//! # Ok::<(), train::recipe::Error>(())
//! ```

mod check;
mod choices;
mod defaults;
mod differences;
mod error;
mod frozen;
mod keys;
mod layers;
pub mod published;
mod resolve;
#[cfg(test)]
mod tests;
mod types;

pub use choices::{Diagnostics, Examples, Kernels, Precision, Recompute, Rounding, Staging, StateType};
pub use defaults::default;
pub use differences::{Difference, HARMLESS};
pub use error::{Error, Result};
pub use frozen::fingerprint;
pub use keys::{KEYS, Key, Kind};
pub use layers::{ENV_PREFIX, Origin, Setting};
pub use resolve::{Resolved, Sources, model_key, optimizer_of, resolve};
pub use types::{AdamW, Data, Model, Optimizer, Recipe, Run, Train};
