//! What the verbs over the run store share: the results folder, and a run as programs get it.

use std::path::PathBuf;

use clap::Args;
use runs::{Metadata, Row, RunInfo, Store};
use serde_json::{Map, Value, json};
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

    /// The runs that a process of this host writes now, the oldest first.
    pub fn running(&self) -> anyhow::Result<Vec<RunInfo>> {
        let mut running = Vec::new();
        for run in self.store().list()?.runs {
            if run.process()?.is_some() {
                running.push(run);
            }
        }
        Ok(running)
    }

    /// The only run that runs here.
    pub fn only_running(&self) -> anyhow::Result<RunInfo> {
        let mut running = self.running()?;
        match (running.pop(), running.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(usage(format!("nothing runs in {}", self.store().root().display()))),
            (Some(last), false) => {
                let names: Vec<String> =
                    running.into_iter().chain([last]).map(|run| run.metadata.name).collect();
                Err(usage(format!("{} runs run here: {} (name one)", names.len(), names.join(", "))))
            }
        }
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

/// A step for programs.
pub fn row_json(row: &Row) -> Value {
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

/// A number for JSON, which has none that is not finite.
pub fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// An error for a command that makes no sense on these runs.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}
