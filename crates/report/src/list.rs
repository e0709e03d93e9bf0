//! The list of runs.

use runs::{Metadata, State};

use crate::fit::Sheet;
use crate::format;
use crate::tables::{Charset, optional};

/// A run of the list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What ran, and where it stands now.
    pub metadata: Metadata,
    /// Whether its process is gone though its record says that it runs.
    pub died: bool,
    /// Seconds since it began.
    pub age: f64,
}

/// The state of a run in one word: `running`, `died`, `finished`, `stopped` or `failed`.
pub fn state(metadata: &Metadata, died: bool) -> &'static str {
    match metadata.state {
        State::Running if died => "died",
        State::Running => "running",
        State::Finished => "finished",
        State::Stopped { .. } => "stopped",
        State::Failed { .. } => "failed",
    }
}

/// One line for each run: what ran, how far, how well, how fast, and how long ago it began, in at most `width` characters.
///
/// A column that no run has a value for is left out. Where the terminal is narrow, columns go in this order: best
/// validation loss, model, best loss, tokens/s, optimizer, age, validation loss; then names are cut in their middle.
pub fn runs_table(runs: &[Listed], charset: Charset, width: Option<usize>) -> String {
    if runs.is_empty() {
        return "no runs\n".to_owned();
    }
    let header = [
        "run",
        "state",
        "optimizer",
        "model",
        "steps",
        "loss",
        "best loss",
        "validation",
        "best val.",
        "tokens/s",
        "age",
    ];
    let goes = &["best val.", "model", "best loss", "tokens/s", "optimizer", "age", "validation"];
    Sheet { header, rows: runs.iter().map(row).collect(), numbers: 4, goes }.text(charset, width)
}

fn row(run: &Listed) -> [String; 11] {
    let metadata = &run.metadata;
    let (train, validation) = (&metadata.train_loss, &metadata.validation_loss);
    [
        metadata.name.clone(),
        state(metadata, run.died).to_owned(),
        metadata.setup.optimizer.clone(),
        metadata.setup.model.clone(),
        format!("{}/{}", metadata.steps_done, metadata.setup.steps),
        optional(train.last, format::loss),
        optional(train.best, format::loss),
        optional(validation.last, format::loss),
        optional(validation.best, format::loss),
        optional(metadata.tokens_per_s, format::short),
        format::duration(run.age),
    ]
}
