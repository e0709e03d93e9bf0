//! A training run from a resolved recipe: data, model and optimizer are set up, then the loop runs and its record
//! goes to the run folder.

use std::path::Path;
use std::time::Instant;

use data::{Batch, Dataset, Split, order};
use models::Model;
use optim::{Optimizer, Rates};
use runs::{Git, Metadata, NewRun, Row, Run, Setup, State, Store, Timestamp};
use tensor::Device;

use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::{Recompute, Resolved};
use crate::trainer::{Ready, Trainer};

/// Where the loop reports to while it runs; a terminal, a log, a test.
pub trait Observer {
    /// The run is set up and about to start.
    fn started(&mut self, run: &Run);
    /// A step is done.
    fn step(&mut self, row: &Row);
}

/// Where a run computes, and what its record calls that.
pub struct Place {
    /// The device.
    pub device: Device,
    /// Its name.
    pub name: String,
    /// Version of its driver, where it has one.
    pub driver: Option<String>,
    /// Bytes free on it, where the system tells.
    pub free: Option<u64>,
}

/// Everything a loop needs, set up but not started.
pub struct Prepared {
    dataset: Dataset,
    trainer: Trainer,
    setup: Setup,
}

/// Opens the data and builds the model and the optimizer of a recipe. Writes nothing under results.
pub fn prepare(resolved: &Resolved, place: &Place, progress: &dyn data::Progress) -> Result<Prepared> {
    let (recipe, device) = (&resolved.recipe, &place.device);
    let dataset = data::open(&recipe.data.options(), progress)?;
    for (split, name) in [(dataset.train(), "training"), (dataset.validation(), "validation")] {
        // Validation needs one row; a smaller last batch is a batch too.
        let batch = if name == "training" { recipe.train.batch_size } else { 1 };
        if split.len() < batch {
            return Err(Error::TooFewRows {
                split: name,
                rows: split.len(),
                seq_len: recipe.data.seq_len,
                batch,
            });
        }
    }
    let config = resolved.config_for(dataset.vocab_size(), dataset.end_of_text(), dataset.pad())?;
    let precision = recipe.train.precision.on(device.is_cuda());
    let wanted = memory::estimate(&config, &resolved.step(device.is_cuda())?).total();
    match place.free {
        // A GPU says itself when it is full; a CPU's system kills whoever asked last.
        Some(free) if wanted > free && !device.is_cuda() => return Err(Error::Memory { wanted, free }),
        _ => {}
    }
    let model = Model::new(config, device, precision, recipe.data.seq_len)?;
    match &recipe.model.dir {
        Some(dir) if recipe.model.pretrained => model.load(dir)?,
        _ => model.initialize(recipe.train.seed)?,
    }
    let optimizer = Optimizer::new(
        &recipe.optimizer.name,
        &recipe.optimizer.settings(),
        &recipe.common(),
        model.params(),
    )?;
    let setup = Setup {
        model: recipe.model.label(),
        parameters: model.params().numel() as u64,
        optimizer: recipe.optimizer.name.clone(),
        data: match &recipe.data.source {
            data::Source::Synthetic => "synthetic".into(),
            data::Source::Path(path) => path.display().to_string(),
        },
        entropy_floor: dataset.floor().map(|floor| floor.nats_per_token),
        seed: recipe.train.seed,
        steps: recipe.train.steps,
        device: place.name.clone(),
        driver: place.driver.clone(),
        precision: precision.to_string(),
    };
    let trainer = Trainer::new(model, optimizer)
        .with_kernels(recipe.train.kernels.into())
        .with_graphs(recipe.train.graphs)
        .with_recompute(recipe.train.recompute == Recompute::Layers);
    Ok(Prepared { dataset, trainer, setup })
}

