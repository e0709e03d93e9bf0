//! `muon lab kernels`: every operation against its reference on this machine, on a GPU every optimizer too; or only
//! whether every CUDA source compiles.

use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use tensor::check::{self, Case, Outcome};
use tensor::cuda::{Source, compile_verbose};
use tensor::{DType, Device, Precision};

use crate::error::Usage;
use crate::output::{Page, say};
use crate::progress::Work;

/// Flags of `lab kernels`.
#[derive(Debug, Args)]
pub struct KernelsArgs {
    /// auto, cpu, cuda or cuda:N; the CPU is held against plain loops in f64, a GPU against the CPU
    #[arg(long, default_value = "auto")]
    device: String,
    /// Unset, all that the device computes in: f32 on the CPU, all on cuda
    #[arg(long, value_enum)]
    precision: Option<Precisions>,
    /// Only operations whose name contains this
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
    /// Check nothing, but compile every CUDA source for these architectures, and keep the results in the cache of
    /// kernels; needs no GPU
    #[arg(long, value_name = "sm_80,sm_90a", value_delimiter = ',', conflicts_with_all = ["device", "precision", "op"])]
    compile: Vec<String>,
}

/// Precisions to check in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precisions {
    F32,
    Mixed,
    Bf16,
    All,
}

impl Precisions {
    fn list(self) -> &'static [Precision] {
        match self {
            Precisions::F32 => &[Precision::F32],
            Precisions::Mixed => &[Precision::Mixed],
            Precisions::Bf16 => &[Precision::Bf16],
            Precisions::All => &[Precision::F32, Precision::Mixed, Precision::Bf16],
        }
    }
}

/// Prints a table; fails where anything in it does.
pub fn run(args: &KernelsArgs) -> anyhow::Result<()> {
    if args.compile.is_empty() { check_all(args) } else { compile_all(&args.compile) }
}

fn check_all(args: &KernelsArgs) -> anyhow::Result<()> {
    let device = Device::parse(&args.device)?;
    let precisions =
        args.precision.unwrap_or(if device.is_cuda() { Precisions::All } else { Precisions::F32 });
    if !device.is_cuda() && precisions != Precisions::F32 {
        return Err(Usage("the CPU computes in f32 only; use --precision f32 or --device cuda".into()).into());
    }
    let cases = check::cases(&device, args.op.as_deref());
    // On the CPU there is nothing to hold an optimizer to but itself; its tests do that in f64.
    let optimizers = if device.is_cuda() { optim::check::cases() } else { Vec::new() };
    let optimizers: Vec<_> = optimizers
        .into_iter()
        .filter(|case| args.op.as_ref().is_none_or(|op| format!("optimizer {}", case.name()).contains(op)))
        .collect();
    if cases.is_empty() && optimizers.is_empty() {
        return Err(Usage(no_such_operation(&device, args.op.as_deref().unwrap_or_default())).into());
    }
    let start = Instant::now();
    let mut table = Table::default();
    let checks: Vec<_> = precisions
        .list()
        .iter()
        .flat_map(|&precision| cases.iter().map(move |case| (case, precision)))
        .filter(|(case, precision)| case.has_its_own(*precision))
        .collect();
    let mut progress = Work::new("checking", checks.len() + optimizers.len());
    let stopped = checks
        .iter()
        .try_for_each(|(case, precision)| {
            let precision = *precision;
            let outcomes = case
                .check(&device, precision)
                .with_context(|| format!("{} {} in {precision}", case.op(), case.shape()))?;
            table.add(&outcomes, precision);
            progress.one_more();
            anyhow::Ok(())
        })
        .and_then(|()| {
            optimizers.iter().try_for_each(|case| {
                let outcomes = case.check(&device).with_context(|| case.name())?;
                table.add(&outcomes, case.precision());
                progress.one_more();
                Ok(())
            })
        });
    drop(progress);
    let mut page = Page::default();
    page.table("checks", &table.rows())?;
    if stopped.is_ok() {
        let seconds = start.elapsed().as_secs_f64();
        let (cases, tensors) = (table.cases, table.tensors);
        let value =
            json!({ "cases": cases, "tensors": tensors, "failing": table.failing, "seconds": seconds });
        page.add("sum", value, &format!("{cases} cases, {tensors} tensors on {device:?} in {seconds:.1} s"))?;
    }
    if stopped.is_ok() && table.failing == 0 {
        say("all within their bounds, and all repeat bit for bit")?;
    }
    page.end()?;
    stopped?;
    table.verdict()
}

