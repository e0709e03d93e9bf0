//! Causal attention with grouped key/value heads, with or without rotary positions.
//!
//! `o = softmax(scale q k^T + causal mask) v` per query head; softmax in f32.
//!
//! On a GPU there are two ways. Where the kernels without stored scores ([`flash`]) can be had, they run: storage in
//! bf16, heads of 32, 64, 96 or 128, and q, k and v in columns that begin at 16 bytes; on an H100 the backward pass of
//! many short heads is one kernel of its own ([`whole`]). Everything else, f32 above all,
//! and a tape of [`Kernels::Plain`], goes by products over scores in memory ([`stored`]), which in training keep
//! `query T^2` elements of a sequence: no matter at 512 positions, gigabytes at 8192. On the CPU scores of one head at
//! a time are in memory, and none are kept.

mod cpu;
mod flash;
mod stored;
mod whole;

use std::sync::Arc;

use crate::cuda::Source;
use crate::ops::{BatchLayout, Cols};
use crate::tape::{Grads, Kernels, Tape, Var};
use crate::{DType, Device, Error, Result, Tensor};

/// The CUDA sources of both ways.
pub(super) const KERNELS: [&Source; 6] = [
    &stored::SOURCE,
    &flash::TABLE[0].source,
    &flash::TABLE[1].source,
    &flash::TABLE[2].source,
    &flash::TABLE[3].source,
    &whole::SOURCE,
];

/// Head counts and scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; divides `query`, query head `h` reads key head `h / (query / key)`.
    pub key: usize,
    /// Width of a head.
    pub dim: usize,
    /// Factor on the scores.
    pub scale: f32,
}

/// Cosines and sines of rotary positions (Su et al. 2021, rotate-half form), each `[T, dim / 2]`, f32:
/// pair `(j, j + dim / 2)` at position `t` turns by `t theta^(-2 j / dim)`.
#[derive(Clone)]
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// Tables for positions below `len`.
    pub fn new(device: &Device, len: usize, dim: usize, theta: f64) -> Result<Self> {
        let half = dim / 2;
        let angle = |i: usize| (i / half) as f64 * theta.powf(-((i % half) as f64) / half as f64);
        let cos: Vec<f32> = (0..len * half).map(|i| angle(i).cos() as f32).collect();
        let sin: Vec<f32> = (0..len * half).map(|i| angle(i).sin() as f32).collect();
        Ok(Rope { cos: device.from_slice(&cos, &[len, half])?, sin: device.from_slice(&sin, &[len, half])? })
    }
}

/// Attention of `q [R, query * dim]` over `k` and `v [R, key * dim]`: `[R, query * dim]`.
///
/// Nobody else may read the columns of q, k and v.
pub fn attention(
    tape: &mut Tape,
    [q, k, v]: [&Cols; 3],
    layout: BatchLayout,
    heads: Heads,
    rope: Option<&Rope>,
) -> Result<Var> {
    let rows = layout.batch * layout.len;
    let widths = [heads.query, heads.key, heads.key].map(|heads_of_it| heads_of_it * heads.dim);
    let fits = [q, k, v].iter().zip(widths).all(|(x, width)| x.width == width && x.var.value.rows() == rows)
        && heads.query.is_multiple_of(heads.key)
        && heads.scale > 0.0
        && rope.is_none_or(|r| r.cos.rows() >= layout.len && r.cos.cols() * 2 == heads.dim);
    if !fits {
        let shapes = [q, k, v].map(|x| format!("{} of {:?}", x.width, x.var.value)).join(", ");
        return Err(Error::shape("attention", format!("columns q, k, v: {shapes}, do not fit {heads:?}")));
    }
    let out = tape.device().empty(&[rows, widths[0]], q.var.value.dtype())?;
    let [q, k, v] = [q, k, v].map(Operand::of);
    let inputs = Inputs { q, k, v, layout, heads, rope: rope.cloned() };
    match tape.device() {
        Device::Cpu => {
            let lse = inputs.log_sums(&out)?;
            cpu::forward(&out, &lse, &inputs);
            Ok(tape.push("attention", out, move |dy, grads| {
                cpu::backward(&inputs.targets(grads)?, dy, &lse, &inputs);
                Ok(())
            }))
        }
        Device::Cuda(gpu) => {
            let gpu = Arc::clone(gpu);
            match flash::find(&inputs) {
                Some(kernels) if tape.kernels() == Kernels::Fast => {
                    let inputs = kernels.rotated(&gpu, inputs)?;
                    let lse = inputs.log_sums(&out)?;
                    kernels.forward(&gpu, &out, &lse, &inputs)?;
                    let of = out.clone();
                    Ok(tape.push("attention", out, move |dy, grads| {
                        kernels.backward(&gpu, &inputs.targets(grads)?, dy, &of, &lse, &inputs)
                    }))
                }
                _ => {
                    let saved = stored::forward(&gpu, &out, &inputs, tape.recording())?;
                    Ok(tape.push("attention", out, move |dy, grads| {
                        stored::backward(&gpu, &inputs.targets(grads)?, dy, &saved, &inputs)
                    }))
                }
            }
        }
    }
}

struct Inputs {
    q: Operand,
    k: Operand,
    v: Operand,
    layout: BatchLayout,
    heads: Heads,
    rope: Option<Rope>,
}

/// Columns of a matrix from `start`: q, k or v, or what came of it by rotation.
struct Operand {
    value: Tensor,
    start: usize,
    of: Origin,
}

/// The columns of a value on the tape that an operand is, or was before rotation. Does not keep the value.
#[derive(Clone)]
struct Origin {
    id: usize,
    shape: Vec<usize>,
    start: usize,
    width: usize,
}

/// Columns of a matrix from `start`, to write to.
struct Target {
    value: Tensor,
    start: usize,
}

impl Operand {
    fn of(Cols { var, start, width }: &Cols) -> Self {
        let of = Origin { id: var.id, shape: var.value.shape().to_vec(), start: *start, width: *width };
        Operand { value: var.value.clone(), start: *start, of }
    }
}

impl Inputs {
    /// Logs of the denominators of the softmax, from which the backward pass makes it again: `[B, query, T]`, f32.
    fn log_sums(&self, out: &Tensor) -> Result<Tensor> {
        out.device().empty(&[self.layout.batch, self.heads.query, self.layout.len], DType::F32)
    }

    /// Where the gradients of q, k and v go.
    fn targets(&self, grads: &mut Grads) -> Result<[Target; 3]> {
        let mut take = |Operand { value, of, .. }: &Operand| {
            let value = grads.columns_of(of.id, &of.shape, value.dtype(), of.width)?;
            Ok(Target { value, start: of.start })
        };
        Ok([take(&self.q)?, take(&self.k)?, take(&self.v)?])
    }
}
