//! Tiles of at most 128 x 128 on an H100: all steps in one launch of `fused.cu` for each lattice, from the matrices that
//! they are cut out of.
//!
//! Every method iterates on `X X^T` here, gram too, on which nothing is to be saved. Tall tiles are left to batched
//! products, which iterate on `X^T X`.

use tensor::cuda::{Arg, Gpu, Source};
use tensor::{DType, Tensor};

use super::{Coefficients, Method, Ortho, coefficients};
use crate::error::Result;
use crate::tiles::Lattice;

pub(crate) static SOURCE: Source = Source { name: "optim/fused.cu", text: include_str!("fused.cu") };

/// Side of the tiles that a block has; smaller ones cost as much, so that far smaller ones go by batched products.
const SIDE: usize = 128;
const LEAST: usize = 64;
/// Most steps.
const MOST: usize = 10;
/// Bytes of shared memory: two X and a Gram matrix.
const SHARED: usize = 3 * SIDE * SIDE * 2;

/// The steps of a method, for `fused.cu`.
pub(crate) struct Fused {
    steps: Coefficients,
    kernel: &'static str,
}

impl Ortho {
    /// How `fused.cu` takes these tiles, if it does.
    pub(crate) fn fused(&self, gpu: &Gpu, lattices: &[Lattice]) -> Option<Fused> {
        let (steps, kernel) = match &self.method {
            Method::NewtonSchulz(steps) | Method::Gram(steps) => (steps.clone(), "fused_quintics"),
            Method::PolarExpress { steps } => (coefficients::express(*steps), "fused_quintics"),
            Method::JordanBf16(steps) => (steps.clone(), "fused_quintics_published"),
            Method::Svd { .. } | Method::Polar => return None,
        };
        let fits = |tiles: &Lattice| tiles.height <= tiles.width && tiles.width <= SIDE && tiles.in_eights();
        let large = lattices.iter().any(|tiles| tiles.width >= LEAST);
        let takes = gpu.is_hopper()
            && self.dtype == DType::BF16
            && steps.len() <= MOST
            && large
            && lattices.iter().all(fits);
        takes.then_some(Fused { steps, kernel })
    }
}

impl Fused {
    /// The factors of the tiles of a bank `[L, m, n]` in bf16, each in its place.
    pub(crate) fn factors(&self, gpu: &Gpu, x: &Tensor, lattices: &[Lattice]) -> Result<Tensor> {
        let out = x.device().empty(x.shape(), DType::BF16)?;
        let mut quintics = [0.0; 32];
        for (to, from) in quintics.iter_mut().zip(self.steps.as_flattened()) {
            *to = *from as f32;
        }
        for tiles in lattices {
            let count = x.shape()[0] * tiles.count();
            let bytes = (2 * count * tiles.height * tiles.width) as u64;
            let pointers = [Arg::Span(out.ptr(), bytes), Arg::Span(x.ptr(), bytes)];
            let numbers = tiles.numbers().map(Arg::I32);
            let steps = [Arg::Floats(quintics), Arg::I32(self.steps.len() as i32)];
            let args = [&pointers[..], &numbers, &steps].concat();
            gpu.launch(&SOURCE, DType::BF16, self.kernel, [count as u32, 1, 1], [256, 1, 1], SHARED, &args)?;
        }
        Ok(out)
    }
}
