//! The element-wise parts of the rules, for both devices: plain loops here, `kernels.cu` on the GPU. Buffers are f32 but
//! for [`momentum_taken`]; gradients `g` there are f32 or bf16.

use rayon::prelude::*;
use tensor::cuda::{Arg, Gpu, Source};
use tensor::random::StreamRange;
use tensor::{DType, Device, Tensor};

use crate::error::Result;

/// Kernel source of this module.
pub(crate) static SOURCE: Source = Source { name: "optim/kernels.cu", text: include_str!("kernels.cu") };

/// Elements of one task on the CPU; partial sums are made of these.
pub(crate) const BLOCK: usize = 1 << 14;
/// Threads of a block on the GPU.
pub(crate) const THREADS: u32 = 256;

/// What a gradient goes through before it enters the momentum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    None = 0,
    /// `tanh(g) |g|`.
    Tanh = 1,
    /// `sigmoid(g) g`.
    Sigmoid = 2,
    /// `max(g, 0)`.
    Relu = 3,
}

impl Gate {
    #[inline(always)]
    fn of(self, g: f32) -> f32 {
        match self {
            Gate::None => g,
            Gate::Tanh => g.tanh() * g.abs(),
            Gate::Sigmoid => sigmoid(g) * g,
            Gate::Relu => g.max(0.0),
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

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
            elementwise(gpu, DType::F32, "axpby", y.numel(), &args)
        }
    }
}

/// `x = a x`, with `a` the first element of a tensor; 1 leaves x as it is.
pub(crate) fn scale(x: &Tensor, a: &Tensor) -> Result<()> {
    match x.device() {
        Device::Cpu => {
            let a = a.read()[0];
            if a.to_bits() != 1f32.to_bits() {
                x.write().par_chunks_mut(BLOCK).for_each(|x| x.iter_mut().for_each(|x| *x *= a));
            }
            Ok(())
        }
        Device::Cuda(gpu) => {
            elementwise(gpu, x.dtype(), "scale", x.numel(), &[x, a].map(|t| Arg::Ptr(t.ptr())))
        }
    }
}

/// `m = decay m + weight gate(g)`.
pub(crate) fn momentum(m: &Tensor, g: &Tensor, decay: f32, weight: f32, gate: Gate) -> Result<()> {
    match m.device() {
        Device::Cpu => {
            let g = g.read();
            m.write().par_chunks_mut(BLOCK).zip(g.par_chunks(BLOCK)).for_each(|(m, g)| {
                m.iter_mut().zip(g).for_each(|(m, g)| *m = decay * *m + weight * gate.of(*g));
            });
            Ok(())
        }
        Device::Cuda(gpu) => {
            let pointers = [array(m, 2), array(g, 1)];
            let numbers = [Arg::F32(decay), Arg::F32(weight), Arg::I32(gate as i32), vec(&[m, g], 1)];
            let args = [&pointers[..], &numbers[..], &[Arg::I64(m.numel() as i64)]].concat();
            launch(gpu, g.dtype(), "momentum", [blocks(m.numel(), MANY), 1, 1], &args)
        }
    }
}

/// [`momentum`] on `m [L, ..]` of a GPU, and in the same pass what [`compose`] makes of it, as `dtype`: `[L, ..]`, with
/// the sums of squares of the parts of each member, `[L, parts, 2]`, each an f64 in two f32. A buffer in bf16 is rounded
/// by the members' streams, after the result was made of it.
pub(crate) fn momentum_taken(
    gpu: &Gpu,
    (m, streams): (&Tensor, Option<StreamRange>),
    g: &Tensor,
    (decay, weight): (f32, f32),
    how: Compose,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    let members = m.shape()[0];
    let size = m.numel() / members;
    let x = m.device().empty(m.shape(), dtype)?;
    let parts = blocks(size, MANY);
    let sums = m.device().empty(&[members, parts as usize, 2], DType::F32)?;
    let (keep, lead) = how.nesterov.unwrap_or((1.0, 0.0));
    let streams = streams.and_then(|streams| streams.ptr).unwrap_or(0);
    let pointers = [array(m, 2), Arg::Ptr(streams), array(g, 1), array(&x, 1), Arg::Ptr(sums.ptr())];
    let numbers = [decay, weight, keep, lead].map(Arg::F32);
    let vec = vec(&[m, g, &x], members);
    let words = [Arg::I32(how.gate as i32), Arg::I32(i32::from(how.self_gate)), vec, Arg::I64(size as i64)];
    let args = [&pointers[..], &numbers[..], &words[..]].concat();
    let kernel = format!("momentum_taken_{}_{}", word(m), word(g));
    launch(gpu, dtype, &kernel, [parts, members as u32, 1], &args)?;
    Ok((x, sums))
}

/// What is made of momentum and gradient before the orthogonaliser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Compose {
    /// With Nesterov momentum, the weights of the buffer and of the gated gradient; else the buffer alone.
    pub nesterov: Option<(f32, f32)>,
    pub gate: Gate,
    /// Whether the result `x` becomes `x sigmoid(x)`.
    pub self_gate: bool,
}

