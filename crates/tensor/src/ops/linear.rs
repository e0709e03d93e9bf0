//! `y = x W^T + b`.
//!
//! On a GPU in bf16 the product adds the bias itself, rounded to bf16, where rows consist of whole 16 bytes.

use crate::linalg::{Factor, biased, matmul};
use crate::ops::elementwise::PartialSums;
use crate::params::Param;
use crate::tape::{Grads, Tape, Var};
use crate::{DType, Device, Error, Result, Tensor};

/// `x [R, K]` times the transpose of `weight [N, K]`, plus `bias [N]`: `[R, N]`.
pub fn linear(tape: &mut Tape, x: &Var, weight: &Param, bias: Option<&Param>) -> Result<Var> {
    let [out, inner] = *weight.value.shape() else {
        return Err(Error::shape("linear", format!("weight {:?}", weight.value)));
    };
    if inner != x.value.cols() || bias.is_some_and(|b| b.value.numel() != out) {
        return Err(Error::shape(
            "linear",
            format!("{:?} times the transpose of {:?}", x.value, weight.value),
        ));
    }
    let y = tape.device().empty(&[x.value.rows(), out], x.value.dtype())?;
    let factor = Factor::from(&weight.value).t();
    match (tape.device(), bias) {
        (Device::Cuda(gpu), Some(bias)) if y.dtype() == DType::BF16 && inner % 8 == 0 && out % 8 == 0 => {
            biased(gpu, &y, &x.value, factor, &bias.value.cast(DType::BF16)?)?;
        }
        (device, bias) => {
            matmul(&y, false, 1.0, &x.value, factor)?;
            if let Some(bias) = bias {
                match device {
                    Device::Cpu => add_bias_cpu(&mut y.write(), &bias.value.read()),
                    Device::Cuda(gpu) => cuda::add_bias(gpu, &y, &bias.value)?,
                }
            }
        }
    }
    let (x, kept, weight, bias) = (x.id, x.kept(), weight.clone(), bias.cloned());
    Ok(tape.push("linear", y, move |dy, grads| {
        backward(grads, (x, kept.as_ref()), &weight, dy)?;
        match &bias {
            Some(bias) => sum_rows(grads, &bias.grad, bias.accumulate(), dy),
            None => Ok(()),
        }
    }))
}

/// The gradients of the value `x` and of `weight`; that of `weight` later where `x` is not kept.
pub(super) fn backward(
    grads: &mut Grads,
    (x, kept): (usize, Option<&Tensor>),
    weight: &Param,
    dy: &Tensor,
) -> Result<()> {
    let (dx, accumulate) = grads.target_of(x, &[dy.rows(), weight.value.cols()], dy.dtype())?;
    matmul(&dx, accumulate, 1.0, dy, &weight.value)?;
    if let Some(x) = kept {
        matmul(&weight.grad, weight.accumulate(), 1.0, Factor::from(dy).t(), x)
    } else {
        grads.defer(x, weight, dy);
        Ok(())
    }
}

fn add_bias_cpu(y: &mut [f32], bias: &[f32]) {
    for row in y.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
}

/// `total = (total or 0) + sum of the rows of x`.
fn sum_rows(grads: &mut Grads, total: &Tensor, accumulate: bool, x: &Tensor) -> Result<()> {
    match x.device() {
        Device::Cpu => {
            let width = x.cols();
            let mut total = total.write();
            if !accumulate {
                total.fill(0.0);
            }
            for row in x.read().chunks_exact(width) {
                total.iter_mut().zip(row).for_each(|(t, x)| *t += x);
            }
            Ok(())
        }
        Device::Cuda(gpu) => {
            let partial = cuda::sum_rows(gpu, x)?;
            grads.sum_later(PartialSums { total: total.clone(), add: accumulate, partial })
        }
    }
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `linear.cu`.

    use crate::cuda::{Gpu, Source};
    use crate::ops::launch::{AXIS, WARPS, blocks, flag, int, lane, long, ptr, target, tiles};
    use crate::{DType, Result, Tensor};

    pub(in crate::ops) static SOURCE: Source = Source { name: "linear.cu", text: include_str!("linear.cu") };

    pub(super) fn add_bias(gpu: &Gpu, y: &Tensor, bias: &Tensor) -> Result<()> {
        let (elem, rows, width) = (y.dtype(), y.rows(), y.cols());
        let lane = lane(elem, width, &[(y, 0), (bias, 0)]);
        let args = [target(y, true), ptr(bias), long(rows), int(width), flag(lane > 1)];
        let grid = tiles(rows, WARPS, AXIS, width, lane);
        gpu.launch(&SOURCE, elem, "add_bias", grid, [32, WARPS as u32, 1], 0, &args)
    }

    /// Partial sums `[n, C]` of the rows of `x`.
    pub(super) fn sum_rows(gpu: &Gpu, x: &Tensor) -> Result<Tensor> {
        let (elem, rows, width) = (x.dtype(), x.rows(), x.cols());
        let lane = lane(elem, width, &[(x, 0)]);
        // Rows that one block sums: 64, more where there would be more than 512 partial sums.
        let chunk = rows.div_ceil(512).max(64);
        let partial = x.device().empty(&[rows.div_ceil(chunk), width], DType::F32)?;
        let args = [ptr(x), ptr(&partial), long(rows), long(chunk), int(width), flag(lane > 1)];
        let grid = [blocks(width, 32 * lane), blocks(rows, chunk), 1];
        gpu.launch(&SOURCE, elem, "sum_rows", grid, [32, WARPS as u32, 1], 0, &args)?;
        Ok(partial)
    }
}
