//! `x + m y`: adding a branch to the residual stream, which is bf16 only where all is ([`Precision::stream`]): a branch
//! loses most of its bits beside a bf16 stream many times its size.
//!
//! [`Precision::stream`]: crate::Precision::stream

use rayon::prelude::*;

use crate::cpu::simd;
use crate::tape::{Tape, Var};
use crate::{Device, Error, Result};

const BLOCK: usize = 1 << 14;

/// `x + m y`, both `[R, C]`; `x` and the result have the element type of the stream.
pub fn residual(tape: &mut Tape, x: &Var, y: &Var, m: f32) -> Result<Var> {
    let types = (x.value.dtype(), y.value.dtype());
    if x.value.shape() != y.value.shape() || types != (tape.precision().stream(), tape.precision().compute())
    {
        return Err(Error::shape("residual", format!("{:?} + {:?}", x.value, y.value)));
    }
    let out = tape.device().empty(x.value.shape(), x.value.dtype())?;
    match tape.device() {
        Device::Cpu => sum_cpu(&mut out.write(), &x.value.read(), &y.value.read(), m),
        Device::Cuda(gpu) => cuda::sum(gpu, &out, &x.value, &y.value, m)?,
    }
    let (x, y, dtype) = (x.id, y.id, y.value.dtype());
    Ok(tape.push("residual", out, move |dout, grads| {
        let (dy, accumulate) = grads.target_of(y, dout.shape(), dtype)?;
        match dout.device() {
            Device::Cpu => scale_cpu(&mut dy.write(), &dout.read(), m, accumulate),
            Device::Cuda(gpu) => cuda::scale(gpu, &dy, dout, m, accumulate)?,
        }
        grads.give(x, dout.clone())
    }))
}

/// `out = x + m y`.
pub(super) fn sum_cpu(out: &mut [f32], x: &[f32], y: &[f32], m: f32) {
    out.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).zip(y.par_chunks(BLOCK)).for_each(|((out, x), y)| {
        simd(
            #[inline(always)]
            || out.iter_mut().zip(x).zip(y).for_each(|((o, x), y)| *o = m.mul_add(*y, *x)),
        );
    });
}

/// `out = (out or 0) + m x`.
pub(super) fn scale_cpu(out: &mut [f32], x: &[f32], m: f32, accumulate: bool) {
    out.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(out, x)| {
        simd(
            #[inline(always)]
            || {
                for (o, x) in out.iter_mut().zip(x) {
                    *o = if accumulate { m.mul_add(*x, *o) } else { m * x };
                }
            },
        );
    });
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `residual.cu`.

    use crate::cuda::{Arg, Gpu, Source};
    use crate::ops::launch::{flag, flat, long, of_stream, ptr, target};
    use crate::{Result, Tensor};

    pub(in crate::ops) static SOURCE: Source =
        Source { name: "residual.cu", text: include_str!("residual.cu") };

    pub(super) fn sum(gpu: &Gpu, out: &Tensor, x: &Tensor, y: &Tensor, m: f32) -> Result<()> {
        let count = out.numel();
        let args = [ptr(out), ptr(x), ptr(y), Arg::F32(m), long(count)];
        flat(gpu, &SOURCE, y.dtype(), &of_stream("residual_sum", x), count, &args)
    }

    pub(super) fn scale(gpu: &Gpu, out: &Tensor, x: &Tensor, m: f32, accumulate: bool) -> Result<()> {
        let count = out.numel();
        let args = [target(out, accumulate), ptr(x), Arg::F32(m), flag(accumulate), long(count)];
        flat(gpu, &SOURCE, out.dtype(), &of_stream("residual_scale", x), count, &args)
    }
}