/// A new tensor made of momentum `m` and gradient `g`.
pub(crate) fn compose(m: &Tensor, g: &Tensor, how: Compose) -> Result<Tensor> {
    let x = m.device().empty(m.shape(), DType::F32)?;
    match m.device() {
        Device::Cpu => {
            let (m, g) = (m.read(), g.read());
            x.write().par_chunks_mut(BLOCK).zip(m.par_chunks(BLOCK)).zip(g.par_chunks(BLOCK)).for_each(
                |((x, m), g)| {
                    for ((x, m), g) in x.iter_mut().zip(m).zip(g) {
                        let value =
                            how.nesterov.map_or(*m, |(keep, weight)| weight * how.gate.of(*g) + keep * m);
                        *x = if how.self_gate { value * sigmoid(value) } else { value };
                    }
                },
            );
        }
        Device::Cuda(gpu) => {
            let (keep, weight) = how.nesterov.unwrap_or((1.0, 0.0));
            let pointers = [&x, m, g].map(|t| Arg::Ptr(t.ptr()));
            let numbers = [
                Arg::F32(keep),
                Arg::F32(weight),
                Arg::I32(how.gate as i32),
                Arg::I32(i32::from(how.self_gate)),
            ];
            elementwise(gpu, g.dtype(), "compose", x.numel(), &[&pointers[..], &numbers[..]].concat())?;
        }
    }
    Ok(x)
}

/// Scales the buffers `m [L, ..]` where the gradient's magnitude exceeds the member's threshold.
pub(crate) fn scale_above(m: &Tensor, g: &Tensor, thresholds: &Tensor, factor: f32) -> Result<()> {
    let members = m.shape()[0];
    let size = m.numel() / members;
    match m.device() {
        Device::Cpu => {
            let (g, thresholds) = (g.read(), thresholds.read());
            m.write().par_chunks_mut(size).zip(g.par_chunks(size)).zip(&thresholds[..]).for_each(
                |((m, g), threshold)| {
                    m.iter_mut().zip(g).filter(|(_, g)| g.abs() > *threshold).for_each(|(m, _)| *m *= factor);
                },
            );
            Ok(())
        }
        Device::Cuda(gpu) => {
            let pointers = [m, g, thresholds].map(|t| Arg::Ptr(t.ptr()));
            let args = [&pointers[..], &[Arg::F32(factor), Arg::I64(size as i64)]].concat();
            launch(gpu, g.dtype(), "scale_above", [parts(size), members as u32, 1], &args)
        }
    }
}

