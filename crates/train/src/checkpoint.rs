//! What a checkpoint holds, and how it is taken while training goes on.
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors`, `config.json` | the weights of record in f32, in the Hugging Face layout |
//! | `optimizer.safetensors` | the optimizer's state by the names of weights, f32 |
//! | `state.json` | [`State`] |
//! | `recipe.toml` | the frozen recipe |
//!
//! Random streams are functions of (seed, step), and so are the rows of a step: the step is their position. Rates follow
//! from the recipe and the step; losses and counts from the rows of `metrics.csv` up to its position.

use std::borrow::Cow;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use models::{Config, Model};
use optim::Optimizer;
use runs::{Checkpoints, Keep, Run};
use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use tensor::DType;

use crate::error::{Error, Result};
use crate::trainer::Trainer;

/// The version of the layout of `state.json`.
const FORMAT: u32 = 1;
const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const RECIPE: &str = "recipe.toml";

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

/// A checkpoint that was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Saved {
    /// After this step.
    pub step: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Seconds that training stood still for it.
    pub stall: f64,
    /// Seconds from there until it was safe on disk.
    pub seconds: f64,
}

/// Weights and state of one moment, in the host's memory.
pub(crate) struct Snapshot {
    config: Config,
    weights: Vec<Vec<f32>>,
    optimizer: Vec<(String, Values)>,
    state: State,
    recipe: String,
    val_loss: Option<f64>,
}

/// Writes snapshots in the background, one at a time.
pub(crate) struct Writer {
    checkpoints: Checkpoints,
    keep: Keep,
    pending: Option<JoinHandle<Result<Saved>>>,
}

/// A tensor in f32.
struct Values {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Point {
    /// The newest checkpoint of a run that can be trusted, and what is wrong with newer ones.
    pub fn newest(run: &Run) -> Result<(Self, Vec<runs::Error>)> {
        let runs::Newest { checkpoint, refused } = run.checkpoints().newest()?;
        let Some(files) = checkpoint else {
            return Err(Error::NoCheckpoint {
                run: run.dir().to_owned(),
                refused: refused.into_iter().next(),
            });
        };
        let text = |name: &str| Ok::<_, Error>(String::from_utf8_lossy(&files.file(name)?).into_owned());
        let damaged = |reason: String| Error::Checkpoint { path: files.dir.join(STATE), reason };
        let state: State = serde_json::from_str(&text(STATE)?).map_err(|error| damaged(error.to_string()))?;
        if state.format != FORMAT {
            let reason = format!("format {}, but this program reads format {FORMAT}", state.format);
            return Err(damaged(reason));
        }
        let recipe = text(RECIPE)?;
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
    /// Where a run stands after `step`.
    pub(crate) fn new(step: u64, tokens: u64, metrics_bytes: u64, run: &Run, data: &str) -> Self {
        State {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            step,
            tokens,
            optimizer_steps: 0,
            metrics_bytes,
            recipe_hash: run.metadata.recipe_hash.clone(),
            data_fingerprint: data.to_owned(),
            device: run.metadata.setup.device.clone(),
        }
    }
}

impl Snapshot {
    /// Copies weights and state to the host; waits for the device.
    pub(crate) fn take(trainer: &Trainer, state: State, recipe: &str, val_loss: Option<f64>) -> Result<Self> {
        let (model, optimizer) = (trainer.model(), trainer.optimizer());
        let params = model.params();
        let weights = (0..params.specs().len()).map(|i| params.weight(i)).collect::<Result<_, _>>()?;
        let held = optimizer.state(params).into_iter().map(|(name, tensor)| {
            let shape = tensor.shape().to_vec();
            Ok((name, Values { shape, values: tensor.to_vec()? }))
        });
        Ok(Snapshot {
            config: model.config().clone(),
            weights,
            optimizer: held.collect::<Result<_>>()?,
            state: State { optimizer_steps: optimizer.steps(), ..state },
            recipe: recipe.to_owned(),
            val_loss,
        })
    }

    /// Writes it, gives its size, and forgets what is not to be kept any more.
    fn write(self, checkpoints: &Checkpoints, keep: Keep) -> Result<u64> {
        let Snapshot { config, mut weights, optimizer, state, recipe, val_loss } = self;
        let draft = checkpoints.draft(state.step)?;
        models::save(draft.dir(), &config, DType::F32, |i| Ok(std::mem::take(&mut weights[i])))?;
        let path = draft.dir().join(OPTIMIZER);
        safetensors::serialize_to_file(optimizer, None, &path)
            .map_err(|error| Error::Checkpoint { path, reason: error.to_string() })?;
        let mut text = serde_json::to_vec_pretty(&state).expect("a state is JSON");
        text.push(b'\n');
        draft.put(STATE, &text)?;
        draft.put(RECIPE, recipe.as_bytes())?;
        let written = draft.commit(val_loss)?;
        checkpoints.prune(keep)?;
        Ok(written.bytes())
    }
}

impl Writer {
    pub(crate) fn new(run: &Run, keep: Keep) -> Self {
        Writer { checkpoints: run.checkpoints(), keep, pending: None }
    }

    /// Begins to write what `take` gives, after the last one is on disk. `began` is when training stopped for it.
    pub(crate) fn start(&mut self, began: Instant, snapshot: Snapshot) {
        assert!(self.pending.is_none(), "one at a time");
        let (checkpoints, keep) = (self.checkpoints.clone(), self.keep);
        let stall = began.elapsed().as_secs_f64();
        self.pending = Some(thread::spawn(move || {
            let (start, step) = (Instant::now(), snapshot.state.step);
            let bytes = snapshot.write(&checkpoints, keep)?;
            Ok(Saved { step, bytes, stall, seconds: start.elapsed().as_secs_f64() })
        }));
    }

    /// Tells of a checkpoint that has come to its end since; waits for none.
    pub(crate) fn poll(&mut self) -> Result<Option<Saved>> {
        if self.pending.as_ref().is_some_and(JoinHandle::is_finished) { self.finish() } else { Ok(None) }
    }

    /// Waits for the one that is being written.
    pub(crate) fn finish(&mut self) -> Result<Option<Saved>> {
        let Some(pending) = self.pending.take() else { return Ok(None) };
        match pending.join() {
            Ok(saved) => saved.map(Some),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl View for Values {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}
