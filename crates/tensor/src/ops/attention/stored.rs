//! Attention on the GPU: cuBLAS products over scores held in memory, and the launches of `stored.cu`.
//!
//! The query heads of a key head lie next to each other in `[B, query, T, dim]`: seen as `[B key, group T, dim]`
//! they are one matrix for each key head, so that grouped heads need neither copies of k and v nor a sum of their
//! gradients afterwards. Scores are f32 and live for a few key heads at a time; the softmax is kept for the backward
//! pass in the element type of the activations.

use super::{Inputs, Operand, Rope, Target};
use crate::cuda::{Arg, Gpu, Source};
use crate::linalg::{Factor, matmul};
use crate::ops::launch;
use crate::{DType, Result, Tensor};

pub static SOURCE: Source = Source { name: "stored.cu", text: include_str!("stored.cu") };

/// Scores worked on at a time: what stays in the second-level cache from the product to the softmax.
const SCORES_BYTES: usize = 32 << 20;

const THREADS: usize = 128;

/// What the backward pass needs besides the inputs; empty where none will come.
pub(super) struct Saved(Option<Kept>);

struct Kept {
    /// Rotated, `[B key, group T, dim]`.
    q: Tensor,
    /// Rotated, `[B key, T, dim]`.
    k: Tensor,
    /// `[B key, T, dim]`.
    v: Tensor,
    /// The softmax, `[B key, group T, T]`.
    p: Tensor,
}

pub(super) fn forward(gpu: &Gpu, out: &Tensor, inputs: &Inputs, recording: bool) -> Result<Saved> {
    let (h, device, dtype) = (inputs.heads, out.device(), out.dtype());
    let rope = inputs.rope.as_ref();
    let of =
        |Operand { value, start, .. }: &Operand, heads, rope| inputs.gather(gpu, value, *start, heads, rope);
    let (q, k) = (of(&inputs.q, h.query, rope)?, of(&inputs.k, h.key, rope)?);
    let v = of(&inputs.v, h.key, None)?;
    let [pairs, rows, len] = inputs.scores_shape();
    let chunk = inputs.chunk();
    let scores = device.empty(&[chunk, rows, len], DType::F32)?;
    let p = device.empty(&[if recording { pairs } else { chunk }, rows, len], dtype)?;
    let o = device.empty(&[pairs, rows, h.dim], dtype)?;
    for first in (0..pairs).step_by(chunk) {
        let count = chunk.min(pairs - first);
        let scores = scores.range(0, count);
        let p = p.range(if recording { first } else { 0 }, count);
        let (q, k, v) = (q.range(first, count), k.range(first, count), v.range(first, count));
        matmul(&scores, false, h.scale, &q, Factor::from(&k).t())?;
        softmax(gpu, &p, &scores)?;
        matmul(&o.range(first, count), false, 1.0, &p, &v)?;
    }
    let out = Target { value: out.clone(), start: 0 };
    inputs.put_back(gpu, &out, &o, h.query, None)?;
    Ok(Saved(recording.then_some(Kept { q, k, v, p })))
}

/// `dV = P^T dO`, `dP = dO V^T`, `dS = P (dP - rowsum(P dP))`, `dQ = scale dS K`, `dK = scale dS^T Q`.
pub(super) fn backward(
    gpu: &Gpu,
    targets: &[Target; 3],
    dy: &Tensor,
    saved: &Saved,
    inputs: &Inputs,
) -> Result<()> {
    let (h, device, dtype) = (inputs.heads, dy.device(), dy.dtype());
    let Kept { q, k, v, p } = saved.0.as_ref().expect("a recording tape saves");
    let dout = inputs.gather(gpu, dy, 0, h.query, None)?;
    let [pairs, rows, len] = inputs.scores_shape();
    let chunk = inputs.chunk();
    let dp = device.empty(&[chunk, rows, len], DType::F32)?;
    let ds = device.empty(&[chunk, rows, len], dtype)?;
    let dq = device.empty(q.shape(), dtype)?;
    let dk = device.empty(k.shape(), dtype)?;
    let dv = device.empty(v.shape(), dtype)?;
    for first in (0..pairs).step_by(chunk) {
        let count = chunk.min(pairs - first);
        let (dp, ds) = (dp.range(0, count), ds.range(0, count));
        let (p, dout) = (p.range(first, count), dout.range(first, count));
        matmul(&dv.range(first, count), false, 1.0, Factor::from(&p).t(), &dout)?;
        matmul(&dp, false, 1.0, &dout, Factor::from(&v.range(first, count)).t())?;
        softmax_grad(gpu, &ds, &p, &dp)?;
        matmul(&dq.range(first, count), false, h.scale, &ds, &k.range(first, count))?;
        matmul(&dk.range(first, count), false, h.scale, Factor::from(&ds).t(), &q.range(first, count))?;
    }
    let rope = inputs.rope.as_ref();
    inputs.put_back(gpu, &targets[0], &dq, h.query, rope)?;
    inputs.put_back(gpu, &targets[1], &dk, h.key, rope)?;
    inputs.put_back(gpu, &targets[2], &dv, h.key, None)
}

