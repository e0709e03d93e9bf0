//! The recipe and the training loop.
//!
//! A [`recipe::Resolved`] recipe is [`prepare`]d (data opened, model and optimizer built) and [`run`]: the loop
//! steps a [`Trainer`], evaluates, saves, and keeps its record in a run folder. An [`Observer`] hears of every step.
//!
//! Invariants: the order of samples, the initial weights and every kernel are functions of the recipe, so one
//! recipe on one device gives the same bits; a step whose loss or gradient is not finite moves nothing.

mod checkpoint;
mod error;
pub mod flops;
pub mod memory;
pub mod recipe;
mod room;
mod run;
pub mod schedule;
mod snapshot;
mod spikes;
mod steps;
mod trainer;

pub use checkpoint::{Point, State};
pub use error::{Error, Result, Why};
pub use room::Room;
pub use run::{Observer, Place, Prepared, prepare, prepare_from, resume, run};
pub use snapshot::Saved;
pub use trainer::{Ready, Trainer};
