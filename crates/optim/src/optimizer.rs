//! A whole optimizer: one rule for each bank of a model.

use std::collections::BTreeMap;

use tensor::params::{Bank, Params};

use crate::adamw::{AdamW, AdamWSettings};
use crate::error::Result;
use crate::settings::{Settings, Value};

/// How one bank is stepped. A rule owns the state of its bank.
pub trait Rule: Send {
    /// Moves the bank's weights of record by its gradients at this learning rate.
    fn step(&mut self, bank: &Bank, rate: f32) -> Result<()>;
}

/// Learning rates of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// For the rule of the optimizer's row.
    pub matrices: f32,
    /// For AdamW on the rest.
    pub rest: f32,
}

/// One rule for each bank of a model, and which rate it takes.
pub struct Optimizer {
    rules: Vec<(Box<dyn Rule>, bool)>,
}

impl Optimizer {
    /// The optimizer `name` with `given` values over its defaults, for the banks of `params`.
    pub fn new(
        name: &str,
        given: &BTreeMap<String, Value>,
        rest: &AdamWSettings,
        params: &Params,
    ) -> Result<Self> {
        let row = crate::find(name)?;
        let settings = Settings::new(row.name, row.keys, given)?;
        let rules = params
            .banks()
            .iter()
            .map(|bank| {
                let takes = row.route.takes(bank.role);
                let rule = if takes {
                    (row.build)(&settings, rest, bank)?
                } else {
                    Box::new(AdamW::new(rest, bank)?)
                };
                Ok((rule, takes))
            })
            .collect::<Result<_>>()?;
        Ok(Optimizer { rules })
    }

    /// One step from the gradients in the banks; also renews the weights that the forward pass reads.
    pub fn step(&mut self, params: &Params, rates: Rates) -> Result<()> {
        for ((rule, takes), bank) in self.rules.iter_mut().zip(params.banks()) {
            rule.step(bank, if *takes { rates.matrices } else { rates.rest })?;
            bank.refresh()?;
        }
        Ok(())
    }
}
