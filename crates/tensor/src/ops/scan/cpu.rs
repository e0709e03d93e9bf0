//! The scan on the CPU: one task for each sequence and head; the state of one vector of a head's columns (backward: of
//! one vector of its states) stays in cache.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Scan, ScanLayout};
use crate::Tensor;
use crate::cpu::{exp, sigmoid, simd, softplus};

/// Steps whose states the backward pass recomputes and keeps at once: few enough to stay in the first-level cache.
const CHUNK: usize = 8;

/// Time steps of one sequence and head: `dt_t`, the decay `exp(dt_t A)`, and `d dt / d raw`.
struct Steps {
    dt: Vec<f32>,
    decay: Vec<f32>,
    slope: Vec<f32>,
    a: f32,
}

impl Steps {
    #[inline(always)]
    fn new(raw: impl Iterator<Item = f32>, bias: f32, a_log: f32, (low, high): (f32, f32)) -> Self {
        let a = -a_log.exp();
        let mut steps = Steps { dt: Vec::new(), decay: Vec::new(), slope: Vec::new(), a };
        for raw in raw {
            let open = softplus(raw + bias);
            let dt = open.clamp(low, high);
            steps.dt.push(dt);
            steps.decay.push(exp(dt * a));
            let inside = (low..=high).contains(&open);
            steps.slope.push(if inside { sigmoid(raw + bias) } else { 0.0 });
        }
        steps
    }
}

/// What a task reads: one sequence, one head.
struct Head<'a> {
    sequence: usize,
    steps: &'a Steps,
    /// Rows of `x | B | C` of the sequence.
    xbc: &'a [f32],
    layout: ScanLayout,
    index: usize,
}

impl Head<'_> {
    #[inline(always)]
    fn row(&self, t: usize) -> &[f32] {
        &self.xbc[t * self.layout.width()..][..self.layout.width()]
    }

    /// The columns of `x_t` that a vector of `lanes` from column `p` of the head holds.
    #[inline(always)]
    fn x(&self, t: usize, p: usize, lanes: usize) -> &[f32] {
        let width = self.layout.head_dim;
        &self.row(t)[self.index * width + p..][..lanes.min(width - p)]
    }

    /// The columns of this head at time `t` of rows `[T, H P]`.
    #[inline(always)]
    fn columns<'a>(&self, rows: &'a [f32], t: usize) -> &'a [f32] {
        &rows[t * self.layout.inner() + self.index * self.layout.head_dim..][..self.layout.head_dim]
    }

    #[inline(always)]
    fn b(&self, t: usize) -> &[f32] {
        &self.row(t)[self.layout.bc(self.index).0..][..self.layout.state]
    }

    #[inline(always)]
    fn c(&self, t: usize) -> &[f32] {
        &self.row(t)[self.layout.bc(self.index).1..][..self.layout.state]
    }
}

/// Runs `f` for every sequence and head with its time steps, in parallel; results in order.
fn for_heads<R: Send>(inputs: &Scan, layout: ScanLayout, f: impl Fn(Head) -> R + Sync) -> Vec<R> {
    let (xbc, raw) = (inputs.xbc.value.read(), inputs.dt.var.value.read());
    let (bias, a_log) = (inputs.dt_bias.value.read(), inputs.a_log.value.read());
    let (len, dt) = (layout.rows.len, &inputs.dt);
    (0..layout.rows.batch * layout.heads)
        .into_par_iter()
        .map(|task| {
            let (batch, head) = (task / layout.heads, task % layout.heads);
            let raws = (0..len).map(|t| raw[(batch * len + t) * dt.stride() + dt.start + head]);
            let steps = simd(
                #[inline(always)]
                || Steps::new(raws, bias[head], a_log[head], layout.dt_limit),
            );
            let xbc = &xbc[batch * len * layout.width()..][..len * layout.width()];
            f(Head { sequence: batch, steps: &steps, xbc, layout, index: head })
        })
        .collect()
}

