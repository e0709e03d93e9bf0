//! `muon lab replay`: an optimizer over the gradients of a recorded trace, to hold against another implementation.
//!
//! A trace holds, all f32, `<name>.0` (the start), `<name>.grad.<t>` for the steps `t = 1, 2, ...` and `rate` (one
//! learning rate a step), and may hold the golden `<name>.<t>`. A tensor with two axes is a matrix `[out, in]`, one with
//! one axis a vector, which goes to AdamW at its own rate unless the optimizer is `adamw`.

use std::path::{Path, PathBuf};

use clap::Args;
use optim::{Optimizer, Rates, Watch};
use tensor::Device;
use tensor::params::{Init, ParamSpec, Params, Role};
use train::recipe::{self, Resolved, Setting, Sources};

use super::tensors::{self, Tensors};
use crate::args::{key_value, setting};
use crate::error::BadFile;
use crate::machine::Found;
use crate::output::Page;
use crate::progress::Work;

/// Flags of `lab replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Name of the optimizer (see `muon optimizers`)
    #[arg(long, value_name = "NAME")]
    optimizer: String,
    /// Set a key of the optimizer, such as momentum=0.9 or adamw.lr=1e-3, or any other of a recipe, such as
    /// train.precision=bf16; may be given many times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A safetensors file with `<name>.0`, `<name>.grad.<t>` and `rate`
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Where to write `<name>.<t>` for every step
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// What stands in the recipe of a replay unless set: f32, and AdamW at the rate of the published runs.
const DEFAULTS: [(&str, &str); 2] = [("train.precision", "f32"), ("optimizer.adamw.lr", "3e-4")];

/// A trace, checked.
struct Trace {
    specs: Vec<ParamSpec>,
    rates: Vec<f32>,
    tensors: Tensors,
}

/// Steps through the trace; nothing is written unless everything succeeded.
pub fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let mut resolved = resolve(args)?;
    tensors::check_out(&args.out)?;
    let machine = Found::on(Device::parse(&args.device)?)?;
    let device = machine.place.device;
    let precision = resolved.recipe.train.precision.on(device.is_cuda());
    resolved.settle(&machine.flag, precision)?;
    let recipe = resolved.recipe;
    let trace = Trace::read(&args.input)?;
    let params = Params::new(&device, precision, trace.specs.clone())?;
    for (i, spec) in trace.specs.iter().enumerate() {
        params.set_weight(i, trace.values(&spec.name, "0"))?;
    }
    params.refresh()?;
    let mut optimizer =
        Optimizer::new(&args.optimizer, &recipe.optimizer.settings(), &recipe.common(), &params)?;
    let rest = recipe.optimizer.adamw.lr as f32;
    let mut out = Tensors::new();
    let mut progress = Work::new("stepping", trace.rates.len());
    for (step, &matrices) in (1..).zip(&trace.rates) {
        for (i, spec) in trace.specs.iter().enumerate() {
            params.get(i).grad.copy_from_slice(trace.values(&spec.name, &format!("grad.{step}")))?;
        }
        optimizer.step(&params, Rates { matrices, rest }, Watch::Off).map_err(|error| match error {
            optim::Error::NotFinite { weight } => {
                let reason = format!("step {step}: the gradient of {weight} is not finite");
                anyhow::Error::from(BadFile { path: args.input.clone(), reason })
            }
            other => other.into(),
        })?;
        for (i, spec) in trace.specs.iter().enumerate() {
            out.insert(format!("{}.{step}", spec.name), (spec.shape.clone(), params.weight(i)?));
        }
        progress.one_more();
    }
    drop(progress);
    tensors::write(&args.out, &out)?;
    let mut page = Page::default();
    page.table("tensors", &trace.compare(&out))?;
    page.end()
}

/// The recipe that `--optimizer` and `--set` make; a bare key is one of the optimizer.
fn resolve(args: &ReplayArgs) -> anyhow::Result<Resolved> {
    let mut flags: Vec<Setting> = vec![setting("optimizer.name", &args.optimizer, "--optimizer")];
    for text in &args.set {
        let (key, value) = key_value(text)?;
        let sections = ["optimizer.", "train.", "model.", "data.", "run."];
        let whole = sections.iter().any(|section| key.starts_with(section));
        let full = if whole { key.to_string() } else { format!("optimizer.{key}") };
        flags.push(setting(&full, value, &format!("--set {key}")));
    }
    for (key, value) in DEFAULTS {
        if flags.iter().all(|flag| flag.key != key) {
            flags.push(setting(key, value, "lab replay"));
        }
    }
    Ok(recipe::resolve(&Sources { flags: &flags, ..Sources::default() })?)
}

