//! The recipe and the training loop.
//!
//! A [`recipe::Resolved`] recipe is [`prepare`]d (data opened, model and optimizer built) and [`run`]: the loop
//! steps a [`Trainer`], evaluates, saves, and keeps its record in a run folder. An [`Observer`] hears of every step.
//!
//! Invariants: the order of samples, the initial weights and every kernel are functions of the recipe, so one
//! recipe on one device gives the same bits; a step whose loss or gradient is not finite moves nothing.

mod error;
pub mod flops;
pub mod memory;
pub mod recipe;
mod run;
pub mod schedule;
mod trainer;

pub use error::{Error, Result};
pub use run::{Observer, Place, Prepared, prepare, run};
pub use trainer::{Ready, Trainer};
