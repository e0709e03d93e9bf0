//! A fixed number of odd quintics, `X <- a X + (b A + c A^2) X` with `A = X X^T` (`X^T X` where X is tall), from
//! `X / norm_F(X)` (Jordan 2024; the order of operations and roundings is that of torch.optim.Muon).

use tensor::linalg::{self, Factor, Finish};
use tensor::{DType, Device, Tensor};

use super::kernels::{self, Start};
use crate::error::Result;

/// Result of the steps.
pub(super) fn iterate(mut bank: Bank, steps: &[[f64; 3]]) -> Result<Tensor> {
    bank.plan(steps);
    let (gram, poly) = (bank.square()?, bank.square()?);
    for [a, b, c] in steps.iter().map(|k| k.map(|k| k as f32)) {
        bank.gram(&gram)?;
        // In bf16 this rounds a Q instead of reading X twice: 4 % of the time of a step on an H100, for 7 % more asymmetry.
        let joined = bank.by.is_some() || poly.dtype() == DType::BF16;
        let (within, without) = if joined { (a, 0.0) } else { (0.0, a) };
        bank.polynomial(&poly, [within, b, c], &gram, true)?;
        bank.apply(&poly, without)?;
    }
    Ok(bank.x)
}

/// A bank of matrices under iteration, in one arithmetic.
pub(super) struct Bank {
    /// `[L, m, n]`.
    pub(super) x: Tensor,
    next: Tensor,
    wide: bool,
    /// Storage on the device; rounding on the CPU.
    dtype: DType,
    /// On a GPU, until the first Q is applied: `[L]`, by what X is to be multiplied to have norm 1. It is left to the
    /// small matrices, which spares a pass over X.
    by: Option<Tensor>,
    /// Whether matrices that only polynomials and [`Bank::symmetric`] read may lack what lies above the diagonal.
    half: bool,
}

impl Bank {
    /// Each member divided by its Frobenius norm.
    pub(super) fn new(input: &Tensor, dtype: DType) -> Result<Self> {
        match input.device() {
            Device::Cpu => Bank::of(kernels::normalized(input, dtype)?, None, dtype),
            Device::Cuda(gpu) => Bank::from_start(kernels::taken(gpu, input, dtype)?, dtype),
        }
    }

    /// The same where its first pass has been done.
    pub(super) fn from_start(start: Start, dtype: DType) -> Result<Self> {
        Bank::of(start.x, Some(start.by), dtype)
    }

    fn of(x: Tensor, by: Option<Tensor>, dtype: DType) -> Result<Self> {
        let next = x.device().empty(x.shape(), x.dtype())?;
        Ok(Bank { next, wide: x.shape()[1] <= x.shape()[2], x, dtype, by, half: false })
    }

    /// Before the first step: which polynomials there will be. One without a square reads all of `R`.
    pub(super) fn plan(&mut self, steps: &[[f64; 3]]) {
        self.half = steps.iter().all(|[_, _, c]| *c as f32 != 0.0);
    }

    /// Room for a Gram matrix of each member.
    pub(super) fn square(&self) -> Result<Tensor> {
        let [l, m, n] = [0, 1, 2].map(|i| self.x.shape()[i]);
        Ok(self.x.device().empty(&[l, m.min(n), m.min(n)], self.x.dtype())?)
    }

    /// `gram = X X^T`, or `X^T X` where X is tall. Only polynomials and [`Bank::symmetric`] may read it.
    pub(super) fn gram(&self, gram: &Tensor) -> Result<()> {
        let x = Factor::from(&self.x);
        let (left, right) = if self.wide { (x, x.t()) } else { (x.t(), x) };
        let by = self.by.as_ref().map(|by| (by, 2));
        let finish = Finish { by, half: self.half, ..Finish::default() };
        linalg::symmetric_finished(gram, 1.0, left, right, None, finish)?;
        self.round(gram);
        Ok(())
    }

    /// `d = a I + b R + c R^2`; where it is the `last` before X is multiplied by it, made ready for that.
    pub(super) fn polynomial(
        &mut self,
        d: &Tensor,
        [a, b, c]: [f32; 3],
        r: &Tensor,
        last: bool,
    ) -> Result<()> {
        let by = last.then(|| self.by.take()).flatten();
        let finish = Finish { diagonal: a, by: by.as_ref().map(|by| (by, 1)), half: false };
        linalg::symmetric_finished(d, c, r, r, Some((b, r)), finish)?;
        self.round(d);
        Ok(())
    }

    /// `d = a b`, symmetric but for rounding. Only polynomials and this may read it.
    pub(super) fn symmetric(&self, d: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
        let finish = Finish { half: self.half, ..Finish::default() };
        linalg::symmetric_finished(d, 1.0, a, b, None, finish)?;
        self.round(d);
        Ok(())
    }

    /// `d = a b`, every element of it.
    pub(super) fn product(&self, d: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
        linalg::matmul(d, false, 1.0, a, b)?;
        self.round(d);
        Ok(())
    }

    /// `X = Q^T X` (`X Q` where X is tall): what Q is the product of, one after the other.
    pub(super) fn apply_in_order(&mut self, q: &Tensor) -> Result<()> {
        let q = Factor::from(q);
        self.apply(if self.wide { q.t() } else { q }, 0.0)
    }

    /// `X = Q X + a X` (`X Q + a X` where X is tall).
    pub(super) fn apply<'a>(&mut self, q: impl Into<Factor<'a>>, a: f32) -> Result<()> {
        let (q, x) = (q.into(), Factor::from(&self.x));
        let (left, right) = if self.wide { (q, x) } else { (x, q) };
        if a == 0.0 {
            linalg::matmul(&self.next, false, 1.0, left, right)?;
        } else {
            linalg::affine(&self.next, 1.0, left, right, a, &self.x)?;
        }
        self.round(&self.next);
        std::mem::swap(&mut self.x, &mut self.next);
        Ok(())
    }

    /// Rounds what stands for bf16 on the CPU.
    pub(super) fn round(&self, t: &Tensor) {
        if self.dtype == DType::BF16 && !t.device().is_cuda() {
            kernels::round_bf16(t);
        }
    }
}
