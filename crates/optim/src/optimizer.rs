//! A whole optimizer: one rule for each bank of a model, and one step of all of them.
//!
//! A step has four parts, which [`Optimizer::step`] joins: the gradients' norm, what changes from step to step to the
//! device, launches alone, and what came of them:
//!
//! ```text
//! let norm = optimizer.guard(&params)?;
//! optimizer.prepare(rates, norm)?;
//! let findings = optimizer.update(&params, watch)?;     // where optimizer.fixed(watch): captured once, launched again
//! let report = optimizer.finish(&findings, norm)?;
//! ```

use std::collections::BTreeMap;

use tensor::params::{Bank, ParamSpec, Params};
use tensor::random::{Stream, StreamRange, Streams};
use tensor::{DType, Tensor};

use crate::diagnostics::{Findings, Source, Watch};
use crate::error::{Error, Result};
use crate::norm::gradient_norm;
use crate::ortho::bf16;
use crate::record::Record;
use crate::rounding::{Rounding, StateType};
use crate::rows::adamw::{AdamW, AdamWSettings};
use crate::settings::{Settings, Value};
use crate::{Build, kernels, routing};

/// Numbers of a bank that change from step to step.
pub(crate) const SCALARS: usize = 3;

/// How one bank is stepped. A rule owns the state of its bank.
pub trait Rule: Send {
    /// What [`Step::scalars`] holds in step `number` at this learning rate.
    fn scalars(&self, number: u64, rate: f32) -> [f32; SCALARS];

    /// Whether every step launches the same kernels with the same arguments, and waits for nothing between them.
    fn fixed(&self) -> bool;

    /// Moves the bank's weights of record, and what the forward pass reads of them, by its gradients.
    fn step(&mut self, step: &Step, findings: &mut Findings) -> Result<()>;

    /// The state by name: tensors whose first axis counts the members of the bank.
    fn state(&self) -> Vec<(&'static str, &Tensor)>;
}

/// What a rule needs to know of a step.
pub struct Step<'a> {
    /// The bank.
    pub bank: &'a Bank,
    /// A number for each member, made of its name alone: its random streams hang on it.
    pub keys: &'a [u64],
    /// Number of the step, from 1.
    pub number: u64,
    /// The rule's scalars of this step, f32 `[SCALARS]` on the device.
    pub scalars: &'a Tensor,
    /// The members' streams of this step, where anything is rounded at random.
    pub streams: Option<StreamRange<'a>>,
    /// What every rule needs.
    pub common: &'a Common,
    /// How much is measured.
    pub watch: Watch,
}

/// What holds for every rule.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Common {
    /// `AdamW` for the weights that the matrix rule does not take.
    pub adamw: AdamWSettings,
    /// Seed of noise and stochastic rounding.
    pub seed: u64,
    /// Largest global norm of the gradients, which are scaled down to it; 0 leaves them.
    pub clip: f32,
    /// Rounding of bf16 weights of record.
    pub rounding: Rounding,
    /// What momenta and moments of entries are kept in; what there is one of for a whole row is f32 always.
    pub state: StateType,
}

/// Learning rates of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// For the rule of the optimizer's row.
    pub matrices: f32,
    /// For `AdamW` on the rest.
    pub rest: f32,
}

/// What one step found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Global L2 norm of the gradients, before clipping.
    pub grad_norm: f64,
    /// The diagnostics of this step by name, in the order of [`Optimizer::columns`].
    pub values: Vec<(&'static str, f64)>,
}

/// One rule for each bank of a model, and which rate it takes.
pub struct Optimizer {
    rules: Vec<Claim>,
    common: Common,
    steps: u64,
    /// Those of each bank, then the factor of the gradients: `[banks + 1, SCALARS]`.
    scalars: Tensor,
    /// One for each member of each bank, where weights or state are rounded at random.
    streams: Option<Streams>,
    /// What its diagnostics tell of.
    sources: Vec<Source>,
}

struct Claim {
    rule: Box<dyn Rule>,
    /// Whether it is the matrix rule.
    matrices: bool,
    /// Whether it takes the optimizer's own rate.
    own_rate: bool,
    keys: Vec<u64>,
}

