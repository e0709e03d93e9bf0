//! Root-mean-square norm: `y = w x / sqrt(mean(x^2) + eps)`, statistics in f32 (Zhang and Sennrich 2019); alone, or of
//! the residual stream to which a branch has just been added.
//!
//! The backward pass makes `y` again. The forward pass keeps `x` for it, which the stream has anyway; where the stream
//! is f32 and the rest is bf16, it keeps `n = x / rms(x)` in bf16.

use crate::cpu::{dot, for_row_blocks, for_row_blocks_summing};
use crate::ops::elementwise::PartialSums;
use crate::ops::residual;
use crate::params::Param;
use crate::tape::{Grads, Tape, Var};
use crate::{DType, Device, Error, Result, Tensor};

/// The norm of every row of `x [R, C]`, a value of the residual stream, with weight `[C]`; the result has the tape's
/// element type.
pub fn rms_norm(tape: &mut Tape, x: &Var, weight: &Param, eps: f32) -> Result<Var> {
    check(tape, x, None, weight)?;
    let (forward, y) = forward(tape, &x.value, None, weight, eps)?;
    let (x, stream, shape) = (x.id, x.value.dtype(), x.value.shape().to_vec());
    Ok(tape.push_remade("rms_norm", y, move |dy, again, grads| {
        let dx = grads.target_of(x, &shape, stream)?;
        forward.backward(grads, &dx, None, again, dy)
    }))
}

/// `s = x + m y` and the norm of `s` with `weight`, in one pass: `(s, norm)`. `x [R, C]` and `s` are values of the
/// residual stream; `y` and the norm have the tape's element type.
pub fn residual_norm(
    tape: &mut Tape,
    x: &Var,
    y: &Var,
    m: f32,
    weight: &Param,
    eps: f32,
) -> Result<(Var, Var)> {
    check(tape, x, Some(y), weight)?;
    let stream = x.value.dtype();
    let sum = tape.device().empty(x.value.shape(), stream)?;
    let (forward, norm) = forward(tape, &x.value, Some((&y.value, m, &sum)), weight, eps)?;
    let sum = tape.leaf(sum);
    let norm = tape.remade(norm);
    let ids = [x.id, y.id, sum.id, norm.id];
    let shape = x.value.shape().to_vec();
    tape.step("residual_norm", move |grads| backward(grads, &forward, ids, m, (&shape, stream)));
    Ok((sum, norm))
}

fn check(tape: &Tape, x: &Var, branch: Option<&Var>, weight: &Param) -> Result<()> {
    let (stream, compute) = (tape.precision().stream(), tape.precision().compute());
    let fits = |y: &Var| y.value.shape() == x.value.shape() && y.value.dtype() == compute;
    if weight.value.numel() == x.value.cols() && x.value.dtype() == stream && branch.is_none_or(fits) {
        return Ok(());
    }
    let branch = branch.map_or(String::new(), |y| format!(" + {:?}", y.value));
    Err(Error::shape("rms_norm", format!("{:?}{branch} with weight {:?}", x.value, weight.value)))
}

/// What the forward pass leaves for the backward pass.
struct Forward {
    /// `1 / sqrt(mean(x^2) + eps)` of each row.
    inverse: Tensor,
    /// `x`, or `n` where that takes less; none where nothing is recorded.
    kept: Option<Tensor>,
    weight: Param,
}

/// The norm of `x`, or of the sum `x + m y` that is written on the way: `(y, m, sum)`.
fn forward(
    tape: &Tape,
    x: &Tensor,
    branch: Option<(&Tensor, f32, &Tensor)>,
    weight: &Param,
    eps: f32,
) -> Result<(Forward, Tensor)> {
    let device = tape.device();
    let dtype = tape.precision().compute();
    let y = device.empty(&[x.rows(), x.cols()], dtype)?;
    let inverse = device.empty(&[x.rows()], DType::F32)?;
    let normed = branch.map_or(x, |(_, _, sum)| sum);
    let n = (tape.recording() && x.dtype() != dtype).then(|| device.empty(y.shape(), dtype)).transpose()?;
    match device {
        Device::Cpu => {
            if let Some((y, m, sum)) = branch {
                residual::sum_cpu(&mut sum.write(), &x.read(), &y.read(), m);
            }
            forward_cpu(&y, &inverse, normed, &weight.value, eps);
        }
        Device::Cuda(gpu) => cuda::forward(gpu, (&y, n.as_ref()), &inverse, x, branch, &weight.value, eps)?,
    }
    let kept = tape.recording().then(|| n.unwrap_or_else(|| normed.clone()));
    Ok((Forward { inverse, kept, weight: weight.clone() }, y))
}

