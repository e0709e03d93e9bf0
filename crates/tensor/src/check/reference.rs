//! Every operation once more: plain loops in f64, written from the formulae, sharing no code with [`crate::ops`];
//! and gradients by central differences.
//!
//! Matrices are row-major slices; where a width is not given it is that of the weight.

use std::thread;

use crate::ops::{Heads, ScanLayout};
use crate::random::Stream;

/// A scalar function's inputs to outputs, as [`gradient`] varies them.
pub type Function = dyn Fn(&[Vec<f64>]) -> Vec<f64> + Send + Sync;

/// Step of the central differences: their error is about `STEP^2` and `1e-16 / STEP`, both far below f32's.
const STEP: f64 = 3e-5;

/// Derivatives of `sum(dy * f(inputs))` by the entries `positions` of `inputs[which]`.
pub fn gradient(
    f: &Function,
    inputs: &[Vec<f64>],
    which: usize,
    positions: &[usize],
    dy: &[f64],
) -> Vec<f64> {
    let along = |inputs: &mut [Vec<f64>], at: usize| {
        let x = inputs[which][at];
        inputs[which][at] = x + STEP;
        let above = f(inputs);
        inputs[which][at] = x - STEP;
        let below = f(inputs);
        inputs[which][at] = x;
        let difference: f64 = (0..dy.len()).map(|i| dy[i] * (above[i] - below[i])).sum();
        difference / (2.0 * STEP)
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let part = &|positions: &[usize]| -> Vec<f64> {
        let mut inputs = inputs.to_vec();
        positions.iter().map(|&at| along(&mut inputs, at)).collect()
    };
    thread::scope(|scope| {
        let parts = positions.chunks(positions.len().div_ceil(threads).max(1));
        let running: Vec<_> = parts.map(|positions| scope.spawn(move || part(positions))).collect();
        running.into_iter().flat_map(|part| part.join().expect("plain arithmetic")).collect()
    })
}

/// Columns `start..start + width` of rows of `stride`.
pub fn columns(x: &[f64], stride: usize, start: usize, width: usize) -> Vec<f64> {
    x.chunks(stride).flat_map(|row| &row[start..start + width]).copied().collect()
}

/// `scale * table[ids]`.
pub fn embedding(ids: &[i32], table: &[f64], width: usize, scale: f64) -> Vec<f64> {
    ids.iter().flat_map(|&id| &table[id as usize * width..][..width]).map(|t| scale * t).collect()
}

/// `x W^T + b`, `x [R, K]`, `W [N, K]`.
pub fn linear(x: &[f64], w: &[f64], bias: Option<&[f64]>, inner: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for x in x.chunks(inner) {
        for (n, w) in w.chunks(inner).enumerate() {
            let mut sum = bias.map_or(0.0, |b| b[n]);
            for k in 0..inner {
                sum += x[k] * w[k];
            }
            y.push(sum);
        }
    }
    y
}

/// `w x / sqrt(mean(x^2) + eps)`.
pub fn rms_norm(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    let mut y = Vec::new();
    for row in x.chunks(w.len()) {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / w.len() as f64;
        y.extend(row.iter().zip(w).map(|(x, w)| w * x / (mean + eps).sqrt()));
    }
    y
}

/// `rms_norm(y silu(z))`.
pub fn gated_rms_norm(y: &[f64], z: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    let gated: Vec<f64> = y.iter().zip(z).map(|(y, z)| y * silu(*z)).collect();
    rms_norm(&gated, w, eps)
}

/// `silu(gate) * up`.
pub fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| silu(*g) * u).collect()
}

/// `x + m y`.
pub fn residual(x: &[f64], y: &[f64], m: f64) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| x + m * y).collect()
}

/// `silu(b_c + sum_k w[c, k] x[t - K + 1 + k, c])` for sequences of `len`.
pub fn conv1d_silu(x: &[f64], w: &[f64], bias: &[f64], len: usize) -> Vec<f64> {
    let (width, taps) = (bias.len(), w.len() / bias.len());
    let mut y = Vec::new();
    for sequence in x.chunks(len * width) {
        for t in 0..len {
            for c in 0..width {
                let mut sum = bias[c];
                for k in 0..taps {
                    if t + k + 1 >= taps {
                        sum += w[c * taps + k] * sequence[(t + k + 1 - taps) * width + c];
                    }
                }
                y.push(silu(sum));
            }
        }
    }
    y
}

