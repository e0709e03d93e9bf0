//! Attention on the CPU: one task for each sequence and key head; scores of one query head at a time.

use rayon::prelude::*;

use super::{Inputs, Operand, Rope, Target};
use crate::Tensor;
use crate::cpu::{Mat, dot, exp, matmul_seq, simd, sum2};

/// The rows of one head of one sequence, `[T, dim]`, gathered from rows of `stride` elements, heads from `start`.
fn gather(
    from: &[f32],
    (start, stride): (usize, usize),
    sequence: usize,
    len: usize,
    head: usize,
    dim: usize,
) -> Vec<f32> {
    let mut rows = Vec::with_capacity(len * dim);
    for row in from[sequence * len * stride..][..len * stride].chunks_exact(stride) {
        rows.extend_from_slice(&row[start + head * dim..][..dim]);
    }
    rows
}

/// Turns the pairs of each row of `x [T, dim]` by its position; `back` turns the other way (the gradient's way).
fn rotate(x: &mut [f32], rope: Option<&Rope>, dim: usize, back: bool) {
    let Some(rope) = rope else { return };
    let half = dim / 2;
    let (cos, sin) = (rope.cos.read(), rope.sin.read());
    for (t, row) in x.chunks_exact_mut(dim).enumerate() {
        let (a, b) = row.split_at_mut(half);
        for j in 0..half {
            let (c, s) = (cos[t * half + j], if back { -sin[t * half + j] } else { sin[t * half + j] });
            (a[j], b[j]) = (a[j] * c - b[j] * s, b[j] * c + a[j] * s);
        }
    }
}

/// q, k and v of one query head, rotated.
struct Qkv {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Inputs {
    fn one(&self, sequence: usize, head: usize) -> Qkv {
        let (h, len) = (self.heads, self.layout.len);
        let key = head / (h.query / h.key);
        let of = |Operand { value, start, .. }: &Operand, head| {
            gather(&value.read(), (*start, value.cols()), sequence, len, head, h.dim)
        };
        let (mut q, mut k, v) = (of(&self.q, head), of(&self.k, key), of(&self.v, key));
        rotate(&mut q, self.rope.as_ref(), h.dim, false);
        rotate(&mut k, self.rope.as_ref(), h.dim, false);
        Qkv { q, k, v }
    }

