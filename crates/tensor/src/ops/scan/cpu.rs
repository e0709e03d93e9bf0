//! The scan on the CPU: one task for each sequence and head; the state of `W` columns of a head stays in cache.

use rayon::prelude::*;

use super::{Scan, ScanLayout};
use crate::Tensor;
use crate::cpu::{exp, sigmoid, simd, softplus};

/// Steps whose states the backward pass recomputes and keeps at once.
const CHUNK: usize = 32;

/// Time steps of one sequence and head: `dt_t`, the decay `exp(dt_t A)`, and `d dt / d raw`.
struct Steps {
    dt: Vec<f32>,
    decay: Vec<f32>,
    slope: Vec<f32>,
    a: f32,
}

impl Steps {
    fn new(raw: impl Iterator<Item = f32>, bias: f32, a_log: f32, (low, high): (f32, f32)) -> Self {
        let a = -a_log.exp();
        let mut steps = Steps { dt: Vec::new(), decay: Vec::new(), slope: Vec::new(), a };
        for raw in raw {
            let open = softplus(raw + bias);
            let dt = open.clamp(low, high);
            steps.dt.push(dt);
            steps.decay.push(exp(dt * a));
            steps.slope.push(if open == dt { sigmoid(raw + bias) } else { 0.0 });
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
    head: usize,
}

impl Head<'_> {
    #[inline(always)]
    fn row(&self, t: usize) -> &[f32] {
        &self.xbc[t * self.layout.width()..][..self.layout.width()]
    }

    /// `W` columns of `x_t` from column `p` of the head, zeros beyond it.
    #[inline(always)]
    fn x<const W: usize>(&self, t: usize, p: usize) -> [f32; W] {
        load(&self.row(t)[self.head * self.layout.head_dim..][..self.layout.head_dim][p..])
    }

    #[inline(always)]
    fn b(&self, t: usize) -> &[f32] {
        &self.row(t)[self.layout.bc(self.head).0..][..self.layout.state]
    }

    #[inline(always)]
    fn c(&self, t: usize) -> &[f32] {
        &self.row(t)[self.layout.bc(self.head).1..][..self.layout.state]
    }

    /// `to = decay_t from + dt_t B_t (x) x_t`.
    #[inline(always)]
    fn advance<const W: usize>(&self, t: usize, p: usize, from: &[[f32; W]], to: &mut [[f32; W]]) {
        let (decay, dt) = (self.steps.decay[t], self.steps.dt[t]);
        let x: [f32; W] = self.x(t, p);
        let x = x.map(|x| x * dt);
        for ((to, from), b) in to.iter_mut().zip(from).zip(self.b(t)) {
            for l in 0..W {
                to[l] = b.mul_add(x[l], decay * from[l]);
            }
        }
    }
}

#[inline(always)]
fn load<const W: usize>(from: &[f32]) -> [f32; W] {
    let mut lanes = [0.0; W];
    let n = from.len().min(W);
    lanes[..n].copy_from_slice(&from[..n]);
    lanes
}

#[inline(always)]
fn store<const W: usize>(to: &mut [f32], lanes: &[f32; W]) {
    let n = to.len().min(W);
    to[..n].copy_from_slice(&lanes[..n]);
}

/// Sum of all lanes, as a tree.
#[inline(always)]
fn sum<const W: usize>(mut lanes: [f32; W]) -> f32 {
    let mut n = W / 2;
    while n > 0 {
        for l in 0..n {
            lanes[l] += lanes[l + n];
        }
        n /= 2;
    }
    lanes[0]
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
            let steps = Steps::new(raws, bias[head], a_log[head], layout.dt_limit);
            let xbc = &xbc[batch * len * layout.width()..][..len * layout.width()];
            f(Head { sequence: batch, steps: &steps, xbc, layout, head })
        })
        .collect()
}

pub(super) fn forward(y: &Tensor, inputs: &Scan, layout: ScanLayout) {
    let d = inputs.d.value.read();
    let outs = for_heads(inputs, layout, |head| {
        let mut out = vec![0.0; layout.rows.len * layout.head_dim];
        if layout.head_dim.is_multiple_of(32) {
            simd(|| forward_head::<32>(&head, d[head.head], &mut out));
        } else {
            simd(|| forward_head::<16>(&head, d[head.head], &mut out));
        }
        out
    });
    scatter(&mut y.write(), layout.inner(), 0, &outs, layout);
}

/// Writes per-head results `[T, P]` to the columns of their head in rows of `stride`.
fn scatter(to: &mut [f32], stride: usize, start: usize, heads: &[Vec<f32>], layout: ScanLayout) {
    let p = layout.head_dim;
    to.par_chunks_mut(layout.rows.len * stride).zip(heads.par_chunks(layout.heads)).for_each(|(to, heads)| {
        for (t, row) in to.chunks_exact_mut(stride).enumerate() {
            for (h, head) in heads.iter().enumerate() {
                row[start + h * p..][..p].copy_from_slice(&head[t * p..][..p]);
            }
        }
    });
}