/// The recurrence `S_t = exp(dt_t A) S_{t-1} + dt_t B_t (x) x_t`, `y_t = C_t^T S_t + D x_t` for every sequence and
/// head; `xbc` has rows `x | B | C`, `raw` has `dt` before bias, softplus and clamp.
pub fn scan(
    xbc: &[f64],
    raw: &[f64],
    dt_bias: &[f64],
    a_log: &[f64],
    d: &[f64],
    layout: ScanLayout,
) -> Vec<f64> {
    let (heads, p, n) = (layout.heads, layout.head_dim, layout.state);
    let (inner, width, len) = (heads * p, heads * p + 2 * layout.groups * n, layout.rows.len);
    let (low, high) = (f64::from(layout.dt_limit.0), f64::from(layout.dt_limit.1));
    let mut y = vec![0.0; layout.rows.batch * len * inner];
    for b in 0..layout.rows.batch {
        for h in 0..heads {
            let group = h * layout.groups / heads;
            let mut state = vec![0.0; n * p];
            for r in b * len..(b + 1) * len {
                let row = &xbc[r * width..][..width];
                let x = &row[h * p..][..p];
                let in_b = &row[inner + group * n..][..n];
                let in_c = &row[inner + (layout.groups + group) * n..][..n];
                let dt = (raw[r * heads + h] + dt_bias[h]).exp().ln_1p().max(low).min(high);
                let decay = (-dt * a_log[h].exp()).exp();
                for j in 0..p {
                    let mut out = d[h] * x[j];
                    for i in 0..n {
                        let s = &mut state[i * p + j];
                        *s = decay * *s + dt * in_b[i] * x[j];
                        out += in_c[i] * *s;
                    }
                    y[r * inner + h * p + j] = out;
                }
            }
        }
    }
    y
}

