//! Matrix products, one or a batch: faer on the CPU, cuBLAS and cuBLASLt on the GPU.

use rayon::prelude::*;

use crate::cpu::{self, Mat};
use crate::cuda::{Gemm, Gpu, Operand};
use crate::{Device, Error, HostRef, Result, Tensor};

/// One factor of a product: a matrix `[m, n]` or a batch `[L, m, n]`, possibly transposed.
#[derive(Clone, Copy)]
pub struct Factor<'a> {
    pub(super) tensor: &'a Tensor,
    pub(super) transposed: bool,
}

impl Factor<'_> {
    /// The transpose.
    #[must_use]
    pub fn t(self) -> Self {
        Factor { transposed: !self.transposed, ..self }
    }

    /// `(batch, rows, columns)` as it enters the product.
    pub(super) fn shape(self) -> (usize, usize, usize) {
        let (l, m, n) = dims(self.tensor);
        if self.transposed { (l, n, m) } else { (l, m, n) }
    }
}

impl<'a> From<&'a Tensor> for Factor<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Factor { tensor, transposed: false }
    }
}

pub(super) fn dims(t: &Tensor) -> (usize, usize, usize) {
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
            let members = Members { a: (a, a.tensor.read()), b: (b, b.tensor.read()) };
            c.write().par_chunks_mut(m * n).enumerate().for_each(|(i, c)| {
                let (a, b) = members.pair(i);
                cpu::matmul(c, accumulate, alpha, a, b);
            });
            Ok(())
        }
        Device::Cuda(gpu) => gpu.gemm(&gemm(c, alpha, a, b, if accumulate { 1.0 } else { 0.0 })),
    }
}

/// `c = a b` with `bias [n]` added to every row before it is rounded: one operation on a GPU, all in bf16.
pub(crate) fn biased<'a>(
    gpu: &Gpu,
    c: &Tensor,
    a: impl Into<Factor<'a>>,
    b: impl Into<Factor<'a>>,
    bias: &Tensor,
) -> Result<()> {
    gpu.gemm_bias(&gemm(c, 1.0, a.into(), b.into(), 0.0), bias.ptr())
}

/// `d = alpha a b + beta c` for each member of the batch; `d` must not share memory with the others.
///
/// `c` has the element type of `d`. On the GPU this is one operation, without a pass of its own over `c`.
pub fn affine<'a>(
    d: &Tensor,
    alpha: f32,
    a: impl Into<Factor<'a>>,
    b: impl Into<Factor<'a>>,
    beta: f32,
    c: &Tensor,
) -> Result<()> {
    let (a, b) = (a.into(), b.into());
    match d.device() {
        Device::Cpu => {
            scaled(d, beta, c)?;
            matmul(d, true, alpha, a, b)
        }
        Device::Cuda(gpu) => plus(gpu, d, alpha, a, b, beta, c),
    }
}

/// `d = alpha a b + beta c` on the CPU where that is symmetric, by half of it; shapes have been checked.
pub(super) fn symmetric_on_cpu(
    d: &Tensor,
    alpha: f32,
    a: Factor,
    b: Factor,
    summand: Option<(f32, &Tensor)>,
) -> Result<()> {
    let r = a.shape().1;
    if let Some((beta, c)) = summand {
        scaled(d, beta, c)?;
    }
    let members = Members { a: (a, a.tensor.read()), b: (b, b.tensor.read()) };
    d.write().par_chunks_mut(r * r).enumerate().for_each(|(i, d)| {
        let (a, b) = members.pair(i);
        cpu::matmul_symmetric(d, summand.is_some(), alpha, a, b);
    });
    Ok(())
}

/// Both factors on the CPU, member by member.
struct Members<'a> {
    a: (Factor<'a>, HostRef<'a>),
    b: (Factor<'a>, HostRef<'a>),
}

impl Members<'_> {
    fn pair(&self, i: usize) -> (Mat<'_>, Mat<'_>) {
        let [a, b] = [&self.a, &self.b].map(|(factor, values)| {
            let (_, rows, cols) = dims(factor.tensor);
            let mat = Mat::new(&values[i * rows * cols..(i + 1) * rows * cols], rows, cols);
            if factor.transposed { mat.t() } else { mat }
        });
        (a, b)
    }
}

/// `d = beta c` on the CPU.
fn scaled(d: &Tensor, beta: f32, c: &Tensor) -> Result<()> {
    if dims(d) != dims(c) {
        return Err(Error::shape("product", format!("{:?} + {:?}", dims(d), dims(c))));
    }
    let c = c.read();
    d.write().par_chunks_mut(1 << 14).zip(c.par_chunks(1 << 14)).for_each(|(d, c)| {
        d.iter_mut().zip(c).for_each(|(d, c)| *d = beta * c);
    });
    Ok(())
}

fn plus(gpu: &Gpu, d: &Tensor, alpha: f32, a: Factor, b: Factor, beta: f32, c: &Tensor) -> Result<()> {
    let ((l, m, k), (lb, kb, n)) = (a.shape(), b.shape());
    if dims(d) != (l, m, n) || dims(c) != (l, m, n) || lb != l || kb != k {
        let sizes = format!("{:?} = {:?} x {:?} + {:?}", dims(d), a.shape(), b.shape(), dims(c));
        return Err(Error::shape("affine", sizes));
    }
    gpu.gemm_plus(&gemm(d, alpha, a, b, beta), operand(c, false))
}

pub(super) fn gemm(c: &Tensor, alpha: f32, a: Factor, b: Factor, beta: f32) -> Gemm {
    let ((batch, m, k), n) = (a.shape(), b.shape().2);
    let (a, b) = (operand(a.tensor, a.transposed), operand(b.tensor, b.transposed));
    Gemm { m, n, k, alpha, beta, a, b, c: operand(c, false), batch }
}

fn operand(t: &Tensor, transposed: bool) -> Operand {
    let (_, rows, cols) = dims(t);
    Operand { ptr: t.ptr(), ld: cols, stride: rows * cols, transposed, dtype: t.dtype() }
}
