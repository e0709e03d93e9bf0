//! Interim.
use tensor::random::Stream;
use tensor::{Device, Tensor};

use crate::error::Result;
use crate::ortho;

/// Which noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Semi-orthogonal.
    Orthogonal,
    /// Gaussian.
    Gaussian,
}

/// Draws.
pub fn draw(
    kind: Kind,
    device: &Device,
    [m, n]: [usize; 2],
    _transposed: bool,
    seed: u64,
    step: u64,
    keys: &[u64],
) -> Result<Tensor> {
    let mut all = vec![0.0; keys.len() * m * n];
    for (i, out) in all.chunks_exact_mut(m * n).enumerate() {
        Stream::new(seed ^ step.rotate_left(32), keys[i]).fill_normal(out, 1.0);
    }
    let x = device.from_slice(&all, &[keys.len(), m, n])?;
    match kind {
        Kind::Orthogonal => Ok(ortho::Ortho::parse("svd", "", 0, tensor::DType::F32)?.apply(&x)?),
        Kind::Gaussian => Ok(x),
    }
}
