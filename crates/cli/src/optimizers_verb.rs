//! `muon optimizers`: the table of all optimizers, and the keys of one.

use clap::Args;
use optim::{LrHint, Row};
use serde_json::json;
use train::recipe::{self, KEYS, Kind};

use crate::error::Usage;
use crate::output::{columns, objects, show};

/// Flags of `optimizers`.
#[derive(Debug, Args)]
pub struct OptimizersArgs {
    /// Show the keys of this one
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Prints the table, or one optimizer.
pub fn run(args: &OptimizersArgs) -> anyhow::Result<()> {
    let Some(name) = &args.name else {
        let rows: Vec<_> = optim::ALL.iter().map(|row| [row.name, row.about].map(String::from)).collect();
        let value = || optim::ALL.iter().map(|row| json!({ "name": row.name, "about": row.about })).collect();
        return show(value, || {
            format!("{}\n\n{}", columns(&rows), "muon optimizers NAME shows the keys of one")
        });
    };
    let row = optim::find(name).map_err(|error| Usage(error.to_string()))?;
    let keys = keys(row);
    let value = || {
        let bytes = row.state_bytes;
        json!({ "name": row.name, "about": row.about, "state_bytes_per_entry": bytes, "keys": objects(&keys) })
    };
    show(value, || one(row, &keys))
}

/// Key, default, what it takes and what it is, under a header.
fn keys(row: &Row) -> Vec<[String; 4]> {
    let rate = match row.lr {
        LrHint::Spectral => "that of the model's preset for orthogonal updates",
        LrHint::Rms => "that of the model's preset for updates of AdamW's root mean square",
        LrHint::AdamW => "that of the model's preset for AdamW",
    };
    let mut rows = vec![["key", "default", "takes", "what it is"].map(String::from)];
    rows.push(
        ["optimizer.lr", "", "a number above 0", &format!("peak learning rate; unset, {rate}")]
            .map(String::from),
    );
    rows.extend(row.keys().iter().map(|key| {
        let (kind, default) = Kind::of(key);
        [format!("optimizer.{}", key.name), default.to_string(), kind.describe(), key.help.to_string()]
    }));
    rows.extend(KEYS.iter().filter(|key| key.name.starts_with("optimizer.adamw.")).map(|key| {
        let default = recipe::default(key.name).map_or(String::new(), |value| value.to_string());
        [key.name.to_string(), default, key.kind.describe(), key.help.to_string()]
    }));
    rows
}

fn one(row: &Row, keys: &[[String; 4]]) -> String {
    format!(
        "{}: {}\n{} bytes of state for each entry of a matrix\n\n{}\n\n{}",
        row.name,
        row.about,
        row.state_bytes,
        columns(keys),
        "set one by --set KEY=VALUE, in a recipe file, or as MUON_OPTIMIZER__KEY in the environment"
    )
}
