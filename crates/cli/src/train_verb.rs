//! `muon train` and the verbs that are other names for it.

use runs::{Row, Run, Spike, Store};
use tensor::Device;
use train::{Observer, Saved};

use crate::args::{Choice, RecipeArgs};
use crate::output::{charset, print};
use crate::progress::{Reading, Steps, note};
use crate::signals::Signals;
use crate::{dry_run, machine};

/// Files of the loss curve in a run's folder.
const CURVE: [&str; 2] = ["loss.svg", "loss.png"];

/// Resolves the recipe, then shows it (`--dry-run`) or runs it.
pub fn run(args: &RecipeArgs, choice: &Choice) -> anyhow::Result<()> {
    let mut resolved = args.resolve(choice)?;
    let device = Device::parse(&resolved.recipe.train.device)?;
    let machine = machine::Found::on(device)?;
    let precision = resolved.recipe.train.precision.on(machine.place.device.is_cuda());
    resolved.settle(&machine.flag, precision)?;
    if args.dry_run {
        return dry_run::show(&resolved, &machine);
    }
    for text in &resolved.notes {
        note(&format!("note: {text}"));
    }
    // What would stop the run at its first write stops it before the work.
    Store::new(&resolved.recipe.run.results).check_new(&resolved.recipe.run.name)?;
    let prepared = train::prepare(&resolved, &machine.place, &Reading::default())?;
    if let Some(text) = &prepared.room().note {
        note(&format!("note: {text}"));
    }
    let command = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut live = Live::new(resolved.recipe.train.steps, 0);
    close(&train::run(prepared, &resolved, command, &mut live)?)
}

/// Draws the curve of a run that has come to its end and prints its closing table.
pub fn close(run: &Run) -> anyhow::Result<()> {
    let info = run.info();
    let metrics = info.metrics()?;
    let (series, options) = report::of_one(&info.metadata, &metrics);
    run.write_file(CURVE[0], report::loss_svg(&series, &options).as_bytes())?;
    run.write_file(CURVE[1], &report::loss_png(&series, &options))?;
    Ok(print(&report::closing_table(&info, &metrics, charset()))?)
}

/// Shows the loop on standard error, and passes signals on to it.
pub struct Live {
    steps: Steps,
    signals: Option<Signals>,
    told: bool,
}

impl Live {
    /// For a run of `total` steps of which `done` are done. Signals are taken over when it starts.
    pub fn new(total: u64, done: u64) -> Self {
        Live { steps: Steps::new(total, done), signals: None, told: false }
    }
}

impl Observer for Live {
    fn started(&mut self, run: &Run) {
        let setup = &run.metadata.setup;
        let parameters = report::format::short(setup.parameters as f64);
        self.steps.line(&format!(
            "{} ({parameters} parameters) with {} on {}, {}: {}",
            setup.model,
            setup.optimizer,
            setup.device,
            setup.precision,
            run.dir().display()
        ));
        match Signals::watch() {
            Ok(signals) => self.signals = Some(signals),
            Err(error) => self.steps.line(&format!("WARNING: signals end this run unsaved: {error}")),
        }
    }

    fn step(&mut self, row: &Row) {
        self.steps.step(row.step, row.loss, row.tokens_per_s, &report::remarks(&row.diagnostics));
        if let Some(loss) = row.val_loss {
            self.steps.line(&format!("step {}: validation loss {}", row.step, report::format::loss(loss)));
        }
    }

    fn skipped(&mut self, step: u64, what: &str, in_row: u64) {
        self.steps.line(&format!("WARNING: step {step} skipped, the {in_row}. in a row: {what}"));
    }

    fn spike(&mut self, spike: &Spike) {
        let [loss, median] = [spike.loss, spike.median].map(report::format::loss);
        let text = format!(
            "WARNING: step {}: the loss of {loss} stands out from {median}, the median before it",
            spike.step
        );
        self.steps.line(&text);
    }

    fn saved(&mut self, saved: &Saved) {
        let what = saved.checkpoint.map_or_else(
            || "model saved".to_owned(),
            |bytes| format!("checkpoint of {}", report::format::bytes(bytes)),
        );
        let stall = saved.stall.map(report::format::duration);
        let stall = stall.map_or_else(String::new, |stall| format!("; training stood still for {stall}"));
        let seconds = report::format::duration(saved.seconds);
        let text = format!("step {}: {what}{stall}, on disk after {seconds}", saved.step);
        self.steps.line(&text);
    }

    fn stop(&mut self) -> Option<i32> {
        let signal = self.signals.as_ref()?.came()?;
        if !std::mem::replace(&mut self.told, true) {
            self.steps.line("told to stop: saving a checkpoint (once more to stop at once)");
        }
        Some(signal)
    }
}
