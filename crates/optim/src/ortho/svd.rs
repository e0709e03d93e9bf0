//! The polar factor by the singular value decomposition.

use tensor::linalg;
use tensor::{DType, Tensor};

use super::{kernels, not_finite};
use crate::error::Result;

/// Singular values up to this share of the largest count as zero: 4 eps.
const ZERO: f32 = 4.0 * f32::EPSILON;

/// `U_r V_r^T` of the members of a bank, and how many of them were rank-deficient (zeros apart; not counted in f64).
///
/// The bank is scaled by powers of two first, so that no size of its entries overflows or vanishes.
pub(super) fn factor(input: &Tensor, double: bool) -> Result<(Tensor, usize)> {
    let largest = kernels::largest(input)?;
    if let Some(member) = largest.iter().position(|x| !x.is_finite()) {
        return Err(not_finite(member));
    }
    let x = kernels::scaled_by_powers(input, &largest)?;
    if double {
        let factor = linalg::polar_f64(&x.to_vec()?, x.shape())?;
        return Ok((x.device().from_slice(&factor, x.shape())?, 0));
    }
    let parts = linalg::svd(&x)?;
    kernels::drop_columns(&parts.u, &parts.s, ZERO)?;
    let out = x.device().empty(x.shape(), DType::F32)?;
    linalg::matmul(&out, false, 1.0, &parts.u, &parts.vt)?;
    let rank = parts.s.cols();
    let drops = |s: &&[f32]| s[0] > 0.0 && s[rank - 1] <= ZERO * s[0];
    let deficient = parts.s.to_vec()?.chunks_exact(rank).filter(drops).count();
    Ok((out, deficient))
}
