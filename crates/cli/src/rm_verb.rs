//! `muon rm`: removes runs for good.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::Context as _;
use clap::Args;
use report::format;
use runs::{RunInfo, State, Writer, total_bytes};
use serde_json::json;

use crate::output::show;
use crate::progress::note;
use crate::secrets::mask;
use crate::store_args::{StoreArgs, usage};

/// Flags of `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names of runs, or the beginnings of names; not `last`
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Also a run that says it is running, where it cannot be known whether its process lives
    #[arg(long)]
    force: bool,
}

/// Lists what would go, asks, and removes it. Nothing goes if any of the runs cannot.
pub fn run(args: &RmArgs) -> anyhow::Result<()> {
    if args.runs.iter().any(|name| name == "last") {
        return Err(usage("rm last: which run is the last changes with every start; name the run"));
    }
    let store = args.store.store();
    let found = args.store.find_all(&args.runs)?;
    let mut total = 0;
    for run in &found {
        refuse_running(run, args.force)?;
        run.drive_folder()?;
    }
    for run in &found {
        let (metadata, files) = (run.current()?, run.files()?);
        total += total_bytes(&files);
        note(&format!(
            "{}: {}, {} of {} steps, {} files, {}",
            run.dir.display(),
            report::state(&metadata, run.died()?),
            metadata.steps_done,
            metadata.setup.steps,
            files.len(),
            format::bytes(total_bytes(&files))
        ));
    }
    let what = if found.len() == 1 { "this run".to_owned() } else { format!("these {} runs", found.len()) };
    if !args.yes && !confirmed(&format!("remove {what} for good, {}?", format::bytes(total)))? {
        let none: [&str; 0] = [];
        return show(|| json!({ "removed": none, "bytes": 0 }), || "nothing was removed".to_owned());
    }
    for run in &found {
        store.remove(run)?;
    }
    let runs = if found.len() == 1 { "run" } else { "runs" };
    let names: Vec<&str> = found.iter().map(|run| run.metadata.name.as_str()).collect();
    show(
        || json!({ "removed": names, "bytes": total }),
        || format!("removed {} {runs}, {}", found.len(), format::bytes(total)),
    )
}

fn refuse_running(run: &RunInfo, force: bool) -> anyhow::Result<()> {
    let name = &run.metadata.name;
    match run.writer()? {
        Writer::Alive => Err(usage(format!("{name} is running: stop it first"))),
        Writer::Unknown if run.metadata.state == State::Running && !force => Err(usage(format!(
            "{name} may still be running, which cannot be known from here (--force removes it all the same)"
        ))),
        _ => Ok(()),
    }
}

/// Asks on the terminal. Where no one can answer, `--yes` is asked for.
fn confirmed(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(usage("rm asks before it removes, and there is no terminal to ask on (--yes removes)"));
    }
    write!(io::stderr(), "{} [y/N] ", mask(question)).context("cannot ask")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
