//! Matrix products, one or a batch: faer on the CPU, cuBLAS on the GPU.

use rayon::prelude::*;

use crate::cpu::{self, Mat};
use crate::cuda::{Gemm, Operand};
use crate::{Device, Error, Result, Tensor};

/// One factor of a product: a matrix `[m, n]` or a batch `[L, m, n]`, possibly transposed.
#[derive(Clone, Copy)]
pub struct Factor<'a> {
    tensor: &'a Tensor,
    transposed: bool,
}

impl Factor<'_> {
    /// The transpose.
    #[must_use]
    pub fn t(self) -> Self {
        Factor { transposed: !self.transposed, ..self }
    }

    /// `(batch, rows, columns)` as it enters the product.
    fn shape(self) -> (usize, usize, usize) {
        let (l, m, n) = dims(self.tensor);
        if self.transposed { (l, n, m) } else { (l, m, n) }
    }
}

impl<'a> From<&'a Tensor> for Factor<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Factor { tensor, transposed: false }
    }
}

fn dims(t: &Tensor) -> (usize, usize, usize) {
    let shape = t.shape();
    match shape.len() {
        0 => (1, 1, 1),
        1 => (1, 1, shape[0]),
        2 => (1, shape[0], shape[1]),
        n => (shape[..n - 2].iter().product(), shape[n - 2], shape[n - 1]),
    }
}

/// `c = (c or 0) + alpha a b` for each member of the batch; `c` must not share memory with `a` or `b`.
///
/// Sums are kept in f32. On the GPU `a` and `b` have one element type; `c` may be f32 where they are bf16.
pub fn matmul<'a>(
    c: &Tensor,
    accumulate: bool,
    alpha: f32,
    a: impl Into<Factor<'a>>,
    b: impl Into<Factor<'a>>,
) -> Result<()> {
    let (a, b) = (a.into(), b.into());
    let ((l, m, k), (lb, kb, n)) = (a.shape(), b.shape());
    if dims(c) != (l, m, n) || lb != l || kb != k {
        let sizes = format!("{:?} = {:?} x {:?}", dims(c), a.shape(), b.shape());
        return Err(Error::shape("matmul", sizes));
    }
    match c.device() {
        Device::Cpu => {
            let (mut c, xs, ys) = (c.write(), a.tensor.read(), b.tensor.read());
            let mats = |i: usize| {
                let x = Mat::new(&xs[i * m * k..(i + 1) * m * k], dims(a.tensor).1, dims(a.tensor).2);
                let y = Mat::new(&ys[i * k * n..(i + 1) * k * n], dims(b.tensor).1, dims(b.tensor).2);
                (if a.transposed { x.t() } else { x }, if b.transposed { y.t() } else { y })
            };
            c.par_chunks_mut(m * n).enumerate().for_each(|(i, c)| {
                let (x, y) = mats(i);
                cpu::matmul(c, accumulate, alpha, x, y);
            });
            Ok(())
        }
        Device::Cuda(gpu) => {
            let operand = |t: &Tensor, transposed: bool| {
                let (_, rows, cols) = dims(t);
                Operand { ptr: t.ptr(), ld: cols, stride: rows * cols, transposed, dtype: t.dtype() }
            };
            gpu.gemm(&Gemm {
                m,
                n,
                k,
                alpha,
                beta: if accumulate { 1.0 } else { 0.0 },
                a: operand(a.tensor, a.transposed),
                b: operand(b.tensor, b.transposed),
                c: operand(c, false),
                batch: l,
            })
        }
    }
}
