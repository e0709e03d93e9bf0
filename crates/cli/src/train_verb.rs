//! `muon train` and the verbs that are other names for it.

use runs::{Row, Run};
use tensor::Device;
use train::Observer;

use crate::args::{Choice, RecipeArgs};
use crate::output::{charset, print};
use crate::progress::{Reading, Steps, note};
use crate::{dry_run, machine};

/// File of the loss curve in a run's folder.
const CURVE: &str = "loss.svg";

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
    let prepared = train::prepare(&resolved, &machine.place, &Reading::default())?;
    let command = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let run = train::run(prepared, &resolved, command, &mut Live(Steps::new(resolved.recipe.train.steps)))?;
    let info = run.info();
    let metrics = info.metrics()?;
    let curve = report::loss_curve(&info.metadata, &metrics);
    run.write_file(CURVE, curve.as_bytes())?;
    Ok(print(&report::closing_table(&info, &metrics, charset()))?)
}

/// Shows the loop on standard error.
struct Live(Steps);

impl Observer for Live {
    fn started(&mut self, run: &Run) {
        let setup = &run.metadata.setup;
        let parameters = report::format::short(setup.parameters as f64);
        self.0.line(&format!(
            "{} ({parameters} parameters) with {} on {}, {}: {}",
            setup.model,
            setup.optimizer,
            setup.device,
            setup.precision,
            run.dir().display()
        ));
    }

    fn step(&mut self, row: &Row) {
        self.0.step(row.step, row.loss, row.tokens_per_s, &report::remarks(&row.diagnostics));
        if let Some(loss) = row.val_loss {
            self.0.line(&format!("step {}: validation loss {}", row.step, report::format::loss(loss)));
        }
    }
}