    fn tasks(&self) -> usize {
        self.layout.batch * self.heads.query
    }
}

pub(super) fn forward(out: &Tensor, lse: &Tensor, inputs: &Inputs) {
    let (h, len) = (inputs.heads, inputs.layout.len);
    let results: Vec<(Vec<f32>, Vec<f32>)> = (0..inputs.tasks())
        .into_par_iter()
        .map(|task| {
            let Qkv { q, k, v } = inputs.one(task / h.query, task % h.query);
            let mut scores = vec![0.0; len * len];
            matmul_seq(&mut scores, false, h.scale, Mat::new(&q, len, h.dim), Mat::new(&k, len, h.dim).t());
            let mut lse = vec![0.0; len];
            simd(
                #[inline(always)]
                || softmax(&mut scores, &mut lse, len),
            );
            let mut o = vec![0.0; len * h.dim];
            matmul_seq(&mut o, false, 1.0, Mat::new(&scores, len, len), Mat::new(&v, len, h.dim));
            (o, lse)
        })
        .collect();
    let (mut out, mut all) = (out.write(), lse.write());
    for (task, (o, lse)) in results.iter().enumerate() {
        all[task * len..][..len].copy_from_slice(lse);
        scatter(&mut out, (0, h.query * h.dim), (task / h.query, task % h.query), o, h.dim, false);
    }
}

/// Causal softmax of every row in place (zeros above the diagonal), and the logs of the denominators.
#[inline(always)]
fn softmax(scores: &mut [f32], lse: &mut [f32], len: usize) {
    for (t, (row, lse)) in scores.chunks_exact_mut(len).zip(lse).enumerate() {
        let (seen, masked) = row.split_at_mut(t + 1);
        let max = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        seen.iter_mut().for_each(|s| *s = exp(*s - max));
        let total = sum2(
            seen,
            seen,
            #[inline(always)]
            |x, _| x,
        );
        seen.iter_mut().for_each(|s| *s /= total);
        masked.fill(0.0);
        *lse = max + total.ln();
    }
}

/// Writes (or adds) `[T, dim]` of one head to its columns in `[R, stride]`, heads from `start`.
fn scatter(
    to: &mut [f32],
    (start, stride): (usize, usize),
    (sequence, head): (usize, usize),
    from: &[f32],
    dim: usize,
    add: bool,
) {
    let len = from.len() / dim;
    for (t, row) in from.chunks_exact(dim).enumerate() {
        let to = &mut to[(sequence * len + t) * stride + start + head * dim..][..dim];
        to.iter_mut().zip(row).for_each(|(to, from)| *to = if add { *to + from } else { *from });
    }
}

/// With `P` the softmax, `dP = dO V^T` and `delta = rowsum(P dP)`: `dV = P^T dO`, `dS = P (dP - delta)`,
/// `dQ = scale dS K`, `dK = scale dS^T Q`.
pub(super) fn backward(targets: &[Target; 3], dy: &Tensor, lse: &Tensor, inputs: &Inputs) {
    let (h, len) = (inputs.heads, inputs.layout.len);
    let (dy, lse) = (dy.read(), lse.read());
    let results: Vec<[Vec<f32>; 3]> = (0..inputs.tasks())
        .into_par_iter()
        .map(|task| {
            let (sequence, head) = (task / h.query, task % h.query);
            let Qkv { q, k, v } = inputs.one(sequence, head);
            let dout = gather(&dy, (0, h.query * h.dim), sequence, len, head, h.dim);
            let mut p = vec![0.0; len * len];
            matmul_seq(&mut p, false, h.scale, Mat::new(&q, len, h.dim), Mat::new(&k, len, h.dim).t());
            let mut dp = vec![0.0; len * len];
            matmul_seq(&mut dp, false, 1.0, Mat::new(&dout, len, h.dim), Mat::new(&v, len, h.dim).t());
            let lse = &lse[task * len..][..len];
            simd(
                #[inline(always)]
                || {
                    for t in 0..len {
                        let (p, dp) = (&mut p[t * len..][..len], &mut dp[t * len..][..len]);
                        p[..=t].iter_mut().for_each(|p| *p = exp(*p - lse[t]));
                        let delta = dot(&p[..=t], &dp[..=t]);
                        dp[..=t].iter_mut().zip(&p[..=t]).for_each(|(dp, p)| *dp = p * (*dp - delta));
                        p[t + 1..].fill(0.0);
                        dp[t + 1..].fill(0.0);
                    }
                },
            );
            let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0; len * h.dim]);
            let (p, ds) = (Mat::new(&p, len, len), Mat::new(&dp, len, len));
            matmul_seq(&mut dv, false, 1.0, p.t(), Mat::new(&dout, len, h.dim));
            matmul_seq(&mut dq, false, h.scale, ds, Mat::new(&k, len, h.dim));
            matmul_seq(&mut dk, false, h.scale, ds.t(), Mat::new(&q, len, h.dim));
            rotate(&mut dq, inputs.rope.as_ref(), h.dim, true);
            rotate(&mut dk, inputs.rope.as_ref(), h.dim, true);
            [dq, dk, dv]
        })
        .collect();
    let group = h.query / h.key;
    for (which, (Target { value, start }, shared)) in targets.iter().zip([1, group, group]).enumerate() {
        let (at, mut to) = ((*start, value.cols()), value.write());
        for (task, grads) in results.iter().enumerate() {
            let (sequence, head) = (task / h.query, task % h.query);
            let add = head % shared != 0;
            scatter(&mut to, at, (sequence, head / shared), &grads[which], h.dim, add);
        }
    }
}
