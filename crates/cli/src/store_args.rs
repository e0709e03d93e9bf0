//! What the verbs over the run store share: the results folder, and a run as programs get it.

use std::path::PathBuf;

use clap::Args;
use runs::{Metadata, RunInfo, Store};
use serde_json::{Value, json};
use train::recipe;

use crate::error::Usage;

/// The folder of the runs.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// Folder that holds the run folders
    #[arg(long, value_name = "DIR", env = "MUON_RUN__RESULTS", hide_env = true)]
    results: Option<PathBuf>,
}

impl StoreArgs {
    /// The store; without a flag that of the recipes' default.
    pub fn store(&self) -> Store {
        let default = || recipe::default("run.results")?.as_str().map(PathBuf::from);
        Store::new(self.results.clone().or_else(default).unwrap_or_default())
    }

    /// The runs that are named, each once.
    pub fn find_all(&self, names: &[String]) -> Result<Vec<RunInfo>, runs::Error> {
        let store = self.store();
        let mut found: Vec<RunInfo> = Vec::new();
        for name in names {
            let run = store.find(name)?;
            if found.iter().all(|other| other.dir != run.dir) {
                found.push(run);
            }
        }
        Ok(found)
    }
}

/// A run for programs: `metadata.json` as of now, with the run's folder, and the state in one word under `standing`.
pub fn as_json(run: &RunInfo, metadata: &Metadata, died: bool) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(metadata)?;
    value["dir"] = json!(run.dir);
    value["standing"] = json!(report::state(metadata, died));
    Ok(value)
}

/// A number for JSON, which has none that is not finite.
pub fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// An error for a command that makes no sense on these runs.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}