pub(super) fn forward(y: &Tensor, inputs: &Scan, layout: ScanLayout) {
    let d = inputs.d.value.read();
    let outs = for_heads(inputs, layout, |head| {
        let mut out = vec![0.0; layout.rows.len * layout.head_dim];
        pulp::Arch::new().dispatch(Forward { d: d[head.index], head: &head, out: &mut out });
        out
    });
    scatter(&mut y.write(), &outs, layout);
}

/// Writes per-head results `[T, P]` to the columns of their head in `[R, H P]`.
fn scatter(to: &mut [f32], heads: &[Vec<f32>], layout: ScanLayout) {
    let (p, stride) = (layout.head_dim, layout.inner());
    to.par_chunks_mut(layout.rows.len * stride).zip(heads.par_chunks(layout.heads)).for_each(
        |(to, heads)| {
            for (t, row) in to.chunks_exact_mut(stride).enumerate() {
                for (h, head) in heads.iter().enumerate() {
                    row[h * p..][..p].copy_from_slice(&head[t * p..][..p]);
                }
            }
        },
    );
}

/// The forward pass of one sequence and head into `out [T, P]`, a vector of columns at a time.
struct Forward<'a> {
    head: &'a Head<'a>,
    d: f32,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { head, d, out } = self;
        let ScanLayout { state: n, head_dim, rows, .. } = head.layout;
        let zero = simd.splat_f32s(0.0);
        for p in (0..head_dim).step_by(S::F32_LANES) {
            let mut state = vec![zero; n];
            for t in 0..rows.len {
                let decay = simd.splat_f32s(head.steps.decay[t]);
                let x = simd.partial_load_f32s(head.x(t, p, S::F32_LANES));
                let mut y = [simd.mul_f32s(x, simd.splat_f32s(d)), zero, zero, zero];
                let x = simd.mul_f32s(x, simd.splat_f32s(head.steps.dt[t]));
                // Four sums, so that additions need not wait for each other.
                let (fours, rest) = state.as_chunks_mut::<4>();
                let ((bs, b), (cs, c)) = (head.b(t).as_chunks::<4>(), head.c(t).as_chunks::<4>());
                for ((s, b), c) in fours.iter_mut().zip(bs).zip(cs) {
                    for k in 0..4 {
                        (s[k], y[k]) = step(simd, [decay, x], (b[k], c[k]), s[k], y[k]);
                    }
                }
                for ((s, &b), &c) in rest.iter_mut().zip(b).zip(c) {
                    (*s, y[0]) = step(simd, [decay, x], (b, c), *s, y[0]);
                }
                let y = simd.add_f32s(simd.add_f32s(y[0], y[1]), simd.add_f32s(y[2], y[3]));
                let to = &mut out[t * head_dim + p..][..S::F32_LANES.min(head_dim - p)];
                simd.partial_store_f32s(to, y);
            }
        }
    }
}

/// One state further, and its share of the output: `decay s + b x`, and `y` plus `c` times that.
#[inline(always)]
fn step<S: Simd>(
    simd: S,
    [decay, x]: [S::f32s; 2],
    (b, c): (f32, f32),
    s: S::f32s,
    y: S::f32s,
) -> (S::f32s, S::f32s) {
    let s = simd.mul_add_e_f32s(simd.splat_f32s(b), x, simd.mul_f32s(decay, s));
    (s, simd.mul_add_e_f32s(simd.splat_f32s(c), s, y))
}

/// Gradients of one sequence and head: `dx [T, P]`, `dB | dC [T, 2 N]`, `draw [T]`, and the sums for
/// `dt_bias`, `A_log` and `D`.
struct HeadGrads {
    dx: Vec<f32>,
    dbc: Vec<f32>,
    draw: Vec<f32>,
    sums: [f32; 3],
}

