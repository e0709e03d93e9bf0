//! `muon bench optim`: the orthogonalisers on all matrices of a model at once, as an optimizer's step has them, and whole
//! steps. How near each result is to the polar factor stands beside its time.

use std::collections::BTreeMap;
use std::time::Instant;

use clap::Args;
use models::Model;
use optim::ortho::{self, Method, Ortho, measure};
use optim::{Common, Optimizer, Rates, Value, Watch};
use serde_json::json;
use tensor::params::Role;
use tensor::{DType, Device, Precision, Tensor};

use super::{banks, median, range_ms, zoo};
use crate::error::Usage;
use crate::output::Page;
use crate::progress::Work;

/// Flags of `bench optim`.
#[derive(Debug, Args)]
pub struct OptimArgs {
    /// A preset, or a folder with config.json
    #[arg(long, value_name = "PRESET|DIR", default_value = "granite-nano")]
    model: String,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Give the matrices singular values in equal ratios down to 1/X, X from 1; unset, their entries are normal
    #[arg(long, value_name = "X", value_parser = condition)]
    condition: Option<f32>,
    /// Time the singular value decomposition too, once
    #[arg(long)]
    svd: bool,
    /// Only this orthogonaliser, such as polar or gram; or all whose name contains this, such as jordan
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Time no whole optimizer steps
    #[arg(long)]
    no_steps: bool,
    /// Runs of each method, after two to warm up
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Instead of a model, a zoo of difficult matrices: how exact svd and polar are on this device
    #[arg(long, conflicts_with_all = ["model", "condition", "svd", "only", "no_steps", "repeats"])]
    zoo: bool,
}

/// Times the methods and prints medians.
pub fn run(args: &OptimArgs) -> anyhow::Result<()> {
    let device = Device::parse(&args.device)?;
    if args.zoo {
        return zoo::run(&device);
    }
    let methods = methods(args.svd, args.only.as_deref())?;
    let model = Model::new(super::config(&args.model)?, &device, Precision::F32, 1)?;
    let params = model.params();
    let chosen = params.banks().iter().filter(|bank| bank.role == Role::Matrix);
    for (i, bank) in chosen.clone().enumerate() {
        let shape = [bank.members.len(), bank.shape[0], bank.shape[1]];
        let x = match args.condition {
            Some(condition) => banks::geometric(&device, shape, 7 * i as u64, condition)?,
            None => banks::gaussian(&device, shape, i as u64)?,
        };
        x.cast_into(&bank.grad)?;
    }
    let inputs: Vec<&Tensor> = chosen.map(|bank| &bank.grad).collect();
    let shapes: Vec<String> = inputs.iter().map(|x| shape(x)).collect();
    let spectrum = match args.condition {
        Some(condition) => format!("geometric spectra of condition {condition:e}"),
        None => "normal entries".into(),
    };
    let machine = crate::machine::Found::on(device.clone())?;
    let (place, flag) = (&machine.place.name, &machine.flag);
    let mut page = Page::default();
    let matrices = shapes.join(", ");
    page.add(
        "setup",
        json!({ "model": args.model, "matrices": matrices, "spectrum": spectrum, "machine": place, "device": flag }),
        &format!("{}: {matrices}; {spectrum}; on {place} ({flag})", args.model),
    )?;

    let head = ["orthogonaliser", "ms", "range", "TFLOP/s", "orthogonality", "asymmetry"];
    let mut rows = vec![head.map(String::from)];
    let mut progress = Work::new("timing", methods.len() + if args.no_steps { 0 } else { STEPS.len() });
    for (name, method) in methods {
        let exact = matches!(method.method, Method::Svd { .. });
        let (runs, warm) = if exact { (1, 0) } else { (args.repeats, 2) };
        let mut results = Vec::new();
        let times = time(&device, runs, warm, || {
            results.clear();
            for x in &inputs {
                results.push(method.apply(x)?);
            }
            Ok(())
        })?;
        let (orthogonality, asymmetry) = quality(&inputs, &results)?;
        let work = work(&method.method, &inputs);
        rows.push([
            name,
            format!("{:.3}", 1e3 * median(&times)),
            range_ms(&times),
            work.map_or(String::new(), |work| format!("{:.1}", work / median(&times) / 1e12)),
            format!("{orthogonality:.1e}"),
            format!("{asymmetry:.1e}"),
        ]);
        progress.one_more();
    }
    progress.aside(|| page.table("orthogonalisers", &rows))?;
    if args.no_steps {
        return page.end();
    }
    let head = ["step of all weights", "ms", "range"];
    let mut rows = vec![head.map(String::from)];
    for (name, keys) in STEPS {
        let words: Vec<&str> = keys.iter().map(|(_, word)| *word).collect();
        let keys: BTreeMap<String, Value> =
            keys.iter().map(|(key, word)| (key.to_string(), Value::Word(word.to_string()))).collect();
        let mut optimizer = Optimizer::new(name, &keys, &Common::default(), params)?;
        let rates = Rates { matrices: 1e-4, rest: 1e-4 };
        let times = time(&device, args.repeats, 2, || {
            optimizer.step(params, rates, Watch::Off)?;
            Ok(())
        })?;
        rows.push([
            format!("{name} {}", words.join(" ")),
            format!("{:.3}", 1e3 * median(&times)),
            range_ms(&times),
        ]);
        progress.one_more();
    }
    drop(progress);
    page.table("steps", &rows)?;
    page.end()
}

