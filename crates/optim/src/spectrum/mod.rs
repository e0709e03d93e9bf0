//! What the singular values `s` of a matrix `X [m, n]` say about its rank, with `r = min(m, n)`:
//!
//! ```text
//! p_i = s_i / sum s        entropy H = - sum p_i ln p_i
//! effective rank           exp(H)                              (Roy and Vetterli 2007)
//! stable rank              norm_F(X)^2 / norm_2(X)^2
//! SVD entropy              H / ln r
//! ```
//!
//! - [`exact`]: by the singular value decomposition. The reference.
//! - [`by_eigenvalues`]: from the eigenvalues of the Gram matrix (`X X^T`, or `X^T X` where X is tall), found on the
//!   host. The Gram matrix is f32, so that singular values below 1e-4 of the largest are noise.
//! - [`by_quadrature`]: stochastic Lanczos quadrature on the Gram matrix, for a GPU: see [`rules`].
//! - [`spectrum`]: the cheaper of the last two.

mod cuda;
mod lanczos;
mod rules;

use rayon::prelude::*;
use tensor::linalg::{self, Factor, matmul};
use tensor::{DType, Device, Error, Tensor};

use crate::error::Result;
use crate::ortho::normalized;

pub(crate) use cuda::SOURCE;

/// Ranks of one matrix. All are 0 for a matrix of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spectrum {
    /// Effective rank, between 1 and r.
    pub erank: f64,
    /// Stable rank, between 1 and r.
    pub stable_rank: f64,
    /// SVD entropy, between 0 and 1: 1 where all singular values are equal.
    pub entropy: f64,
}

/// Sides up to this go by eigenvalues on the host also where the matrix is on a GPU.
const SMALL: usize = 128;

/// Lanczos steps of [`spectrum`].
pub const STEPS: usize = 32;

/// Ranks of every member of a bank `[L, m, n]` of f32, estimated: by eigenvalues on the CPU and for small matrices, by
/// quadrature on a GPU. Deterministic. A matrix that is not finite is an error.
pub fn spectrum(x: &Tensor) -> Result<Vec<Spectrum>> {
    let [_, m, n] = bank(x)?;
    if x.device().is_cuda() && m.min(n) > SMALL { by_quadrature(x, STEPS) } else { by_eigenvalues(x) }
}

/// Ranks from all singular values, by the singular value decomposition.
pub fn exact(x: &Tensor) -> Result<Vec<Spectrum>> {
    let [_, m, n] = bank(x)?;
    let values: Vec<f64> = linalg::svd(x)?.s.to_vec()?.into_iter().map(f64::from).collect();
    Ok(values.chunks_exact(m.min(n)).map(Spectrum::of).collect())
}

/// Ranks from the eigenvalues of the Gram matrices.
pub fn by_eigenvalues(x: &Tensor) -> Result<Vec<Spectrum>> {
    let [_, m, n] = bank(x)?;
    let values = linalg::symmetric_eigenvalues(&gram(&normalized(x, DType::F32)?)?)?;
    let root = |values: &[f64]| values.iter().map(|&x| x.max(0.0).sqrt()).collect::<Vec<f64>>();
    Ok(values.chunks_exact(m.min(n)).map(|values| Spectrum::of(&root(values))).collect())
}

/// Ranks by stochastic Lanczos quadrature with so many steps, an even number from 4 to 64. Matrices with no more rows or
/// columns than that go by eigenvalues, which are then cheaper.
pub fn by_quadrature(x: &Tensor, steps: usize) -> Result<Vec<Spectrum>> {
    let [_, m, n] = bank(x)?;
    let r = m.min(n);
    if !(4..=64).contains(&steps) || !steps.is_multiple_of(2) {
        let reason = format!("{steps} Lanczos steps; take an even number from 4 to 64");
        return Err(Error::Shape { op: "spectrum", reason }.into());
    }
    if r <= steps {
        return by_eigenvalues(x);
    }
    let members = match x.device() {
        Device::Cpu => lanczos::quadrature(&gram(&normalized(x, DType::F32)?)?, steps)?,
        Device::Cuda(gpu) => cuda::quadrature(gpu, &gram(&cuda::scaled(gpu, x)?)?, steps)?,
    };
    let one = |(i, member): (usize, &rules::Member)| {
        if member.trace.is_finite() {
            return Ok(member.spectrum(r));
        }
        let reason = format!("matrix {i} of the bank has entries that are not finite");
        Err(Error::Linalg { what: "spectrum", reason }.into())
    };
    members.par_iter().enumerate().map(one).collect()
}

impl Spectrum {
    /// From all singular values.
    pub fn of(values: &[f64]) -> Self {
        let (sum, square) = (values.iter().sum::<f64>(), values.iter().map(|s| s * s).sum::<f64>());
        let max = values.iter().copied().fold(0.0, f64::max);
        if max == 0.0 {
            return Spectrum::default();
        }
        let share = |s: &f64| if *s > 0.0 { -(s / sum) * (s / sum).ln() } else { 0.0 };
        Spectrum::from_entropy(values.iter().map(share).sum(), square / (max * max), values.len())
    }

    fn from_entropy(entropy: f64, stable_rank: f64, r: usize) -> Self {
        let most = (r as f64).ln();
        let entropy = entropy.clamp(0.0, most);
        Spectrum {
            erank: entropy.exp(),
            stable_rank: stable_rank.clamp(1.0, r as f64),
            // The one singular value of a vector is as large as any other.
            entropy: if r > 1 { entropy / most } else { 1.0 },
        }
    }
}

fn bank(x: &Tensor) -> Result<[usize; 3]> {
    match *x.shape() {
        [l, m, n] if l * m * n > 0 && x.dtype() == DType::F32 => Ok([l, m, n]),
        _ => {
            let reason = format!("{x:?} is no bank of f32 matrices");
            Err(Error::Shape { op: "spectrum", reason }.into())
        }
    }
}

/// `[L, r, r]` in f32: `X X^T`, or `X^T X` where X is tall.
fn gram(x: &Tensor) -> Result<Tensor> {
    let [l, m, n] = [0, 1, 2].map(|axis| x.shape()[axis]);
    let r = m.min(n);
    let gram = x.device().empty(&[l, r, r], DType::F32)?;
    let x = Factor::from(x);
    if m <= n {
        matmul(&gram, false, 1.0, x, x.t())?;
    } else {
        matmul(&gram, false, 1.0, x.t(), x)?;
    }
    Ok(gram)
}
