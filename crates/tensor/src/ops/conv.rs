//! Depthwise causal convolution over time followed by silu, fused: the short convolution of a Mamba2 mixer.

use crate::cpu::{for_row_blocks, for_row_blocks_summing, sigmoid};
use crate::ops::elementwise::PartialSums;
use crate::ops::{BatchLayout, Cols};
use crate::params::Param;
use crate::tape::{Tape, Var};
use crate::{Device, Error, Result, Tensor};

/// `silu(b_c + sum_k w[c, k] x[t - K + 1 + k, c])`, positions before the sequence are zero.
///
/// `x [R, C]`, `weight [C, 1, K]`, `bias [C]`; result `[R, C]`.
pub fn conv1d_silu(
    tape: &mut Tape,
    x: &Cols,
    layout: BatchLayout,
    weight: &Param,
    bias: &Param,
) -> Result<Var> {
    let (rows, width) = (x.var.value.rows(), x.width);
    let taps = weight.value.cols();
    if weight.value.rows() != width || bias.value.numel() != width || rows != layout.batch * layout.len {
        let shapes = format!("{width} columns, weight {:?}, bias {:?}", weight.value, bias.value);
        return Err(Error::shape("conv1d_silu", shapes));
    }
    let y = tape.device().empty(&[rows, width], x.var.value.dtype())?;
    let shape = Shape { len: layout.len, width, taps };
    match tape.device() {
        Device::Cpu => forward_cpu(&y, x, shape, &weight.value, &bias.value),
        Device::Cuda(gpu) => cuda::forward(gpu, &y, x, shape, &weight.value, &bias.value)?,
    }
    let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
    Ok(tape.push("conv1d_silu", y, move |dy, grads| {
        let dx = grads.columns(&x.var, width)?;
        let add = (weight.accumulate(), bias.accumulate());
        match dy.device() {
            Device::Cpu => {
                backward_cpu(&dx, &weight, &bias, add, dy, &x, shape);
                Ok(())
            }
            Device::Cuda(gpu) => {
                let [dweight, dbias] = cuda::backward(gpu, &dx, [&weight.value, &bias.value], dy, &x, shape)?;
                let mut later = |param: &Param, add, partial| {
                    grads.sum_later(PartialSums { total: param.grad.clone(), add, partial })
                };
                later(&weight, add.0, dweight)?;
                later(&bias, add.1, dbias)
            }
        }
    }))
}

#[derive(Clone, Copy)]
struct Shape {
    len: usize,
    width: usize,
    taps: usize,
}

impl Shape {
    /// The rows that tap `k` of row `r` reads, if it lies inside the sequence.
    #[inline(always)]
    fn source(self, r: usize, k: usize) -> Option<usize> {
        let back = self.taps - 1 - k;
        (r % self.len >= back).then(|| r - back)
    }

    /// `weight [C, 1, K]` with the taps outermost, so that loops over channels are contiguous.
    fn by_tap(self, weight: &[f32]) -> Vec<f32> {
        (0..self.taps * self.width).map(|i| weight[(i % self.width) * self.taps + i / self.width]).collect()
    }
}

fn forward_cpu(y: &Tensor, x: &Cols, shape: Shape, weight: &Tensor, bias: &Tensor) {
    let width = shape.width;
    let (xs, bias) = (x.var.value.read(), bias.read());
    let weight = shape.by_tap(&weight.read());
    for_row_blocks(
        [(&mut y.write(), width)],
        #[inline(always)]
        |first, [y]| {
            for (i, y) in y.chunks_exact_mut(width).enumerate() {
                y.copy_from_slice(&bias);
                convolve(y, &xs, x, shape, &weight, first + i);
                y.iter_mut().for_each(|y| *y *= sigmoid(*y));
            }
        },
    );
}

/// Adds the convolution of row `r` to `y`.
#[inline(always)]
fn convolve(y: &mut [f32], xs: &[f32], x: &Cols, shape: Shape, weight: &[f32], r: usize) {
    for k in 0..shape.taps {
        let Some(s) = shape.source(r, k) else { continue };
        let from = &xs[s * x.stride() + x.start..][..shape.width];
        let w = &weight[k * shape.width..][..shape.width];
        for ((y, x), w) in y.iter_mut().zip(from).zip(w) {
            *y = w.mul_add(*x, *y);
        }
    }
}

