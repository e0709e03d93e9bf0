//! `muon logs`: the steps of a run as lines, and those to come.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use runs::{Row, RunInfo, State, Store};
use serde_json::{Map, Value, json};

use crate::output::print;
use crate::store_args::{StoreArgs, number};

/// How often a run that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(500);

/// Flags of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// A run's name, the beginning of one, or `last`
    run: String,
    #[command(flatten)]
    store: StoreArgs,
    /// The last so many steps
    #[arg(long, value_name = "N", default_value_t = 20)]
    tail: usize,
    /// Go on with each step as it comes, until the run ends
    #[arg(long)]
    follow: bool,
    /// Print each step as a JSON object on a line of its own
    #[arg(long)]
    json: bool,
}

/// Prints the rows of the metrics.
pub fn run(args: &LogsArgs) -> anyhow::Result<()> {
    let store = args.store.store();
    let found = store.find(&args.run)?;
    let steps = found.metadata.setup.steps;
    let show = |rows: &[Row]| -> anyhow::Result<()> {
        for row in rows {
            print(&if args.json { as_json(row).to_string() } else { report::log_line(row, steps) })?;
        }
        Ok(())
    };
    let mut tail = found.tail();
    // Asked before the rows are read: what an ended run wrote last is then among them.
    let mut ends = !args.follow || ended(&store, &found)?;
    let rows = tail.rows()?;
    show(&rows[rows.len().saturating_sub(args.tail)..])?;
    while !ends {
        sleep(PAUSE);
        ends = ended(&store, &found)?;
        show(&tail.rows()?)?;
    }
    Ok(())
}

/// Whether no more rows will come.
fn ended(store: &Store, run: &RunInfo) -> anyhow::Result<bool> {
    let now = store.open(&run.metadata.name)?;
    Ok(now.metadata.state != State::Running || now.died()?)
}

fn as_json(row: &Row) -> Value {
    let diagnostics: Map<String, Value> =
        row.diagnostics.iter().map(|(name, value)| (name.clone(), number(*value))).collect();
    json!({
        "step": row.step,
        "tokens": row.tokens,
        "loss": number(row.loss),
        "lr": number(row.lr),
        "grad_norm": number(row.grad_norm),
        "step_ms": number(row.step_ms),
        "tokens_per_s": number(row.tokens_per_s),
        "val_loss": row.val_loss.map_or(Value::Null, number),
        "diagnostics": diagnostics,
    })
}
