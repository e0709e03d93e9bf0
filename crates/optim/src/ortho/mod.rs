//! Orthogonalisers: the polar factor `U V^T` of every matrix `U S V^T` of a bank `[L, m, n]`, all f32.
//!
//! Quality is `norm_F(X X^T - I) / sqrt(min(m, n))` ([`error`]). A matrix of zeros gives zeros.

mod polar;

use tensor::linalg::{self, Factor};
use tensor::{DType, Tensor};

use crate::error::Result;

/// Interim.
pub enum Method {
    Svd,
    Polar,
    NewtonSchulz(Vec<[f64; 3]>),
}
/// Interim.
pub struct Ortho {
    /// m
    pub method: Method,
    /// d
    pub dtype: DType,
}
impl Method {
    /// Names.
    pub const NAMES: &[&str] = &["polar", "svd", "newton-schulz", "polar-express", "gram"];
}
impl Ortho {
    /// Interim.
    pub fn parse(method: &str, _c: &str, _steps: usize, dtype: DType) -> Result<Ortho> {
        Ok(Ortho {
            method: match method {
                "svd" => Method::Svd,
                "polar" => Method::Polar,
                _ => Method::NewtonSchulz(vec![[3.4445, -4.7750, 2.0315]; 5]),
            },
            dtype,
        })
    }
    /// Interim.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match &self.method {
            Method::Polar => polar::polar(x),
            Method::Svd => svd(x),
            Method::NewtonSchulz(c) => polar::quintic(x, c),
        }
    }
}

fn svd(x: &Tensor) -> Result<Tensor> {
    let parts = linalg::svd(x)?;
    let out = x.device().empty(x.shape(), DType::F32)?;
    linalg::matmul(&out, false, 1.0, &parts.u, &parts.vt)?;
    let rank = parts.s.cols();
    for (i, values) in parts.s.to_vec()?.chunks_exact(rank).enumerate() {
        if values[0] == 0.0 {
            out.slot(i).fill_zero()?;
        }
    }
    Ok(out)
}

/// `norm_F(X X^T - I) / sqrt(min(m, n))` of the worst member of a bank (with `X^T X` where it is tall).
pub fn error(x: &Tensor) -> Result<f32> {
    let [l, m, n] = *x.shape() else {
        return Err(tensor::Error::Shape { op: "orthogonality", reason: format!("{x:?}") }.into());
    };
    let r = m.min(n);
    let gram = x.device().empty(&[l, r, r], DType::F32)?;
    let x = Factor::from(x);
    if m <= n {
        linalg::matmul(&gram, false, 1.0, x, x.t())?;
    } else {
        linalg::matmul(&gram, false, 1.0, x.t(), x)?;
    }
    let gram = gram.to_vec()?;
    let off = |g: &[f32]| -> f32 {
        let square = |(i, g): (usize, &f32)| f64::from(g - if i % (r + 1) == 0 { 1.0 } else { 0.0 }).powi(2);
        (g.iter().enumerate().map(square).sum::<f64>() / r as f64).sqrt() as f32
    };
    Ok(gram.chunks_exact(r * r).map(off).fold(0.0, f32::max))
}
