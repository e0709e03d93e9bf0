//! Stochastic Lanczos quadrature: sums over all singular values from a few Lanczos steps.
//!
//! Let R be the Gram matrix divided by its trace, `f(R)` a function of its eigenvalues, and z a vector of random signs.
//! `E z^T f(R) z = tr f(R)` (Hutchinson 1990), and with T the tridiagonal matrix of k Lanczos steps from `z / sqrt(r)`,
//! `z^T f(R) z` is about `r e1^T f(T) e1`, the Gauss rule with k nodes (Golub and Meurant 1994; Ubaru, Chen and Saad
//! 2017). The effective rank needs f = sqrt(x) and sqrt(x) ln sqrt(x). Four things make few steps and probes do:
//!
//! - *Two rules.* The derivatives of sqrt have constant signs, so the Gauss rule lies above and the Gauss-Radau rule
//!   with a node at 0 below the value. Their mean is taken.
//! - *Extrapolation.* What is left of the error falls about as `1/k^2`, so that of k and k/2 steps makes most of the
//!   rest go away: `E_k + (E_k - E_k/2) / 3`.
//! - *The head is exact.* Where all probes have a node, there is an eigenvalue: the large ones, which the probes'
//!   scatter would come from most. They count once each; the probes tell about the rest alone.
//! - *Control variates.* `tr 1 = r`, `tr R = 1` and `tr R^2` are known, for the rest too once the head is taken off, so
//!   a quadratic polynomial that fits f at the nodes takes its part of the scatter away.

use super::Spectrum;

/// Random vectors for each matrix.
pub(super) const PROBES: usize = 8;
/// Rules for each probe: Gauss and Gauss-Radau with k steps, then both with k/2.
pub(super) const RULES: usize = 4;

/// Nodes of different probes that are so near each other, in relation to their size, are one eigenvalue.
const NEAR: f64 = 1e-3;
/// Nodes below this part of the largest are too inaccurate in f32 to be told apart.
const FAINT: f64 = 1e-4;
/// Mean weight up to which such a node is a single eigenvalue: the weights of one have mean 1, and their mean over the
/// probes a deviation of 1/2. What is heavier stays with the rest.
const HEAVY: f64 = 3.0;

/// A rest of a trace below this part of the whole has too much of f32's rounding in it to be a measure for the probes.
const SLIGHT: f64 = 1e-4;

/// A node and its weight; the weights of a rule add up to r.
pub(super) type Node = [f64; 2];

/// One matrix: what is known of it exactly, and its rules.
pub(super) struct Member {
    /// Trace of the Gram matrix before it was divided by it.
    pub trace: f64,
    /// Sum of squares of the Gram matrix divided by its trace.
    pub square: f64,
    /// `[PROBES, RULES]`.
    pub rules: Vec<[Vec<Node>; RULES]>,
}

impl Member {
    pub(super) fn spectrum(&self, r: usize) -> Spectrum {
        if self.trace == 0.0 {
            return Spectrum::default();
        }
        let (full, half) = (self.estimate(0, r), self.estimate(2, r));
        let [sum, log] = [0, 1].map(|i| full[i] + (full[i] - half[i]) / 3.0);
        Spectrum::from_entropy(sum.ln() - log / sum, 1.0 / self.largest(), r)
    }

    fn largest(&self) -> f64 {
        self.rules.iter().flat_map(|rules| &rules[0]).map(|node| node[0]).fold(0.0, f64::max)
    }

    /// Sum of s and of s ln s over all singular values of a matrix of norm 1, by the rules `first` and `first + 1`.
    fn estimate(&self, first: usize, r: usize) -> [f64; 2] {
        let head = self.head(first);
        let rest = || {
            let rules = self.rules.iter().flat_map(|rules| &rules[first..first + 2]).flatten();
            rules.filter(|[x, _]| head.iter().all(|h| (x - h).abs() > 3.0 * NEAR * h))
        };
        let scale = rest().map(|node| node[0]).fold(0.0, f64::max);
        let (mut powers, mut roots, mut logs) = ([0.0; 5], [0.0; 3], [0.0; 3]);
        for [x, w] in rest() {
            let w = w / (2 * PROBES) as f64;
            let [root, log] = functions(*x).map(|f| f * w);
            let mut power = 1.0;
            for i in 0..5 {
                powers[i] += w * power;
                if i < 3 {
                    roots[i] += root * power;
                    logs[i] += log * power;
                }
                // Powers of x / scale, which is at most 1.
                power *= x / scale;
            }
        }
        let whole = [r as f64, 1.0, self.square];
        let left: [f64; 3] =
            std::array::from_fn(|i| whole[i] - head.iter().map(|h| h.powi(i as i32)).sum::<f64>());
        let terms = (1..3).find(|&i| left[i] < SLIGHT * whole[i]).unwrap_or(3);
        let estimate = |values: [f64; 3]| {
            let fit = fit(&powers, values, terms);
            let known = |i: usize| left[i] / scale.powi(i as i32);
            values[0] + (0..terms).map(|i| fit[i] * (known(i) - powers[i])).sum::<f64>()
        };
        let exact = |i: usize| head.iter().map(|&h| functions(h)[i]).sum::<f64>();
        if scale > 0.0 {
            [exact(0) + estimate(roots), exact(1) + estimate(logs)]
        } else {
            [exact(0), exact(1)]
        }
    }