/// The backward step of [`residual_norm`]; `ids` are those of `x`, `y`, the sum and the norm.
fn backward(
    grads: &mut Grads,
    forward: &Forward,
    [x, y, sum, norm]: [usize; 4],
    m: f32,
    (shape, of_stream): (&[usize], DType),
) -> Result<()> {
    let (stream, dnorm) = (grads.take(sum)?, grads.take(norm)?);
    let device = forward.inverse.device().clone();
    let dtype = forward.kept.as_ref().map_or(DType::F32, Tensor::dtype);
    let dnorm = match (dnorm, &stream) {
        (Some(dnorm), _) => dnorm,
        (None, Some(_)) => device.zeros(shape, dtype)?,
        (None, None) => return Ok(()),
    };
    grads.remake(norm, &dnorm, |again, grads| {
        let dx = match stream {
            Some(of_sum) if of_sum.is_shared() => (of_sum.cast(of_stream)?, true),
            Some(of_sum) => (of_sum, true),
            None => (device.empty(shape, of_stream)?, false),
        };
        if m.to_bits() == 1.0f32.to_bits() && of_stream == dtype && !grads.has(y) {
            // The branch has the stream's gradient.
            forward.backward(grads, &dx, None, again, &dnorm)?;
            grads.give(y, dx.0.clone())?;
        } else {
            let (dy, add_dy) = grads.target_of(y, shape, dtype)?;
            forward.backward(grads, &dx, Some((&dy, add_dy, m)), again, &dnorm)?;
        }
        grads.give(x, dx.0)
    })
}

