//! What can stop a training run.

use std::fmt;
use std::path::PathBuf;

/// Result of training.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The loss or the gradient is not a number any more.
    #[error(
        "training diverged at step {step}: {what}{}; the weights before that step are kept (try a smaller --lr)",
        in_row(*skipped)
    )]
    Diverged {
        /// The first of the steps skipped, from 1.
        step: u64,
        /// What is not finite, in the last of them.
        what: String,
        /// Steps skipped in a row.
        skipped: u64,
    },
    /// The run was told to stop; it is saved and can go on.
    #[error("stopped after step {step} by {why}; the run is saved (`muon resume` goes on{})", why.condition())]
    Stopped {
        /// The step, from 1.
        step: u64,
        /// By what.
        why: Why,
    },
    /// A run whose limit is used up before it goes on.
    #[error("the run has reached {why} already ({}); raise it, or set it to 0 for none", spent(*seconds, *usd))]
    Spent {
        /// The limit.
        why: Why,
        /// Seconds of work on it.
        seconds: f64,
        /// Dollars that they cost, where the price is known.
        usd: Option<f64>,
    },
    /// A run without a checkpoint that can be trusted.
    #[error("{}: no checkpoint to go on from{}", run.display(), refused.as_ref().map_or(String::new(), |why| format!("; {why}")))]
    NoCheckpoint {
        /// The run's folder.
        run: PathBuf,
        /// What is wrong with the newest one, if there is any.
        refused: Option<runs::Error>,
    },
    /// A file of a checkpoint that this program cannot write or read.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What a run is to go on with is not what it had.
    #[error("not the same run any more: {} (set it back, or start a new run)", .0.join("; "))]
    Changed(Vec<String>),
    /// A run that is to end before its checkpoint.
    #[error("the checkpoint is of step {step}, beyond the {steps} steps of the recipe")]
    Shorter {
        /// Step of the checkpoint.
        step: u64,
        /// Steps of the recipe.
        steps: u64,
    },
    /// The data has too few rows for one batch.
    #[error(
        "the {split} split has {rows} rows of {seq_len} tokens, fewer than one batch of {batch}; use a smaller --batch-size or --seq-len, or more data"
    )]
    TooFewRows {
        /// `training` or `validation`.
        split: &'static str,
        /// Rows there are.
        rows: usize,
        /// Tokens in a row.
        seq_len: usize,
        /// Rows wanted.
        batch: usize,
    },
    /// The machine has less memory than the run takes.
    #[error(
        "the run takes about {} MiB of memory and {} MiB are free; use a smaller --batch-size, --seq-len or --model, or --set train.recompute=layers",
        wanted >> 20, free >> 20
    )]
    Memory {
        /// Bytes it takes, as estimated.
        wanted: u64,
        /// Bytes there are.
        free: u64,
    },
    /// The recipe does not fit.
    #[error(transparent)]
    Recipe(#[from] crate::recipe::Error),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The model cannot be built, read or written.
    #[error(transparent)]
    Model(#[from] models::Error),
    /// The optimizer cannot be built or failed.
    #[error(transparent)]
    Optimizer(#[from] optim::Error),
    /// A device failed.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
    /// The run folder cannot be written.
    #[error(transparent)]
    Runs(#[from] runs::Error),
}

/// What a run is stopped by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// A signal, by its number.
    Signal(i32),
    /// The limit of `train.max_hours`.
    Hours(f64),
    /// The limit of `train.max_cost`.
    Cost(f64),
}

impl Why {
    /// What going on takes.
    fn condition(self) -> &'static str {
        match self {
            Why::Signal(_) => "",
            Why::Hours(_) => " with a higher --max-hours",
            Why::Cost(_) => " with a higher --max-cost",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Signal(2) => f.write_str("SIGINT"),
            Why::Signal(15) => f.write_str("SIGTERM"),
            Why::Signal(number) => write!(f, "signal {number}"),
            Why::Hours(hours) => write!(f, "train.max_hours = {hours}"),
            Why::Cost(usd) => write!(f, "train.max_cost = {usd}"),
        }
    }
}

fn spent(seconds: f64, usd: Option<f64>) -> String {
    let cost = usd.map_or(String::new(), |usd| format!(", ${usd:.2}"));
    format!("{:.3} hours{cost}", seconds / 3600.0)
}

fn in_row(skipped: u64) -> String {
    if skipped > 1 { format!(", in {skipped} steps in a row") } else { String::new() }
}
