//! What can stop a training run.

/// Result of training.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The loss or the gradient is not a number any more.
    #[error(
        "training diverged at step {step}: {what}; the weights before that step are kept (try a smaller --lr)"
    )]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// What is not finite.
        what: String,
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
