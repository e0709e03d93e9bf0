//! `metadata.json`: what ran, on what, and how it went. Small, stable in field order, kept in version control.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Error, Git, Result, Row, atomic};

/// The version of the file's layout. It grows when a reader of the old layout would misread the new one.
pub const SCHEMA: u32 = 1;

pub(crate) const FILE: &str = "metadata.json";

/// Everything about one run that is not a series. Losses are in nats per token; a loss that is not finite is written as `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The version of this layout, [`SCHEMA`].
    pub schema: u32,
    /// The run's name, which is its folder's. Set by [`Store::create`](crate::Store::create).
    pub name: String,
    /// Where the run stands.
    pub state: State,
    /// The command line as given; nothing from the environment.
    pub command: Vec<String>,
    /// The version of the program.
    pub version: String,
    /// The state of the sources in the working folder; `null` where unknown.
    pub git: Option<Git>,
    /// BLAKE3 of `recipe.toml`, in hex. Set by [`Store::create`](crate::Store::create).
    pub recipe_hash: String,
    /// What was to run, and on what.
    pub setup: Setup,
    /// Optimizer steps done.
    pub steps_done: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Steps that moved nothing, because the loss or the gradient was not finite.
    #[serde(default)]
    pub skipped_steps: u64,
    /// The steps after which the run was resumed, in order.
    #[serde(default)]
    pub resumed: Vec<u64>,
    /// Loss on the training batches.
    pub train_loss: LossSummary,
    /// Loss on the validation split.
    pub validation_loss: LossSummary,
    /// When the run began (UTC, RFC 3339).
    pub started: Timestamp,
    /// When it ended; `null` while it runs, or after a kill.
    pub finished: Option<Timestamp>,
    /// Seconds from start to end, all included.
    pub wall_seconds: Option<f64>,
    /// Seconds spent in training steps alone: without set-up, evaluation and saving.
    pub step_seconds: f64,
    /// Tokens per second of training steps: `tokens / step_seconds`.
    pub tokens_per_s: Option<f64>,
    /// The most memory in use at once, in bytes: of the device, or of the process on a CPU.
    pub peak_memory_bytes: Option<u64>,
    /// The price of the machine in dollars an hour, where given.
    pub usd_per_hour: Option<f64>,
    /// `usd_per_hour` times the wall time.
    pub usd: Option<f64>,
}

/// What is fixed before the first step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The model: a preset's name or a folder.
    pub model: String,
    /// Its trainable parameters, a tied weight counted once.
    pub parameters: u64,
    /// The optimizer's name.
    pub optimizer: String,
    /// The data in a few words.
    pub data: String,
    /// The entropy rate of the data in nats per token, the least loss possible; `null` where unknown.
    pub entropy_floor: Option<f64>,
    /// The seed of all randomness.
    pub seed: u64,
    /// Optimizer steps planned.
    pub steps: u64,
    /// The device in words, such as "NVIDIA H100 80GB HBM3".
    pub device: String,
    /// The version of the device's driver; `null` on a CPU.
    pub driver: Option<String>,
    /// The precision's name: `f32`, `mixed` or `bf16`.
    pub precision: String,
}

/// Where a run stands. A run that was killed stays [`State::Running`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum State {
    /// Begun and not ended.
    Running,
    /// All planned steps are done and saved.
    Finished,
    /// Ended before its last step as it was told to; it can go on.
    Stopped {
        /// Why, in one line.
        reason: String,
    },
    /// Ended early.
    Failed {
        /// Why, in one line.
        reason: String,
    },
}

/// First, last and best of a series of losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossSummary {
    /// The first value.
    pub first: Option<f64>,
    /// The latest value (`final` in the file).
    #[serde(rename = "final")]
    pub last: Option<f64>,
    /// The least finite value.
    pub best: Option<f64>,
    /// The step of the least value, the earliest one.
    pub best_step: Option<u64>,
}

impl LossSummary {
    /// Takes in the loss of one step.
    pub fn record(&mut self, step: u64, loss: f64) {
        self.first.get_or_insert(loss);
        self.last = Some(loss);
        if loss.is_finite() && self.best.is_none_or(|best| loss < best) {
            self.best = Some(loss);
            self.best_step = Some(step);
        }
    }
}

