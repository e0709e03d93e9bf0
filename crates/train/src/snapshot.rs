//! Weights and state of one moment, and how they get to files while training goes on.
//!
//! Training stands still while a [`Snapshot`] is taken: on the CPU for copies in memory; on a GPU with staging
//! (`train.staging`) for a copy on the device; on a GPU without, until all is on the host. What follows, the way to the host
//! included, is done by a thread.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use models::{Config, parameters, save, save_tensors};
use runs::{Checkpoints, Keep, Record, Run};
use tensor::cuda::{Lane, Staged};
use tensor::{DType, Device, Tensor};

use crate::checkpoint::{OPTIMIZER, RECIPE, STATE, State};
use crate::error::Result;
use crate::trainer::Trainer;

/// What was saved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Saved {
    /// After this step.
    pub step: u64,
    /// Bytes of the checkpoint on disk; none where it was the model alone.
    pub checkpoint: Option<u64>,
    /// Seconds that training stood still for it; none where it had come to its end.
    pub stall: Option<f64>,
    /// Seconds from there until all was safe on disk.
    pub seconds: f64,
}

/// What to save after a step.
pub(crate) struct Job {
    pub step: u64,
    /// When training stopped for it, if it is to go on.
    pub began: Option<Instant>,
    /// The folder to write the model to.
    pub model: Option<PathBuf>,
    pub checkpoint: Option<Mark>,
    /// The metadata of the moment, written last.
    pub record: Record,
}

/// What a checkpoint has beside weights and state.
pub(crate) struct Mark {
    pub state: State,
    pub recipe: String,
    pub val_loss: Option<f64>,
}

/// Saves in the background, one job at a time.
pub(crate) struct Writer {
    checkpoints: Checkpoints,
    keep: Keep,
    /// The room on the device, unless a job has it.
    staged: Option<Staged>,
    pending: Option<JoinHandle<Done>>,
}

/// What became of a job, and the room on the device back.
type Done = Result<(Saved, Option<Staged>)>;

/// Copies of the weights of record, in the order of [`models::parameters`], then of the optimizer's state.
struct Snapshot {
    config: Config,
    /// The state, short of its values.
    state: Vec<Header>,
    values: Values,
}

/// Name, shape and element type of a tensor.
type Header = (String, Vec<usize>, DType);

enum Values {
    Host(Vec<Vec<f32>>),
    Device(Staged),
}

impl Writer {
    pub(crate) fn new(run: &Run, keep: Keep) -> Self {
        Writer { checkpoints: run.checkpoints(), keep, staged: None, pending: None }
    }

    /// Makes room on the device, from which all later jobs are written while training goes on.
    pub(crate) fn stage(&mut self, trainer: &Trainer) -> Result<()> {
        if let Device::Cuda(gpu) = trainer.model().params().device() {
            self.staged = Some(Staged::new(gpu, tensors(trainer, true).1)?);
        }
        Ok(())
    }

    /// Takes a snapshot and begins to write it; the last job must be done.
    pub(crate) fn start(&mut self, trainer: &Trainer, job: Job) -> Result<()> {
        assert!(self.pending.is_none(), "one at a time");
        let snapshot = Snapshot::take(trainer, job.checkpoint.is_some(), self.staged.take())?;
        let (checkpoints, keep) = (self.checkpoints.clone(), self.keep);
        let stall = job.began.map(|began| began.elapsed().as_secs_f64());
        self.pending = Some(thread::spawn(move || {
            let (start, step) = (Instant::now(), job.step);
            let (checkpoint, staged) = snapshot.write(job, &checkpoints, keep)?;
            Ok((Saved { step, checkpoint, stall, seconds: start.elapsed().as_secs_f64() }, staged))
        }));
        Ok(())
    }

    /// Tells of a job that has come to its end since; waits for none.
    pub(crate) fn poll(&mut self) -> Result<Option<Saved>> {
        if self.pending.as_ref().is_some_and(JoinHandle::is_finished) { self.finish() } else { Ok(None) }
    }