/// `softmax(scale q k^T + causal mask) v` for every sequence and query head; with `theta`, `q` and `k` are first turned
/// by rotary positions in the rotate-half form.
pub fn attention([q, k, v]: [&[f64]; 3], len: usize, heads: Heads, theta: Option<f64>) -> Vec<f64> {
    let (dim, scale) = (heads.dim, f64::from(heads.scale));
    let (q, k) = (turned(q, len, heads.query, dim, theta), turned(k, len, heads.key, dim, theta));
    let batch = q.len() / (len * heads.query * dim);
    let mut out = vec![0.0; q.len()];
    for b in 0..batch {
        for h in 0..heads.query {
            let shared = h * heads.key / heads.query;
            let at = |t: usize, h: usize, of: usize| ((b * len + t) * of + h) * dim;
            for t in 0..len {
                let query = &q[at(t, h, heads.query)..][..dim];
                let scores: Vec<f64> = (0..=t)
                    .map(|s| {
                        let key = &k[at(s, shared, heads.key)..][..dim];
                        scale * query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>()
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for (s, score) in scores.iter().enumerate() {
                    let weight = (score - max).exp() / total;
                    for j in 0..dim {
                        out[at(t, h, heads.query) + j] += weight * v[at(s, shared, heads.key) + j];
                    }
                }
            }
        }
    }
    out
}

/// Pair `(j, j + dim / 2)` of every head at position `t`, turned by `t theta^(-2 j / dim)`.
fn turned(x: &[f64], len: usize, heads: usize, dim: usize, theta: Option<f64>) -> Vec<f64> {
    let mut x = x.to_vec();
    let Some(theta) = theta else { return x };
    for (r, row) in x.chunks_mut(heads * dim).enumerate() {
        for head in row.chunks_mut(dim) {
            for j in 0..dim / 2 {
                let angle = (r % len) as f64 / theta.powf(2.0 * j as f64 / dim as f64);
                let (a, b) = (head[j], head[j + dim / 2]);
                head[j] = a * angle.cos() - b * angle.sin();
                head[j + dim / 2] = a * angle.sin() + b * angle.cos();
            }
        }
    }
    x
}

/// Mean over targets of 0 and more of `-ln softmax(scale x W^T)[target]`; 0 without any.
pub fn cross_entropy(x: &[f64], head: &[f64], targets: &[i32], scale: f64) -> f64 {
    let width = x.len() / targets.len();
    let (mut sum, mut count) = (0.0, 0);
    for (x, &target) in x.chunks(width).zip(targets) {
        if target >= 0 {
            let logits: Vec<f64> = linear(x, head, None, width).iter().map(|l| scale * l).collect();
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = logits.iter().map(|l| (l - max).exp()).sum();
            sum += max + total.ln() - logits[target as usize];
            count += 1;
        }
    }
    sum / f64::from(count.max(1))
}

/// `c + alpha op(a) op(b)` for each of `batch` matrices; `op(a) [m, k]`, `op(b) [k, n]`.
pub fn matmul(
    c: &mut [f64],
    alpha: f64,
    (a, a_transposed): (&[f64], bool),
    (b, b_transposed): (&[f64], bool),
    [batch, m, k, n]: [usize; 4],
) {
    for l in 0..batch {
        for i in 0..m {
            for j in 0..n {
                for s in 0..k {
                    let x = a[l * m * k + if a_transposed { s * m + i } else { i * k + s }];
                    let y = b[l * k * n + if b_transposed { j * k + s } else { s * n + j }];
                    c[(l * m + i) * n + j] += alpha * x * y;
                }
            }
        }
    }
}

/// Singular values of `a [m, n]`, descending: one-sided Jacobi rotations of its shorter side's vectors (Hestenes 1958).
pub fn singular_values(a: &[f64], m: usize, n: usize) -> Vec<f64> {
    let mut vectors: Vec<Vec<f64>> = if m <= n {
        a.chunks(n).map(<[f64]>::to_vec).collect()
    } else {
        (0..n).map(|j| (0..m).map(|i| a[i * n + j]).collect()).collect()
    };
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    for _ in 0..30 {
        for i in 0..vectors.len() {
            for j in 0..i {
                let (x, y) = (vectors[i].clone(), vectors[j].clone());
                let (xx, yy, xy) = (dot(&x, &x), dot(&y, &y), dot(&x, &y));
                if xy.abs() <= 1e-15 * (xx * yy).sqrt() {
                    continue;
                }
                let zeta = (yy - xx) / (2.0 * xy);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let cos = 1.0 / (1.0 + t * t).sqrt();
                vectors[i] = x.iter().zip(&y).map(|(x, y)| cos * (x - t * y)).collect();
                vectors[j] = x.iter().zip(&y).map(|(x, y)| cos * (y + t * x)).collect();
            }
        }
    }
    let mut values: Vec<f64> = vectors.iter().map(|v| dot(v, v).sqrt()).collect();
    values.sort_by(|x, y| y.total_cmp(x));
    values
}

/// Q of the columns of `a [m, n]`, by modified Gram-Schmidt, twice over.
pub fn orthonormal_columns(a: &[f64], m: usize, n: usize) -> Vec<f64> {
    let mut q = a.to_vec();
    for j in 0..n {
        for _ in 0..2 {
            for k in 0..j {
                let dot: f64 = (0..m).map(|i| q[i * n + k] * q[i * n + j]).sum();
                (0..m).for_each(|i| q[i * n + j] -= dot * q[i * n + k]);
            }
            let norm = (0..m).map(|i| q[i * n + j].powi(2)).sum::<f64>().sqrt();
            (0..m).for_each(|i| q[i * n + j] /= norm);
        }
    }
    q
}

/// Normal numbers of this standard deviation from the uniform ones of a stream, two of these for two of those.
pub fn normal(stream: Stream, count: usize, std: f64) -> Vec<f64> {
    let one = |i: usize| {
        let (radius, turn) = (stream.uniform(i as u64 / 2 * 2), stream.uniform(i as u64 / 2 * 2 + 1));
        let angle = std::f64::consts::TAU * turn;
        let wave = if i.is_multiple_of(2) { angle.cos() } else { angle.sin() };
        std * (-2.0 * (1.0 - radius).ln()).sqrt() * wave
    };
    (0..count).map(one).collect()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_values_of_a_known_matrix() {
        // [[3, 0], [4, 5]] has singular values sqrt(45) and sqrt(5).
        let found = singular_values(&[3.0, 0.0, 4.0, 5.0], 2, 2);
        assert!(
            (found[0] - 45f64.sqrt()).abs() < 1e-12 && (found[1] - 5f64.sqrt()).abs() < 1e-12,
            "{found:?}"
        );
        let wide = singular_values(&[3.0, 4.0, 0.0, 0.0, 0.0, 2.0], 2, 3);
        assert!((wide[0] - 5.0).abs() < 1e-12 && (wide[1] - 2.0).abs() < 1e-12, "{wide:?}");
    }

    #[test]
    fn differences_of_a_cubic() {
        let cube = |x: &[Vec<f64>]| x[0].iter().map(|x| x.powi(3)).collect();
        let found = gradient(&cube, &[vec![1.0, 2.0, -1.5]], 0, &[1, 2], &[1.0, 10.0, 1.0]);
        assert!((found[0] - 120.0).abs() < 1e-6 && (found[1] - 6.75).abs() < 1e-6, "{found:?}");
    }
}
