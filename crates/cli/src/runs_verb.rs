//! `muon runs`: the list of all runs.

use std::cmp::Ordering;

use clap::{Args, ValueEnum};
use report::Listed;
use runs::{RunInfo, Timestamp};

use crate::output::{charset, json, plain, print, width};
use crate::progress::note;
use crate::store_args::{StoreArgs, as_json};

/// Flags of `runs`.
#[derive(Debug, Args)]
pub struct RunsArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// In which order: least losses, most steps, highest speed, oldest run first
    #[arg(long, value_name = "KEY", default_value = "age")]
    sort: Key,
    /// The other way round
    #[arg(long)]
    reverse: bool,
    /// Only runs with this text in name, state, optimizer, model or data; may be given many times, then all must match
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
}

/// What the list is ordered by.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Key {
    Name,
    State,
    Steps,
    Loss,
    BestLoss,
    Validation,
    BestValidation,
    Speed,
    Age,
}

/// Prints the list; a folder that cannot be read is told on standard error.
pub fn run(args: &RunsArgs) -> anyhow::Result<()> {
    let listing = args.store.store().list()?;
    for error in &listing.unreadable {
        note(&format!("warning: {}", plain(&error.to_string())));
    }
    let now = Timestamp::now();
    let mut rows: Vec<(RunInfo, Listed)> = Vec::new();
    for run in listing.runs {
        let listed = Listed {
            metadata: run.current()?,
            died: run.died()?,
            age: now.duration_since(run.metadata.started).as_secs_f64().max(0.0),
        };
        if args.filter.iter().all(|text| holds(&listed, text)) {
            rows.push((run, listed));
        }
    }
    // The sort is stable: equals stay in the order of their age.
    rows.sort_by(|(_, a), (_, b)| args.sort.order(a, b));
    if args.reverse {
        rows.reverse();
    }
    if json() {
        let values: Result<Vec<_>, _> =
            rows.iter().map(|(run, listed)| as_json(run, &listed.metadata, listed.died)).collect();
        return Ok(print(&serde_json::to_string_pretty(&values?)?)?);
    }
    let listed: Vec<Listed> = rows.into_iter().map(|(_, listed)| listed).collect();
    Ok(print(&report::runs_table(&listed, charset(), width()))?)
}

/// Whether `text` stands in what names the run, in whatever case.
fn holds(run: &Listed, text: &str) -> bool {
    let metadata = &run.metadata;
    let setup = &metadata.setup;
    let state = report::state(metadata, run.died);
    let text = text.to_lowercase();
    [&metadata.name, state, &setup.optimizer, &setup.model, &setup.data]
        .iter()
        .any(|field| field.to_lowercase().contains(&text))
}

impl Key {
    fn order(self, a: &Listed, b: &Listed) -> Ordering {
        let (ma, mb) = (&a.metadata, &b.metadata);
        match self {
            Key::Name => ma.name.cmp(&mb.name),
            Key::State => report::state(ma, a.died).cmp(report::state(mb, b.died)),
            Key::Steps => mb.steps_done.cmp(&ma.steps_done),
            Key::Loss => least(ma.train_loss.last, mb.train_loss.last),
            Key::BestLoss => least(ma.train_loss.best, mb.train_loss.best),
            Key::Validation => least(ma.validation_loss.last, mb.validation_loss.last),
            Key::BestValidation => least(ma.validation_loss.best, mb.validation_loss.best),
            Key::Speed => least(ma.tokens_per_s.map(|x| -x), mb.tokens_per_s.map(|x| -x)),
            Key::Age => b.age.total_cmp(&a.age),
        }
    }
}

/// The least first; what is unknown or not a number last.
fn least(a: Option<f64>, b: Option<f64>) -> Ordering {
    let known = |value: Option<f64>| value.filter(|x| !x.is_nan()).unwrap_or(f64::INFINITY);
    known(a).total_cmp(&known(b))
}
