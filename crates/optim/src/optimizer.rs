//! A whole optimizer: one rule for each bank of a model, and one step of all of them.

use std::collections::BTreeMap;

use tensor::Tensor;
use tensor::params::{Bank, ParamSpec, Params};
use tensor::random::Stream;

use crate::diagnostics::{Findings, Source, Watch};
use crate::error::{Error, Result};
use crate::norm::gradient_norm;
use crate::record::{Record, Rounding};
use crate::rows::adamw::{AdamW, AdamWSettings};
use crate::settings::{Settings, Value};
use crate::{Build, kernels, routing};

/// How one bank is stepped. A rule owns the state of its bank.
pub trait Rule: Send {
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
    /// Learning rate.
    pub rate: f32,
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
                Build::AdamW => (Box::new(AdamW::new(&common.adamw, bank)?), false),
                Build::Matrices(build) => {
                    let plan = build(&settings)?;
                    let spec = &params.specs()[bank.members[0]];
                    if plan.route.takes(bank.role, &bank.shape) {
                        sources.extend(plan.noise.as_ref().map(|_| Source::Noise));
                        sources.extend(plan.ortho.finds_ranks().then_some(Source::Ranks));
                        (Box::new(plan.rule(bank, spec)?), true)
                    } else {
                        (Box::new(AdamW::new(&common.adamw, bank)?), false)
                    }
                }
            };
            let keys = bank.members.iter().map(|&i| key_of(&params.specs()[i])).collect();
            sources.push(if matrices { Source::Matrices } else { Source::Rest });
            let own_rate = matrices || matches!(row.build, Build::AdamW);
            rules.push(Claim { rule, matrices, own_rate, keys });
        }
        Ok(Optimizer { rules, common: *common, steps: 0, sources })
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
    /// Gradients that are not finite, or of a norm beyond 1e36, whose sums would not be, are an error that leaves weights
    /// and state as they were. Clipping scales the gradients in place.
    pub fn step(&mut self, params: &Params, rates: Rates, watch: Watch) -> Result<Report> {
        let grad_norm = gradient_norm(params)?;
        let clip = f64::from(self.common.clip);
        if clip > 0.0 && grad_norm > clip {
            for bank in params.banks() {
                kernels::scale(&bank.grad, (clip / grad_norm) as f32)?;
            }
        }
        let number = self.steps + 1;
        let mut findings = Findings::default();
        for (claim, bank) in self.rules.iter_mut().zip(params.banks()) {
            let Claim { rule, matrices, own_rate, keys } = claim;
            let rate = if *own_rate { rates.matrices } else { rates.rest };
            findings.begin(*matrices, watch);
            let step = Step { bank, keys, number, rate, common: &self.common, watch };
            rule.step(&step, &mut findings)?;
        }
        self.steps = number;
        let columns = self.columns(watch);
        Ok(Report { grad_norm, values: findings.values(&columns)? })
    }

    /// The state of every weight, `<weight>.<name>` with its shape; with [`Optimizer::steps`] it is all that a later
    /// [`Optimizer::restore`] needs.
    pub fn state(&self, params: &Params) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        for (claim, bank) in self.rules.iter().zip(params.banks()) {
            for (name, tensor) in claim.rule.state() {
                for (slot, &i) in bank.members.iter().enumerate() {
                    all.push((format!("{}.{name}", params.specs()[i].name), tensor.slot(slot)));
                }
            }
        }
        all
    }

    /// Continues from a state: `read` gives the values of each name of [`Optimizer::state`], or none where it has no
    /// such name.
    pub fn restore(
        &mut self,
        params: &Params,
        steps: u64,
        read: impl Fn(&str) -> Option<Vec<f32>>,
    ) -> Result<()> {
        let mut found = Vec::new();
        for (name, tensor) in self.state(params) {
            let values = read(&name).ok_or_else(|| Error::State(format!("`{name}` is missing")))?;
            if values.len() != tensor.numel() {
                let sizes = format!("{} values, expected {}", values.len(), tensor.numel());
                return Err(Error::State(format!("`{name}` has {sizes}")));
            }
            found.push((tensor, values));
        }
        for (tensor, values) in found {
            tensor.copy_from_slice(&values)?;
        }
        self.steps = steps;
        Ok(())
    }
}

impl Step<'_> {
    /// Where the step writes.
    pub(crate) fn record(&self) -> Record<'_> {
        let streams = (self.common.rounding == Rounding::Stochastic).then(|| {
            // Apart from the streams of the noise, which go by (seed, step, key).
            let seed = self.common.seed.rotate_left(17) ^ self.number;
            self.keys.iter().map(|&key| Stream::new(seed, !key)).collect()
        });
        Record { bank: self.bank, streams, watch: self.watch != Watch::Off }
    }
}

/// A number made of a weight's name (FNV-1a, 64 bit).
fn key_of(spec: &ParamSpec) -> u64 {
    spec.name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
