//! A training run from a resolved recipe: data, model and optimizer are set up, then the loop runs and its record
//! goes to the run folder.

use std::path::Path;
use std::time::Instant;

use data::Dataset;
use models::Model;
use optim::Optimizer;
use runs::{Git, Metadata, NewRun, Row, Run, Setup, Spike, State as Ended, Store, Timestamp};
use tensor::Device;

use crate::checkpoint::{Point, State};
use crate::error::{Error, Result};
use crate::recipe::Resolved;
use crate::room::Room;
use crate::snapshot::Saved;
use crate::spikes::Spikes;
use crate::steps::{Begin, Loop, limit};
use crate::trainer::Trainer;

/// Where the loop reports to while it runs; a terminal, a log, a test.
pub trait Observer {
    /// The run is set up and about to start.
    fn started(&mut self, run: &Run);
    /// A step is done.
    fn step(&mut self, row: &Row);
    /// The step moved nothing, because of `what`; it is the `in_row`-th in a row.
    fn skipped(&mut self, step: u64, what: &str, in_row: u64);
    /// The loss of a step stands out.
    fn spike(&mut self, spike: &Spike);
    /// A checkpoint, or the model, is on disk.
    fn saved(&mut self, saved: &Saved);
    /// The number of the signal that tells the run to save and stop; asked after every step.
    fn stop(&mut self) -> Option<i32>;
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
    room: Room,
    /// When that began.
    began: Instant,
}

/// Opens the data and builds the model and the optimizer of a recipe. Writes nothing under results.
pub fn prepare(resolved: &Resolved, place: &Place, progress: &dyn data::Progress) -> Result<Prepared> {
    begin(resolved, place, None, progress)
}

/// The same for a run that goes on from a checkpoint and is to have `steps` steps. Refused, with the list of differences,
/// where recipe, data, tokenizer or model are not those of the checkpoint; [`HARMLESS`](crate::recipe::HARMLESS) keys may
/// differ.
pub fn prepare_from(
    point: &Point,
    steps: u64,
    resolved: &Resolved,
    place: &Place,
    progress: &dyn data::Progress,
) -> Result<Prepared> {
    let mut differences = resolved.differences(&point.recipe)?;
    differences.retain(|difference| difference.key != "train.steps" || resolved.recipe.train.steps != steps);
    if resolved.recipe.train.steps < point.state.step {
        return Err(Error::Shorter { step: point.state.step, steps: resolved.recipe.train.steps });
    }
    unchanged(differences.iter().map(ToString::to_string).collect())?;
    begin(resolved, place, Some(point), progress)
}

fn unchanged(differences: Vec<String>) -> Result<()> {
    if differences.is_empty() { Ok(()) } else { Err(Error::Changed(differences)) }
}

fn begin(
    resolved: &Resolved,
    place: &Place,
    from: Option<&Point>,
    progress: &dyn data::Progress,
) -> Result<Prepared> {
    let began = Instant::now();
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
    if let Some(point) = from {
        let mut differences = Vec::new();
        let (was, is) = (&point.state.data_fingerprint, dataset.fingerprint());
        if was != is {
            differences.push(format!("the data or the tokenizer: fingerprint {was} -> {is}"));
        }
        if point.config()? != config {
            differences.push("the model: its configuration is not that of the checkpoint".to_owned());
        }
        unchanged(differences)?;
    }
    let precision = recipe.train.precision.on(device.is_cuda());
    let room = resolved.room(&config, device.is_cuda(), place.free)?;
    let wanted = room.total();
    match place.free {
        // A GPU says itself when it is full; a CPU's system kills whoever asked last.
        Some(free) if wanted > free && !device.is_cuda() => return Err(Error::Memory { wanted, free }),
        _ => {}
    }
    let model = Model::new(config, device, precision, recipe.data.seq_len)?;
    let mut optimizer = Optimizer::new(
        &recipe.optimizer.name,
        &recipe.optimizer.settings(),
        &recipe.common(),
        model.params(),
    )?;
    match (from, &recipe.model.dir) {
        (Some(point), _) => point.restore(&model, &mut optimizer)?,
        (None, Some(dir)) if recipe.model.pretrained => model.load(dir)?,
        _ => model.initialize(recipe.train.seed)?,
    }
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
    let trainer = Trainer::new(model, optimizer).as_told(&recipe.train);
    Ok(Prepared { dataset, trainer, setup, room, began })
}