/// With `p` the value before silu and `dp = dy silu'(p)`: `dx[t] = sum_k w_k dp[t + K - 1 - k]`,
/// `dw_k = sum_t dp[t] x[t - K + 1 + k]`, `db = sum_t dp[t]`.
fn backward_cpu(
    dx: &Tensor,
    weight: &Param,
    bias: &Param,
    add: (bool, bool),
    dy: &Tensor,
    x: &Cols,
    shape: Shape,
) {
    let (width, taps) = (shape.width, shape.taps);
    let (xs, dy, b) = (x.var.value.read(), dy.read(), bias.value.read());
    let w = shape.by_tap(&weight.value.read());
    let mut dp = vec![0.0; dy.len()];
    let mut sums = vec![0.0; (taps + 1) * width];
    for_row_blocks_summing(
        [(&mut dp, width)],
        (&mut sums, false),
        #[inline(always)]
        |first, [dp], sums| {
            for (i, dp) in dp.chunks_exact_mut(width).enumerate() {
                let r = first + i;
                dp.copy_from_slice(&b);
                convolve(dp, &xs, x, shape, &w, r);
                for (p, dy) in dp.iter_mut().zip(&dy[r * width..]) {
                    let s = sigmoid(*p);
                    *p = dy * s * (1.0 + *p * (1.0 - s));
                }
                for k in 0..taps {
                    let Some(s) = shape.source(r, k) else { continue };
                    let from = &xs[s * x.stride() + x.start..][..width];
                    let dw = &mut sums[k * width..][..width];
                    dw.iter_mut()
                        .zip(dp.iter())
                        .zip(from)
                        .for_each(|((dw, dp), x)| *dw = dp.mul_add(*x, *dw));
                }
                sums[taps * width..].iter_mut().zip(dp.iter()).for_each(|(db, dp)| *db += dp);
            }
        },
    );
    let (mut dw, mut db) = (weight.grad.write(), bias.grad.write());
    for c in 0..width {
        for k in 0..taps {
            let d = &mut dw[c * taps + k];
            *d = sums[k * width + c] + if add.0 { *d } else { 0.0 };
        }
        db[c] = sums[taps * width + c] + if add.1 { db[c] } else { 0.0 };
    }
    for_row_blocks(
        [(&mut dx.write(), x.stride())],
        #[inline(always)]
        |first, [dx]| {
            for (i, dx) in dx.chunks_exact_mut(x.stride()).enumerate() {
                let r = first + i;
                let dx = &mut dx[x.start..x.start + width];
                dx.fill(0.0);
                for k in 0..taps {
                    let ahead = taps - 1 - k;
                    if r % shape.len + ahead < shape.len {
                        let from = &dp[(r + ahead) * width..][..width];
                        let w = &w[k * width..][..width];
                        dx.iter_mut().zip(from).zip(w).for_each(|((dx, dp), w)| *dx = w.mul_add(*dp, *dx));
                    }
                }
            }
        },
    );
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `conv.cu`.

    use super::Shape;
    use crate::cuda::{Gpu, Source};
    use crate::ops::Cols;
    use crate::ops::launch::{AXIS, columns, flag, int, lane_of_four, long, ptr, tiles};
    use crate::{DType, Error, Result, Tensor};

    pub(in crate::ops) static SOURCE: Source = Source { name: "conv.cu", text: include_str!("conv.cu") };

    /// Warps of a block and rows that a warp takes at a time; taps of the variant with several channels a lane, and at
    /// most: as in `conv.cu`.
    const WARPS: usize = 4;
    const RUN: usize = 16;
    const RUN_BACK: usize = 32;
    const SHORT: usize = 4;
    const LONG: usize = 16;

    /// Most partial sums for the gradients of weight and bias.
    const SUMS: u32 = 128;

    pub(super) fn forward(
        gpu: &Gpu,
        y: &Tensor,
        x: &Cols,
        shape: Shape,
        weight: &Tensor,
        bias: &Tensor,
    ) -> Result<()> {
        let (elem, rows) = (y.dtype(), y.rows());
        let lane = channels(shape, &[(y, 0), (&x.var.value, x.start)])?;
        let args = [
            ptr(y),
            columns(&x.var.value, x.start, shape.width),
            long(x.stride()),
            ptr(weight),
            ptr(bias),
            long(rows),
            int(shape.len),
            int(shape.width),
            int(shape.taps),
            flag(lane > 1),
        ];
        let grid = tiles(rows, WARPS * RUN, AXIS, shape.width, lane);
        gpu.launch(&SOURCE, elem, "conv_forward", grid, [32, WARPS as u32, 1], 0, &args)
    }

    /// Leaves the partial sums of the gradients of weight and bias, `[n, C K]` and `[n, C]`.
    pub(super) fn backward(
        gpu: &Gpu,
        dx: &Tensor,
        [weight, bias]: [&Tensor; 2],
        dy: &Tensor,
        x: &Cols,
        shape: Shape,
    ) -> Result<[Tensor; 2]> {
        let (elem, rows, width) = (dy.dtype(), dy.rows(), shape.width);
        let lane = channels(shape, &[(dx, x.start), (dy, 0), (&x.var.value, x.start)])?;
        let grid = tiles(rows, WARPS * RUN_BACK, SUMS, width, lane);
        let sums = grid[1] as usize;
        let dweight = dy.device().empty(&[sums, width * shape.taps], DType::F32)?;
        let dbias = dy.device().empty(&[sums, width], DType::F32)?;
        let args = [
            columns(dx, x.start, width),
            ptr(&dweight),
            ptr(&dbias),
            ptr(dy),
            columns(&x.var.value, x.start, width),
            long(x.stride()),
            ptr(weight),
            ptr(bias),
            long(rows),
            int(shape.len),
            int(width),
            int(shape.taps),
            flag(lane > 1),
        ];
        gpu.launch(&SOURCE, elem, "conv_backward", grid, [32, WARPS as u32, 1], 0, &args)?;
        Ok([dweight, dbias])
    }

    /// Channels of a lane.
    fn channels(shape: Shape, spans: &[(&Tensor, usize)]) -> Result<usize> {
        if shape.taps > LONG {
            let reason = format!("{} taps; on a GPU at most {LONG} are supported", shape.taps);
            return Err(Error::shape("conv1d_silu", reason));
        }
        Ok(if shape.taps > SHORT { 1 } else { lane_of_four(shape.width, spans) })
    }
}
