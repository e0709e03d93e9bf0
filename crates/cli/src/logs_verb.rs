//! `muon logs`: what a run said, or its steps, as lines; and those to come.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use runs::{LogTail, MetricsTail, RunInfo, State, Store, Timestamp};
use serde_json::json;

use crate::output::{json, print};
use crate::progress::note;
use crate::store_args::{StoreArgs, row_json};

/// How often a run that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(500);

/// Flags of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// A run's name, the beginning of one, or `last`
    #[arg(default_value = "last")]
    run: String,
    #[command(flatten)]
    store: StoreArgs,
    /// The last so many lines
    #[arg(long, value_name = "N", default_value_t = 20)]
    tail: usize,
    /// Go on with each line as it comes, until the run ends
    #[arg(long)]
    follow: bool,
    /// Every step from its metrics instead of the log
    #[arg(long)]
    steps: bool,
}

/// Where the lines come from.
enum Lines {
    Log(LogTail),
    /// The metrics of a run of so many steps.
    Steps(MetricsTail, u64),
}

/// Prints the lines of the log, or the rows of the metrics.
pub fn run(args: &LogsArgs) -> anyhow::Result<()> {
    let store = args.store.store();
    let found = store.find(&args.run)?;
    let steps = found.metadata.setup.steps;
    let mut lines = Lines::Log(found.log());
    let show = |lines: &[String]| lines.iter().try_for_each(|line| print(line));
    // Asked before the lines are read: what an ended run wrote last is then among them.
    let mut ends = !args.follow || ended(&store, &found)?;
    let has_log = found.log().lines()?.is_some();
    if args.steps || !has_log {
        lines = Lines::Steps(found.tail(), steps);
    }
    if !args.steps && !has_log {
        note(&format!("note: {} has no log.txt; these are its steps", found.metadata.name));
    }
    let first = lines.next()?;
    show(&first[first.len().saturating_sub(args.tail)..])?;
    while !ends {
        sleep(PAUSE);
        ends = ended(&store, &found)?;
        show(&lines.next()?)?;
    }
    Ok(())
}

/// Whether no more lines will come.
fn ended(store: &Store, run: &RunInfo) -> anyhow::Result<bool> {
    let now = store.open(&run.metadata.name)?;
    Ok(now.metadata.state != State::Running || now.died()?)
}

impl Lines {
    /// Those since the last call, as they are shown.
    fn next(&mut self) -> anyhow::Result<Vec<String>> {
        match self {
            Lines::Log(tail) => {
                let lines = tail.lines()?.unwrap_or_default();
                Ok(if json() { lines.iter().map(|line| as_json(line)).collect() } else { lines })
            }
            Lines::Steps(tail, steps) => {
                let rows = tail.rows()?;
                let line =
                    |row| if json() { row_json(row).to_string() } else { report::log_line(row, *steps) };
                Ok(rows.iter().map(line).collect())
            }
        }
    }
}

/// A line of the log for programs; what did not come from the program itself has no time.
fn as_json(line: &str) -> String {
    let timed = line.split_once(' ').and_then(|(time, text)| Some((time.parse::<Timestamp>().ok()?, text)));
    match timed {
        Some((time, text)) => json!({ "time": time, "text": text }),
        None => json!({ "time": null, "text": line }),
    }
    .to_string()
}
