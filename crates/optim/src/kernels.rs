//! The element-wise parts of the rules, for both devices: plain loops here, `kernels.cu` on the GPU.

use rayon::prelude::*;
use tensor::cuda::{Arg, Gpu, Source};
use tensor::{DType, Device, Tensor};

use crate::error::Result;

/// Kernel sources of this crate.
pub const KERNELS: &[&Source] = &[&SOURCE, &crate::noise::SOURCE, &crate::spectrum::SOURCE];

static SOURCE: Source = Source { name: "optim/kernels.cu", text: include_str!("kernels.cu") };

const BLOCK: usize = 1 << 14;
const THREADS: u32 = 256;

/// `y = a y + b x`.
pub(crate) fn axpby(y: &Tensor, a: f32, x: &Tensor, b: f32) -> Result<()> {
    match y.device() {
        Device::Cpu => {
            let x = x.read();
            y.write().par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| {
                y.iter_mut().zip(x).for_each(|(y, x)| *y = a * *y + b * x);
            });
            Ok(())
        }
        Device::Cuda(gpu) => {
            let args = [Arg::Ptr(y.ptr()), Arg::F32(a), Arg::Ptr(x.ptr()), Arg::F32(b)];
            elementwise(gpu, "axpby", y.numel(), &args)
        }
    }
}

/// `y = a x`.
pub(crate) fn scale_into(y: &Tensor, x: &Tensor, a: f32) -> Result<()> {
    match y.device() {
        Device::Cpu => {
            let x = x.read();
            y.write().par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| {
                y.iter_mut().zip(x).for_each(|(y, x)| *y = a * x);
            });
            Ok(())
        }
        Device::Cuda(gpu) => {
            let args = [Arg::Ptr(y.ptr()), Arg::Ptr(x.ptr()), Arg::F32(a)];
            elementwise(gpu, "scale_into", y.numel(), &args)
        }
    }
}

/// Sums of squares of parts of `x`, which add up to that of the whole: f32 `[n]`.
pub(crate) fn partial_squares(x: &Tensor) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => {
            let square = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() as f32;
            let partial: Vec<f32> = x.read().par_chunks(BLOCK).map(square).collect();
            Ok(Device::Cpu.from_slice(&partial, &[partial.len()])?)
        }
        Device::Cuda(gpu) => {
            let blocks = x.numel().div_ceil(16 * THREADS as usize).min(512);
            let partial = x.device().empty(&[blocks], DType::F32)?;
            let args = [Arg::Ptr(x.ptr()), Arg::Ptr(partial.ptr()), Arg::I64(x.numel() as i64)];
            gpu.launch(
                &SOURCE,
                DType::F32,
                "partial_squares",
                [blocks as u32, 1, 1],
                [THREADS, 1, 1],
                0,
                &args,
            )?;
            Ok(partial)
        }
    }
}

/// Each member of the bank `x [L, ..]` divided by its Frobenius norm into `y`; a member of zeros stays zero.
///
/// The norm is taken after division by the largest entry, so that it neither overflows nor vanishes.
pub(crate) fn normalize(y: &Tensor, x: &Tensor) -> Result<()> {
    let size = x.numel() / x.shape()[0];
    match x.device() {
        Device::Cpu => {
            let x = x.read();
            y.write().par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| {
                let max = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let inverse = if max > 0.0 { 1.0 / max } else { 0.0 };
                let square: f64 = x.iter().map(|x| f64::from(x * inverse).powi(2)).sum();
                let scale = if max > 0.0 { (1.0 / square.sqrt()) as f32 } else { 0.0 };
                y.iter_mut().zip(x).for_each(|(y, x)| *y = x * inverse * scale);
            });
            Ok(())
        }
        Device::Cuda(gpu) => {
            let (members, blocks) = (x.shape()[0] as u32, 64u32);
            let partial = x.device().empty(&[2, members as usize, blocks as usize], DType::F32)?;
            let (maxima, squares) = (partial.slot(0), partial.slot(1));
            let grid = [blocks, members, 1];
            let launch = |kernel: &str, args: &[Arg]| {
                gpu.launch(&SOURCE, DType::F32, kernel, grid, [THREADS, 1, 1], 0, args)
            };
            let (from, size) = (Arg::Ptr(x.ptr()), Arg::I64(size as i64));
            let (maxima, squares) = (Arg::Ptr(maxima.ptr()), Arg::Ptr(squares.ptr()));
            launch("block_maxima", &[from, size, maxima])?;
            launch("block_squares", &[from, size, maxima, squares])?;
            launch("normalize", &[Arg::Ptr(y.ptr()), from, size, maxima, squares])?;
            Ok(())
        }
    }
}

/// Constants of one AdamW step.
#[derive(Clone, Copy)]
pub(crate) struct AdamWStep {
    pub b1: f32,
    pub b2: f32,
    pub eps: f32,
    /// `1 - rate * decay`.
    pub keep: f32,
    /// `rate / (1 - b1^t)`.
    pub rate: f32,
    /// `1 / sqrt(1 - b2^t)`.
    pub root: f32,
}

/// One AdamW step of a bank.
pub(crate) fn adamw(w: &Tensor, g: &Tensor, m: &Tensor, v: &Tensor, s: AdamWStep) -> Result<()> {
    match w.device() {
        Device::Cpu => {
            let g = g.read();
            let (mut w, mut m, mut v) = (w.write(), m.write(), v.write());
            let chunks = w.par_chunks_mut(BLOCK).zip(m.par_chunks_mut(BLOCK)).zip(v.par_chunks_mut(BLOCK));
            chunks.zip(g.par_chunks(BLOCK)).for_each(|(((w, m), v), g)| {
                for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
                    *m = s.b1 * *m + (1.0 - s.b1) * g;
                    *v = s.b2 * *v + (1.0 - s.b2) * g * g;
                    *w = *w * s.keep - s.rate * *m / (v.sqrt() * s.root + s.eps);
                }
            });
            Ok(())
        }
        Device::Cuda(gpu) => {
            let pointers = [w, g, m, v].map(|t| Arg::Ptr(t.ptr()));
            let numbers = [s.b1, s.b2, s.eps, s.keep, s.rate, s.root].map(Arg::F32);
            elementwise(gpu, "adamw", w.numel(), &[&pointers[..], &numbers[..]].concat())
        }
    }
}

/// Launches a kernel over `n` elements; its last argument is `n`.
fn elementwise(gpu: &Gpu, kernel: &str, n: usize, args: &[Arg]) -> Result<()> {
    let blocks = n.div_ceil(4 * THREADS as usize).min(1 << 20) as u32;
    let args = [args, &[Arg::I64(n as i64)]].concat();
    Ok(gpu.launch(&SOURCE, DType::F32, kernel, [blocks, 1, 1], [THREADS, 1, 1], 0, &args)?)
}