impl Optimizer {
    /// The optimizer `name` with `given` values over its defaults, for the banks of `params`.
    pub fn new(
        name: &str,
        given: &BTreeMap<String, Value>,
        common: &Common,
        params: &Params,
    ) -> Result<Self> {
        let row = crate::find(name)?;
        let settings = Settings::new(row.name, &row.keys(), given)?;
        routing::check_claims(params)?;
        let mut sources = Vec::new();
        let mut rules = Vec::new();
        for bank in params.banks() {
            let (rule, matrices): (Box<dyn Rule>, bool) = match row.build {
                Build::AdamW => (Box::new(AdamW::new(common, bank)?), false),
                Build::Matrices(build) => {
                    let plan = build(&settings)?;
                    let spec = &params.specs()[bank.members[0]];
                    if plan.route.takes(bank.role, &bank.shape) {
                        sources.extend(plan.noise.as_ref().map(|_| Source::Noise));
                        sources.extend(plan.ortho.finds_ranks().then_some(Source::Ranks));
                        (Box::new(plan.rule(bank, spec, common.state)?), true)
                    } else {
                        (Box::new(AdamW::new(common, bank)?), false)
                    }
                }
            };
            let keys = bank.members.iter().map(|&i| key_of(&params.specs()[i])).collect();
            sources.push(if matrices { Source::Matrices } else { Source::Rest });
            let own_rate = matrices || matches!(row.build, Build::AdamW);
            rules.push(Claim { rule, matrices, own_rate, keys });
        }
        let scalars = params.device().zeros(&[rules.len() + 1, SCALARS], DType::F32)?;
        let rounds = common.rounding == Rounding::Stochastic
            && params.banks().iter().any(|bank| bank.record == DType::BF16);
        let random = rounds || common.state == StateType::Bf16;
        let streams = random.then(|| Streams::new(params.device(), params.specs().len())).transpose()?;
        let mut optimizer = Optimizer { rules, common: *common, steps: 0, scalars, streams, sources };
        optimizer.draw()?;
        Ok(optimizer)
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The names of all diagnostics that a step with this watch may report, in order.
    pub fn columns(&self, watch: Watch) -> Vec<&'static str> {
        Findings::columns(watch, &self.sources)
    }

    /// One step from the gradients in the banks; also renews the weights that the forward pass reads.
    ///
    /// Gradients that are not finite, or of a norm beyond 1e36, whose sums would not be, are an error that leaves
    /// weights and state as they were. Clipping scales the gradients in place.
    pub fn step(&mut self, params: &Params, rates: Rates, watch: Watch) -> Result<Report> {
        let norm = self.guard(params)?;
        self.prepare(rates, norm)?;
        let findings = self.update(params, watch)?;
        self.finish(&findings, norm)
    }

    /// The global L2 norm of the gradients; the errors of [`Optimizer::step`]. Waits for the device once.
    pub fn guard(&self, params: &Params) -> Result<f64> {
        gradient_norm(params)
    }

    /// Sends to the device what the coming step has of its own: what follows from its number, the rates, and by what
    /// gradients of this norm are clipped.
    pub fn prepare(&mut self, rates: Rates, norm: f64) -> Result<()> {
        let mut scalars = Vec::with_capacity(self.scalars.numel());
        for Claim { rule, own_rate, .. } in &self.rules {
            let rate = if *own_rate { rates.matrices } else { rates.rest };
            scalars.extend(rule.scalars(self.steps + 1, rate));
        }
        let clip = f64::from(self.common.clip);
        let factor = if clip > 0.0 && norm > clip { (clip / norm) as f32 } else { 1.0 };
        scalars.extend([factor; SCALARS]);
        Ok(self.scalars.copy_from_slice(&scalars)?)
    }

    /// Whether [`Optimizer::update`] is the same launches in every step: those of one can be captured, and launched
    /// again after another [`Optimizer::prepare`].
    pub fn fixed(&self, watch: Watch) -> bool {
        watch != Watch::Full && self.rules.iter().all(|claim| claim.rule.fixed())
    }

