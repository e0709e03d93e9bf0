//! The gated norm of a Mamba2 mixer: `w rms(y silu(z))`, gate first, in f32 over the whole row.

use crate::cpu::{dot, for_row_blocks, for_row_blocks_summing, sigmoid};
use crate::ops::Cols;
use crate::ops::elementwise::PartialSums;
use crate::params::Param;
use crate::tape::{Tape, Var};
use crate::{DType, Device, Error, Result, Tensor};

/// `w g / sqrt(mean(g^2) + eps)` with `g = y silu(z)`; `y [R, C]`, `z` as wide, weight `[C]`.
pub fn gated_rms_norm(tape: &mut Tape, y: &Var, z: &Cols, weight: &Param, eps: f32) -> Result<Var> {
    let (rows, width) = (y.value.rows(), y.value.cols());
    if weight.value.numel() != width || z.width != width || z.var.value.rows() != rows {
        return Err(Error::shape("gated_rms_norm", format!("{:?} gated by {} columns", y.value, z.width)));
    }
    let out = tape.device().empty(&[rows, width], y.value.dtype())?;
    let inverse = tape.device().empty(&[rows], DType::F32)?;
    match tape.device() {
        Device::Cpu => forward_cpu(&out, &inverse, &y.value, z, &weight.value, eps),
        Device::Cuda(gpu) => cuda::forward(gpu, &out, &inverse, &y.value, z, &weight.value, eps)?,
    }
    let (y, z, weight) = (y.clone(), z.clone(), weight.clone());
    Ok(tape.push_remade("gated_rms_norm", out, move |dout, again, grads| {
        let dy = grads.target(&y)?;
        let dz = grads.columns(&z.var, z.width)?;
        let dw = (weight.grad.clone(), weight.accumulate());
        match dout.device() {
            Device::Cpu => {
                let scratch = dout.device().empty(dout.shape(), DType::F32)?;
                let again = again.unwrap_or(&scratch);
                backward_cpu(dy, &dz, again, dw, dout, &inverse, &y.value, &z, &weight.value);
                Ok(())
            }
            Device::Cuda(gpu) => {
                let partial =
                    cuda::backward(gpu, dy, &dz, again, dout, &inverse, &y.value, &z, &weight.value)?;
                grads.sum_later(PartialSums { total: dw.0, add: dw.1, partial })
            }
        }
    }))
}

fn forward_cpu(out: &Tensor, inverse: &Tensor, y: &Tensor, z: &Cols, weight: &Tensor, eps: f32) {
    let width = y.cols();
    let (y, zs, w) = (y.read(), z.var.value.read(), weight.read());
    for_row_blocks(
        [(&mut out.write(), width), (&mut inverse.write(), 1)],
        #[inline(always)]
        |first, [out, inverse]| {
            for (i, (out, inverse)) in out.chunks_exact_mut(width).zip(inverse).enumerate() {
                let y = &y[(first + i) * width..][..width];
                let z = &zs[(first + i) * z.stride() + z.start..][..width];
                for ((out, y), z) in out.iter_mut().zip(y).zip(z) {
                    *out = y * z * sigmoid(*z);
                }
                let r = 1.0 / (dot(out, out) / width as f32 + eps).sqrt();
                out.iter_mut().zip(w.iter()).for_each(|(o, w)| *o = w * (*o * r));
                *inverse = r;
            }
        },
    );
}

