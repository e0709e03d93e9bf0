//! `muon status`: what runs here, how far it is, and what the GPUs do.

use clap::Args;
use report::Standing;
use runs::{RunInfo, Timestamp};
use serde_json::{Value, json};

use crate::gpus::{Failed, Gpus};
use crate::output::{charset, show, width};
use crate::store_args::{StoreArgs, as_json, number};

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A run's name, the beginning of one, or `last`, also where it does not run; unset, all that run here
    run: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// What each GPU does too: use, memory, temperature and power
    #[arg(long)]
    gpu: bool,
}

/// Shows the runs and, where asked, the GPUs. Without NVML the runs are shown all the same, before the error.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let runs = match &args.run {
        Some(name) => vec![args.store.store().find(name)?],
        None => args.store.running()?,
    };
    let standings: Vec<Standing> = runs.iter().map(standing).collect::<anyhow::Result<_>>()?;
    let (gpus, failed) = match args.gpu.then(|| Gpus::open().and_then(|gpus| gpus.now())) {
        None => (None, None),
        Some(Ok(gpus)) => (Some(gpus), None),
        Some(Err(error)) => (None, Some(error)),
    };
    let mut values = Vec::new();
    for (run, standing) in runs.iter().zip(&standings) {
        values.push(value(run, standing)?);
    }
    let told = || {
        let gpus = gpus.as_ref().map_or(String::new(), |gpus| report::gpu_table(gpus, charset(), width()));
        if standings.is_empty() {
            return format!("nothing runs in {}\n{gpus}", args.store.store().root().display());
        }
        format!("{}{gpus}", report::status_table(&standings, charset(), width()))
    };
    show(|| json!({ "runs": values, "gpus": gpus.as_ref().map(|gpus| gpu_values(gpus)) }), told)?;
    failed.map_or(Ok(()), |error: Failed| Err(error.into()))
}

/// Where a run stands now.
pub fn standing(run: &RunInfo) -> anyhow::Result<Standing> {
    let metrics = run.metrics_so_far()?;
    let running = run.metadata.state == runs::State::Running;
    let metadata = if running { run.metadata_at(&metrics.rows) } else { run.metadata.clone() };
    let age = Timestamp::now().duration_since(metadata.started).as_secs_f64().max(0.0);
    let died = run.died()?;
    let left =
        (running && !died).then(|| report::seconds_left(&metrics.rows, metadata.setup.steps)).flatten();
    Ok(Standing { metadata, died, process: run.process()?, age, left })
}

fn value(run: &RunInfo, standing: &Standing) -> anyhow::Result<Value> {
    let mut value = as_json(run, &standing.metadata, standing.died)?;
    value["pid"] = json!(standing.process);
    value["age_s"] = number(standing.age);
    value["left_s"] = standing.left.map_or(Value::Null, number);
    Ok(value)
}

fn gpu_values(gpus: &[report::Gpu]) -> Vec<Value> {
    let value = |gpu: &report::Gpu| {
        json!({
            "index": gpu.index,
            "name": gpu.name,
            "busy_percent": gpu.busy,
            "memory_used_bytes": gpu.memory.map(|memory| memory.0),
            "memory_total_bytes": gpu.memory.map(|memory| memory.1),
            "celsius": gpu.celsius,
            "watts": gpu.watts,
            "watts_limit": gpu.watts_limit,
        })
    };
    gpus.iter().map(value).collect()
}
