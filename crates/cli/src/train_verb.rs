//! `muon train` and the verbs that are other names for it.

use report::Charset;
use runs::{Row, Run, Spike, Store};
use serde_json::{Value, json};
use tensor::Device;
use train::{Observer, Saved};

use crate::args::{Choice, RecipeArgs};
use crate::output::{charset, json, print};
use crate::progress::{Reading, Steps, note};
use crate::signals::Signals;
use crate::store_args::{as_json, row_json};
use crate::{detach, dry_run, journal, machine};

/// Files of the loss curve in a run's folder.
const CURVE: [&str; 2] = ["loss.svg", "loss.png"];

/// Resolves the recipe, then shows it (`--dry-run`) or runs it.
pub fn run(args: &RecipeArgs, choice: &Choice) -> anyhow::Result<()> {
    if args.detach && !detach::is_child() {
        return detach::start();
    }
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
    let mut live = Live::new(resolved.recipe.train.steps, 0, args.detach);
    close(&train::run(prepared, &resolved, command, &mut live)?)
}

/// Draws the curve of a run that has come to its end and prints its closing table.
pub fn close(run: &Run) -> anyhow::Result<()> {
    let info = run.info();
    let metrics = info.metrics()?;
    // The log has it in ASCII, the terminal as it likes.
    let told = journal::record(&report::closing_table(&info, &metrics, Charset::Ascii));
    let (series, options) = report::of_one(&info.metadata, &metrics);
    run.write_file(CURVE[0], report::loss_svg(&series, &options).as_bytes())?;
    run.write_file(CURVE[1], &report::loss_png(&series, &options))?;
    if told {
        return Ok(());
    }
    if json() {
        return event("finished", as_json(&info, &info.metadata, false)?);
    }
    Ok(print(&report::closing_table(&info, &metrics, charset()))?)
}

/// Shows the loop on standard error, and passes signals on to it.
pub struct Live {
    steps: Steps,
    signals: Option<Signals>,
    told: bool,
    /// Whether it goes into the background when it starts.
    detached: bool,
}

impl Live {
    /// For a run of `total` steps of which `done` are done. Signals are taken over when it starts, and a `detached` one then lets
    /// go of the terminal.
    pub fn new(total: u64, done: u64, detached: bool) -> Self {
        Live { steps: Steps::new(total, done), signals: None, told: false, detached }
    }

    /// One line of `--json`. A reader that is gone is no reason to stop a run.
    fn event(&self, name: &str, value: impl FnOnce() -> Value) {
        if json() && !self.detached {
            let _ = event(name, value());
        }
    }

    /// From here on what is said is in the run's log.
    fn keep_log(&mut self, run: &Run) {
        let log = run.log();
        if let Err(error) = &log {
            self.steps.line(&format!("WARNING: this run keeps no log: {error}"));
        }
        let log = log.ok();
        if self.detached
            && let Err(error) = detach::let_go(run, log.as_ref())
        {
            self.steps.line(&format!("WARNING: this run cannot let go of the terminal: {error}"));
        }
        if let Some(log) = log {
            journal::open(log, self.detached);
        }
    }
}

/// Prints a JSON object on one line.
fn event(name: &str, mut value: Value) -> anyhow::Result<()> {
    let mut event = json!({ "event": name });
    if let (Some(event), Some(value)) = (event.as_object_mut(), value.as_object_mut()) {
        event.append(value);
    }
    Ok(print(&event.to_string())?)
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
        self.event("started", || {
            json!({ "name": run.metadata.name, "dir": run.dir(), "pid": std::process::id(), "setup": setup })
        });
        self.keep_log(run);
        match Signals::watch() {
            Ok(signals) => self.signals = Some(signals),
            Err(error) => self.steps.line(&format!("WARNING: signals end this run unsaved: {error}")),
        }
    }

    fn step(&mut self, row: &Row) {
        self.event("step", || row_json(row));
        self.steps.step(row.step, row.loss, row.tokens_per_s, &report::remarks(&row.diagnostics));
        if let Some(loss) = row.val_loss {
            self.steps.line(&format!("step {}: validation loss {}", row.step, report::format::loss(loss)));
        }
    }

    fn skipped(&mut self, step: u64, what: &str, in_row: u64) {
        self.event("skipped", || json!({ "step": step, "reason": what, "in_row": in_row }));
        self.steps.line(&format!("WARNING: step {step} skipped, the {in_row}. in a row: {what}"));
    }

    fn spike(&mut self, spike: &Spike) {
        self.event("spike", || json!(spike));
        let [loss, median] = [spike.loss, spike.median].map(report::format::loss);
        let text = format!(
            "WARNING: step {}: the loss of {loss} stands out from {median}, the median before it",
            spike.step
        );
        self.steps.line(&text);
    }

    fn saved(&mut self, saved: &Saved) {
        let Saved { step, checkpoint, stall, seconds } = *saved;
        self.event(
            "saved",
            || json!({ "step": step, "checkpoint_bytes": checkpoint, "stall_s": stall, "seconds": seconds }),
        );
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