impl Trace {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let tensors = tensors::read(path, |name, _| name == "rate" || step_of(name).is_some())?;
        let fail = |reason: String| BadFile { path: path.to_owned(), reason };
        let (axes, rates) = tensors.get("rate").ok_or_else(|| fail("no tensor `rate`".into()))?;
        if axes.len() != 1 {
            let reason = format!("`rate` is {axes:?}; expected one axis, with one learning rate a step");
            return Err(fail(reason).into());
        }
        let finite = |key: &str| match tensors[key].1.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(fail(format!("`{key}` holds {value}, which is not finite"))),
            None => Ok(()),
        };
        finite("rate")?;
        if rates.is_empty() {
            return Err(fail("`rate` is empty: the trace has nothing to step through".into()).into());
        }
        let last = rates.len();
        let beyond = |key: &&String| {
            key.rsplit_once(".grad.")
                .and_then(|(_, step)| step.parse().ok())
                .is_some_and(|step: usize| step > last)
        };
        if let Some(key) = tensors.keys().find(beyond) {
            return Err(fail(format!("`{key}` has no learning rate: `rate` has {last}, one a step")).into());
        }
        let mut specs = Vec::new();
        for (name, (shape, _)) in
            tensors.iter().filter_map(|(key, value)| Some((key.strip_suffix(".0")?, value)))
        {
            let role = match shape.len() {
                1 => Role::Vector,
                2 => Role::Matrix,
                _ => return Err(fail(format!("`{name}.0` is {shape:?}; expected one axis or two")).into()),
            };
            if shape.contains(&0) {
                return Err(fail(format!("`{name}.0` is {shape:?}, which holds no number")).into());
            }
            finite(&format!("{name}.0"))?;
            for step in 1..=last {
                let key = format!("{name}.grad.{step}");
                let (found, _) = tensors
                    .get(&key)
                    .ok_or_else(|| fail(format!("no tensor `{key}`, but `rate` has {last} steps")))?;
                if found != shape {
                    return Err(fail(format!("`{key}` is {found:?}, but `{name}.0` is {shape:?}")).into());
                }
                finite(&key)?;
            }
            let (name, shape) = (name.to_string(), shape.clone());
            specs.push(ParamSpec { name, shape, role, out_axis: 0, segments: Vec::new(), init: Init::Zeros });
        }
        if specs.is_empty() {
            let reason = "no tensor `<name>.0`: the trace has nothing to step through".into();
            return Err(fail(reason).into());
        }
        Ok(Trace { specs, rates: rates.clone(), tensors })
    }

    /// The values of `<name>.<what>`, which [`Trace::read`] found.
    fn values(&self, name: &str, what: &str) -> &[f32] {
        &self.tensors[&format!("{name}.{what}")].1
    }

    /// A line for each tensor: how far it moved and, where the trace says where to, the worst difference from that
    /// relative to the distance moved until then.
    fn compare(&self, out: &Tensors) -> Vec<[String; 5]> {
        let head = ["tensor", "shape", "moved", "worst difference / moved", "at step"].map(String::from);
        let mut rows = vec![head];
        for ParamSpec { name, shape, .. } in &self.specs {
            let start = self.values(name, "0");
            let worst = (1..=self.rates.len())
                .filter_map(|step| {
                    let key = format!("{name}.{step}");
                    let (_, golden) = self.tensors.get(&key).filter(|(found, _)| found == shape)?;
                    let moved = distance(golden, start);
                    let off = distance(golden, &out[&key].1);
                    Some((if off == 0.0 { 0.0 } else { off / moved }, step))
                })
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let moved = distance(start, &out[&format!("{name}.{}", self.rates.len())].1);
            let (off, step) = worst.map_or(("no golden values".into(), String::new()), |(off, step)| {
                (format!("{off:.1e}"), step.to_string())
            });
            rows.push([name.clone(), format!("{shape:?}"), format!("{moved:.4e}"), off, step]);
        }
        rows
    }
}

/// The number that the name of a tensor of a trace ends in.
fn step_of(name: &str) -> Option<usize> {
    name.rsplit_once('.')?.1.parse().ok()
}

/// Euclidean distance.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}