    /// Waits for the job that is being done.
    pub(crate) fn finish(&mut self) -> Result<Option<Saved>> {
        let Some(pending) = self.pending.take() else { return Ok(None) };
        match pending.join() {
            Ok(done) => {
                let (saved, staged) = done?;
                self.staged = staged;
                Ok(Some(saved))
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Snapshot {
    /// Copies weights, and the state where it is wanted; all work before is waited for.
    fn take(trainer: &Trainer, state: bool, staged: Option<Staged>) -> Result<Self> {
        let config = trainer.model().config().clone();
        let (state, tensors) = tensors(trainer, state);
        let values = match (staged, trainer.model().params().device()) {
            (Some(mut staged), _) => {
                staged.take()?;
                Values::Device(staged)
            }
            (None, Device::Cpu) => {
                Values::Host(tensors.iter().map(Tensor::to_vec).collect::<Result<_, _>>()?)
            }
            (None, Device::Cuda(gpu)) => {
                let mut lane = Lane::new(gpu)?;
                gpu.synchronize()?;
                Values::Host(tensors.iter().map(|tensor| lane.to_vec(tensor)).collect::<Result<_, _>>()?)
            }
        };
        Ok(Snapshot { config, state, values })
    }

    /// Does a job. Gives the checkpoint's size, and the room back.
    fn write(
        mut self,
        job: Job,
        checkpoints: &Checkpoints,
        keep: Keep,
    ) -> Result<(Option<u64>, Option<Staged>)> {
        let config = self.config.clone();
        // The model before the checkpoint: a run that is killed between them goes on from the one before and writes it again,
        // where one that has its last checkpoint has nothing left to do.
        if let Some(dir) = job.model {
            let last = job.checkpoint.is_none();
            save(&dir, &config, DType::F32, |i| Ok(self.values.get(i, last)?))?;
        }
        let written = match job.checkpoint {
            Some(Mark { state, recipe, val_loss }) => {
                let draft = checkpoints.draft(state.step)?;
                save(draft.dir(), &config, DType::F32, |i| Ok(self.values.get(i, true)?))?;
                let names: Vec<_> = self
                    .state
                    .iter()
                    .map(|(name, shape, dtype)| (name.as_str(), shape.as_slice(), *dtype))
                    .collect();
                let weights = parameters(&config).len();
                let values = &mut self.values;
                save_tensors(&draft.dir().join(OPTIMIZER), &names, |i| Ok(values.get(weights + i, true)?))?;
                let mut text = serde_json::to_vec_pretty(&state).expect("a state is JSON");
                text.push(b'\n');
                draft.put(STATE, &text)?;
                draft.put(RECIPE, recipe.as_bytes())?;
                let written = draft.commit(val_loss)?;
                checkpoints.prune(keep)?;
                Some(written.bytes())
            }
            None => None,
        };
        job.record.write()?;
        let staged = match self.values {
            Values::Device(staged) => Some(staged),
            Values::Host(_) => None,
        };
        Ok((written, staged))
    }
}

impl Values {
    /// The values of tensor `i`; asked for the `last` time they are given away.
    fn get(&mut self, i: usize, last: bool) -> tensor::Result<Vec<f32>> {
        match self {
            Values::Host(all) if last => Ok(std::mem::take(&mut all[i])),
            Values::Host(all) => Ok(all[i].clone()),
            Values::Device(staged) => staged.to_vec(i),
        }
    }
}

/// The weights of record and, where it is wanted, the state: its headers, and all tensors.
fn tensors(trainer: &Trainer, state: bool) -> (Vec<Header>, Vec<Tensor>) {
    let params = trainer.model().params();
    let state = if state { trainer.optimizer().state(params) } else { Vec::new() };
    let header = |(name, tensor): (String, Tensor)| ((name, tensor.shape().to_vec(), tensor.dtype()), tensor);
    let (headers, held): (Vec<_>, Vec<_>) = state.into_iter().map(header).unzip();
    let weights = (0..params.specs().len()).map(|i| params.record(i));
    (headers, weights.chain(held).collect())
}