#[inline(always)]
fn forward_head<const W: usize>(head: &Head, d: f32, out: &mut [f32]) {
    let layout = head.layout;
    for p in (0..layout.head_dim).step_by(W) {
        let mut state = vec![[0.0f32; W]; layout.state];
        for t in 0..layout.rows.len {
            let (decay, dt) = (head.steps.decay[t], head.steps.dt[t]);
            let x: [f32; W] = head.x(t, p);
            let mut y = x.map(|x| x * d);
            let x = x.map(|x| x * dt);
            for ((s, b), c) in state.iter_mut().zip(head.b(t)).zip(head.c(t)) {
                for l in 0..W {
                    s[l] = b.mul_add(x[l], decay * s[l]);
                    y[l] = c.mul_add(s[l], y[l]);
                }
            }
            store(&mut out[t * layout.head_dim..][..layout.head_dim][p..], &y);
        }
    }
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
        if layout.head_dim.is_multiple_of(32) {
            simd(|| backward_head::<32>(&head, d[head.head], dy, &mut grads));
        } else {
            simd(|| backward_head::<16>(&head, d[head.head], dy, &mut grads));
        }
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

#[inline(always)]
fn backward_head<const W: usize>(head: &Head, d: f32, dy: &[f32], grads: &mut HeadGrads) {
    let (layout, steps) = (head.layout, head.steps);
    let (len, width, n) = (layout.rows.len, layout.head_dim, layout.state);
    let mut ddt = vec![0.0f32; len];
    let mut starts = vec![[0.0f32; W]; len.div_ceil(CHUNK) * n];
    let mut states = vec![[0.0f32; W]; (CHUNK + 1) * n];
    for p in (0..width).step_by(W) {
        // Forward once more, keeping the state before each chunk.
        let mut state = vec![[0.0f32; W]; n];
        let mut next = state.clone();
        for t in 0..len {
            if t % CHUNK == 0 {
                starts[t / CHUNK * n..][..n].copy_from_slice(&state);
            }
            head.advance(t, p, &state, &mut next);
            std::mem::swap(&mut state, &mut next);
        }
        let mut ds = vec![[0.0f32; W]; n];
        for chunk in (0..len.div_ceil(CHUNK)).rev() {
            let first = chunk * CHUNK;
            let last = (first + CHUNK).min(len);
            states[..n].copy_from_slice(&starts[chunk * n..][..n]);
            for t in first..last {
                let (from, to) = states.split_at_mut((t - first + 1) * n);
                head.advance(t, p, &from[(t - first) * n..], &mut to[..n]);
            }
            for t in (first..last).rev() {
                let before = &states[(t - first) * n..][..n];
                let after = &states[(t - first + 1) * n..][..n];
                let (decay, dt) = (steps.decay[t], steps.dt[t]);
                let x: [f32; W] = head.x(t, p);
                let dy: [f32; W] = load(&dy[t * layout.inner() + head.head * width..][..width][p..]);
                let (db, dc) = grads.dbc[t * 2 * n..][..2 * n].split_at_mut(n);
                let (b, c) = (head.b(t), head.c(t));
                let mut dxt = [0.0; W];
                let mut ddecay = [0.0; W];
                for i in 0..n {
                    let (mut of_b, mut of_c) = ([0.0; W], [0.0; W]);
                    for l in 0..W {
                        let s = c[i].mul_add(dy[l], ds[i][l]);
                        of_c[l] = after[i][l] * dy[l];
                        of_b[l] = s * x[l];
                        dxt[l] = b[i].mul_add(s, dxt[l]);
                        ddecay[l] = before[i][l].mul_add(s, ddecay[l]);
                        ds[i][l] = s * decay;
                    }
                    db[i] += dt * sum(of_b);
                    dc[i] += sum(of_c);
                }
                let of_decay = sum(ddecay) * decay;
                let mut dx = [0.0; W];
                let mut of_dt = [0.0; W];
                let mut of_d = [0.0; W];
                for l in 0..W {
                    dx[l] = d.mul_add(dy[l], dt * dxt[l]);
                    of_dt[l] = dxt[l] * x[l];
                    of_d[l] = dy[l] * x[l];
                }
                ddt[t] += sum(of_dt) + of_decay * steps.a;
                grads.sums[1] += of_decay * dt * steps.a;
                grads.sums[2] += sum(of_d);
                store(&mut grads.dx[t * width..][..width][p..], &dx);
            }
        }
    }
    for (t, ddt) in ddt.iter().enumerate() {
        grads.draw[t] = ddt * steps.slope[t];
        grads.sums[0] += grads.draw[t];
    }
}
