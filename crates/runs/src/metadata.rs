//! `metadata.json`: what ran, on what, and how it went. Small, stable in field order, kept in version control.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Error, Git, Result, Row, atomic};

/// The version of the file's layout. It grows when a reader of the old layout would misread the new one.
pub const SCHEMA: u32 = 1;

/// So many spikes are listed.
pub const SPIKES_KEPT: usize = 20;

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
    /// Steps whose loss stood out upwards from those before it.
    #[serde(default)]
    pub loss_spikes: u64,
    /// The latest of them, at most [`SPIKES_KEPT`].
    #[serde(default)]
    pub spikes: Vec<Spike>,
    /// What saving has cost.
    #[serde(default)]
    pub saves: Saves,
    /// Loss on the training batches.
    pub train_loss: LossSummary,
    /// Loss on the validation split.
    pub validation_loss: LossSummary,
    /// When the run began (UTC, RFC 3339).
    pub started: Timestamp,
    /// When it ended; `null` while it runs, or after a kill.
    pub finished: Option<Timestamp>,
    /// Seconds that processes have worked on it until now, all included, and not those between two of them.
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

/// A loss that stood out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spike {
    /// The step.
    pub step: u64,
    /// Its loss.
    pub loss: f64,
    /// The median of the losses before it.
    pub median: f64,
}

/// What saving has cost the run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saves {
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Bytes of the last one.
    pub bytes: u64,
    /// Seconds that training stood still for saving in all; what comes after its last step is not among them.
    pub stall_seconds: f64,
    /// The most of it at once.
    pub longest_stall_seconds: f64,
    /// The most seconds from there until all was safe on disk.
    pub longest_write_seconds: f64,
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
            loss_spikes: 0,
            spikes: Vec::new(),
            saves: Saves::default(),
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

    /// Takes in what one save has cost: bytes where it was a checkpoint, seconds that training stood still where it went on,
    /// and seconds from there until it was safe on disk.
    pub fn saved(&mut self, checkpoint: Option<u64>, stall: Option<f64>, write: f64) {
        let saves = &mut self.saves;
        saves.checkpoints += u64::from(checkpoint.is_some());
        saves.bytes = checkpoint.unwrap_or(saves.bytes);
        saves.stall_seconds += stall.unwrap_or(0.0);
        saves.longest_stall_seconds = saves.longest_stall_seconds.max(stall.unwrap_or(0.0));
        saves.longest_write_seconds = saves.longest_write_seconds.max(write);
    }

    /// Takes in a spike.
    pub fn spiked(&mut self, spike: Spike) {
        self.loss_spikes += 1;
        self.spikes.push(spike);
        let spare = self.spikes.len().saturating_sub(SPIKES_KEPT);
        self.spikes.drain(..spare);
    }

    /// Processes have worked on it for so many seconds: the time, and its price.
    pub fn spend(&mut self, seconds: f64) {
        self.wall_seconds = Some(seconds);
        self.usd = self.usd_per_hour.map(|rate| rate * seconds / 3600.0);
    }

    /// Seconds that are known to have been worked on it: those on record, and of a killed run those of the steps that came
    /// after they were written.
    pub fn spent(&self, rows: &[Row]) -> f64 {
        let late = rows.iter().filter(|row| self.state == State::Running && row.step > self.steps_done);
        self.wall_seconds.unwrap_or(0.0) + late.map(|row| row.step_ms / 1e3).sum::<f64>()
    }

    /// Makes it tell of these rows alone: a run that goes on after them. Time and money that were spent stay spent.
    pub(crate) fn rewind(&mut self, rows: &[Row]) {
        self.state = State::Running;
        self.finished = None;
        (self.steps_done, self.tokens, self.skipped_steps) = (0, 0, 0);
        (self.train_loss, self.validation_loss) = <(LossSummary, LossSummary)>::default();
        (self.step_seconds, self.tokens_per_s) = (0.0, None);
        rows.iter().for_each(|row| self.record(row));
    }

    /// Ends the run at `now`, or at its start where the clock was set back since.
    pub fn finish(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.finished = Some(now.max(self.started));
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
        metadata.spend(1800.5);
        metadata.finish(State::Finished, "2026-11-22T06:14:00.5Z".parse().unwrap());
        assert_eq!((metadata.steps_done, metadata.tokens, metadata.tokens_per_s), (4, 4000, Some(2000.0)));
        assert_eq!(metadata.validation_loss.best_step, Some(2));
        assert_eq!(metadata.wall_seconds, Some(1800.5));
        assert!((metadata.usd.unwrap() - 1.500_416_666).abs() < 1e-6);
    }

    #[test]
    fn a_clock_that_goes_back_ends_no_run_before_its_start() {
        let mut metadata = Metadata::new(vec![], Setup::default(), "2026-11-22T05:44:00Z".parse().unwrap());
        metadata.spend(7.0);
        metadata.finish(State::Finished, "1999-01-01T00:00:00Z".parse().unwrap());
        assert_eq!((metadata.finished, metadata.wall_seconds), (Some(metadata.started), Some(7.0)));
    }

    #[test]
    fn time_is_that_of_processes_and_survives_a_kill_and_a_rewind() {
        let mut metadata = Metadata::new(vec![], Setup::default(), "2026-11-22T05:44:00Z".parse().unwrap());
        metadata.usd_per_hour = Some(3600.0);
        let row = |step| Row { step, step_ms: 500.0, ..Row::default() };
        (1..=2).for_each(|step| metadata.record(&row(step)));
        metadata.spend(10.0);
        // Killed after step 4: the record is that of step 2.
        let rows: Vec<Row> = (1..=4).map(row).collect();
        assert!((metadata.spent(&rows) - 11.0).abs() < 1e-9);
        metadata.rewind(&rows[..1]);
        assert_eq!((metadata.steps_done, metadata.wall_seconds, metadata.usd), (1, Some(10.0), Some(10.0)));
        metadata.finish(State::Stopped { reason: String::new() }, metadata.started);
        assert!((metadata.spent(&rows) - 10.0).abs() < 1e-9, "the last process wrote down all its time");
    }

    #[test]
    fn the_latest_spikes_are_listed_and_all_are_counted() {
        let mut metadata = Metadata::new(vec![], Setup::default(), "2026-11-22T05:44:00Z".parse().unwrap());
        (1..=25).for_each(|step| metadata.spiked(Spike { step, loss: 9.0, median: 3.0 }));
        assert_eq!(
            (metadata.loss_spikes, metadata.spikes.len(), metadata.spikes[0].step),
            (25, SPIKES_KEPT, 6)
        );
    }
}