impl Inputs {
    /// `[B key, group T, T]`.
    fn scores_shape(&self) -> [usize; 3] {
        let (h, layout) = (self.heads, self.layout);
        [layout.batch * h.key, h.query / h.key * layout.len, layout.len]
    }

    /// Key heads whose scores are worked on at once.
    fn chunk(&self) -> usize {
        let [pairs, rows, len] = self.scores_shape();
        (SCORES_BYTES / (4 * rows * len)).clamp(1, pairs)
    }

    /// The heads in the columns of `from` from `start`, one after another, rotated: `[B key, heads / key T, dim]`.
    fn gather(
        &self,
        gpu: &Gpu,
        from: &Tensor,
        start: usize,
        heads: usize,
        rope: Option<&Rope>,
    ) -> Result<Tensor> {
        let pairs = self.layout.batch * self.heads.key;
        let shape = [pairs, heads / self.heads.key * self.layout.len, self.heads.dim];
        let to = from.device().empty(&shape, from.dtype())?;
        self.move_heads(gpu, (from, start), &to, heads, rope, true)?;
        Ok(to)
    }

    /// What [`Inputs::gather`] did, undone for a gradient (or an output).
    fn put_back(
        &self,
        gpu: &Gpu,
        to: &Target,
        from: &Tensor,
        heads: usize,
        rope: Option<&Rope>,
    ) -> Result<()> {
        self.move_heads(gpu, (&to.value, to.start), from, heads, rope, false)
    }

    fn move_heads(
        &self,
        gpu: &Gpu,
        rows: (&Tensor, usize),
        apart: &Tensor,
        heads: usize,
        rope: Option<&Rope>,
        gather: bool,
    ) -> Result<()> {
        let (dim, dtype) = (self.heads.dim, apart.dtype());
        let span = if rope.is_some() { dim / 2 } else { dim };
        let columns = launch::lane(dtype, span, &[rows, (apart, 0)]);
        let kernel = if columns > 1 { "attention_heads_vec" } else { "attention_heads" };
        let (cos, sin) = rope.map_or((0, 0), |r| (r.cos.ptr(), r.sin.ptr()));
        let count = rows.0.rows();
        gpu.launch(
            &SOURCE,
            dtype,
            kernel,
            [launch::blocks(count * heads * (span / columns), THREADS), 1, 1],
            [THREADS as u32, 1, 1],
            0,
            &[
                launch::column(rows.0, rows.1),
                launch::ptr(apart),
                Arg::Ptr(cos),
                Arg::Ptr(sin),
                launch::long(count),
                launch::long(rows.0.cols()),
                launch::int(self.layout.len),
                launch::int(heads),
                launch::int(dim),
                launch::flag(gather),
                Arg::F32(if gather { 1.0 } else { -1.0 }),
            ],
        )
    }
}

/// `p` = causal softmax of `scores`, both `[.., T]` with rows in the order of positions.
fn softmax(gpu: &Gpu, p: &Tensor, scores: &Tensor) -> Result<()> {
    let kernel = if whole_fours(&[p, scores]) { "attention_softmax_vec" } else { "attention_softmax" };
    over_rows(gpu, kernel, p, &[p.ptr(), scores.ptr()])
}

fn softmax_grad(gpu: &Gpu, ds: &Tensor, p: &Tensor, dp: &Tensor) -> Result<()> {
    let vec = whole_fours(&[ds, p, dp]);
    let kernel = if vec { "attention_softmax_grad_vec" } else { "attention_softmax_grad" };
    over_rows(gpu, kernel, ds, &[ds.ptr(), p.ptr(), dp.ptr()])
}

/// Whether every row begins where four elements can be read at once.
fn whole_fours(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|x| x.cols().is_multiple_of(4) && x.ptr().is_multiple_of(4 * x.dtype().size() as u64))
}

/// A warp for each row of `out`.
fn over_rows(gpu: &Gpu, kernel: &str, out: &Tensor, pointers: &[u64]) -> Result<()> {
    let (rows, len) = (out.rows(), out.cols());
    let mut args: Vec<Arg> = pointers.iter().copied().map(Arg::Ptr).collect();
    args.extend([Arg::I64(rows as i64), Arg::I32(len as i32)]);
    let blocks = rows.div_ceil(THREADS / 32) as u32;
    gpu.launch(&SOURCE, out.dtype(), kernel, [blocks, 1, 1], [THREADS as u32, 1, 1], 0, &args)
}
