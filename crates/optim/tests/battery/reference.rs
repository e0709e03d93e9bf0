//! Every optimizer again in plain f64 loops, one matrix at a time, from the formulas of docs/optimizers.md. It shares
//! nothing with the crate but the drawn noise, which is data here.

use std::collections::BTreeMap;

use optim::{Default, Rates, Value, noise};
use tensor::Device;
use tensor::params::{ParamSpec, Params, Role};

use crate::setup::given;

/// A matrix in the orientation [out, in].
#[derive(Clone)]
struct Matrix {
    m: usize,
    n: usize,
    x: Vec<f64>,
}

impl Matrix {
    fn new(m: usize, n: usize, f: impl Fn(usize, usize) -> f64) -> Self {
        Matrix { m, n, x: (0..m * n).map(|i| f(i / n, i % n)).collect() }
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.x[i * self.n + j]
    }

    fn t(&self) -> Matrix {
        Matrix::new(self.n, self.m, |i, j| self.at(j, i))
    }

    fn times(&self, b: &Matrix) -> Matrix {
        let mut c = Matrix::new(self.m, b.n, |_, _| 0.0);
        for i in 0..self.m {
            for k in 0..self.n {
                for j in 0..b.n {
                    c.x[i * b.n + j] += self.at(i, k) * b.at(k, j);
                }
            }
        }
        c
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Matrix {
        Matrix { x: self.x.iter().map(|x| f(*x)).collect(), ..*self }
    }

    fn zip(&self, b: &Matrix, f: impl Fn(f64, f64) -> f64) -> Matrix {
        Matrix { x: self.x.iter().zip(&b.x).map(|(a, b)| f(*a, *b)).collect(), ..*self }
    }

    fn norm(&self) -> f64 {
        self.x.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    fn rows(&self, from: usize, count: usize) -> Matrix {
        Matrix::new(count, self.n, |i, j| self.at(from + i, j))
    }

    fn tile(&self, (i0, m): (usize, usize), (j0, n): (usize, usize)) -> Matrix {
        Matrix::new(m, n, |i, j| self.at(i0 + i, j0 + j))
    }

    fn put(&mut self, i0: usize, j0: usize, tile: &Matrix) {
        for i in 0..tile.m {
            for j in 0..tile.n {
                self.x[(i0 + i) * self.n + j0 + j] = tile.at(i, j);
            }
        }
    }

    /// `a X + b (X X^T) X + c (X X^T)^2 X` for each triple, on `X / norm_F(X)`.
    fn iterate(&self, steps: &[[f64; 3]]) -> Matrix {
        if self.m > self.n {
            return self.t().iterate(steps).t();
        }
        let norm = self.norm();
        let mut x = self.map(|x| if norm > 0.0 { x / norm } else { 0.0 });
        for [a, b, c] in steps {
            let r = x.times(&x.t());
            let y = r.times(&x);
            let z = r.times(&y);
            x = x.zip(&y, |x, y| a * x + b * y).zip(&z, |x, z| x + c * z);
        }
        x
    }

    /// The polar factor, by the convergent cubic to the end.
    fn polar(&self) -> Matrix {
        self.iterate(&[[1.5, -0.5, 0.0]; 60])
    }
}

const JORDAN: [[f64; 3]; 5] = [[3.4445, -4.775, 2.0315]; 5];
const YOU: [[f64; 3]; 5] = [
    [4.0848, -6.8946, 2.927],
    [3.9505, -6.3029, 2.6377],
    [3.7418, -5.5913, 2.3037],
    [2.8769, -3.1427, 1.2046],
    [2.8366, -3.0525, 1.2012],
];
const EXPRESS: [[f64; 3]; 8] = [
    [8.287_212_018_145_63, -23.595_886_519_098_837, 17.300_387_312_530_933],
    [4.107_059_111_542_203, -2.947_849_916_737_910_6, 0.544_843_108_292_660_1],
    [3.948_690_853_482_294_6, -2.908_902_115_962_949, 0.551_819_139_437_013_7],
    [3.318_419_657_370_601_5, -2.488_488_024_314_874, 0.510_048_940_123_72],
    [2.300_652_019_954_817, -1.668_903_984_574_749_3, 0.418_807_311_952_567_3],
    [1.891_301_407_787_398, -1.267_995_827_194_586_8, 0.376_804_089_485_248_35],
    [1.875_001_480_853_447_9, -1.250_001_645_399_948_7, 0.375_000_164_547_424_8],
    [1.875, -1.25, 0.375],
];

fn express(steps: usize) -> Vec<[f64; 3]> {
    let safe = |(i, &[a, b, c]): (usize, &[f64; 3])| {
        if i == EXPRESS.len() - 1 { [a, b, c] } else { [a / 1.01, b / 1.01f64.powi(3), c / 1.01f64.powi(5)] }
    };
    EXPRESS.iter().enumerate().take(steps).map(safe).collect()
}

/// Weights and state of one optimizer.
pub struct Reference {
    name: &'static str,
    settings: BTreeMap<String, Value>,
    specs: Vec<ParamSpec>,
    starts: Vec<Vec<f64>>,
    weights: Vec<Vec<f64>>,
    first: Vec<Vec<f64>>,
    second: Vec<Vec<f64>>,
    t: u64,
}

impl Reference {
    pub fn new(name: &'static str, settings: &str, params: &Params) -> Self {
        let mut all: BTreeMap<String, Value> = optim::find(name)
            .unwrap()
            .keys()
            .into_iter()
            .map(|key| (key.name.to_string(), Default::value(key.default)))
            .collect();
        all.extend(given(name, settings));
        let specs = params.specs().to_vec();
        let weights: Vec<Vec<f64>> = (0..specs.len())
            .map(|i| params.weight(i).unwrap().iter().map(|x| f64::from(*x)).collect())
            .collect();
        let zeros: Vec<Vec<f64>> = weights.iter().map(|w| vec![0.0; w.len()]).collect();
        let (first, second) = (zeros.clone(), zeros);
        Reference { name, settings: all, specs, starts: weights.clone(), weights, first, second, t: 0 }
    }

    /// Distance of a weight from what it should be, and how far it should have moved.
    pub fn compare(&self, i: usize, weight: &[f32]) -> (f64, f64) {
        let off = self.weights[i].iter().zip(weight).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>();
        let moved = self.weights[i].iter().zip(&self.starts[i]).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        (off.sqrt(), moved.sqrt())
    }

    pub fn step(&mut self, grads: &[Vec<f32>], rates: Rates) {
        self.t += 1;
        for (i, grad) in grads.iter().enumerate() {
            let spec = self.specs[i].clone();
            let grad: Vec<f64> = grad.iter().map(|x| f64::from(*x)).collect();
            let matrix = self.name != "adamw"
                && match self.word("route") {
                    "all-2d" => spec.shape.len() == 2,
                    _ => spec.role == Role::Matrix,
                };
            if matrix {
                self.matrix(i, &spec, &grad, f64::from(rates.matrices));
            } else {
                self.adamw(
                    i,
                    &grad,
                    f64::from(if self.name == "adamw" { rates.matrices } else { rates.rest }),
                );
            }
        }
    }

    fn adamw(&mut self, i: usize, grad: &[f64], rate: f64) {
        // The defaults as the crate holds them, in f32.
        let [b1, b2, eps, decay] = [0.9f32, 0.95, 1e-8, 0.01].map(f64::from);
        for (k, g) in grad.iter().enumerate() {
            let (m, v) = (&mut self.first[i][k], &mut self.second[i][k]);
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            let (m, v) = (*m / (1.0 - b1.powi(self.t as i32)), *v / (1.0 - b2.powi(self.t as i32)));
            let w = &mut self.weights[i][k];
            *w -= rate * (decay * *w + m / (v.sqrt() + eps));
        }
    }

    fn matrix(&mut self, i: usize, spec: &ParamSpec, grad: &[f64], rate: f64) {
        let turned = spec.out_axis == 1;
        let (rows, cols) = (spec.shape[0], spec.shape[1]);
        let load = |x: &[f64]| {
            let stored = Matrix { m: rows, n: cols, x: x.to_vec() };
            if turned { stored.t() } else { stored }
        };
        let grad = load(grad);
        let mut buffer = load(&self.first[i]);
        let mu = self.number("momentum");
        let gated = match (self.name, self.words("gate")) {
            ("nolah", Some("tanh")) => grad.map(|g| g.tanh() * g.abs()),
            ("nolah", Some("sigmoid")) => grad.map(|g| g / (1.0 + (-g).exp())),
            ("nolah", _) => grad.map(|g| g.max(0.0)),
            _ => grad.clone(),
        };
        let mean = matches!(self.name, "normuon" | "moonlight" | "muon-nesterov");
        let weight = if mean { 1.0 - mu } else { 1.0 };
        buffer = buffer.zip(&gated, |m, g| mu * m + weight * g);
        if self.name == "nolah" {
            let mut sorted: Vec<f64> = grad.x.iter().map(|g| g.abs()).collect();
            sorted.sort_by(f64::total_cmp);
            let at = self.number("quantile") * (sorted.len() - 1) as f64;
            let (low, part) = (at.floor() as usize, at.fract());
            let high = sorted[(low + 1).min(sorted.len() - 1)];
            let q = sorted[low] + part * (high - sorted[low]);
            let s = self.number("momentum_scale");
            buffer = buffer.zip(&grad, |m, g| if g.abs() > q { s * m } else { m });
        }
        let mut source = if self.switch("nesterov") {
            buffer.zip(&gated, |m, g| weight * g + mu * m)
        } else {
            buffer.clone()
        };
        let cuts: Vec<(usize, usize)> = match self.word("split") {
            "none" => vec![(0, grad.m)],
            how => {
                let mut cuts = Vec::new();
                let mut at = 0;
                for segment in &spec.segments {
                    let heads = if how == "heads" { segment.heads } else { 1 };
                    for _ in 0..heads {
                        cuts.push((at, segment.rows / heads));
                        at += segment.rows / heads;
                    }
                }
                cuts
            }
        };
        if matches!(self.name, "orthonoise" | "isotropic") {
            let noise = self.noise(spec, &grad, &cuts);
            source = source.zip(&noise, |x, e| x + e);
            if self.word("noise_target") == "momentum" {
                buffer = buffer.zip(&noise, |m, e| m + e);
            }
        }
        if self.name == "nolah" {
            source = source.map(|x| x / (1.0 + (-x).exp()));
        }
        let mut update = grad.clone();
        for (from, count) in cuts {
            update.put(from, 0, &self.orthogonal(&source.rows(from, count)));
        }
        let mut rate = rate;
        if self.name == "normuon" {
            update = self.neurons(i, &update);
        }
        if self.in_tiles() && self.name == "block-periodic" {
            rate *= self.number("block_lr_ratio");
        }
        let decay = self.number("weight_decay");
        let w = load(&self.weights[i]).zip(&update, |w, u| w - rate * decay * w - rate * u);
        let store = |x: Matrix| if turned { x.t().x } else { x.x };
        self.weights[i] = store(w);
        self.first[i] = store(buffer);
    }

    fn in_tiles(&self) -> bool {
        match self.name {
            "block-muon" => true,
            "block-periodic" => !(self.t - 1).is_multiple_of(self.number("period") as u64),
            _ => false,
        }
    }

    fn orthogonal(&self, x: &Matrix) -> Matrix {
        let scale = |m: usize, n: usize| match self.word("scale") {
            "original" => (m as f64 / n as f64).max(1.0).sqrt(),
            "match-rms" => 0.2 * (m.max(n) as f64).sqrt(),
            "spectral" => (m as f64 / n as f64).sqrt(),
            _ => 1.0,
        };
        let factor = |x: &Matrix| match (self.word("ortho"), self.word("coefficients")) {
            ("newton-schulz", "you") | ("gram", _) => x.iterate(&YOU),
            ("newton-schulz", _) => x.iterate(&JORDAN),
            ("polar-express", _) => x.iterate(&express(8)),
            _ => x.polar(),
        };
        if !self.in_tiles() {
            let s = scale(x.m, x.n);
            return factor(x).map(|o| s * o);
        }
        let size = self.number("block_size") as usize;
        let cuts = |length: usize| -> Vec<(usize, usize)> {
            (0..length).step_by(size).map(|at| (at, size.min(length - at))).collect()
        };
        let full = self.words("scale_shape") == Some("full");
        let mut all = x.clone();
        for i in cuts(x.m) {
            for j in cuts(x.n) {
                let s = if full { scale(x.m, x.n) } else { scale(i.1, j.1) };
                all.put(i.0, j.0, &factor(&x.tile(i, j)).map(|o| s * o));
            }
        }
        all
    }

    fn neurons(&mut self, i: usize, update: &Matrix) -> Matrix {
        let (beta, eps) = (self.number("beta2"), self.number("eps"));
        let mut scaled = update.clone();
        for row in 0..update.m {
            let values = &mut scaled.x[row * update.n..(row + 1) * update.n];
            let mean = values.iter().map(|x| x * x).sum::<f64>() / update.n as f64;
            let v = &mut self.second[i][row];
            *v = beta * *v + (1.0 - beta) * mean;
            values.iter_mut().for_each(|x| *x /= v.sqrt() + eps);
        }
        let target = 0.2 * ((update.m * update.n) as f64).sqrt() / scaled.norm();
        scaled.map(|x| x * target)
    }

    /// The noise of a whole weight, unit by unit.
    fn noise(&self, spec: &ParamSpec, grad: &Matrix, cuts: &[(usize, usize)]) -> Matrix {
        let kind = if self.name == "orthonoise" { noise::Kind::Orthogonal } else { noise::Kind::Gaussian };
        let t = (self.t - 1) as f64 / self.number("anneal_steps");
        let alpha = self.number("alpha")
            * match self.word("anneal") {
                "constant" => 1.0,
                "linear" => 1.0 - 0.9 * t.min(1.0),
                _ => 0.1f64.powf(t),
            };
        let name = spec.name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        // Units of one size in a row share a number; their place within it is the low half.
        let mut all = grad.clone();
        let (mut group, mut within) = (0u64, 0u64);
        let mut left = spec.segments.iter().map(|s| s.rows).collect::<Vec<_>>();
        for &(from, count) in cuts {
            let key = name.wrapping_add((group << 32) | within);
            let drawn = noise::draw(kind, &Device::Cpu, [count, grad.n], false, 0, self.t, &[key]).unwrap();
            let values = drawn.read();
            let eps = alpha * grad.rows(from, count).norm();
            all.put(from, 0, &Matrix::new(count, grad.n, |i, j| eps * f64::from(values[i * grad.n + j])));
            within += 1;
            if let Some(rows) = left.get_mut(group as usize) {
                *rows -= count.min(*rows);
                if *rows == 0 {
                    (group, within) = (group + 1, 0);
                }
            }
        }
        all
    }

    fn number(&self, key: &str) -> f64 {
        match self.settings.get(key) {
            // As the crate holds it.
            Some(Value::Number(x)) => f64::from(*x as f32),
            other => panic!("{}: {key} is {other:?}", self.name),
        }
    }

    fn switch(&self, key: &str) -> bool {
        self.settings[key] == Value::Switch(true)
    }

    fn words(&self, key: &str) -> Option<&str> {
        match self.settings.get(key)? {
            Value::Word(word) => Some(word),
            _ => None,
        }
    }

    fn word(&self, key: &str) -> &str {
        self.words(key).unwrap_or_default()
    }
}
