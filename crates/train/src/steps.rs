//! The loop of a run: steps, evaluations, saves and checkpoints, until its last step or until it is told to stop.

use std::time::Instant;

use data::{Batch, Dataset, Split, order};
use optim::{Rates, Report};
use runs::{Keep, MetricsWriter, Row, Run};

use crate::checkpoint::State;
use crate::error::{Error, Result, Why};
use crate::recipe::{Resolved, Train};
use crate::run::Observer;
use crate::snapshot::{Job, Mark, Saved, Writer};
use crate::spikes::Spikes;
use crate::trainer::{Ready, Trainer};

/// Where a loop begins.
pub(crate) struct Begin {
    /// Steps done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Steps skipped in a row just before.
    pub skipped: u64,
    /// Seconds of work on the run before.
    pub spent: f64,
    /// The losses before.
    pub spikes: Spikes,
    /// Where the rows go.
    pub metrics: MetricsWriter,
}

/// What a loop works on.
pub(crate) struct Loop<'a> {
    pub trainer: &'a mut Trainer,
    pub dataset: &'a Dataset,
    pub resolved: &'a Resolved,
    pub run: &'a mut Run,
    pub observer: &'a mut dyn Observer,
    /// Whether what is saved is copied on the device first.
    pub staged: bool,
    /// When the process took up the run.
    pub began: Instant,
}

/// The limit of the recipe that so many seconds of work on a run have reached.
pub(crate) fn limit(plan: &Train, usd_per_hour: Option<f64>, seconds: f64) -> Option<Why> {
    let hours = seconds / 3600.0;
    let cost = usd_per_hour.map_or(0.0, |usd| usd * hours);
    let late = (plan.max_hours > 0.0 && hours >= plan.max_hours).then_some(Why::Hours(plan.max_hours));
    late.or((plan.max_cost > 0.0 && cost >= plan.max_cost).then_some(Why::Cost(plan.max_cost)))
}

