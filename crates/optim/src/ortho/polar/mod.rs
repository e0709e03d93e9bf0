//! The polar factor to f32 by matrix products alone.
//!
//! Odd quintics `X <- (a I + b R + c R^2) X`, with `R = X X^T` of the smaller side, in phases ([`schedule`]). After a phase
//! `norm_F(R - I)` of every member tells whether another is needed; where it is small, one step
//! `X <- X + (-E/2 + 3/8 E^2) X` with `E = R - I` finishes, whose error is of order `E^3`.
//!
//! At the start a member is scaled so that its largest singular value lies in `[r^(-1/8), 1]` (0.44 for r = 768): by
//! `norm_F(R^2)^(1/4)`.
//!
//! **What counts as zero.** All phases together lift a singular value 7e6-fold. Members that are not at 1 then, being
//! rank-deficient to f32, are purified: steps without a linear term send singular values below 0.816 to 0 and the others
//! to 1, until `norm_F(R^2 - R)` is small. So directions above 1e-6 of the largest are kept, those below 1e-7 dropped, and
//! between the two one or the other; the result is always a partial isometry. A matrix of zeros stays zero.
//!
//! On the CPU each member is a bank by itself ([`host`]); on a GPU products run on tensor cores with 22 bits ([`split`]).

mod host;
mod schedule;
mod split;

use tensor::{Device, Tensor};

use super::not_finite;
use crate::error::Result;
use schedule::PHASES;

/// Steps of purification before it counts as failed: a singular value within 1e-6 of 0.816 needs about 30.
const PURIFICATIONS: usize = 60;
/// `norm_F(R^2 - R)` from which one more step of purification ends below 1e-7.
const PURE: f64 = 2e-4;

/// The polar factors of a bank `[L, m, n]`, and how many of its members were rank-deficient (zeros apart).
pub(super) fn factor(input: &Tensor) -> Result<(Tensor, usize)> {
    match input.device() {
        Device::Cpu => host::factor(input),
        Device::Cuda(gpu) => {
            let mut bank = split::Bank::new(gpu, input)?;
            let deficient = converge(&mut bank)?;
            Ok((bank.into_factor(), deficient))
        }
    }
}

/// A bank under iteration: `X`, and its Gram matrix `R`.
trait Iterate {
    /// These steps, and `R` of what becomes of X.
    fn steps(&mut self, steps: &[[f64; 3]]) -> Result<()>;
    /// `norm_F(R - I)` of each member, 0 for one of zeros.
    fn distances(&mut self) -> Result<Vec<f64>>;
    /// The last step.
    fn polish(&mut self) -> Result<()>;
    /// One step of purification; `norm_F(R^2 - R)` of each member before it.
    fn purify(&mut self) -> Result<Vec<f64>>;
    /// Rows of `R`.
    fn rank(&self) -> usize;
}

/// Iterates to the end; how many members had to be purified.
fn converge(bank: &mut impl Iterate) -> Result<usize> {
    // The last step leaves 5/8 norm(E)^3 in the Gram matrix, in one direction at worst: 2e-6 after division by sqrt(r).
    let close = (3.2e-6 * (bank.rank() as f64).sqrt()).cbrt();
    let mut deficient = 0;
    for phase in &PHASES {
        bank.steps(phase.steps)?;
        if phase.may_end {
            let distances = bank.distances()?;
            if worst(&distances)? <= close {
                bank.polish()?;
                return Ok(0);
            }
            deficient = distances.iter().filter(|&&distance| distance > close).count();
        }
    }
    for _ in 0..PURIFICATIONS {
        if worst(&bank.purify()?)? <= PURE {
            return Ok(deficient);
        }
    }
    let reason = format!("singular values did not settle in {PURIFICATIONS} steps of purification; use svd");
    Err(tensor::Error::Linalg { what: "polar", reason }.into())
}

fn worst(values: &[f64]) -> Result<f64> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(member) => Err(not_finite(member)),
        None => Ok(values.iter().copied().fold(0.0, f64::max)),
    }
}
