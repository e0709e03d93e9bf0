//! `muon show`: all there is to say of one run.

use clap::Args;
use runs::{RunInfo, total_bytes};
use serde_json::{Value, json};

use crate::output::{charset, json as as_program, print};
use crate::progress::note;
use crate::store_args::{StoreArgs, as_json};

/// Flags of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A run's name, the beginning of one, or `last`
    run: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// Prints the closing table as of now, where the run came from, and its files.
pub fn run(args: &ShowArgs) -> anyhow::Result<()> {
    let found = args.store.store().find(&args.run)?;
    let (metadata, died, files) = (found.current()?, found.died()?, found.files()?);
    if as_program() {
        let mut value = as_json(&found, &metadata, died)?;
        let list: Vec<Value> =
            files.iter().map(|file| json!({ "path": file.path, "bytes": file.bytes })).collect();
        value["files"] = json!(list);
        value["bytes"] = json!(total_bytes(&files));
        return Ok(print(&serde_json::to_string_pretty(&value)?)?);
    }
    let metrics = found.metrics_so_far()?;
    if let Some(torn) = &metrics.torn {
        note(&format!("warning: metrics.csv: {torn}"));
    }
    if died {
        note(&format!("note: the process of {} is gone; it ended without a word", metadata.name));
    }
    let now = RunInfo { metadata, ..found };
    let table = report::closing_table(&now, &metrics, charset());
    Ok(print(&format!("{table}{}", report::details(&now, &files, charset())))?)
}