/// Sum of squares in f64, in eight interleaved lanes.
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let (eights, rest) = x.as_chunks::<8>();
    for eight in eights {
        for (lane, &x) in lanes.iter_mut().zip(eight) {
            *lane += f64::from(x) * f64::from(x);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>()
}

/// Square of the Frobenius norm of each member of `x [L, ..]`, in f64: neither overflows nor vanishes for any f32.
pub(crate) fn member_squares(x: &Tensor) -> Result<Vec<f64>> {
    let members = x.shape()[0];
    let size = x.numel() / members;
    match x.device() {
        Device::Cpu => {
            let x = x.read();
            let member = |x: &[f32]| x.par_chunks(BLOCK).map(sum_of_squares).collect::<Vec<_>>().iter().sum();
            Ok(x.chunks_exact(size).map(member).collect())
        }
        Device::Cuda(gpu) => {
            let parts = blocks(size, SUMS);
            let partial = x.device().empty(&[members, parts as usize, 2], DType::F32)?;
            partial_squares(gpu, x, members, parts, partial.ptr())?;
            Ok(add_up(gpu, &partial)?.to_vec()?.chunks_exact(2).map(square).collect())
        }
    }
}

/// Starts the sums of squares of a GPU's `x`, in `members` equal runs of so many parts, into f64 `[members, parts]` at
/// `to`.
pub(crate) fn partial_squares(gpu: &Gpu, x: &Tensor, members: usize, parts: u32, to: u64) -> Result<()> {
    let size = x.numel() / members;
    let whole = members == 1 || size.is_multiple_of(16 / x.dtype().size());
    let vec = Arg::I32(i32::from(whole && x.ptr().is_multiple_of(16)));
    let args = [array(x, 1), Arg::Ptr(to), vec, Arg::I64(size as i64)];
    launch(gpu, x.dtype(), "partial_squares", [parts, members as u32, 1], &args)
}

/// Adds up `[L, parts, 2]`, each an f64 in two f32: `[L, 2]` for [`square`].
pub(crate) fn add_up(gpu: &Gpu, partial: &Tensor) -> Result<Tensor> {
    let [members, parts, _] = *partial.shape() else { panic!("{partial:?} is no bank of sums") };
    let total = partial.device().empty(&[members, 2], DType::F32)?;
    let args = [Arg::Ptr(partial.ptr()), Arg::Ptr(total.ptr()), Arg::I32(parts as i32)];
    launch(gpu, DType::F32, "total_squares", [members as u32, 1, 1], &args)?;
    Ok(total)
}

/// A sum of [`add_up`]: a number and a power of two.
pub(crate) fn square(sum: &[f32]) -> f64 {
    f64::from(sum[0]) * f64::from(sum[1]).exp2()
}

/// Divides each line of `x` (a matrix's out axis counts the lines) by the root of the running mean of its squares in
/// `moments [L, lines]`, then gives each member the Frobenius norm `target`.
pub(crate) fn neurons(
    x: &Tensor,
    out_axis: usize,
    moments: &Tensor,
    beta: f32,
    eps: f32,
    target: f32,
) -> Result<()> {
    let [members, m, n] = *x.shape() else { panic!("{x:?} is no bank of matrices") };
    // Lines, their length, elements from line to line and within one.
    let (lines, length, line_step, step, period) =
        if out_axis == 0 { (m, n, n, 1, m * n) } else { (n, m, 1, n, n) };
    match x.device() {
        Device::Cpu => {
            let (mut x, mut moments) = (x.write(), moments.write());
            for (x, moments) in x.chunks_exact_mut(m * n).zip(moments.chunks_exact_mut(lines)) {
                let mut total = 0.0;
                let mut factors = vec![0.0; lines];
                for (line, (moment, factor)) in moments.iter_mut().zip(&mut factors).enumerate() {
                    let sum: f32 =
                        x[line * line_step..].iter().step_by(step).take(length).map(|x| x * x).sum();
                    *moment = beta * *moment + (1.0 - beta) * sum / length as f32;
                    *factor = 1.0 / (moment.sqrt() + eps);
                    total += sum * *factor * *factor;
                }
                let whole = if total > 0.0 { target / total.sqrt() } else { 0.0 };
                for (i, x) in x.iter_mut().enumerate() {
                    *x *= factors[i % period / line_step] * whole;
                }
            }
            Ok(())
        }
        Device::Cuda(gpu) => {
            let scratch = x.device().empty(&[2, members, lines], DType::F32)?;
            let (factors, squares) = (Arg::Ptr(scratch.slot(0).ptr()), Arg::Ptr(scratch.slot(1).ptr()));
            let (size, of) = (Arg::I64((m * n) as i64), Arg::I32(lines as i32));
            let (line_step, step) = (Arg::I64(line_step as i64), Arg::I64(step as i64));
            let (x_ptr, moments) = (Arg::Ptr(x.ptr()), Arg::Ptr(moments.ptr()));
            let args = [
                x_ptr,
                moments,
                factors,
                squares,
                size,
                of,
                Arg::I32(length as i32),
                line_step,
                step,
                Arg::F32(beta),
                Arg::F32(eps),
            ];
            launch(gpu, x.dtype(), "neuron_moments", [(members * lines) as u32, 1, 1], &args)?;
            let period = Arg::I64(period as i64);
            let args = [x_ptr, factors, squares, size, of, line_step, period, Arg::F32(target)];
            launch(gpu, x.dtype(), "neuron_scale", [parts(m * n), members as u32, 1], &args)
        }
    }
}

/// Blocks of a pass over `n` elements, four a thread, or `most`, whose threads go on to further ones.
pub(crate) fn blocks(n: usize, most: u32) -> u32 {
    n.div_ceil(4 * THREADS as usize).clamp(1, most as usize) as u32
}

/// Most blocks of a pass that is done once it has written: one group a thread keeps most loads on the way.
pub(crate) const MANY: u32 = 1 << 24;
/// Most blocks of a pass whose blocks each leave a sum: some more than an H100 runs at once.
pub(crate) const SUMS: u32 = 2112;

/// A tensor as an argument of a kernel that goes over it so many times: 2 where it is read and written.
pub(crate) fn array(t: &Tensor, times: u64) -> Arg {
    Arg::Span(t.ptr(), times * (t.numel() * t.dtype().size()) as u64)
}

/// Whether a pass may take four elements of each of these at a time, which are of so many members.
pub(crate) fn vec(arrays: &[&Tensor], members: usize) -> Arg {
    let aligned = |t: &&Tensor| {
        let whole = members == 1 || (t.numel() / members).is_multiple_of(4);
        whole && t.ptr().is_multiple_of(4 * t.dtype().size() as u64)
    };
    Arg::I32(i32::from(arrays.iter().all(aligned)))
}

/// The type of a tensor's elements as names of kernels have it.
pub(crate) fn word(t: &Tensor) -> &'static str {
    if t.dtype() == DType::BF16 { "bf16" } else { "f32" }
}

/// Blocks for `n` elements of one member.
pub(crate) fn parts(n: usize) -> u32 {
    n.div_ceil(4 * THREADS as usize).min(1 << 20) as u32
}

fn launch(gpu: &Gpu, element: DType, kernel: &str, grid: [u32; 3], args: &[Arg]) -> Result<()> {
    Ok(gpu.launch(&SOURCE, element, kernel, grid, [THREADS, 1, 1], 0, args)?)
}

/// Launches a kernel over `n` elements; its last argument is `n`.
fn elementwise(gpu: &Gpu, element: DType, kernel: &str, n: usize, args: &[Arg]) -> Result<()> {
    launch(gpu, element, kernel, [parts(n), 1, 1], &[args, &[Arg::I64(n as i64)]].concat())
}