/// Runs the loop of a prepared recipe and keeps its record; the run folder is complete when this returns, also
/// after an error (its state then says why).
pub fn run(
    prepared: Prepared,
    resolved: &Resolved,
    command: Vec<String>,
    observer: &mut dyn Observer,
) -> Result<Run> {
    let Prepared { dataset, mut trainer, setup } = prepared;
    let recipe = &resolved.recipe;
    let device = trainer.model().params().device().clone();
    let label = recipe.model.label();
    let model = Path::new(&label).file_name().map_or("model".into(), |name| name.to_string_lossy());
    let prefix = format!("{}-{model}", recipe.optimizer.name);
    let mut metadata = Metadata::new(command, setup, Timestamp::now());
    metadata.git = std::env::current_dir().ok().and_then(|dir| Git::at(&dir));
    let store = Store::new(&recipe.run.results);
    let frozen = recipe.freeze();
    let mut run =
        store.create(NewRun { name: &recipe.run.name, prefix: &prefix, recipe: &frozen, metadata })?;
    observer.started(&run);
    device.reset_peak();
    let outcome = steps(&mut trainer, &dataset, resolved, &mut run, observer);
    run.metadata.peak_memory_bytes = Some(device.peak_bytes() as u64);
    let state = match &outcome {
        Ok(()) => State::Finished,
        Err(error) => State::Failed { reason: error.to_string() },
    };
    run.metadata.finish(state, Timestamp::now());
    run.write_metadata()?;
    outcome.map(|()| run)
}

fn steps(
    trainer: &mut Trainer,
    dataset: &Dataset,
    resolved: &Resolved,
    run: &mut Run,
    observer: &mut dyn Observer,
) -> Result<()> {
    let recipe = &resolved.recipe;
    let plan = &recipe.train;
    let due = |every: u64, step: u64| step == plan.steps || (every > 0 && step.is_multiple_of(every));
    // The last step takes all the diagnostics that any step does.
    let columns = trainer.optimizer().columns(plan.watch(plan.steps));
    let mut metrics = run.metrics(&columns)?;
    let device = trainer.model().params().device().clone();
    let mut read = Batch::default();
    let mut ready = |step: u64| {
        let samples = order::samples(plan.seed, step - 1, plan.batch_size, dataset.train().len());
        dataset.train().fill(&samples, &mut read);
        Ready::new(&device, &read)
    };
    let mut batch = ready(1);
    let mut tokens = 0;
    for step in 1..=plan.steps {
        let start = Instant::now();
        let (matrices, rest) = plan.shares(step);
        let (lr, rest) = (recipe.optimizer.lr * matrices, recipe.optimizer.adamw.lr * rest);
        let rates = Rates { matrices: lr as f32, rest: rest as f32 };
        let loss = trainer.gradient(&batch)?;
        let mut next = None;
        let moved = if loss.is_finite() {
            let meanwhile = || next = (step < plan.steps).then(|| ready(step + 1));
            match trainer.apply(rates, plan.watch(step), meanwhile) {
                Err(Error::Optimizer(optim::Error::NotFinite { weight })) => {
                    Err(format!("the gradient of {weight} is not finite"))
                }
                other => Ok(other?),
            }
        } else {
            Err(format!("the loss is {loss}"))
        };
        let report = match moved {
            Ok(report) => report,
            Err(what) => {
                trainer.model().save(&run.model_dir()?)?;
                return Err(Error::Diverged { step, what });
            }
        };
        device.synchronize()?;
        let seconds = start.elapsed().as_secs_f64();
        let count = batch.positions as u64;
        tokens += count;
        let val_loss = if due(plan.eval_steps, step) {
            Some(evaluate(trainer, dataset.validation(), plan.batch_size, plan.eval_batches)?)
        } else {
            None
        };
        let row = Row {
            step,
            tokens,
            loss,
            lr,
            grad_norm: report.grad_norm,
            step_ms: 1e3 * seconds,
            tokens_per_s: count as f64 / seconds,
            val_loss,
            diagnostics: report.values.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        };
        metrics.append(&row)?;
        run.metadata.record(&row);
        observer.step(&row);
        if due(plan.save_steps, step) {
            trainer.model().save(&run.model_dir()?)?;
            run.write_metadata()?;
        }
        if let Some(next) = next {
            batch = next;
        }
    }
    Ok(())
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
