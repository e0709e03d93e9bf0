//! The polar factor to f32 by matrix products alone.
//!
//! Odd quintics `X <- a X + (b A + c A^2) X` with `A = X X^T` move every singular value towards 1 and leave the
//! singular vectors. They are those of Polar Express (Amsel et al. 2025, arXiv 2505.16932, raw coefficients made safe
//! by 1.01), which lift small singular values fastest: all eight, which lift them 6,000-fold, then all but the first
//! again, 800-fold, then twice the last, (1.875, -1.25, 0.375), whose error falls with the third power. Singular
//! values below about 1e-7 of the norm may stay below 1: such a matrix is rank-deficient to f32.

use tensor::linalg::{Factor, matmul};
use tensor::{DType, Tensor};

use crate::error::Result;
use crate::kernels;

/// Coefficients, step by step.
const EXPRESS: [[f64; 3]; 8] = [
    [8.287_212_018_145_63, -23.595_886_519_098_837, 17.300_387_312_530_933],
    [4.107_059_111_542_203, -2.947_849_916_737_910_6, 0.544_843_108_292_660_1],
    [3.948_690_853_482_294_6, -2.908_902_115_962_949, 0.551_819_139_437_013_7],
    [3.318_419_657_370_601_5, -2.488_488_024_314_874, 0.510_048_940_123_72],
    [2.300_652_019_954_817, -1.668_903_984_574_749_3, 0.418_807_311_952_567_3],
    [1.891_301_407_787_398, -1.267_995_827_194_586_8, 0.376_804_089_485_248_35],
    [1.875_001_480_853_447_9, -1.250_001_645_399_948_7, 0.375_000_164_547_424_8],
    [1.875, -1.25, 0.375],
];
/// Divisor of the singular values in all steps but the last two, against rounding above 1.
const SAFETY: f64 = 1.01;
pub(super) fn polar(input: &Tensor) -> Result<Tensor> {
    let safe = |&[a, b, c]: &[f64; 3]| [a / SAFETY, b / SAFETY.powi(3), c / SAFETY.powi(5)];
    let steps: Vec<[f64; 3]> =
        EXPRESS.iter().chain(&EXPRESS[1..]).map(safe).chain([EXPRESS[7], EXPRESS[7]]).collect();
    quintic(input, &steps)
}
/// The polar factors of a bank `[L, m, n]`.
pub(super) fn quintic(input: &Tensor, steps: &[[f64; 3]]) -> Result<Tensor> {
    let [l, m, n] = *input.shape() else {
        return Err(tensor::Error::Shape {
            op: "polar",
            reason: format!("{input:?} is no bank of matrices"),
        }
        .into());
    };
    let device = input.device();
    let r = m.min(n);
    let empty = |shape: &[usize]| device.empty(shape, DType::F32);
    let (mut x, mut next) = (empty(&[l, m, n])?, empty(&[l, m, n])?);
    let squares = kernels::member_squares(input)?;
    for (i, s) in squares.iter().enumerate() {
        kernels::axpby(
            &x.slot(i),
            0.0,
            &input.slot(i),
            if *s > 0.0 { (1.0 / s.sqrt()) as f32 } else { 0.0 },
        )?;
    }
    let (gram, poly) = (empty(&[l, r, r])?, empty(&[l, r, r])?);
    for [a, b, c] in steps.iter().map(|k| k.map(|k| k as f32)) {
        let factor = Factor::from(&x);
        let (left, right) = if m <= n { (factor, factor.t()) } else { (factor.t(), factor) };
        matmul(&gram, false, 1.0, left, right)?;
        matmul(&poly, false, c, &gram, &gram)?;
        kernels::axpby(&poly, 1.0, &gram, b)?;
        kernels::axpby(&next, 0.0, &x, a)?;
        if m <= n {
            matmul(&next, true, 1.0, &poly, &x)?;
        } else {
            matmul(&next, true, 1.0, &x, &poly)?;
        }
        std::mem::swap(&mut x, &mut next);
    }
    Ok(x)
}