pub(super) fn backward(
    dxbc: &Tensor,
    ddt: &Tensor,
    add: [bool; 3],
    dy: &Tensor,
    inputs: &Scan,
    layout: ScanLayout,
) {
    let (dy, d, len) = (dy.read(), inputs.d.value.read(), layout.rows.len);
    let grads = for_heads(inputs, layout, |head| {
        let dy = &dy[head.sequence * len * layout.inner()..][..len * layout.inner()];
        let mut grads = HeadGrads {
            dx: vec![0.0; len * layout.head_dim],
            dbc: vec![0.0; len * 2 * layout.state],
            draw: vec![0.0; len],
            sums: [0.0; 3],
        };
        pulp::Arch::new().dispatch(Backward { d: d[head.index], head: &head, dy, grads: &mut grads });
        grads
    });
    let width = layout.width();
    dxbc.write().par_chunks_mut(len * width).zip(grads.par_chunks(layout.heads)).for_each(|(rows, heads)| {
        rows.fill(0.0);
        for (t, row) in rows.chunks_exact_mut(width).enumerate() {
            for (h, grads) in heads.iter().enumerate() {
                row[h * layout.head_dim..][..layout.head_dim]
                    .copy_from_slice(&grads.dx[t * layout.head_dim..][..layout.head_dim]);
                let (b, c) = layout.bc(h);
                let (db, dc) = grads.dbc[t * 2 * layout.state..][..2 * layout.state].split_at(layout.state);
                row[b..][..layout.state].iter_mut().zip(db).for_each(|(to, d)| *to += d);
                row[c..][..layout.state].iter_mut().zip(dc).for_each(|(to, d)| *to += d);
            }
        }
    });
    let mut ddt = ddt.write();
    for (r, row) in ddt.chunks_exact_mut(inputs.dt.stride()).enumerate() {
        for h in 0..layout.heads {
            row[inputs.dt.start + h] = grads[r / len * layout.heads + h].draw[r % len];
        }
    }
    for (i, param) in [&inputs.dt_bias, &inputs.a_log, &inputs.d].into_iter().enumerate() {
        let mut total = param.grad.write();
        if !add[i] {
            total.fill(0.0);
        }
        for (task, grads) in grads.iter().enumerate() {
            total[task % layout.heads] += grads.sums[i];
        }
    }
}

