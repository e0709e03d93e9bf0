//! The operations of a training step, each with its forward and backward pass for both devices.
//!
//! Activations are matrices `[R, C]` with `R = batch * len` rows, row-major. Operations that mix positions are
//! given the batch layout. Activations have the element type of the tape's precision, but the residual stream (what
//! [`embedding`], [`residual`] and [`residual_norm`] yield and [`rms_norm`] reads) is f32 in mixed precision too; norm
//! weights, biases, convolution kernels, the parameters of the scan, statistics and states are f32 always.

mod attention;
mod conv;
mod cross_entropy;
pub(crate) mod elementwise;
mod embedding;
mod feed_forward;
mod gated_norm;
mod launch;
mod linear;
mod residual;
mod rms_norm;
mod scan;
mod swiglu;
#[cfg(test)]
mod tests;

pub use attention::{Heads, Rope, attention};
pub use conv::conv1d_silu;
pub use cross_entropy::{Loss, linear_cross_entropy};
pub use embedding::embedding;
pub use feed_forward::feed_forward;
pub use gated_norm::gated_rms_norm;
pub use linear::linear;
pub use residual::residual;
pub use rms_norm::{residual_norm, rms_norm};
pub use scan::{Scan, ScanLayout, scan};
pub use swiglu::swiglu;

use crate::cuda::Source;
use crate::tape::Var;

/// The CUDA sources of this crate: of all operations, of [`crate::linalg`] and of [`crate::random`].
pub const KERNELS: &[&Source] = &[
    attention::KERNELS[0],
    attention::KERNELS[1],
    attention::KERNELS[2],
    attention::KERNELS[3],
    attention::KERNELS[4],
    attention::KERNELS[5],
    &conv::SOURCE,
    &cross_entropy::SOURCE,
    &elementwise::SOURCE,
    &embedding::SOURCE,
    &feed_forward::SOURCE,
    &gated_norm::SOURCE,
    &linear::SOURCE,
    &residual::SOURCE,
    &rms_norm::SOURCE,
    &scan::SOURCE,
    &scan::CHUNKED_SOURCE,
    &swiglu::SOURCE,
    &crate::cuda::cholesky::SOURCE,
    &crate::cuda::tune::SOURCE,
    &crate::linalg::SOURCE,
    &crate::linalg::SYMMETRIC,
    &crate::random::SOURCE,
];

/// Some columns of a value: `width` from `start`.
#[derive(Clone)]
pub struct Cols {
    /// The whole value.
    pub var: Var,
    /// First column.
    pub start: usize,
    /// Number of columns.
    pub width: usize,
}

impl Cols {
    /// Columns `start..start + width` of `var`.
    pub fn new(var: &Var, start: usize, width: usize) -> Self {
        assert!(start + width <= var.value.cols(), "columns {start}+{width} of {:?}", var.value);
        Cols { var: var.clone(), start, width }
    }

    /// All columns.
    pub fn all(var: &Var) -> Self {
        Cols::new(var, 0, var.value.cols())
    }

    /// Elements from row to row.
    pub(crate) fn stride(&self) -> usize {
        self.var.value.cols()
    }
}

/// How rows are laid out: row `b * len + t` is position `t` of sequence `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLayout {
    /// Sequences.
    pub batch: usize,
    /// Positions in each.
    pub len: usize,
}
