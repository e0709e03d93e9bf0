//! The quintic as the published block Muon runs it in bf16 (Jordan's code of 2024): every product and every sum is rounded,
//! and `c A` is before it meets A.
//!
//! ```text
//! A = X X^T;  B = b A + (c A) A;  X = a X + B X
//! ```
//!
//! `fixed` rounds once for each line, as `torch.optim.Muon` does; the two differ by some 3 % of an update. This one is there
//! to reproduce what was published, at the price of more passes (but on tiles that `fused` takes).

use rayon::prelude::*;
use tensor::cuda::Arg;
use tensor::linalg::{self, Factor};
use tensor::{DType, Device, Tensor};

use super::kernels::{self, bf16, launch, members, parts};
use crate::error::Result;

/// Result of the steps.
pub(super) fn factor(input: &Tensor, steps: &[[f64; 3]]) -> Result<Tensor> {
    let [l, m, n] = [0, 1, 2].map(|i| input.shape()[i]);
    let x = kernels::normalized(input, DType::BF16)?;
    let (device, rank) = (x.device(), m.min(n));
    let square = || device.empty(&[l, rank, rank], x.dtype());
    let (gram, scaled, poly) = (square()?, square()?, square()?);
    let moved = device.empty(x.shape(), x.dtype())?;
    let product = |c: &Tensor, a: Factor, b: Factor| -> Result<()> {
        linalg::matmul(c, false, 1.0, a, b)?;
        if !c.device().is_cuda() {
            kernels::round_bf16(c);
        }
        Ok(())
    };
    for [a, b, c] in steps.iter().map(|k| k.map(|k| k as f32)) {
        let f = Factor::from(&x);
        if m <= n {
            product(&gram, f, f.t())?;
        } else {
            product(&gram, f.t(), f)?;
        }
        combine(&scaled, c, &gram, None)?;
        product(&poly, (&scaled).into(), (&gram).into())?;
        combine(&poly, b, &gram, Some(&poly))?;
        // The rounded B is not quite symmetric, and the published code turns a tall X.
        let poly = Factor::from(&poly);
        if m <= n {
            product(&moved, poly, f)?;
        } else {
            product(&moved, f, poly.t())?;
        }
        combine(&x, a, &x, Some(&moved))?;
    }
    Ok(x)
}

/// `y = round(round(a x) + z)`, or `y = round(a x)`; tensors may be one.
fn combine(y: &Tensor, a: f32, x: &Tensor, z: Option<&Tensor>) -> Result<()> {
    match y.device() {
        Device::Cpu => {
            let scaled: Vec<f32> = x.read().par_iter().map(|x| bf16(a * x)).collect();
            let sum: Vec<f32> = match z {
                Some(z) => z.read().par_iter().zip(&scaled).map(|(z, x)| bf16(x + z)).collect(),
                None => scaled,
            };
            y.write().copy_from_slice(&sum);
            Ok(())
        }
        Device::Cuda(gpu) => {
            let (count, size) = members(y);
            let pointers = [y.ptr(), x.ptr(), z.map_or(0, Tensor::ptr)].map(Arg::Ptr);
            let args = [&pointers[..], &[Arg::I64(size as i64), Arg::F32(a)]].concat();
            launch(gpu, DType::BF16, "combine", [parts(size), count], &args)
        }
    }
}
