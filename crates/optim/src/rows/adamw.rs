//! AdamW (Loshchilov and Hutter 2019): Adam with decoupled weight decay.
//!
//! ```text
//! m <- b1 m + (1 - b1) g          v <- b2 v + (1 - b2) g^2
//! w <- w - rate (decay w + (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps))
//! ```

use tensor::Tensor;
use tensor::params::Bank;

use crate::diagnostics::Findings;
use crate::error::Result;
use crate::optimizer::{Common, Rule, SCALARS, Step};
use crate::record::AdamWConstants;
use crate::{Build, LrHint, Row};

/// The row of `adamw`: AdamW for all weights, with the settings of the `[optimizer.adamw]` section and the
/// optimizer's own learning rate.
pub(crate) const ROW: Row = Row {
    name: "adamw",
    about: "AdamW on every weight",
    own: &[],
    lr: LrHint::AdamW,
    state_bytes: 8,
    build: Build::AdamW,
};

/// Hyperparameters of AdamW besides the learning rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    /// Decay rates of the two moments.
    pub betas: (f32, f32),
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

impl std::default::Default for AdamWSettings {
    fn default() -> Self {
        AdamWSettings { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.01 }
    }
}

/// AdamW on one bank.
pub(crate) struct AdamW {
    settings: AdamWSettings,
    first: Tensor,
    second: Tensor,
}

impl AdamW {
    pub(crate) fn new(common: &Common, bank: &Bank) -> Result<Self> {
        let device = bank.weight.device();
        let zeros = || device.zeros(bank.weight.shape(), common.state.stored(device));
        Ok(AdamW { settings: common.adamw, first: zeros()?, second: zeros()? })
    }
}

impl Rule for AdamW {
    fn scalars(&self, number: u64, rate: f32) -> [f32; SCALARS] {
        let AdamWSettings { betas: (b1, b2), weight_decay, .. } = self.settings;
        let correct = |beta: f32| 1.0 - f64::from(beta).powf(number as f64);
        [rate * weight_decay, (f64::from(rate) / correct(b1)) as f32, (1.0 / correct(b2).sqrt()) as f32]
    }

    fn fixed(&self) -> bool {
        true
    }

    fn step(&mut self, step: &Step, findings: &mut Findings) -> Result<()> {
        let AdamWSettings { betas: (b1, b2), eps, .. } = self.settings;
        let constants = AdamWConstants { b1, b2, eps };
        let changes = step.record(findings).adamw(&self.first, &self.second, constants)?;
        findings.moved(changes);
        Ok(())
    }

    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("first_moment", &self.first), ("second_moment", &self.second)]
    }
}
