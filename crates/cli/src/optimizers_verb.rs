//! `muon optimizers`: the table of all optimizers, and the keys of one.

use clap::Args;
use optim::{LrHint, Row};
use train::recipe::{self, KEYS, Kind};

use crate::error::Usage;
use crate::output::{columns, print};

/// Flags of `optimizers`.
#[derive(Debug, Args)]
pub struct OptimizersArgs {
    /// Show the keys of this one
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Prints the table, or one optimizer.
pub fn run(args: &OptimizersArgs) -> anyhow::Result<()> {
    let text = match &args.name {
        None => {
            let rows: Vec<_> = optim::ALL.iter().map(|row| [row.name, row.about].map(String::from)).collect();
            format!("{}\n\n{}", columns(&rows), "muon optimizers NAME shows the keys of one")
        }
        Some(name) => one(optim::find(name).map_err(|error| Usage(error.to_string()))?),
    };
    Ok(print(&text)?)
}

fn one(row: &Row) -> String {
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
    format!(
        "{}: {}\n{} bytes of state for each entry of a matrix\n\n{}\n\n{}",
        row.name,
        row.about,
        row.state_bytes,
        columns(&rows),
        "set one by --set KEY=VALUE, in a recipe file, or as MUON_OPTIMIZER__KEY in the environment"
    )
}
