//! What runs now, and what the GPUs do.

use runs::{Metadata, Row};

use crate::fit::Sheet;
use crate::list::state;
use crate::tables::{Charset, optional};
use crate::{format, tables};

/// Where a run stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What runs, and how far it is.
    pub metadata: Metadata,
    /// Whether its process is gone though its record says that it runs.
    pub died: bool,
    /// Its process, where it runs here.
    pub process: Option<u32>,
    /// Seconds since it began.
    pub age: f64,
    /// Seconds of training left.
    pub left: Option<f64>,
}

/// What one GPU does. What it does not tell is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Percent of the time in which it did something, lately.
    pub busy: Option<u32>,
    /// Bytes in use, and in all.
    pub memory: Option<(u64, u64)>,
    /// Its temperature.
    pub celsius: Option<u32>,
    /// What it takes.
    pub watts: Option<f64>,
    /// What it may take.
    pub watts_limit: Option<f64>,
}

/// Steps that the time of a step is told from.
const RECENT: usize = 50;

/// Seconds of training steps left, by the mean time of the last 50 steps; evaluations and saves come on top. `None` before the
/// first step.
pub fn seconds_left(rows: &[Row], steps: u64) -> Option<f64> {
    let done = rows.last()?.step;
    let recent = &rows[rows.len().saturating_sub(RECENT)..];
    let mean = recent.iter().map(|row| row.step_ms / 1e3).sum::<f64>() / recent.len() as f64;
    Some(mean * steps.saturating_sub(done) as f64)
}

/// One line for each run. What goes first where the terminal is narrow: process, age, tokens/s.
pub fn status_table(runs: &[Standing], charset: Charset, width: Option<usize>) -> String {
    let row = |run: &Standing| {
        let metadata = &run.metadata;
        let (done, steps) = (metadata.steps_done, metadata.setup.steps);
        [
            metadata.name.clone(),
            state(metadata, run.died).to_owned(),
            format!("{done}/{steps}"),
            if steps == 0 { String::new() } else { format!("{:.0} %", 100.0 * done as f64 / steps as f64) },
            optional(run.left, format::duration),
            optional(metadata.train_loss.last, format::loss),
            optional(metadata.tokens_per_s, format::short),
            format::duration(run.age),
            optional(run.process, |pid| pid.to_string()),
        ]
    };
    let header = ["run", "state", "step", "done", "left", "loss", "tokens/s", "age", "process"];
    let goes = &["process", "age", "tokens/s", "done", "state"];
    Sheet { header, rows: runs.iter().map(row).collect(), numbers: 2, goes }.text(charset, width)
}

/// One line for each GPU. What goes first where the terminal is narrow: power, name, temperature.
pub fn gpu_table(gpus: &[Gpu], charset: Charset, width: Option<usize>) -> String {
    if gpus.is_empty() {
        return tables::plain("NVML finds no GPU\n".to_owned(), charset);
    }
    let row = |gpu: &Gpu| {
        let [busy, memory, celsius, watts] = gpu_figures(gpu);
        [gpu.index.to_string(), gpu.name.clone(), busy, memory, celsius, watts]
    };
    let header = ["GPU", "name", "busy", "memory", "temperature", "power"];
    let rows = gpus.iter().map(row).collect();
    Sheet { header, rows, numbers: 2, goes: &["power", "name", "temperature"] }.text(charset, width)
}

/// Use, memory, temperature and power of a GPU, each empty where it does not tell.
pub fn gpu_figures(gpu: &Gpu) -> [String; 4] {
    [
        optional(gpu.busy, |percent| format!("{percent} %")),
        optional(gpu.memory, |(used, all)| format!("{} of {}", format::bytes(used), format::bytes(all))),
        optional(gpu.celsius, |celsius| format!("{celsius} C")),
        optional(gpu.watts, |watts| {
            format!("{watts:.0} W{}", optional(gpu.watts_limit, |limit| format!(" of {limit:.0} W")))
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_the_last_steps() {
        assert_eq!(seconds_left(&[], 10), None);
        let row = |step: u64| Row { step, step_ms: if step <= 10 { 9e9 } else { 500.0 }, ..Row::default() };
        let rows: Vec<Row> = (1..=60).map(row).collect();
        assert_eq!(seconds_left(&rows, 100), Some(20.0));
        assert_eq!(seconds_left(&rows, 50), Some(0.0), "a run that was made shorter");
    }

    #[test]
    fn what_a_gpu_does_not_tell_is_left_out() {
        let all = Gpu {
            index: 0,
            name: "NVIDIA H100 80GB HBM3".into(),
            busy: Some(98),
            memory: Some((14 << 30, 80 << 30)),
            celsius: Some(61),
            watts: Some(512.4),
            watts_limit: Some(700.0),
        };
        let line = |gpu: &Gpu, width| gpu_table(std::slice::from_ref(gpu), Charset::Ascii, width);
        let full = line(&all, None);
        assert!(full.contains("| 98 % | 14.0 GiB of 80.0 GiB |        61 C | 512 W of 700 W |"), "{full}");
        assert!(!line(&all, Some(60)).contains("512 W") && line(&all, Some(60)).contains("61 C"));
        let silent = Gpu { busy: None, celsius: None, watts_limit: None, ..all };
        let told = line(&silent, None);
        assert!(!told.contains("temperature") && told.contains("| 512 W |"), "{told}");
    }
}