    /// Eigenvalues that every probe has found by the Gauss rule `rule`.
    fn head(&self, rule: usize) -> Vec<f64> {
        let faint = FAINT * self.largest();
        let mut head: Vec<f64> = Vec::new();
        let candidates = self.rules[0][rule].iter().map(|node| node[0]).filter(|&x| x > faint);
        for x in candidates {
            if head.iter().any(|h| (x - h).abs() <= 3.0 * NEAR * h) {
                continue;
            }
            let near = |rules: &[Vec<Node>; RULES]| {
                let near = rules[rule].iter().filter(|node| (node[0] - x).abs() <= NEAR * x);
                near.fold([0.0, 0.0], |[most, weight], [x, w]| [x.max(most), weight + w])
            };
            let found: Vec<Node> = self.rules.iter().map(near).collect();
            // Lanczos values rise to the eigenvalue: the largest is the nearest.
            let most = found.iter().map(|found| found[0]).fold(0.0, f64::max);
            let weight: f64 = found.iter().map(|found| found[1]).sum();
            if found.iter().all(|found| found[1] > 0.0) && weight < HEAVY * PROBES as f64 {
                head.push(most);
            }
        }
        head
    }
}

/// Square root s, and s ln s.
fn functions(x: f64) -> [f64; 2] {
    let root = x.sqrt();
    [root, if x > 0.0 { 0.5 * root * x.ln() } else { 0.0 }]
}

/// Coefficients of the polynomial with so many terms nearest to f: `powers[i + j] c_j = values[i]`. Where there are fewer
/// nodes than terms, those of higher powers are 0.
fn fit(powers: &[f64; 5], values: [f64; 3], terms: usize) -> [f64; 3] {
    let mut rows: [[f64; 4]; 3] =
        std::array::from_fn(|i| [powers[i], powers[i + 1], powers[i + 2], values[i]]);
    let mut rank = 0;
    for i in 0..terms {
        if rows[i][i] <= 1e-12 * powers[2 * i] {
            break;
        }
        rank = i + 1;
        let pivot = rows[i];
        for row in &mut rows[i + 1..] {
            let factor = row[i] / pivot[i];
            row.iter_mut().zip(pivot).for_each(|(x, pivot)| *x -= factor * pivot);
        }
    }
    let mut c = [0.0; 3];
    for i in (0..rank).rev() {
        let known: f64 = (i + 1..rank).map(|j| rows[i][j] * c[j]).sum();
        c[i] = (rows[i][3] - known) / rows[i][i];
    }
    c
}

/// All rules of one probe from its Lanczos coefficients, which are divided by `trace`: `alpha [k]` is the diagonal,
/// `beta [k]` what lies beside it, the last unused.
pub(super) fn rules(alpha: &[f32], beta: &[f32], trace: f64, r: usize) -> [Vec<Node>; RULES] {
    let k = alpha.len();
    let rule = |k: usize, radau: bool| {
        let mut diagonal: Vec<f64> = alpha[..k].iter().map(|&x| f64::from(x) / trace).collect();
        let mut beside: Vec<f64> = beta[..k].iter().map(|&x| f64::from(x) / trace).collect();
        if radau {
            put_node_at_zero(&mut diagonal, &beside);
        }
        let mut first = vec![0.0; k];
        first[0] = 1.0;
        diagonalize(&mut diagonal, &mut beside, &mut first);
        diagonal.iter().zip(first).map(|(x, z)| [x.max(0.0), r as f64 * z * z]).collect()
    };
    [rule(k, false), rule(k, true), rule(k / 2, false), rule(k / 2, true)]
}