/// The backward pass of one sequence and head, given `dy [T, H P]` of the sequence: a vector of states at a time, so that
/// `dB` and `dC` are sums of vectors; only `dx` and `ddt` add up the lanes of one.
struct Backward<'a> {
    head: &'a Head<'a>,
    d: f32,
    dy: &'a [f32],
    grads: &'a mut HeadGrads,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Backward { head, d, dy, grads } = self;
        let (layout, steps) = (head.layout, head.steps);
        let (len, width, n) = (layout.rows.len, layout.head_dim, layout.state);
        let zero = simd.splat_f32s(0.0);
        let vectors = n.div_ceil(S::F32_LANES);
        // Forward once more, keeping the states before each chunk.
        let mut starts = vec![zero; len.div_ceil(CHUNK) * vectors * width];
        for i in 0..vectors {
            let mut state = vec![zero; width];
            for t in 0..len {
                if t % CHUNK == 0 {
                    starts[(t / CHUNK * vectors + i) * width..][..width].copy_from_slice(&state);
                }
                let decay = simd.splat_f32s(steps.decay[t]);
                let b = simd.mul_f32s(vector(simd, head.b(t), i), simd.splat_f32s(steps.dt[t]));
                for (s, &x) in state.iter_mut().zip(head.x(t, 0, width)) {
                    *s = simd.mul_add_e_f32s(b, simd.splat_f32s(x), simd.mul_f32s(decay, *s));
                }
            }
        }
        let mut states = vec![zero; (CHUNK + 1) * width];
        let mut ds = vec![zero; vectors * width];
        let mut dxs = vec![zero; CHUNK * width];
        for chunk in (0..len.div_ceil(CHUNK)).rev() {
            let first = chunk * CHUNK;
            let last = (first + CHUNK).min(len);
            let mut ddecays = [0.0f32; CHUNK];
            dxs.fill(zero);
            for i in 0..vectors {
                states[..width].copy_from_slice(&starts[(chunk * vectors + i) * width..][..width]);
                for t in first..last {
                    let (from, to) = states[(t - first) * width..].split_at_mut(width);
                    let decay = simd.splat_f32s(steps.decay[t]);
                    let b = simd.mul_f32s(vector(simd, head.b(t), i), simd.splat_f32s(steps.dt[t]));
                    for ((to, from), &x) in to.iter_mut().zip(from).zip(head.x(t, 0, width)) {
                        *to = simd.mul_add_e_f32s(b, simd.splat_f32s(x), simd.mul_f32s(decay, *from));
                    }
                }
                let ds = &mut ds[i * width..][..width];
                for t in (first..last).rev() {
                    let at = t - first;
                    let before = &states[at * width..][..width];
                    let after = &states[(at + 1) * width..][..width];
                    let dxs = &mut dxs[at * width..][..width];
                    let (x, dy) = (head.x(t, 0, width), head.columns(dy, t));
                    let (b, c) = (vector(simd, head.b(t), i), vector(simd, head.c(t), i));
                    let decay = simd.splat_f32s(steps.decay[t]);
                    let (mut db, mut dc, mut ddecay) = (zero, zero, zero);
                    for p in 0..width {
                        let dy = simd.splat_f32s(dy[p]);
                        let s = simd.mul_add_e_f32s(c, dy, ds[p]);
                        dc = simd.mul_add_e_f32s(after[p], dy, dc);
                        db = simd.mul_add_e_f32s(s, simd.splat_f32s(x[p]), db);
                        dxs[p] = simd.mul_add_e_f32s(b, s, dxs[p]);
                        ddecay = simd.mul_add_e_f32s(before[p], s, ddecay);
                        ds[p] = simd.mul_f32s(s, decay);
                    }
                    let (of_b, of_c) = grads.dbc[t * 2 * n..][..2 * n].split_at_mut(n);
                    let range = i * S::F32_LANES..n.min((i + 1) * S::F32_LANES);
                    simd.partial_store_f32s(
                        &mut of_b[range.clone()],
                        simd.mul_f32s(db, simd.splat_f32s(steps.dt[t])),
                    );
                    simd.partial_store_f32s(&mut of_c[range], dc);
                    ddecays[at] += simd.reduce_sum_f32s(ddecay);
                }
            }
            for t in (first..last).rev() {
                let (x, dy, dt) = (head.x(t, 0, width), head.columns(dy, t), steps.dt[t]);
                let (dxs, dx) = (&dxs[(t - first) * width..][..width], &mut grads.dx[t * width..][..width]);
                let (mut of_x, mut skipped) = (0.0f32, 0.0f32);
                for p in 0..width {
                    let sum = simd.reduce_sum_f32s(dxs[p]);
                    of_x = sum.mul_add(x[p], of_x);
                    skipped = dy[p].mul_add(x[p], skipped);
                    dx[p] = dt.mul_add(sum, d * dy[p]);
                }
                let of_decay = ddecays[t - first] * steps.decay[t];
                grads.draw[t] = (of_x + of_decay * steps.a) * steps.slope[t];
                grads.sums[0] += grads.draw[t];
                grads.sums[1] += of_decay * dt * steps.a;
                grads.sums[2] += skipped;
            }
        }
    }
}

/// Vector `i` of a row, zeros beyond its end.
#[inline(always)]
fn vector<S: Simd>(simd: S, row: &[f32], i: usize) -> S::f32s {
    let first = i * S::F32_LANES;
    simd.partial_load_f32s(&row[first..row.len().min(first + S::F32_LANES)])
}