impl Forward {
    /// `dx = (dx or 0) +` the gradient of the norm, the branch's gradient `(or 0) + m dx` into `branch`, and the norm's
    /// output once more into `again`.
    fn backward(
        &self,
        grads: &mut Grads,
        dx: &(Tensor, bool),
        branch: Option<(&Tensor, bool, f32)>,
        again: Option<&Tensor>,
        dy: &Tensor,
    ) -> Result<()> {
        let kept = self.kept.as_ref().expect("the tape records where it has steps");
        let (weight, dw) = (&self.weight.value, (self.weight.grad.clone(), self.weight.accumulate()));
        match dy.device() {
            Device::Cpu => {
                let scratch = dy.device().empty(dy.shape(), DType::F32)?;
                let again = again.unwrap_or(&scratch);
                backward_cpu(dx, again, dw, dy, &self.inverse, kept, weight);
                if let Some((to, add, m)) = branch {
                    residual::scale_cpu(&mut to.write(), &dx.0.read(), m, add);
                }
                Ok(())
            }
            Device::Cuda(gpu) => {
                let partial = cuda::backward(gpu, dx, branch, again, dy, &self.inverse, kept, weight)?;
                grads.sum_later(PartialSums { total: dw.0, add: dw.1, partial })
            }
        }
    }
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

/// With `r = 1 / rms(x)` and `g = w dy`: `dx = r (g - x r^2 mean(g x))`, `dw = sum over rows of dy x r`,
/// `again = w x r`.
fn backward_cpu(
    (dx, add_dx): &(Tensor, bool),
    again: &Tensor,
    (dw, add_dw): (Tensor, bool),
    dy: &Tensor,
    inverse: &Tensor,
    x: &Tensor,
    weight: &Tensor,
) {
    let width = x.cols();
    let (dy, inverse, x, w) = (dy.read(), inverse.read(), x.read(), weight.read());
    for_row_blocks_summing(
        [(&mut dx.write(), width), (&mut again.write(), width)],
        (&mut dw.write(), add_dw),
        #[inline(always)]
        |first, [dx, again], dw| {
            let (mut g, w, dw) = (vec![0.0; width], &w[..width], &mut dw[..width]);
            let g = &mut g[..width];
            let rows = dx.chunks_exact_mut(width).zip(again.chunks_exact_mut(width));
            for (i, (dx, again)) in rows.enumerate() {
                let at = (first + i) * width;
                let (dx, again, dy, x) =
                    (&mut dx[..width], &mut again[..width], &dy[at..][..width], &x[at..][..width]);
                let r = inverse[first + i];
                for j in 0..width {
                    dw[j] += dy[j] * x[j] * r;
                    g[j] = w[j] * dy[j];
                    again[j] = w[j] * (x[j] * r);
                }
                let k = r * r * dot(g, x) / width as f32;
                for j in 0..width {
                    let d = r * (g[j] - x[j] * k);
                    dx[j] = if *add_dx { dx[j] + d } else { d };
                }
            }
        },
    );
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `rms_norm.cu`.

    use crate::cuda::{Arg, Gpu, Source};
    use crate::ops::launch::{
        WARPS, blocks, flag, int, lane, long, of_stream, ptr, ptr_or_null, row_warps, summing_blocks, target,
    };
    use crate::{DType, Result, Tensor};

    pub(in crate::ops) static SOURCE: Source =
        Source { name: "rms_norm.cu", text: include_str!("rms_norm.cu") };

    pub(super) fn forward(
        gpu: &Gpu,
        (y, n): (&Tensor, Option<&Tensor>),
        inverse: &Tensor,
        x: &Tensor,
        branch: Option<(&Tensor, f32, &Tensor)>,
        weight: &Tensor,
        eps: f32,
    ) -> Result<()> {
        let (elem, rows, width) = (y.dtype(), x.rows(), x.cols());
        let (added, m, sum) = branch.map_or((None, 0.0, None), |(y, m, sum)| (Some(y), m, Some(sum)));
        let spans = [Some(y), n, added, sum, Some(x), Some(weight)];
        let spans: Vec<_> = spans.into_iter().flatten().map(|tensor| (tensor, 0)).collect();
        let args = [
            ptr(y),
            ptr_or_null(n),
            ptr(inverse),
            ptr_or_null(sum),
            ptr(x),
            ptr_or_null(added),
            Arg::F32(m),
            ptr(weight),
            Arg::F32(eps),
            long(rows),
            int(width),
            flag(lane(elem, width, &spans) > 1),
        ];
        let grid = [blocks(rows, WARPS), 1, 1];
        let kernel = of_stream("rms_norm_forward", x);
        gpu.launch(&SOURCE, elem, &kernel, grid, [32, WARPS as u32, 1], 0, &args)
    }

    /// Leaves the partial sums of the weight's gradient, `[n, C]`.
    #[allow(clippy::too_many_arguments)] // the tensors of one formula
    pub(super) fn backward(
        gpu: &Gpu,
        (dx, add_dx): &(Tensor, bool),
        branch: Option<(&Tensor, bool, f32)>,
        again: Option<&Tensor>,
        dy: &Tensor,
        inverse: &Tensor,
        kept: &Tensor,
        weight: &Tensor,
    ) -> Result<Tensor> {
        let (elem, rows, width) = (dy.dtype(), dy.rows(), dy.cols());
        let (dbranch, add_branch, m) = branch.map_or((None, false, 0.0), |(to, add, m)| (Some(to), add, m));
        let spans = [Some(dx), dbranch, again, Some(dy), Some(kept), Some(weight)];
        let spans: Vec<_> = spans.into_iter().flatten().map(|tensor| (tensor, 0)).collect();
        let (warps, shared) = row_warps(width);
        let count = summing_blocks(rows, warps);
        let partial = dy.device().empty(&[count as usize, width], DType::F32)?;
        let args = [
            target(dx, *add_dx),
            flag(*add_dx),
            dbranch.map_or(Arg::Ptr(0), |to| target(to, add_branch)),
            flag(add_branch),
            Arg::F32(m),
            ptr_or_null(again),
            ptr(&partial),
            ptr(dy),
            ptr(inverse),
            ptr(kept),
            ptr(weight),
            long(rows),
            int(width),
            flag(lane(elem, width, &spans) > 1),
        ];
        let kernel = of_stream("rms_norm_backward", dx);
        gpu.launch(&SOURCE, elem, &kernel, [count, 1, 1], [32, warps as u32, 1], shared, &args)?;
        Ok(partial)
    }
}
