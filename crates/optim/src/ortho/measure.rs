//! How good a factor is.

use tensor::linalg::{self, Factor};
use tensor::{DType, Tensor};

use super::shape;
use crate::error::Result;

/// What is measured of one matrix X and what is taken for its polar factor Y, on the smaller side: with
/// `R = Y Y^T` and `H = Y X^T` (wide) or `R = Y^T Y` and `H = Y^T X` (tall). An exact factor has `R` = I and H symmetric
/// and positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// `norm_F(R - I) / sqrt(r)`.
    pub orthogonality: f64,
    /// Trace of R, rounded: its rank, where it is a projector.
    pub rank: usize,
    /// `norm_F(R^2 - R) / sqrt(rank)`: orthogonality on the numerical rank; 0 where the rank is.
    pub projector: f64,
    /// `norm_F(H - H^T) / norm_F(H)`.
    pub asymmetry: f64,
    /// The smallest eigenvalue of the symmetric part of H over `norm_F(H)`, to about 1e-6.
    pub positivity: f64,
    /// `norm_F(X - (X Y^T) Y) / norm_F(X)`: what of X lies outside Y's row space (tall: column space).
    pub residual: f64,
}

/// `norm_F(X X^T - I) / sqrt(min(m, n))` of the worst member of a bank (with `X^T X` where it is tall).
pub fn error(x: &Tensor) -> Result<f32> {
    let [_, m, n] = *x.shape() else {
        return Err(shape(format!("{x:?} is no bank of matrices")));
    };
    let r = m.min(n);
    let gram = small(x, x)?.to_vec()?;
    let off = |g: &[f32]| (off_identity(g, r) / r as f64).sqrt() as f32;
    // Not `f32::max`, which would hide a NaN.
    Ok(gram.chunks_exact(r * r).map(off).fold(0.0, |worst, off| if off <= worst { worst } else { off }))
}

/// Measures the matrix `x [m, n]`, f32, and its factor `y`, f32 or bf16. X is scaled first, so that its size does not
/// matter; an SVD of `[r, r]` is taken, on the device.
pub fn quality(x: &Tensor, y: &Tensor) -> Result<Quality> {
    let &[m, n] = x.shape() else {
        return Err(shape(format!("{x:?} is no matrix")));
    };
    let r = m.min(n);
    let bank = x.view(&[1, m, n]);
    let x = super::kernels::scaled_by_powers(&bank, &super::kernels::largest(&bank)?)?;
    let y = y.view(&[1, m, n]);
    let y = if y.dtype() == DType::F32 { y } else { y.cast(DType::F32)? };
    let gram = small(&y, &y)?;
    let square = gram.device().empty(&[1, r, r], DType::F32)?;
    linalg::affine(&square, 1.0, &gram, &gram, -1.0, &gram)?;
    let h = small(&y, &x)?;
    // X - (X Y^T) Y, where X Y^T = H^T.
    let rest = x.device().empty(&[1, m, n], DType::F32)?;
    let (hf, yf) = (Factor::from(&h), Factor::from(&y));
    if m <= n {
        linalg::affine(&rest, -1.0, hf.t(), yf, 1.0, &x)?;
    } else {
        linalg::affine(&rest, -1.0, yf, hf, 1.0, &x)?;
    }
    let sum = |values: &[f32]| values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let ratio = |a: f64, b: f64| if b == 0.0 { 0.0 } else { (a / b).sqrt() };
    let (gram, h, rest, x_sum) = (gram.to_vec()?, h.to_vec()?, sum(&rest.to_vec()?), sum(&x.to_vec()?));
    let rank = gram.iter().step_by(r + 1).map(|&x| f64::from(x)).sum::<f64>().round().max(0.0) as usize;
    let (h_sum, twist) = (sum(&h), skew(&h, r));
    Ok(Quality {
        orthogonality: (off_identity(&gram, r) / r as f64).sqrt(),
        rank,
        projector: if rank == 0 { 0.0 } else { (sum(&square.to_vec()?) / rank as f64).sqrt() },
        asymmetry: ratio(twist, h_sum),
        positivity: smallest_eigenvalue(y.device(), &h, r, h_sum.sqrt())?,
        residual: ratio(rest, x_sum),
    })
}

/// `norm_F(H - H^T) / norm_F(H)` of each member, H as in [`Quality`]: 0 for the exact factor; cheap enough for banks.
pub fn asymmetries(x: &Tensor, y: &Tensor) -> Result<Vec<f64>> {
    let r = x.shape()[1].min(x.shape()[2]);
    let y = if y.dtype() == DType::F32 { y.clone() } else { y.cast(DType::F32)? };
    let of = |h: &[f32]| {
        let sum = h.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        if sum == 0.0 { 0.0 } else { (skew(h, r) / sum).sqrt() }
    };
    Ok(small(&y, x)?.to_vec()?.chunks_exact(r * r).map(of).collect())
}

/// `A B^T` of wide members, `A^T B` of tall ones, in f32.
fn small(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let [l, m, n] = [0, 1, 2].map(|i| a.shape()[i]);
    let r = m.min(n);
    let out = a.device().empty(&[l, r, r], DType::F32)?;
    let (a, b) = (Factor::from(a), Factor::from(b));
    if m <= n {
        linalg::matmul(&out, false, 1.0, a, b.t())?;
    } else {
        linalg::matmul(&out, false, 1.0, a.t(), b)?;
    }
    Ok(out)
}

/// `norm_F(G - I)^2`.
fn off_identity(g: &[f32], r: usize) -> f64 {
    let square = |(i, g): (usize, &f32)| (f64::from(*g) - f64::from(u8::from(i % (r + 1) == 0))).powi(2);
    g.iter().enumerate().map(square).sum()
}

/// `norm_F(H - H^T)^2`.
fn skew(h: &[f32], r: usize) -> f64 {
    let square = |i: usize| f64::from(h[i] - h[i % r * r + i / r]).powi(2);
    (0..r * r).map(square).sum()
}

/// Of `(H + H^T) / 2` over `norm`: a shift by the norm makes all eigenvalues positive, and so singular values.
fn smallest_eigenvalue(device: &tensor::Device, h: &[f32], r: usize, norm: f64) -> Result<f64> {
    if norm == 0.0 {
        return Ok(0.0);
    }
    let entry = |i: usize| {
        let symmetric = f64::from(h[i] + h[i % r * r + i / r]) / 2.0 / norm;
        (symmetric + if i.is_multiple_of(r + 1) { 1.0 } else { 0.0 }) as f32
    };
    let shifted: Vec<f32> = (0..r * r).map(entry).collect();
    let values = linalg::svd(&device.from_slice(&shifted, &[1, r, r])?)?.s.to_vec()?;
    Ok(f64::from(values[r - 1]) - 1.0)
}