    /// Moves weights and state by the gradients in the banks, as [`Optimizer::prepare`] told.
    pub fn update(&mut self, params: &Params, watch: Watch) -> Result<Findings> {
        let factor = self.scalars.slot(self.rules.len());
        if self.common.clip > 0.0 {
            params.banks().iter().try_for_each(|bank| kernels::scale(&bank.grad, &factor))?;
        }
        let mut findings = Findings::new(watch, params)?;
        let mut first = 0;
        for (at, (claim, bank)) in self.rules.iter_mut().zip(params.banks()).enumerate() {
            findings.begin(claim.matrices);
            let scalars = &self.scalars.slot(at);
            let (keys, number) = (&claim.keys, self.steps + 1);
            let streams = self.streams.as_ref().map(|streams| streams.range(first, keys.len()));
            first += keys.len();
            let step = Step { bank, keys, number, scalars, streams, common: &self.common, watch };
            claim.rule.step(&step, &mut findings)?;
        }
        Ok(findings)
    }

    /// Counts the step and tells what came of it; waits for the device if anything was watched. `findings` may be those
    /// of an [`Optimizer::update`] that has been launched again since.
    pub fn finish(&mut self, findings: &Findings, norm: f64) -> Result<Report> {
        self.steps += 1;
        // While a GPU is still at work.
        self.draw()?;
        let columns = self.columns(findings.watch());
        Ok(Report { grad_norm: norm, values: findings.values(&columns)? })
    }

    /// The state of every weight, `<weight>.<name>` with its shape; with [`Optimizer::steps`] it is all that a later
    /// [`Optimizer::restore`] needs. State in bf16 is so on a GPU, and in f32 of the same values on the CPU.
    pub fn state(&self, params: &Params) -> Vec<(String, Tensor)> {
        self.parts(params).into_iter().map(|(name, tensor, _)| (name, tensor)).collect()
    }

    /// The same, with what each is kept in.
    fn parts(&self, params: &Params) -> Vec<(String, Tensor, StateType)> {
        let mut all = Vec::new();
        for (claim, bank) in self.rules.iter().zip(params.banks()) {
            for (name, tensor) in claim.rule.state() {
                let of_entries = tensor.shape() == bank.weight.shape();
                let kept = if of_entries { self.common.state } else { StateType::F32 };
                for (slot, &i) in bank.members.iter().enumerate() {
                    all.push((format!("{}.{name}", params.specs()[i].name), tensor.slot(slot), kept));
                }
            }
        }
        all
    }

    /// Continues from a state: `read` gives the values of each name of [`Optimizer::state`], or none where it has no
    /// such name. Values that are more than this optimizer keeps are refused, not rounded.
    pub fn restore(
        &mut self,
        params: &Params,
        steps: u64,
        read: impl Fn(&str) -> Option<Vec<f32>>,
    ) -> Result<()> {
        let mut found = Vec::new();
        for (name, tensor, kept) in self.parts(params) {
            let values = read(&name).ok_or_else(|| Error::State(format!("`{name}` is missing")))?;
            if values.len() != tensor.numel() {
                let sizes = format!("{} values, expected {}", values.len(), tensor.numel());
                return Err(Error::State(format!("`{name}` has {sizes}")));
            }
            if kept == StateType::Bf16 && values.iter().any(|&x| bf16(x).to_bits() != x.to_bits()) {
                let reason =
                    "holds values that bf16 does not: it was written with state in f32, continue with that";
                return Err(Error::State(format!("`{name}` {reason}")));
            }
            found.push((tensor, values));
        }
        for (tensor, values) in found {
            tensor.copy_from_slice(&values)?;
        }
        self.steps = steps;
        self.draw()
    }

    /// Sends the random streams of the coming step to the device.
    fn draw(&mut self) -> Result<()> {
        let Some(streams) = &mut self.streams else { return Ok(()) };
        // Apart from the streams of the noise, which go by (seed, step, key).
        let seed = self.common.seed.rotate_left(17) ^ (self.steps + 1);
        let keys = self.rules.iter().flat_map(|claim| &claim.keys);
        Ok(streams.set(keys.map(|&key| Stream::new(seed, !key)).collect())?)
    }
}