impl Loop<'_> {
    /// Steps to the end. Checkpoints that are being written are waited for, also after an error, which goes first.
    pub(crate) fn run(mut self, begin: Begin) -> Result<()> {
        let plan = &self.resolved.recipe.train;
        let mut writer = Writer::new(self.run, Keep { last: plan.keep_last, best: plan.keep_best });
        if self.staged {
            writer.stage(self.trainer)?;
        }
        let done = self.steps(begin, &mut writer);
        let saved = self.told(writer.finish());
        done.and(saved)
    }

    fn steps(&mut self, begin: Begin, writer: &mut Writer) -> Result<()> {
        let (recipe, dataset) = (&self.resolved.recipe, self.dataset);
        let plan = &recipe.train;
        let frozen = recipe.freeze();
        let due = |every: u64, step: u64| step == plan.steps || (every > 0 && step.is_multiple_of(every));
        let device = self.trainer.model().params().device().clone();
        let mut read = Batch::default();
        let mut ready = |step: u64| {
            let samples = order::samples(plan.seed, step - 1, plan.batch_size, dataset.train().len());
            dataset.train().fill(&samples, &mut read);
            Ready::new(&device, &read)
        };
        let Begin { step: done, mut tokens, mut skipped, spent, mut spikes, mut metrics } = begin;
        let mut next = None;
        for step in done + 1..=plan.steps {
            let batch = next.take().unwrap_or_else(|| ready(step));
            let start = Instant::now();
            let (matrices, rest) = plan.shares(step);
            let (lr, rest) = (recipe.optimizer.lr * matrices, recipe.optimizer.adamw.lr * rest);
            let rates = Rates { matrices: lr as f32, rest: rest as f32 };
            let (loss, moved) = self.step(&batch, rates, step, || {
                next = (step < plan.steps).then(|| ready(step + 1));
            })?;
            device.synchronize()?;
            let seconds = start.elapsed().as_secs_f64();
            let count = batch.positions as u64;
            tokens += count;
            skipped = if moved.is_ok() { 0 } else { skipped + 1 };
            let (report, why) = match moved {
                Ok(report) => (report, None),
                Err(what) => (Report { grad_norm: f64::NAN, values: Vec::new() }, Some(what)),
            };
            let val_loss = if due(plan.eval_steps, step) {
                Some(evaluate(self.trainer, dataset.validation(), plan.batch_size, plan.eval_batches)?)
            } else {
                None
            };
            let values = report.values.into_iter().map(|(name, value)| (name.to_string(), value));
            let row = Row {
                step,
                tokens,
                loss,
                lr,
                grad_norm: report.grad_norm,
                step_ms: 1e3 * seconds,
                tokens_per_s: count as f64 / seconds,
                val_loss,
                diagnostics: values.collect(),
            };
            metrics.append(&row)?;
            self.run.metadata.record(&row);
            self.observer.step(&row);
            if let Some(spike) = spikes.record(&row) {
                self.run.metadata.spiked(spike);
                self.observer.spike(&spike);
            }
            if let Some(what) = why {
                self.observer.skipped(step, &what, skipped);
                if skipped >= plan.nonfinite_limit || step == plan.steps {
                    self.told(writer.finish())?;
                    self.trainer.model().save(&self.run.model_dir()?)?;
                    return Err(Error::Diverged { step: step + 1 - skipped, what, skipped });
                }
            }
            let spent = spent + self.began.elapsed().as_secs_f64();
            let stop = if step < plan.steps { self.stop(spent) } else { None };
            let checkpoint = plan.checkpoint_steps > 0 && due(plan.checkpoint_steps, step) || stop.is_some();
            if checkpoint || due(plan.save_steps, step) {
                let began = (step < plan.steps && stop.is_none()).then(Instant::now);
                self.told(writer.finish())?;
                self.run.metadata.spend(spent);
                let model = due(plan.save_steps, step).then(|| self.run.model_dir()).transpose()?;
                let mark = checkpoint.then(|| {
                    let steps = (step, self.trainer.optimizer().steps());
                    let state = State::new(steps, tokens, metrics.bytes(), self.run, dataset.fingerprint());
                    Mark { state, recipe: frozen.clone(), val_loss }
                });
                let record = self.run.record();
                writer.start(self.trainer, Job { step, began, model, checkpoint: mark, record })?;
            }
            if let Some(why) = stop {
                self.told(writer.finish())?;
                return Err(Error::Stopped { step, why });
            }
            self.told(writer.poll())?;
        }
        Ok(())
    }

    /// One step: its loss, and what the optimizer reports, or why nothing was moved.
    fn step(
        &mut self,
        batch: &Ready,
        rates: Rates,
        step: u64,
        meanwhile: impl FnOnce(),
    ) -> Result<(f64, Result<Report, String>)> {
        let loss = self.trainer.gradient(batch)?;
        if !loss.is_finite() {
            return Ok((loss, Err(format!("the loss is {loss}"))));
        }
        let watch = self.resolved.recipe.train.watch(step);
        match self.trainer.apply(rates, watch, meanwhile) {
            Err(Error::Optimizer(optim::Error::NotFinite { weight })) => {
                Ok((loss, Err(format!("the gradient of {weight} is not finite"))))
            }
            other => Ok((loss, Ok(other?))),
        }
    }

    /// Whether to stop here, after so many seconds of work on the run.
    fn stop(&mut self, spent: f64) -> Option<Why> {
        let late = limit(&self.resolved.recipe.train, self.run.metadata.usd_per_hour, spent);
        self.observer.stop().map(Why::Signal).or(late)
    }

    fn told(&mut self, saved: Result<Option<Saved>>) -> Result<()> {
        if let Some(saved) = saved? {
            self.run.metadata.saved(saved.checkpoint, saved.stall, saved.seconds);
            self.observer.saved(&saved);
        }
        Ok(())
    }
}

/// Mean loss over the first `batches` batches of a split, nats per token.
fn evaluate(trainer: &Trainer, split: &Split, batch_size: usize, batches: usize) -> Result<f64> {
    let rows: Vec<usize> = (0..split.len().min(batch_size * batches)).collect();
    let (mut total, mut positions) = (0.0, 0);
    let mut batch = Batch::default();
    for rows in rows.chunks(batch_size) {
        split.fill(rows, &mut batch);
        let (loss, count) = trainer.evaluate(&batch)?;
        total += loss;
        positions += count;
    }
    Ok(total / positions.max(1) as f64)
}