/// With `r` the inverse root mean square of `g` and `h = w dout`: `dg = r (h - g r^2 mean(h g))`,
/// `dy = dg silu(z)`, `dz = dg y silu'(z)`, `dw = sum over rows of dout g r`, `again = w g r`.
#[allow(clippy::too_many_arguments)] // the tensors of one formula
fn backward_cpu(
    (dy, add_dy): (Tensor, bool),
    dz: &Tensor,
    again: &Tensor,
    (dw, add_dw): (Tensor, bool),
    dout: &Tensor,
    inverse: &Tensor,
    y: &Tensor,
    z: &Cols,
    weight: &Tensor,
) {
    let width = y.cols();
    let (dout, inverse, y, zs, w) =
        (dout.read(), inverse.read(), y.read(), z.var.value.read(), weight.read());
    for_row_blocks_summing(
        [(&mut dy.write(), width), (&mut dz.write(), z.stride()), (&mut again.write(), width)],
        (&mut dw.write(), add_dw),
        #[inline(always)]
        |first, [dy, dz, again], dw| {
            let mut rows = vec![0.0; 3 * width];
            let (s, rest) = rows.split_at_mut(width);
            let (g, h) = rest.split_at_mut(width);
            let (s, g, h, w, dw) =
                (&mut s[..width], &mut g[..width], &mut h[..width], &w[..width], &mut dw[..width]);
            let rows = dy.chunks_exact_mut(width).zip(dz.chunks_exact_mut(z.stride()));
            let rows = rows.zip(again.chunks_exact_mut(width));
            for (i, ((dy, dz), again)) in rows.enumerate() {
                let at = (first + i) * width;
                let (dout, y, r) = (&dout[at..][..width], &y[at..][..width], inverse[first + i]);
                let from = &zs[(first + i) * z.stride() + z.start..][..width];
                let (dy, dz, again) = (&mut dy[..width], &mut dz[z.start..][..width], &mut again[..width]);
                for j in 0..width {
                    s[j] = sigmoid(from[j]);
                    g[j] = y[j] * from[j] * s[j];
                    h[j] = w[j] * dout[j];
                    dw[j] += dout[j] * g[j] * r;
                    again[j] = w[j] * (g[j] * r);
                }
                let k = r * r * dot(h, g) / width as f32;
                for j in 0..width {
                    let dg = r * (h[j] - g[j] * k);
                    let d = dg * from[j] * s[j];
                    dy[j] = if add_dy { dy[j] + d } else { d };
                    dz[j] = dg * y[j] * s[j] * (1.0 + from[j] * (1.0 - s[j]));
                }
            }
        },
    );
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `gated_norm.cu`.

    use crate::cuda::{Arg, Gpu, Source};
    use crate::ops::Cols;
    use crate::ops::launch::{
        WARPS, blocks, columns, flag, int, lane, long, ptr, ptr_or_null, row_warps, summing_blocks, target,
    };
    use crate::{DType, Result, Tensor};

    pub(in crate::ops) static SOURCE: Source =
        Source { name: "gated_norm.cu", text: include_str!("gated_norm.cu") };

    /// Most pieces of 16 bytes in a row that a block has at once, and blocks that go over the rows then: two for each
    /// multiprocessor of an H100.
    const PIECES: usize = 512;
    const SUMS: usize = 264;

    pub(super) fn forward(
        gpu: &Gpu,
        out: &Tensor,
        inverse: &Tensor,
        y: &Tensor,
        z: &Cols,
        weight: &Tensor,
        eps: f32,
    ) -> Result<()> {
        let (elem, rows, width) = (y.dtype(), y.rows(), y.cols());
        let lane = lane(elem, width, &[(out, 0), (y, 0), (&z.var.value, z.start), (weight, 0)]);
        let args = [
            ptr(out),
            ptr(inverse),
            ptr(y),
            columns(&z.var.value, z.start, width),
            long(z.stride()),
            ptr(weight),
            Arg::F32(eps),
            long(rows),
            int(width),
            flag(lane > 1),
        ];
        let grid = [blocks(rows, WARPS), 1, 1];
        gpu.launch(&SOURCE, elem, "gated_norm_forward", grid, [32, WARPS as u32, 1], 0, &args)
    }

    /// Leaves the partial sums of the weight's gradient, `[n, C]`.
    #[allow(clippy::too_many_arguments)] // the tensors of one formula
    pub(super) fn backward(
        gpu: &Gpu,
        (dy, add_dy): (Tensor, bool),
        dz: &Tensor,
        again: Option<&Tensor>,
        dout: &Tensor,
        inverse: &Tensor,
        y: &Tensor,
        z: &Cols,
        weight: &Tensor,
    ) -> Result<Tensor> {
        let (elem, rows, width) = (y.dtype(), y.rows(), y.cols());
        let mut spans =
            vec![(&dy, 0), (dz, z.start), (dout, 0), (y, 0), (&z.var.value, z.start), (weight, 0)];
        spans.extend(again.map(|again| (again, 0)));
        let lane = lane(elem, width, &spans);
        let pieces = width.div_ceil(lane);
        let whole = lane > 1 && pieces <= PIECES;
        let (warps, shared) = row_warps(width);
        let count = if whole { rows.min(SUMS) as u32 } else { summing_blocks(rows, warps) };
        let partial = y.device().empty(&[count as usize, width], DType::F32)?;
        let mut args = vec![
            target(&dy, add_dy),
            flag(add_dy),
            columns(dz, z.start, width),
            ptr_or_null(again),
            ptr(&partial),
            ptr(dout),
            ptr(inverse),
            ptr(y),
            columns(&z.var.value, z.start, width),
            long(z.stride()),
            ptr(weight),
            long(rows),
            int(width),
        ];
        if whole {
            let threads = [pieces.next_multiple_of(32) as u32, 1, 1];
            gpu.launch(&SOURCE, elem, "gated_norm_backward_pieces", [count, 1, 1], threads, 0, &args)?;
        } else {
            args.push(flag(lane > 1));
            let threads = [32, warps as u32, 1];
            gpu.launch(&SOURCE, elem, "gated_norm_backward", [count, 1, 1], threads, shared, &args)?;
        }
        Ok(partial)
    }
}