/// Runs the loop of a prepared recipe and keeps its record; the run folder is complete when this returns, also
/// after an error (its state then says why).
pub fn run(
    prepared: Prepared,
    resolved: &Resolved,
    command: Vec<String>,
    observer: &mut dyn Observer,
) -> Result<Run> {
    let recipe = &resolved.recipe;
    let label = recipe.model.label();
    let model = Path::new(&label).file_name().map_or("model".into(), |name| name.to_string_lossy());
    let prefix = format!("{}-{model}", recipe.optimizer.name);
    let mut metadata = Metadata::new(command, prepared.setup.clone(), Timestamp::now());
    metadata.usd_per_hour = price(resolved);
    metadata.git = std::env::current_dir().ok().and_then(|dir| Git::at(&dir));
    let store = Store::new(&recipe.run.results);
    let frozen = recipe.freeze();
    let run = store.create(NewRun { name: &recipe.run.name, prefix: &prefix, recipe: &frozen, metadata })?;
    let metrics = run.metrics(&prepared.columns(resolved))?;
    let spikes = Spikes::new(&recipe.train);
    let begin = Begin { step: 0, tokens: 0, skipped: 0, spent: 0.0, spikes, metrics };
    complete(prepared, resolved, run, begin, observer)
}

/// Goes on with a run from a checkpoint, for which its recipe was prepared by [`prepare_from`]. On the same kind of device
/// its weights, state and rows (but for times) come to be those of a run that was never interrupted.
pub fn resume(
    prepared: Prepared,
    resolved: &Resolved,
    mut run: Run,
    point: &Point,
    observer: &mut dyn Observer,
) -> Result<Run> {
    let State { step, tokens, metrics_bytes, .. } = point.state;
    let plan = &resolved.recipe.train;
    run.metadata.usd_per_hour = price(resolved).or(run.metadata.usd_per_hour);
    // Rows that cannot be read are cut off below, or refused there; here they count for nothing.
    let late = run.info().metrics_so_far().map(|metrics| metrics.rows).unwrap_or_default();
    let spent = run.metadata.spent(&late);
    run.metadata.spend(spent);
    if let Some(why) = limit(plan, run.metadata.usd_per_hour, spent) {
        return Err(Error::Spent { why, seconds: spent, usd: run.metadata.usd });
    }
    let frozen = resolved.recipe.freeze();
    let (metrics, rows) = run.rewind(&prepared.columns(resolved), step, metrics_bytes)?;
    let mut spikes = Spikes::new(plan);
    (run.metadata.loss_spikes, run.metadata.spikes) = (0, Vec::new());
    rows.iter().filter_map(|row| spikes.record(row)).for_each(|spike| run.metadata.spiked(spike));
    // After the rewind, which has it running: a run that is killed here must not be on record as finished with more steps.
    run.metadata.setup.steps = plan.steps;
    if run.info().recipe()? != frozen {
        run.replace_recipe(&frozen)?;
    }
    run.metadata.resumed.push(step);
    run.write_metadata()?;
    let skipped = rows.iter().rev().take_while(|row| row.skipped()).count() as u64;
    complete(prepared, resolved, run, Begin { step, tokens, skipped, spent, spikes, metrics }, observer)
}

/// The price of the machine in dollars an hour, where the recipe has it.
fn price(resolved: &Resolved) -> Option<f64> {
    Some(resolved.recipe.run.usd_per_hour).filter(|&usd| usd > 0.0)
}

/// From `begin` to the end, and the closing of the record.
fn complete(
    prepared: Prepared,
    resolved: &Resolved,
    mut run: Run,
    begin: Begin,
    observer: &mut dyn Observer,
) -> Result<Run> {
    let Prepared { dataset, mut trainer, room, began, .. } = prepared;
    let before = begin.spent;
    let device = trainer.model().params().device().clone();
    observer.started(&run);
    device.reset_peak();
    let (trainer, dataset) = (&mut trainer, &dataset);
    let staged = room.copy > 0;
    let outcome = Loop { trainer, dataset, resolved, run: &mut run, observer, staged, began }.run(begin);
    run.metadata.peak_memory_bytes = Some(device.peak_bytes() as u64);
    let state = match &outcome {
        Ok(()) => Ended::Finished,
        Err(error @ Error::Stopped { .. }) => Ended::Stopped { reason: error.to_string() },
        Err(error) => Ended::Failed { reason: error.to_string() },
    };
    run.metadata.spend(before + began.elapsed().as_secs_f64());
    run.metadata.finish(state, Timestamp::now());
    run.write_metadata()?;
    outcome.map(|()| run)
}

impl Prepared {
    /// What the run takes, as estimated.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The diagnostics of the run: the last step takes all that any step does.
    fn columns(&self, resolved: &Resolved) -> Vec<&'static str> {
        let plan = &resolved.recipe.train;
        self.trainer.optimizer().columns(plan.watch(plan.steps))
    }
}