/// Changes the last diagonal entry so that 0 becomes an eigenvalue: the last pivot of the elimination vanishes. Where
/// the leading part is singular already, to f32, there is a node at 0 without that.
fn put_node_at_zero(diagonal: &mut [f64], beside: &[f64]) {
    let last = diagonal.len() - 1;
    let mut pivot = diagonal[0];
    for i in 1..last {
        pivot = diagonal[i] - beside[i - 1] * beside[i - 1] / pivot;
    }
    let entry = beside[last - 1] * beside[last - 1] / pivot;
    // A trace of 1 bounds every entry.
    if (0.0..=1.0).contains(&entry) {
        diagonal[last] = entry;
    }
}

/// Eigenvalues of a symmetric tridiagonal matrix into `d`, and what the rotations make of the row `z`: implicit QL
/// (Golub and Welsch 1969; Martin and Wilkinson 1968). `e[i]` lies between `d[i]` and `d[i + 1]`.
fn diagonalize(d: &mut [f64], e: &mut [f64], z: &mut [f64]) {
    /// Entries beside the diagonal that are zero, for a matrix of trace 1.
    const ZERO: f64 = 1e-15;
    /// Sweeps for one eigenvalue; two are usual.
    const SWEEPS: usize = 50;
    let n = d.len();
    e[n - 1] = 0.0;
    for l in 0..n {
        for _ in 0..SWEEPS {
            let m = (l..n - 1).find(|&m| e[m].abs() <= ZERO).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut g = d[m] - d[l] + e[l] / (g + (g * g + 1.0).sqrt().copysign(g));
            let (mut sin, mut cos, mut shift) = (1.0, 1.0, 0.0);
            let mut split = false;
            for i in (l..m).rev() {
                let (f, b) = (sin * e[i], cos * e[i]);
                let norm = (f * f + g * g).sqrt();
                e[i + 1] = norm;
                if norm == 0.0 {
                    d[i + 1] -= shift;
                    e[m] = 0.0;
                    split = true;
                    break;
                }
                (sin, cos) = (f / norm, g / norm);
                g = d[i + 1] - shift;
                let t = (d[i] - g) * sin + 2.0 * cos * b;
                shift = sin * t;
                d[i + 1] = g + shift;
                g = cos * t - b;
                (z[i], z[i + 1]) = (cos * z[i] - sin * z[i + 1], sin * z[i] + cos * z[i + 1]);
            }
            if !split {
                d[l] -= shift;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_those_of_the_uniform_distribution() {
        // Of the measure dx on [0, 1] the Lanczos coefficients are 1/2 and i / (2 sqrt(4 i^2 - 1)).
        let k = 12;
        let beta = |i: f64| (i / (2.0 * (4.0 * i * i - 1.0).sqrt())) as f32;
        let beside: Vec<f32> = (1..=k).map(|i| beta(i as f64)).collect();
        let rules = rules(&vec![0.5; k], &beside, 1.0, 1);
        let sum = |rule: &[Node], f: &dyn Fn(f64) -> f64| rule.iter().map(|[x, w]| w * f(*x)).sum::<f64>();
        for (rule, degree) in rules.iter().zip([2 * k - 1, 2 * k - 2, k - 1, k - 2]) {
            for i in 0..=degree as i32 {
                let power = sum(rule, &|x| x.powi(i));
                assert!((power - 1.0 / f64::from(i + 1)).abs() < 1e-7, "x^{i}: {power}");
            }
        }
        // Integral of sqrt(x): 2/3, between the two rules. Of sqrt(x) ln sqrt(x): -2/9.
        let [above, below] = [0, 1].map(|i| sum(&rules[i], &|x| functions(x)[0]) - 2.0 / 3.0);
        assert!(above > 0.0 && below < 0.0 && above - below < 1e-3, "{above} {below}");
        let log = sum(&rules[0], &|x| functions(x)[1]);
        assert!((log + 2.0 / 9.0).abs() < 1e-3, "{log}");
    }

    #[test]
    fn a_quadratic_polynomial_is_fitted_exactly_and_one_node_by_a_constant() {
        let nodes = [0.1, 0.4, 0.7, 1.0];
        let f = |x: f64| 2.0 - 3.0 * x + 0.5 * x * x;
        let powers: [f64; 5] = std::array::from_fn(|i| nodes.iter().map(|x: &f64| x.powi(i as i32)).sum());
        let c =
            fit(&powers, std::array::from_fn(|i| nodes.iter().map(|&x| f(x) * x.powi(i as i32)).sum()), 3);
        for (c, want) in c.iter().zip([2.0, -3.0, 0.5]) {
            assert!((c - want).abs() < 1e-9, "{c} {want}");
        }
        let [constant, linear, square] = fit(&[4.0; 5], [8.0; 3], 3);
        assert!((constant - 2.0).abs() < 1e-12 && linear.abs() + square.abs() < 1e-12);
    }
}
