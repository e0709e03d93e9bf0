//! What a step can tell about itself.
//!
//! | name | what |
//! |---|---|
//! | `update_rms.matrices`, `.rest` | root mean square of the step asked for, by rule |
//! | `weight_rms.matrices`, `.rest` | of the weights after it |
//! | `update_survival` | norm of what the weights of record really moved over the norm asked for; `.matrices`, `.rest`: by rule |
//! | `unchanged_share` | share of weights that did not change |
//! | `noise_added`, `noise_skipped` | matrices that got noise, and that the adaptive trigger left alone |
//! | `ortho_failures` | updates that came out of the orthogonaliser not finite, by bank; must read 0 |
//! | `ortho_deficient` | matrices that polar or svd found to be rank-deficient |
//! | `orth_error` | worst [`ortho::error`] of one factor of each bank (of each kind of tile) |
//! | `erank`, `stable_rank` | of the momenta, mean over all matrices (see [`spectrum`](crate::spectrum)) |
//! | `weight_entropy` | SVD entropy of the weights, mean over all matrices |
//!
//! The last four take a spectrum or a product a matrix and come with [`Watch::Full`] alone.

use tensor::params::Params;
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

/// What an optimizer has that diagnostics tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Weights of the matrix rule.
    Matrices,
    /// Other weights.
    Rest,
    /// Noise.
    Noise,
    /// An orthogonaliser that finds the rank of a matrix.
    Ranks,
}

/// What the rules found in one step; on a GPU partly sums that a step which is launched again renews.
pub struct Findings {
    watch: Watch,
    /// Whether the rule at work is the matrix rule.
    matrices: bool,
    changes: Vec<(bool, Pending)>,
    /// On a GPU, four sums for each change that is not done: `[.., 4]`.
    sums: Option<Tensor>,
    noise_added: usize,
    noise_skipped: usize,
    deficient: usize,
    orth_error: f32,
    momenta: Vec<Spectrum>,
    weights: Vec<Spectrum>,
}

impl Findings {
    /// Names in order.
    pub(crate) fn columns(watch: Watch, sources: &[Source]) -> Vec<&'static str> {
        use Source::{Matrices, Noise, Ranks, Rest};
        let (off, cheap) = (Watch::Off, Watch::Cheap);
        let table: [(Watch, Option<Source>, &[&'static str]); 7] = [
            (
                off,
                Some(Matrices),
                &["update_rms.matrices", "weight_rms.matrices", "update_survival.matrices"],
            ),
            (off, Some(Rest), &["update_rms.rest", "weight_rms.rest", "update_survival.rest"]),
            (off, None, &["update_survival", "unchanged_share"]),
            (off, Some(Noise), &["noise_added", "noise_skipped"]),
            (off, Some(Matrices), &["ortho_failures"]),
            (off, Some(Ranks), &["ortho_deficient"]),
            (cheap, Some(Matrices), &["orth_error", "erank", "stable_rank", "weight_entropy"]),
        ];
        let has = |source: Option<Source>| source.is_none_or(|source| sources.contains(&source));
        table
            .iter()
            .filter(|(beyond, source, _)| watch > *beyond && has(*source))
            .flat_map(|(.., names)| names.iter().copied())
            .collect()
    }

    /// For a step of all weights of `params`.
    pub(crate) fn new(watch: Watch, params: &Params) -> Result<Self> {
        let (device, most) = (params.device(), params.specs().len());
        let sums = if watch != Watch::Off && device.is_cuda() {
            Some(device.zeros(&[most, 4], DType::F32)?)
        } else {
            None
        };
        Ok(Findings {
            watch,
            matrices: false,
            changes: Vec::new(),
            sums,
            noise_added: 0,
            noise_skipped: 0,
            deficient: 0,
            orth_error: 0.0,
            momenta: Vec::new(),
            weights: Vec::new(),
        })
    }

    /// The rows of sums that are still free.
    pub(crate) fn rows(&self) -> Option<Tensor> {
        let used = self.changes.len();
        self.sums.as_ref().map(|sums| sums.range(used, sums.shape()[0] - used))
    }

    /// How much was measured.
    pub(crate) fn watch(&self) -> Watch {
        self.watch
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

    /// Takes down a bank of factors as the orthogonaliser gave them, so many of which were rank-deficient.
    pub(crate) fn factor(&mut self, factors: &Tensor, deficient: usize) -> Result<()> {
        self.deficient += deficient;
        if self.watch == Watch::Full {
            self.orth_error = self.orth_error.max(ortho::error(&in_f32(&factors.range(0, 1))?)?);
        }
        Ok(())
    }

    /// Looks closely at a bank's momenta and weights.
    pub(crate) fn look(&mut self, momenta: &Tensor, weights: &Tensor) -> Result<()> {
        self.momenta.extend(spectrum::spectrum(momenta)?);
        self.weights.extend(spectrum::spectrum(&in_f32(weights)?)?);
        Ok(())
    }

    /// The values of `columns`, waiting for what a GPU still works on.
    pub(crate) fn values(&self, columns: &[&'static str]) -> Result<Vec<(&'static str, f64)>> {
        let (mut matrices, mut rest) = (Change::default(), Change::default());
        let mut failures = 0;
        let sums = self.sums.as_ref().map_or(Ok(Vec::new()), Tensor::to_vec)?;
        for (row, (of_matrices, change)) in self.changes.iter().enumerate() {
            let change = match change {
                Pending::Done(change) => *change,
                Pending::Row { count } => Change::of(&sums[4 * row..], *count),
            };
            failures += usize::from(*of_matrices && !change.asked.is_finite());
            if *of_matrices { matrices += change } else { rest += change }
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
            "ortho_failures" => failures as f64,
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

/// A bf16 tensor in f32, any other as it is.
pub(crate) fn in_f32(x: &Tensor) -> Result<Tensor> {
    Ok(if x.dtype() == DType::BF16 { x.cast(DType::F32)? } else { x.clone() })
}