fn no_such_operation(device: &Device, name: &str) -> String {
    let mut names: Vec<&str> = check::cases(device, None).iter().map(Case::op).collect();
    names.sort_unstable();
    names.dedup();
    format!("no operation is called `{name}`; there are {}", names.join(", "))
}

/// One row a case, and one a failing tensor.
#[derive(Default)]
struct Table {
    rows: Vec<[String; 7]>,
    cases: usize,
    tensors: usize,
    failing: usize,
}

impl Table {
    fn add(&mut self, outcomes: &[Outcome], precision: Precision) {
        self.cases += 1;
        self.tensors += outcomes.len();
        self.failing += outcomes.iter().filter(|outcome| !outcome.ok()).count();
        self.rows.extend(shown(outcomes).into_iter().map(|outcome| row(outcome, precision)));
    }

    /// The rows under their header.
    fn rows(&self) -> Vec<[String; 7]> {
        let head = ["operation", "shape", "precision", "tensor", "error", "bound", ""].map(String::from);
        [&[head], self.rows.as_slice()].concat()
    }

    fn verdict(&self) -> anyhow::Result<()> {
        match self.failing {
            0 => Ok(()),
            count => bail!("{count} of {} tensors are beyond their bound or do not repeat", self.tensors),
        }
    }
}

/// All failing tensors of a case, or else the one that is nearest to its bound.
fn shown(outcomes: &[Outcome]) -> Vec<&Outcome> {
    let failing: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.ok()).collect();
    if !failing.is_empty() {
        return failing;
    }
    // A bound of 0 is for results that must be exact: an error within it is 0 too.
    let share = |outcome: &Outcome| if outcome.bound > 0.0 { outcome.error / outcome.bound } else { 0.0 };
    outcomes.iter().max_by(|a, b| share(a).total_cmp(&share(b))).into_iter().collect()
}

fn row(outcome: &Outcome, precision: Precision) -> [String; 7] {
    let verdict = match (outcome.error <= outcome.bound, outcome.repeatable) {
        (true, true) => "ok",
        (false, true) => "ABOVE",
        (true, false) => "DIFFERS FROM RUN TO RUN",
        (false, false) => "ABOVE, DIFFERS FROM RUN TO RUN",
    };
    [
        outcome.op.to_string(),
        outcome.shape.clone(),
        precision.to_string(),
        outcome.tensor.clone(),
        format!("{:.1e}", outcome.error),
        format!("{:.0e}", outcome.bound),
        verdict.to_string(),
    ]
}

