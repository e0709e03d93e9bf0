//! `muon resume`: goes on with a run from its newest checkpoint.

use std::time::Instant;

use clap::Args;
use report::format;
use runs::State;
use signal_hook::consts::SIGINT;
use tensor::Device;
use train::recipe::{self, Sources};
use train::schedule::Shape;
use train::{Point, Why};

use crate::args::{environment, key_value, recipe_without_secrets, setting};
use crate::error::Usage;
use crate::output::plain;
use crate::progress::{Reading, note};
use crate::store_args::StoreArgs;
use crate::train_verb::{Live, close};
use crate::{detach, machine};

/// Flags of `resume`. The recipe is that of the run; only keys that change no weight may be set.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Name of the run, the beginning of it, or `last`
    run: String,
    #[command(flatten)]
    store: StoreArgs,
    /// Train so many steps more than the recipe has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    extend_steps: Option<u64>,
    /// cpu, cuda or cuda:N, of the kind that the run began on
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Stop with a checkpoint after so many hours of work on the run, those before among them
    #[arg(long, value_name = "HOURS")]
    max_hours: Option<String>,
    /// Stop with a checkpoint when the run has cost so many dollars
    #[arg(long, value_name = "USD")]
    max_cost: Option<String>,
    /// Price of the machine in dollars an hour; unset, as before
    #[arg(long, value_name = "USD")]
    price: Option<String>,
    /// Set a recipe key that changes no weight, such as `train.eval_steps=50`; may be given many times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on in the background; returns when it has begun
    #[arg(long)]
    detach: bool,
}

/// The key of the machine's price, which a frozen recipe does not have, and its variable.
const PRICE: &str = "run.usd_per_hour";
const PRICE_VARIABLE: &str = "MUON_RUN__USD_PER_HOUR";

/// Checks that the run is what it was, then goes on with it.
pub fn run(args: &ResumeArgs) -> anyhow::Result<()> {
    if args.detach && !detach::is_child() {
        return detach::start();
    }
    let begin = Instant::now();
    let store = args.store.store();
    let (run, killed) = store.resume(&args.run)?;
    let name = run.metadata.name.clone();
    if let Some(holder) = killed {
        note(&format!("note: {holder} was killed while it wrote this run; taking over"));
    }
    if run.metadata.state == State::Finished && args.extend_steps.is_none() {
        let steps = run.metadata.setup.steps;
        let text = format!("{name}: finished at step {steps} (--extend-steps N goes on)");
        return Err(Usage(text).into());
    }
    let (point, refused) = Point::newest(&run, &Reading::silently())?;
    for error in refused {
        note(&format!("WARNING: {}; an older checkpoint is used", plain(&error.to_string())));
    }
    let steps = run.metadata.setup.steps + args.extend_steps.unwrap_or(0);

    let mut flags = Vec::new();
    flags.extend(args.extend_steps.map(|_| setting("train.steps", &steps.to_string(), "--extend-steps")));
    flags.extend(args.device.as_deref().map(|device| setting("train.device", device, "--device")));
    flags.extend(args.max_hours.as_deref().map(|hours| setting("train.max_hours", hours, "--max-hours")));
    flags.extend(args.max_cost.as_deref().map(|usd| setting("train.max_cost", usd, "--max-cost")));
    let environment = environment()?;
    let told = |key: &str| args.set.iter().any(|pair| pair.starts_with(key));
    let price = run.metadata.usd_per_hour.filter(|_| {
        let variable = |name: &str| name.eq_ignore_ascii_case(PRICE_VARIABLE);
        !told(PRICE) && !environment.iter().any(|(name, _)| variable(name))
    });
    match (&args.price, price) {
        (Some(usd), _) => flags.push(setting(PRICE, usd, "--price")),
        (None, Some(usd)) => flags.push(setting(PRICE, &usd.to_string(), "metadata.json")),
        (None, None) => {}
    }
    for pair in &args.set {
        let (key, value) = key_value(pair)?;
        flags.push(setting(key, value, &format!("--set {key}")));
    }
    let file = run.dir().join("recipe.toml");
    let sources = Sources { published: false, file: Some(&file), environment: &environment, flags: &flags };
    let mut resolved = recipe_without_secrets(recipe::resolve(&sources)?)?;
    let device = Device::parse(&resolved.recipe.train.device)?;
    let machine = machine::Found::on(device)?;
    let precision = resolved.recipe.train.precision.on(machine.place.device.is_cuda());
    resolved.settle(&machine.flag, precision)?;
    if machine.place.name != point.state.device {
        let (was, is) = (&point.state.device, &machine.place.name);
        note(&format!("note: the run was on {was} and goes on on {is}: its bits may come out otherwise"));
    }
    if args.extend_steps.is_some() && resolved.recipe.train.schedule != Shape::Constant {
        note(&format!("note: from here on the rates follow the schedule of {steps} steps"));
    }
    let prepared = train::prepare_from(&point, steps, &resolved, &machine.place, &Reading::default())?;
    if let Some(text) = &prepared.room().note {
        note(&format!("note: {text}"));
    }
    let seconds = format::duration(begin.elapsed().as_secs_f64());
    note(&format!(
        "going on after step {} of {steps}; weights and state are back after {seconds}",
        point.state.step
    ));
    let mut live = Live::new(steps, point.state.step, args.detach);
    close(&train::resume(prepared, &resolved, run, &point, &mut live)?)
}

/// The exit code of a run that was told to stop: 128 and the signal's number, as of a process that it ends.
pub fn stopped(why: Why) -> u8 {
    match why {
        Why::Signal(SIGINT) => crate::error::INTERRUPTED,
        Why::Signal(_) => crate::error::TERMINATED,
        Why::Hours(_) | Why::Cost(_) => crate::error::LIMIT,
    }
}