impl Metadata {
    /// The metadata of a run that begins at `started`. The name and the recipe's hash are filled in by
    /// [`Store::create`](crate::Store::create); [`Metadata::git`] is for the caller to set.
    #[must_use]
    pub fn new(command: Vec<String>, setup: Setup, started: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            name: String::new(),
            state: State::Running,
            command,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git: None,
            recipe_hash: String::new(),
            setup,
            steps_done: 0,
            tokens: 0,
            skipped_steps: 0,
            resumed: Vec::new(),
            train_loss: LossSummary::default(),
            validation_loss: LossSummary::default(),
            started,
            finished: None,
            wall_seconds: None,
            step_seconds: 0.0,
            tokens_per_s: None,
            peak_memory_bytes: None,
            usd_per_hour: None,
            usd: None,
        }
    }

    /// Takes in one step: counts, losses and speed.
    pub fn record(&mut self, row: &Row) {
        self.steps_done = row.step;
        self.tokens = row.tokens;
        self.skipped_steps += u64::from(row.skipped());
        self.train_loss.record(row.step, row.loss);
        if let Some(loss) = row.val_loss {
            self.validation_loss.record(row.step, loss);
        }
        self.step_seconds += row.step_ms / 1e3;
        self.tokens_per_s = (self.step_seconds > 0.0).then(|| self.tokens as f64 / self.step_seconds);
    }

    /// Makes it tell of these rows alone: a run that goes on after them.
    pub(crate) fn rewind(&mut self, rows: &[Row]) {
        self.state = State::Running;
        (self.finished, self.wall_seconds, self.usd) = (None, None, None);
        (self.steps_done, self.tokens, self.skipped_steps) = (0, 0, 0);
        (self.train_loss, self.validation_loss) = <(LossSummary, LossSummary)>::default();
        (self.step_seconds, self.tokens_per_s) = (0.0, None);
        rows.iter().for_each(|row| self.record(row));
    }

    /// Ends the run at `now`: state, times and cost.
    pub fn finish(&mut self, state: State, now: Timestamp) {
        let seconds = (now.duration_since(self.started)).as_secs_f64().max(0.0);
        self.state = state;
        self.finished = Some(now);
        self.wall_seconds = Some(seconds);
        self.usd = self.usd_per_hour.map(|rate| rate * seconds / 3600.0);
    }

    /// Reads `metadata.json` of a run folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        let path = folder.join(FILE);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoMetadata(folder.to_owned()));
            }
            other => other.map_err(Error::io(&path, "read it"))?,
        };
        let json = |cause| Error::Json { path: path.clone(), cause };
        let head: Head = serde_json::from_slice(&text).map_err(json)?;
        if head.schema != SCHEMA {
            return Err(Error::Schema { path, found: head.schema, known: SCHEMA });
        }
        serde_json::from_slice(&text).map_err(json)
    }

    /// Writes `metadata.json` into a run folder, whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|cause| Error::Json { path: folder.join(FILE), cause })?;
        text.push(b'\n');
        atomic::write(folder, FILE, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_is_not_finite_is_never_the_best() {
        let mut losses = LossSummary::default();
        for (step, loss) in [(1, 3.0), (2, 1.5), (3, 1.5), (4, f64::NEG_INFINITY), (5, f64::NAN)] {
            losses.record(step, loss);
        }
        assert_eq!((losses.first, losses.best, losses.best_step), (Some(3.0), Some(1.5), Some(2)));
        assert!(losses.last.unwrap().is_nan());
    }

    #[test]
    fn rows_add_up() {
        let mut metadata = Metadata::new(vec![], Setup::default(), "2026-11-22T05:44:00Z".parse().unwrap());
        metadata.usd_per_hour = Some(3.0);
        for step in 1..=4 {
            let val_loss = (step == 2).then_some(4.5);
            let row =
                Row { step, tokens: 1000 * step, loss: 5.0, step_ms: 500.0, val_loss, ..Row::default() };
            metadata.record(&row);
        }
        metadata.finish(State::Finished, "2026-11-22T06:14:00.5Z".parse().unwrap());
        assert_eq!((metadata.steps_done, metadata.tokens, metadata.tokens_per_s), (4, 4000, Some(2000.0)));
        assert_eq!(metadata.validation_loss.best_step, Some(2));
        assert_eq!(metadata.wall_seconds, Some(1800.5));
        assert!((metadata.usd.unwrap() - 1.500_416_666).abs() < 1e-6);
    }
}
