//! Causal attention with grouped key/value heads, with or without rotary positions.
//!
//! `o = softmax(scale q k^T + causal mask) v` per query head; softmax in f32.

mod cpu;
mod cuda;

pub(super) use cuda::SOURCE;

use crate::ops::BatchLayout;
use crate::tape::{Tape, Var};
use crate::{DType, Device, Error, Result, Tensor};

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
pub fn attention(
    tape: &mut Tape,
    [q, k, v]: [&Var; 3],
    layout: BatchLayout,
    heads: Heads,
    rope: Option<&Rope>,
) -> Result<Var> {
    let rows = layout.batch * layout.len;
    let fits = q.value.shape() == [rows, heads.query * heads.dim]
        && [k, v].iter().all(|x| x.value.shape() == [rows, heads.key * heads.dim])
        && heads.query.is_multiple_of(heads.key)
        && rope.is_none_or(|r| r.cos.rows() >= layout.len && r.cos.cols() * 2 == heads.dim);
    if !fits {
        let shapes = format!("q {:?}, k {:?}, v {:?} do not fit {heads:?}", q.value, k.value, v.value);
        return Err(Error::shape("attention", shapes));
    }
    let out = tape.device().empty(q.value.shape(), q.value.dtype())?;
    let inputs = Inputs { q: q.clone(), k: k.clone(), v: v.clone(), layout, heads, rope: rope.cloned() };
    match tape.device() {
        Device::Cpu => {
            // Log of the softmax denominator of every row of scores, from which the backward pass recomputes them.
            let lse = tape.device().empty(&[layout.batch, heads.query, layout.len], DType::F32)?;
            cpu::forward(&out, &lse, &inputs);
            Ok(tape.push("attention", out, move |dy, grads| {
                let targets = inputs.targets(grads)?;
                cpu::backward(&targets, dy, &lse, &inputs);
                Ok(())
            }))
        }
        Device::Cuda(gpu) => {
            let saved = cuda::forward(gpu, &out, &inputs, tape.recording())?;
            Ok(tape.push("attention", out, move |dy, grads| {
                let targets = inputs.targets(grads)?;
                let Device::Cuda(gpu) = dy.device() else { unreachable!("the tape stays on one device") };
                cuda::backward(gpu, &targets, dy, &saved, &inputs)
            }))
        }
    }
}

struct Inputs {
    q: Var,
    k: Var,
    v: Var,
    layout: BatchLayout,
    heads: Heads,
    rope: Option<Rope>,
}

impl Inputs {
    /// Buffers for the gradients of q, k and v, each of which this operation alone reads.
    fn targets(&self, grads: &mut crate::tape::Grads) -> Result<[Tensor; 3]> {
        let mut take = |var: &Var| match grads.target(var)? {
            (grad, false) => Ok(grad),
            (_, true) => Err(Error::shape("attention", "an input has another reader")),
        };
        Ok([take(&self.q)?, take(&self.k)?, take(&self.v)?])
    }
}
