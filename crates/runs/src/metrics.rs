//! `metrics.csv`: one row a step. Here what a row is; [`write`] appends rows, [`read`] reads them back, [`tail`]
//! follows a file that grows.

mod read;
mod tail;
mod write;

pub use read::{Metrics, Torn};
pub use tail::MetricsTail;
pub use write::MetricsWriter;

pub(crate) const FILE: &str = "metrics.csv";

/// The columns every file has, in order; named diagnostics follow them.
pub const COLUMNS: [&str; 8] =
    ["step", "tokens", "loss", "lr", "grad_norm", "step_ms", "tokens_per_s", "val_loss"];

/// One training step. Floats are written in the shortest form that reads back to the same bits (all NaN as one).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Optimizer steps done, this one included.
    pub step: u64,
    /// Tokens trained on so far, this step's included.
    pub tokens: u64,
    /// Training loss of the step's batch, nats per token.
    pub loss: f64,
    /// The scheduled learning rate of the step.
    pub lr: f64,
    /// Euclidean norm of the whole gradient; NaN where the step was skipped.
    pub grad_norm: f64,
    /// Time of the step in milliseconds, without evaluation and saving.
    pub step_ms: f64,
    /// Tokens per second of the step.
    pub tokens_per_s: f64,
    /// Validation loss after the step, nats per token; an empty cell where not evaluated.
    pub val_loss: Option<f64>,
    /// Named diagnostics of the step: any of the columns that the file was begun with; the others stay empty.
    pub diagnostics: Vec<(String, f64)>,
}

impl Row {
    /// Whether the step moved nothing, because its loss or gradient was not finite.
    pub fn skipped(&self) -> bool {
        !self.grad_norm.is_finite()
    }
}
