//! What a step can tell about itself.
//!
//! | name | what |
//! |---|---|
//! | `update_rms.matrices`, `.rest` | root mean square of the step asked for, by rule |
//! | `weight_rms.matrices`, `.rest` | of the weights after it |
//! | `update_survival` | norm of what the weights of record really moved over the norm asked for; `.matrices`, `.rest`: by rule |
//! | `unchanged_share` | share of weights that did not change |
//! | `noise_added`, `noise_skipped` | matrices that got noise, and that the adaptive trigger left alone |
//! | `ortho_deficient` | matrices that the orthogonaliser found to be rank-deficient |
//! | `orth_error` | worst [`ortho::error`] of one update of each bank |
//! | `erank`, `stable_rank` | of the momenta, mean over all matrices (see [`spectrum`](crate::spectrum)) |
//! | `weight_entropy` | SVD entropy of the weights, mean over all matrices |
//!
//! The last four take a spectrum or a product a matrix and come with [`Watch::Full`] alone.

use tensor::{DType, Tensor};

use crate::error::Result;
use crate::ortho;
use crate::record::{Change, Pending};
use crate::spectrum::{self, Spectrum};

/// How much a step measures about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watch {
    /// The gradient norm alone.
    Off,
    /// Sums that the step comes by anyway.
    Cheap,
    /// Spectra and orthogonality too.
    Full,
}

/// What the rules found in one step.
#[derive(Default)]
pub struct Findings {
    /// Whether the rule at work is the matrix rule.
    matrices: bool,
    changes: Vec<(bool, Pending)>,
    noise_added: usize,
    noise_skipped: usize,
    deficient: usize,
    orth_error: f32,
    momenta: Vec<Spectrum>,
    weights: Vec<Spectrum>,
}

impl Findings {
    pub(crate) fn columns(watch: Watch, matrices: bool, rest: bool, noisy: bool) -> Vec<&'static str> {
        let mut names = Vec::new();
        let mut add = |wanted: bool, more: &[&'static str]| {
            if wanted {
                names.extend_from_slice(more);
            }
        };
        let (cheap, full) = (watch >= Watch::Cheap, watch == Watch::Full);
        add(cheap && matrices, &["update_rms.matrices", "weight_rms.matrices", "update_survival.matrices"]);
        add(cheap && rest, &["update_rms.rest", "weight_rms.rest", "update_survival.rest"]);
        add(cheap, &["update_survival", "unchanged_share"]);
        add(cheap && noisy, &["noise_added", "noise_skipped"]);
        add(cheap && matrices, &["ortho_deficient"]);
        add(full && matrices, &["orth_error", "erank", "stable_rank", "weight_entropy"]);
        names
    }

    pub(crate) fn begin(&mut self, matrices: bool) {
        self.matrices = matrices;
    }

    pub(crate) fn moved(&mut self, changes: Vec<Pending>) {
        let matrices = self.matrices;
        self.changes.extend(changes.into_iter().map(|change| (matrices, change)));
    }

    pub(crate) fn noise(&mut self, added: usize, skipped: usize) {
        self.noise_added += added;
        self.noise_skipped += skipped;
    }

    pub(crate) fn deficient(&mut self, count: usize) {
        self.deficient += count;
    }

    /// Looks closely at a bank: momenta, one of its updates, weights.
    pub(crate) fn look(&mut self, momenta: &Tensor, update: &Tensor, weights: &Tensor) -> Result<()> {
        let update = update.range(0, 1);
        let update = if update.dtype() == DType::BF16 { update.cast(DType::F32)? } else { update };
        self.orth_error = self.orth_error.max(ortho::error(&update)?);
        self.momenta.extend(spectrum::spectrum(momenta)?);
        let weights =
            if weights.dtype() == DType::BF16 { weights.cast(DType::F32)? } else { weights.clone() };
        self.weights.extend(spectrum::spectrum(&weights)?);
        Ok(())
    }

    /// The values of `columns`, waiting for what a GPU still works on.
    pub(crate) fn values(self, columns: &[&'static str]) -> Result<Vec<(&'static str, f64)>> {
        let (mut matrices, mut rest) = (Change::default(), Change::default());
        for (of_matrices, change) in self.changes {
            let change = change.resolve()?;
            if of_matrices { matrices += change } else { rest += change }
        }
        let mut all = matrices;
        all += rest;
        let rms = |square: f64, change: &Change| (square / change.count).sqrt();
        // Where nothing was asked for, nothing is lost.
        let survival = |of: &Change| if of.asked > 0.0 { (of.moved / of.asked).sqrt() } else { 1.0 };
        let mean =
            |of: &[Spectrum], what: fn(&Spectrum) -> f64| of.iter().map(what).sum::<f64>() / of.len() as f64;
        let value = |name: &str| match name {
            "update_rms.matrices" => rms(matrices.asked, &matrices),
            "weight_rms.matrices" => rms(matrices.weight, &matrices),
            "update_rms.rest" => rms(rest.asked, &rest),
            "weight_rms.rest" => rms(rest.weight, &rest),
            "update_survival.matrices" => survival(&matrices),
            "update_survival.rest" => survival(&rest),
            "update_survival" => survival(&all),
            "unchanged_share" => all.unchanged / all.count,
            "noise_added" => self.noise_added as f64,
            "noise_skipped" => self.noise_skipped as f64,
            "ortho_deficient" => self.deficient as f64,
            "orth_error" => f64::from(self.orth_error),
            "erank" => mean(&self.momenta, |s| s.erank),
            "stable_rank" => mean(&self.momenta, |s| s.stable_rank),
            "weight_entropy" => mean(&self.weights, |s| s.entropy),
            other => panic!("no diagnostic `{other}`"),
        };
        Ok(columns.iter().map(|&name| (name, value(name))).collect())
    }
}