/// Whole steps that are timed: optimizers with keys.
const STEPS: [(&str, &[(&str, &str)]); 7] = [
    ("adamw", &[]),
    ("muon", &[("ortho", "newton-schulz")]),
    ("muon", &[("ortho", "gram")]),
    ("muon", &[("ortho", "polar")]),
    ("block-muon", &[("ortho", "jordan-bf16")]),
    ("block-muon", &[("ortho", "newton-schulz")]),
    ("nolah", &[("ortho", "polar")]),
];

fn condition(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|x: &f32| x.is_finite() && *x >= 1.0);
    number.ok_or_else(|| "takes a number from 1".into())
}

/// What is timed, by name: all, or those that `only` names.
fn methods(svd: bool, only: Option<&str>) -> anyhow::Result<Vec<(String, Ortho)>> {
    let mut words = vec![
        ("newton-schulz", "jordan", 0, DType::BF16),
        ("newton-schulz", "you", 0, DType::BF16),
        ("gram", "jordan", 0, DType::BF16),
        ("gram", "you", 0, DType::BF16),
        ("gram", "polar-express", 5, DType::BF16),
        ("newton-schulz", "jordan", 0, DType::F32),
        ("gram", "jordan", 0, DType::F32),
        ("polar-express", "", 0, DType::F32),
        ("polar", "", 0, DType::F32),
    ];
    if svd {
        words.push(("svd", "", 0, DType::F32));
    }
    // The name of one, such as polar, does not stand for others that contain it.
    let whole = words.iter().any(|(method, ..)| Some(*method) == only);
    if let (true, Some(only)) = (whole, only) {
        words.retain(|(method, ..)| *method == only);
    }
    let named = |(method, coefficients, steps, dtype)| -> anyhow::Result<_> {
        let ortho = Ortho::parse(method, coefficients, steps, dtype)?;
        let count = match &ortho.method {
            Method::NewtonSchulz(steps) | Method::JordanBf16(steps) | Method::Gram(steps) => {
                format!(" x{}", steps.len())
            }
            Method::PolarExpress { steps } => format!(" x{steps}"),
            _ => String::new(),
        };
        let dtype = if dtype == DType::BF16 { "bf16" } else { "f32" };
        let gap = if coefficients.is_empty() { "" } else { " " };
        Ok((format!("{method}{gap}{coefficients}{count}, {dtype}"), ortho))
    };
    let mut all = words.into_iter().map(named).collect::<anyhow::Result<Vec<_>>>()?;
    if let (false, Some(only)) = (whole, only) {
        let known: Vec<String> = all.iter().map(|(name, _)| format!("`{name}`")).collect();
        all.retain(|(name, _)| name.contains(only));
        if all.is_empty() {
            let more = if svd { "" } else { "; and with --svd `svd, f32`" };
            let told = format!(
                "--only {only}: no orthogonaliser has this name; there are {}{more}",
                known.join(", ")
            );
            return Err(Usage(told).into());
        }
    }
    Ok(all)
}

/// Seconds of each run, sorted.
fn time(
    device: &Device,
    runs: u32,
    warm: u32,
    mut work: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for i in 0..runs + warm {
        device.synchronize()?;
        let start = Instant::now();
        work()?;
        device.synchronize()?;
        if i >= warm {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Worst orthogonality and asymmetry of the first members of each bank.
fn quality(inputs: &[&Tensor], results: &[Tensor]) -> anyhow::Result<(f64, f64)> {
    let (mut orthogonality, mut asymmetry) = (0.0f64, 0.0f64);
    for (x, y) in inputs.iter().zip(results) {
        let some = x.shape()[0].min(8);
        let (x, y) = (x.range(0, some), y.range(0, some));
        orthogonality = orthogonality.max(ortho::error(&y.cast(DType::F32)?)?.into());
        asymmetry = measure::asymmetries(&x, &y)?.into_iter().fold(asymmetry, f64::max);
    }
    Ok((orthogonality, asymmetry))
}

/// Floating-point operations of a method with a fixed number of steps, in full products.
fn work(method: &Method, inputs: &[&Tensor]) -> Option<f64> {
    // Products of the Gram matrix or X, and of small matrices: 2 r^2 k and 2 r^3 each.
    let (large, small, square) = match method {
        Method::NewtonSchulz(steps) | Method::JordanBf16(steps) => {
            (2 * steps.len(), steps.len(), steps.len())
        }
        Method::PolarExpress { steps } => (2 * steps, *steps, *steps),
        Method::Gram(steps) => {
            let starts = [0, 2].into_iter().filter(|&start| start < steps.len()).count();
            // R^2 and, but before an end, two for the next R; and Q Z in all but first steps.
            (2 * starts, steps.len() + 2 * (steps.len() - starts) + (steps.len() - starts), steps.len())
        }
        _ => return None,
    };
    let of = |x: &&Tensor| {
        let [l, m, n] = [0, 1, 2].map(|i| x.shape()[i] as f64);
        let (r, k) = (m.min(n), m.max(n));
        let plain = if m.total_cmp(&n).is_eq() && matches!(method, Method::Gram(_)) {
            square as f64 * (4.0 * r * r * k + 2.0 * r * r * r)
        } else {
            large as f64 * 2.0 * r * r * k + small as f64 * 2.0 * r * r * r
        };
        l * plain
    };
    Some(inputs.iter().map(of).sum())
}

fn shape(x: &Tensor) -> String {
    let [l, m, n] = [0, 1, 2].map(|i| x.shape()[i]);
    format!("{l} of {m} x {n}")
}