fn compile_all(archs: &[String]) -> anyhow::Result<()> {
    let sources: Vec<&Source> = tensor::ops::KERNELS.iter().chain(optim::KERNELS).copied().collect();
    let head = ["file", "arch", "type", "kernels", "registers", "spilled", "ms", ""].map(String::from);
    let (mut rows, mut logs) = (vec![head], Vec::new());
    let mut progress = Work::new("compiling", 2 * archs.len() * sources.len());
    for arch in archs {
        for source in &sources {
            for (elem, name) in [(DType::F32, "f32"), (DType::BF16, "bf16")] {
                let start = Instant::now();
                let (log, cells) = match compile_verbose(source, elem, arch) {
                    Ok(compiled) => {
                        tensor::cuda::keep(source, elem, arch, &compiled)?;
                        let warned = compiled.log.contains("warning");
                        let found = Resources::of(&compiled.log).cells();
                        (warned.then_some(compiled.log), found)
                    }
                    Err(tensor::Error::KernelCompile { log, .. }) => {
                        (Some(log), [const { String::new() }; 3])
                    }
                    Err(other) => return Err(other.into()),
                };
                let ms = format!("{:.0}", 1e3 * start.elapsed().as_secs_f64());
                let verdict = if log.is_some() { "FAILED" } else { "ok" };
                logs.extend(log.map(|log| format!("{} {arch} {name}:\n{log}", source.name)));
                let [kernels, registers, spilled] = cells;
                let [file, arch, name] = [source.name, arch, name].map(String::from);
                rows.push([file, arch, name, kernels, registers, spilled, ms, verdict.to_string()]);
                progress.one_more();
            }
        }
    }
    drop(progress);
    let mut page = Page::default();
    page.table("compilations", &rows)?;
    page.add("logs", json!(logs), &logs.join("\n"))?;
    let all = rows.len() - 1;
    if logs.is_empty() {
        say(&format!("{all} compilations, none with an error or a warning"))?;
    }
    page.end()?;
    match logs.len() {
        0 => Ok(()),
        count => bail!("{count} of {all} compilations have an error or a warning, shown above"),
    }
}

/// What the assembler reports of the kernels of a source.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resources {
    kernels: usize,
    /// Of a thread, the most of any kernel.
    registers: usize,
    /// Bytes that a thread stores to or loads from memory for want of registers, all kernels together.
    spilled: usize,
}

impl Resources {
    /// From lines such as `ptxas info : Used 40 registers, ...` and `0 bytes stack frame, 8 bytes spill stores, ...`.
    fn of(log: &str) -> Self {
        let mut found = Resources::default();
        let words: Vec<&str> =
            log.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()).collect();
        for window in words.windows(4) {
            match *window {
                ["Used", count, "registers", _] => {
                    found.kernels += 1;
                    found.registers = found.registers.max(count.parse().unwrap_or(0));
                }
                [count, "bytes", "spill", _] => found.spilled += count.parse().unwrap_or(0),
                _ => {}
            }
        }
        found
    }

    fn cells(&self) -> [String; 3] {
        if self.kernels == 0 {
            return ["unknown", "", ""].map(String::from);
        }
        [self.kernels.to_string(), format!("<= {}", self.registers), format!("{} B", self.spilled)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(tensor: &str, error: f64, bound: f64, repeatable: bool) -> Outcome {
        Outcome { op: "scan", shape: "B1".into(), tensor: tensor.into(), error, bound, repeatable }
    }

    #[test]
    fn a_case_shows_the_tensor_nearest_to_its_bound_or_all_that_fail() {
        let mut outcomes = vec![
            outcome("y", 1e-5, 2e-5, true),
            outcome("dx", 2e-5, 1e-4, true),
            outcome("z", 0.0, 0.0, true),
        ];
        let names = |outcomes: &[Outcome]| -> Vec<String> {
            shown(outcomes).iter().map(|outcome| outcome.tensor.clone()).collect()
        };
        assert_eq!(names(&outcomes), ["y"]);
        outcomes.push(outcome("nan", f64::NAN, 1.0, true));
        outcomes.push(outcome("unsteady", 0.0, 1.0, false));
        assert_eq!(names(&outcomes), ["nan", "unsteady"]);
        assert_eq!(row(&outcomes[3], Precision::Mixed)[6], "ABOVE");
        assert_eq!(row(&outcomes[4], Precision::F32)[6], "DIFFERS FROM RUN TO RUN");
    }

    #[test]
    fn resources_come_from_the_assemblers_log() {
        let log = "ptxas info    : Compiling entry function 'a' for 'sm_90'\n\
            ptxas info    : Function properties for a\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 40 registers, used 1 barriers\n\
            ptxas info    : Function properties for b\n    8 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 255 registers, used 0 barriers, 512 bytes smem\n";
        let found = Resources::of(log);
        assert_eq!(found, Resources { kernels: 2, registers: 255, spilled: 20 });
        assert_eq!(found.cells(), ["2", "<= 255", "20 B"]);
        assert_eq!(Resources::of("").cells(), ["unknown", "", ""]);
    }
}
