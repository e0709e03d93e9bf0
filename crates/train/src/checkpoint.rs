//! What a checkpoint holds, and going on from one.
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors`, `config.json` | the weights of record in f32, in the Hugging Face layout |
//! | `optimizer.safetensors` | the optimizer's state by the names of weights, f32, or bf16 where a GPU keeps it so |
//! | `state.json` | [`State`] |
//! | `recipe.toml` | the frozen recipe |
//!
//! Random streams are functions of (seed, step), and so are the rows of a step: the step is their position. Rates follow
//! from the recipe and the step; losses and counts from the rows of `metrics.csv` up to its position.

use models::{Config, Model};
use optim::Optimizer;
use runs::Run;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::fingerprint;

/// The version of the layout of `state.json`.
const FORMAT: u32 = 1;
pub(crate) const STATE: &str = "state.json";
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
pub(crate) const RECIPE: &str = "recipe.toml";

/// Where a run stands after a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The version of this layout.
    pub format: u32,
    /// The version of the program.
    pub program: String,
    /// Steps done, those that were skipped included: the position in the data and in the schedule.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Steps that the optimizer has done.
    pub optimizer_steps: u64,
    /// Length of `metrics.csv` after the row of this step.
    pub metrics_bytes: u64,
    /// BLAKE3 of `recipe.toml`, in hexadecimal.
    pub recipe_hash: String,
    /// Fingerprint of data and tokenizer.
    pub data_fingerprint: String,
    /// The device in words.
    pub device: String,
}

/// A checkpoint to go on from.
#[derive(Debug)]
pub struct Point {
    /// Where the run stands.
    pub state: State,
    /// The recipe of the run until then, frozen.
    pub recipe: String,
    files: runs::Checkpoint,
}

/// What every version of `state.json` has.
#[derive(Deserialize)]
struct Head {
    format: u32,
    program: Option<String>,
}

impl Point {
    /// The newest checkpoint of a run that can be trusted, and what is wrong with newer ones. Every byte of it is read first.
    pub fn newest(run: &Run, progress: &dyn data::Progress) -> Result<(Self, Vec<runs::Error>)> {
        progress.begin("checking the newest checkpoint", run.info().checkpoint_bytes()?);
        let newest = run.checkpoints().newest_telling(&|bytes| progress.advance(bytes));
        progress.end();
        let runs::Newest { checkpoint, refused } = newest?;
        let Some(files) = checkpoint else {
            return Err(Error::NoCheckpoint {
                run: run.dir().to_owned(),
                refused: refused.into_iter().next(),
            });
        };
        let text = |name: &str| Ok::<_, Error>(String::from_utf8_lossy(&files.file(name)?).into_owned());
        let damaged = |reason: String| Error::Checkpoint { path: files.dir.join(STATE), reason };
        let content = text(STATE)?;
        let wrong = |error: serde_json::Error| damaged(error.to_string());
        let Head { format, program } = serde_json::from_str(&content).map_err(wrong)?;
        if format != FORMAT {
            let (by, me) =
                (program.unwrap_or_else(|| "of another version".to_owned()), env!("CARGO_PKG_VERSION"));
            let reason = format!(
                "format {format}, written by muon {by}; this is muon {me}, which reads format {FORMAT} (resume with that one)"
            );
            return Err(damaged(reason));
        }
        let state: State = serde_json::from_str(&content).map_err(wrong)?;
        let recipe = text(RECIPE)?;
        if fingerprint(&recipe) != state.recipe_hash {
            return Err(damaged(format!("it is not of the {RECIPE} beside it")));
        }
        Ok((Point { state, recipe, files }, refused))
    }

    /// The configuration of the model.
    pub(crate) fn config(&self) -> Result<Config> {
        Ok(Config::load(&self.files.dir)?)
    }

    /// Puts weights and state back.
    pub(crate) fn restore(&self, model: &Model, optimizer: &mut Optimizer) -> Result<()> {
        model.load(&self.files.dir)?;
        let damaged = |reason: String| Error::Checkpoint { path: self.files.dir.join(OPTIMIZER), reason };
        let bytes = self.files.file(OPTIMIZER)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
        let read = |name: &str| {
            let view = file.tensor(name).ok()?;
            models::widen(view.dtype(), view.data())
        };
        optimizer.restore(model.params(), self.state.optimizer_steps, read)?;
        Ok(())
    }
}

impl State {
    /// Where a run stands after `step`, of which the optimizer has done `optimizer_steps`.
    pub(crate) fn new(
        (step, optimizer_steps): (u64, u64),
        tokens: u64,
        metrics_bytes: u64,
        run: &Run,
        data: &str,
    ) -> Self {
        State {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            step,
            tokens,
            optimizer_steps,
            metrics_bytes,
            recipe_hash: run.metadata.recipe_hash.clone(),
            data_fingerprint: data.to_owned(),
            device: run.metadata.setup.device.clone(),
        }
    }
}
