//! `muon stop`: tells a run to save and end, and waits until it has.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use runs::{RunInfo, State, Store, Writer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::output::show;
use crate::progress::note;
use crate::store_args::{StoreArgs, as_json, usage};

/// How often the run is looked at.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is said that the run goes on yet.
const REMINDER: Duration = Duration::from_secs(10);

/// Flags of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// A run's name, the beginning of one, or `last`; unset, the one that runs here
    run: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Kill it at once: what it did since its newest checkpoint is lost
    #[arg(long)]
    now: bool,
}

/// Sends the signal, waits for the end, and says what was saved.
pub fn run(args: &StopArgs) -> anyhow::Result<()> {
    let store = args.store.store();
    let found = match &args.run {
        Some(name) => store.find(name)?,
        None => args.store.only_running()?,
    };
    let name = &found.metadata.name;
    let pid = process(&found)?;
    let signal = if args.now { Signal::KILL } else { Signal::TERM };
    if let Err(error) = kill_process(pid, signal) {
        bail!("{name}: process {} cannot be told to stop: {error}", pid.as_raw_nonzero());
    }
    if !args.now {
        let text = "told to save and stop, which it does after its step";
        note(&format!("{name}: process {} was {text} (--now kills it)", pid.as_raw_nonzero()));
    }
    wait(&store, &found)?;

    let ended = store.open(name)?;
    let metadata = ended.current()?;
    let (step, steps) = (metadata.steps_done, metadata.setup.steps);
    let checkpoint = ended.checkpoint_step()?;
    let died = ended.died()?;
    let kept = checkpoint.map_or("it has no checkpoint".to_owned(), |step| {
        format!("its newest checkpoint is that of step {step} (muon resume {name} goes on)")
    });
    let text = match &metadata.state {
        State::Finished => format!("{name}: it came to its end, step {steps}, before it was to stop"),
        State::Stopped { .. } => format!("{name}: saved and stopped at step {step} of {steps}; {kept}"),
        State::Running => format!("{name}: ended at once, at step {step} of {steps}; {kept}"),
        State::Failed { reason } => bail!("{name}: it failed while it was to stop: {reason}; {kept}"),
    };
    let mut value = as_json(&ended, &metadata, died)?;
    value["checkpoint_step"] = json!(checkpoint);
    show(|| value, || text)
}

/// The process to tell, or why there is none.
fn process(run: &RunInfo) -> anyhow::Result<Pid> {
    let metadata = &run.metadata;
    let name = &metadata.name;
    if let Some(pid) = run.process()?.and_then(|pid| Pid::from_raw(pid as i32)) {
        return Ok(pid);
    }
    Err(usage(match run.writer()? {
        Writer::Alive => format!(
            "{name}: the process that writes it is another user's or on another host (stop it from there)"
        ),
        Writer::Unknown if metadata.state == State::Running => {
            format!(
                "{name}: it may run on another host, which cannot be known from here (stop it from there)"
            )
        }
        _ => {
            let metadata = run.current()?;
            let state = report::state(&metadata, run.died()?);
            let (step, steps) = (metadata.steps_done, metadata.setup.steps);
            format!("{name}: it does not run; {state} at step {step} of {steps}")
        }
    }))
}

/// Waits until no one writes the run.
fn wait(store: &Store, run: &RunInfo) -> anyhow::Result<()> {
    let mut said = Instant::now();
    while run.writer()? == Writer::Alive {
        sleep(PAUSE);
        if said.elapsed() >= REMINDER {
            said = Instant::now();
            let now = store.open(&run.metadata.name)?.current()?;
            note(&format!("{}: not yet, at step {}", now.name, now.steps_done));
        }
    }
    Ok(())
}
