//! Root-mean-square norm: `y = w x / sqrt(mean(x^2) + eps)`, statistics in f32 (Zhang and Sennrich 2019).

use crate::cpu::{dot, for_row_blocks, for_row_blocks_summing};
use crate::params::Param;
use crate::tape::{Tape, Var};
use crate::{DType, Device, Error, Result, Tensor};

/// The norm of every row of `x [R, C]`, f32, with weight `[C]`; the result has the tape's element type.
pub fn rms_norm(tape: &mut Tape, x: &Var, weight: &Param, eps: f32) -> Result<Var> {
    let (rows, width) = (x.value.rows(), x.value.cols());
    if weight.value.numel() != width || x.value.dtype() != DType::F32 {
        return Err(Error::shape("rms_norm", format!("{:?} with weight {:?}", x.value, weight.value)));
    }
    let y = tape.device().empty(&[rows, width], tape.precision().compute())?;
    // 1 / sqrt(mean(x^2) + eps) of each row, kept for the backward pass.
    let inverse = tape.device().empty(&[rows], DType::F32)?;
    match tape.device() {
        Device::Cpu => forward_cpu(&y, &inverse, &x.value, &weight.value, eps),
        Device::Cuda(gpu) => cuda::forward(gpu, &y, &inverse, &x.value, &weight.value, eps)?,
    }
    let (x, weight) = (x.clone(), weight.clone());
    Ok(tape.push("rms_norm", y, move |dy, grads| {
        let dx = grads.target(&x)?;
        let dw = (weight.grad.clone(), weight.accumulate());
        match dy.device() {
            Device::Cpu => {
                backward_cpu(dx, dw, dy, &inverse, &x.value, &weight.value);
                Ok(())
            }
            Device::Cuda(gpu) => cuda::backward(gpu, dx, dw, dy, &inverse, &x.value, &weight.value),
        }
    }))
}

fn forward_cpu(y: &Tensor, inverse: &Tensor, x: &Tensor, weight: &Tensor, eps: f32) {
    let width = x.cols();
    let (x, w) = (x.read(), weight.read());
    for_row_blocks(
        [(&mut y.write(), width), (&mut inverse.write(), 1)],
        #[inline(always)]
        |first, [y, inverse]| {
            let x = x[first * width..].chunks_exact(width);
            for ((y, x), inverse) in y.chunks_exact_mut(width).zip(x).zip(inverse) {
                let r = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
                y.iter_mut().zip(x).zip(w.iter()).for_each(|((y, x), w)| *y = w * (x * r));
                *inverse = r;
            }
        },
    );
}

/// With `r = 1 / rms(x)` and `g = w dy`: `dx = r (g - x r^2 mean(g x))`, `dw = sum over rows of dy x r`.
fn backward_cpu(
    (dx, add_dx): (Tensor, bool),
    (dw, add_dw): (Tensor, bool),
    dy: &Tensor,
    inverse: &Tensor,
    x: &Tensor,
    weight: &Tensor,
) {
    let width = x.cols();
    let (dy, inverse, x, w) = (dy.read(), inverse.read(), x.read(), weight.read());
    for_row_blocks_summing(
        [(&mut dx.write(), width)],
        (&mut dw.write(), add_dw),
        #[inline(always)]
        |first, [dx], dw| {
            let (mut g, w, dw) = (vec![0.0; width], &w[..width], &mut dw[..width]);
            let g = &mut g[..width];
            for (i, dx) in dx.chunks_exact_mut(width).enumerate() {
                let at = (first + i) * width;
                let (dx, dy, x) = (&mut dx[..width], &dy[at..][..width], &x[at..][..width]);
                let r = inverse[first + i];
                for j in 0..width {
                    dw[j] += dy[j] * x[j] * r;
                    g[j] = w[j] * dy[j];
                }
                let k = r * r * dot(g, x) / width as f32;
                for j in 0..width {
                    let d = r * (g[j] - x[j] * k);
                    dx[j] = if add_dx { dx[j] + d } else { d };
                }
            }
        },
    );
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `rms_norm.cu`.

    use crate::cuda::{Arg, Gpu, Source};
    use crate::ops::elementwise::sum_partials;
    use crate::ops::launch::{WARPS, blocks, flag, int, lane, long, ptr, row_warps, summing_blocks};
    use crate::{DType, Result, Tensor};

    pub(in crate::ops) static SOURCE: Source =
        Source { name: "rms_norm.cu", text: include_str!("rms_norm.cu") };

    pub(super) fn forward(
        gpu: &Gpu,
        y: &Tensor,
        inverse: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        eps: f32,
    ) -> Result<()> {
        let (elem, rows, width) = (y.dtype(), x.rows(), x.cols());
        let lane = lane(elem, width, &[(y, 0), (x, 0), (weight, 0)]);
        let args = [
            ptr(y),
            ptr(inverse),
            ptr(x),
            ptr(weight),
            Arg::F32(eps),
            long(rows),
            int(width),
            flag(lane > 1),
        ];
        let grid = [blocks(rows, WARPS), 1, 1];
        gpu.launch(&SOURCE, elem, "rms_norm_forward", grid, [32, WARPS as u32, 1], 0, &args)
    }

    pub(super) fn backward(
        gpu: &Gpu,
        (dx, add_dx): (Tensor, bool),
        (dw, add_dw): (Tensor, bool),
        dy: &Tensor,
        inverse: &Tensor,
        x: &Tensor,
        weight: &Tensor,
    ) -> Result<()> {
        let (elem, rows, width) = (dy.dtype(), x.rows(), x.cols());
        let lane = lane(elem, width, &[(&dx, 0), (dy, 0), (x, 0), (weight, 0)]);
        let (warps, shared) = row_warps(width);
        let count = summing_blocks(rows, warps);
        let partial = x.device().empty(&[count as usize, width], DType::F32)?;
        let args = [
            ptr(&dx),
            flag(add_dx),
            ptr(&partial),
            ptr(dy),
            ptr(inverse),
            ptr(x),
            ptr(weight),
            long(rows),
            int(width),
            flag(lane > 1),
        ];
        gpu.launch(&SOURCE, elem, "rms_norm_backward", [count, 1, 1], [32, warps as u32, 1], shared, &args)?;
        sum_partials(gpu, &dw, add_dw, &partial)
    }
}
