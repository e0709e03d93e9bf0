//! Interim.
use tensor::{Tensor, linalg};

use crate::error::Result;

/// Spectrum.
pub struct Spectrum {
    /// exp entropy
    pub erank: f64,
    /// stable rank
    pub stable_rank: f64,
    /// entropy
    pub entropy: f64,
}

/// By SVD.
pub fn spectrum(x: &Tensor) -> Result<Vec<Spectrum>> {
    let svd = linalg::svd(x)?;
    let r = svd.s.cols();
    Ok(svd
        .s
        .to_vec()?
        .chunks_exact(r)
        .map(|s| {
            let sum: f64 = s.iter().map(|&x| f64::from(x)).sum();
            let h: f64 =
                s.iter().map(|&x| f64::from(x) / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
            let sq: f64 = s.iter().map(|&x| f64::from(x).powi(2)).sum();
            Spectrum {
                erank: h.exp(),
                stable_rank: sq / f64::from(s[0]).powi(2),
                entropy: h / (r as f64).ln(),
            }
        })
        .collect())
}