impl Step<'_> {
    /// Where the step writes.
    pub(crate) fn record(&self, findings: &Findings) -> Record<'_> {
        let (bank, scalars, watch) = (self.bank, self.scalars, self.watch != Watch::Off);
        let Common { rounding, state, .. } = *self.common;
        Record { bank, rounding, state, streams: self.streams, scalars, watch, rows: findings.rows() }
    }
}

/// A number made of a weight's name (FNV-1a, 64 bit).
fn key_of(spec: &ParamSpec) -> u64 {
    spec.name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use tensor::params::{Init, Role};
    use tensor::{Device, Precision};

    use super::*;

    fn params(precision: Precision) -> Params {
        let spec = |name: &str, shape: &[usize], role| ParamSpec {
            name: name.into(),
            shape: shape.to_vec(),
            role,
            out_axis: 0,
            segments: vec![],
            init: Init::Zeros,
        };
        let specs = vec![
            spec("wide", &[6, 10], Role::Matrix),
            spec("tall", &[9, 5], Role::Matrix),
            spec("vector", &[7], Role::Vector),
        ];
        let params = Params::new(&Device::Cpu, precision, specs).unwrap();
        for (i, spec) in params.specs().iter().enumerate() {
            let mut values = vec![0.0; spec.numel()];
            Stream::new(1, i as u64).fill_normal(&mut values, 0.1);
            params.set_weight(i, &values).unwrap();
        }
        params
    }

    /// Two optimizers step side by side; one of them is told the number of its first step in every update, as launches
    /// are that were captured then.
    #[test]
    fn a_fixed_step_learns_of_its_number_from_what_was_prepared_alone() {
        let mut fixed = 0;
        let random = [
            (Precision::F32, Rounding::Nearest, StateType::F32),
            (Precision::Bf16, Rounding::Stochastic, StateType::Bf16),
        ];
        for (row, ortho) in crate::ALL.iter().flat_map(|row| [(row, ""), (row, "newton-schulz")]) {
            let mut keys = BTreeMap::new();
            if !ortho.is_empty() && row.keys().iter().any(|key| key.name == "ortho") {
                keys.insert("ortho".to_owned(), Value::Word(ortho.to_owned()));
            }
            for (precision, rounding, state) in random {
                let common = Common { clip: 0.5, rounding, state, ..Common::default() };
                let [first, second] = [(); 2].map(|()| {
                    let params = params(precision);
                    let optimizer = Optimizer::new(row.name, &keys, &common, &params).unwrap();
                    (params, optimizer)
                });
                assert!(!first.1.fixed(Watch::Full));
                if first.1.fixed(Watch::Cheap) {
                    fixed += 1;
                    assert!(same(first, second), "{} {ortho} {state:?}", row.name);
                }
            }
        }
        assert!(fixed >= 24, "only {fixed} are fixed");
    }

    fn same((plain, mut first): (Params, Optimizer), (captured, mut second): (Params, Optimizer)) -> bool {
        let mut same = true;
        for t in 1..=4u64 {
            let rates = Rates { matrices: 0.1 / t as f32, rest: 0.01 * t as f32 };
            for params in [&plain, &captured] {
                for i in 0..params.specs().len() {
                    let mut values = vec![0.0; params.specs()[i].numel()];
                    Stream::new(1 + t, i as u64).fill_normal(&mut values, 0.1 * t as f32);
                    params.get(i).grad.copy_from_slice(&values).unwrap();
                }
            }
            let report = first.step(&plain, rates, Watch::Cheap).unwrap();
            let norm = second.guard(&captured).unwrap();
            second.prepare(rates, norm).unwrap();
            second.steps = 0;
            let findings = second.update(&captured, Watch::Cheap).unwrap();
            second.steps = t - 1;
            same &= second.finish(&findings, norm).unwrap() == report;
            let weights = |params: &Params| -> Vec<u32> {
                (0..3).flat_map(|i| params.weight(i).unwrap()).map(f32::to_bits).collect()
            };
            same &= weights(&plain) == weights(&captured);
        }
        same
    }
}
