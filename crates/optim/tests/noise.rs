//! Noise: orthonormality, norm, the Haar distribution, and independence of everything but seed, step and key.

use optim::noise::{Kind, draw};
use tensor::{Device, Tensor};

const KINDS: [Kind; 2] = [Kind::Orthogonal, Kind::Gaussian];

fn noise(kind: Kind, shape: [usize; 2], transposed: bool, step: u64, keys: &[u64]) -> Tensor {
    draw(kind, &Device::Cpu, shape, transposed, 11, step, keys).unwrap()
}

#[test]
fn orthogonal_noise_is_orthonormal_and_both_have_its_norm() {
    for shape in [[40, 24], [24, 40], [33, 33], [1, 7], [7, 1], [1, 1]] {
        let [m, n] = shape;
        let r = m.min(n);
        for kind in KINDS {
            let bank = noise(kind, shape, false, 3, &[0, 5]);
            assert_eq!(bank.shape(), [2, m, n]);
            for member in bank.to_vec().unwrap().chunks(m * n) {
                let square: f64 = member.iter().map(|&x| f64::from(x).powi(2)).sum();
                let norm = (square / r as f64).sqrt();
                assert!((norm - 1.0).abs() < 1e-6, "{kind:?} {shape:?}: {norm}");
            }
        }
        let error = optim::ortho::error(&noise(Kind::Orthogonal, shape, false, 3, &[0, 5])).unwrap();
        assert!(error < 1e-6, "{shape:?}: {error:.1e}");
    }
}

#[test]
fn a_bank_is_the_loop_over_its_members_bit_for_bit() {
    let keys = [7, 1 << 40, 0, 3];
    for kind in KINDS {
        for shape in [[20, 12], [12, 20], [16, 16]] {
            let bank = noise(kind, shape, false, 9, &keys);
            for (i, key) in keys.iter().enumerate() {
                let alone = noise(kind, shape, false, 9, &[*key]).to_vec().unwrap();
                assert_eq!(bank.slot(i).to_vec().unwrap(), alone, "{kind:?} {shape:?} member {i}");
            }
        }
    }
}

#[test]
fn a_weight_stored_transposed_gets_the_transpose() {
    for kind in KINDS {
        for [out, input] in [[20, 12], [12, 20], [16, 16]] {
            let straight = noise(kind, [out, input], false, 4, &[1, 2]);
            let turned = noise(kind, [input, out], true, 4, &[1, 2]);
            let back = tensor::linalg::transpose(&turned).unwrap();
            assert_eq!(straight.to_vec().unwrap(), back.to_vec().unwrap(), "{kind:?} [{out}, {input}]");
        }
    }
}

#[test]
fn seeds_steps_and_keys_draw_independently() {
    let shape = [48, 32];
    let one = |seed, step, key| {
        draw(Kind::Orthogonal, &Device::Cpu, shape, false, seed, step, &[key]).unwrap().to_vec().unwrap()
    };
    let draws = [one(1, 1, 1), one(1, 1, 2), one(1, 2, 1), one(2, 1, 1), one(1, 2, 2), one(1, 1 << 33, 1)];
    // <Q, P> of independent draws has variance short / long.
    let limit = 5.0 * (32.0f64 / 48.0).sqrt();
    for (i, a) in draws.iter().enumerate() {
        for b in &draws[..i] {
            let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum();
            assert!(dot.abs() < limit, "{dot}");
        }
    }
    assert_eq!(draws[0], one(1, 1, 1));
}

/// Largest distance between the distribution of `sample` and `cdf`, times the root of the number (Kolmogorov 1933):
/// above 1.95 once in a thousand.
fn kolmogorov(mut sample: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    sample.sort_by(f64::total_cmp);
    let n = sample.len() as f64;
    let distance = |(i, x): (usize, &f64)| {
        let p = cdf(*x);
        (p - i as f64 / n).abs().max((p - (i + 1) as f64 / n).abs())
    };
    n.sqrt() * sample.iter().enumerate().map(distance).fold(0.0, f64::max)
}

#[test]
fn orthogonal_noise_is_haar() {
    const DRAWS: u64 = 4000;
    let keys: Vec<u64> = (0..DRAWS).collect();
    // A column of a Haar matrix is uniform on the sphere. On that of R^3 every coordinate is uniform in [-1, 1]
    // (Archimedes), whichever the entry and, by invariance, in whichever direction it is taken.
    let bank = noise(Kind::Orthogonal, [3, 2], false, 0, &keys).to_vec().unwrap();
    let member = |i: usize| bank.chunks(6).map(move |q| f64::from(q[i]));
    for i in 0..6 {
        let k = kolmogorov(member(i).collect(), |x| f64::midpoint(x, 1.0));
        assert!(k < 1.95, "entry {i}: {k}");
    }
    let direction = [2.0 / 3.0, -1.0 / 3.0, 2.0 / 3.0];
    let along = |column: usize| {
        bank.chunks(6).map(move |q| (0..3).map(|i| direction[i] * f64::from(q[2 * i + column])).sum::<f64>())
    };
    for column in 0..2 {
        let k = kolmogorov(along(column).collect(), |x| f64::midpoint(x, 1.0));
        assert!(k < 1.95, "column {column}: {k}");
    }
    // Moments of a whole orthogonal matrix: E q = 0, E q^2 = 1/n, E q_ij^2 q_ik^2 = 1 / (n (n + 2)),
    // E tr Q = 0, E (tr Q)^2 = 1 (Diaconis and Shahshahani 1994). Without the sign rule the first and the last fail.
    let n = 4;
    let bank = noise(Kind::Orthogonal, [n, n], false, 1, &keys).to_vec().unwrap();
    let mean = |f: &dyn Fn(&[f32]) -> f64| bank.chunks(n * n).map(f).sum::<f64>() / DRAWS as f64;
    let trace = |q: &[f32]| (0..n).map(|i| f64::from(q[i * n + i])).sum::<f64>();
    assert!(mean(&trace).abs() < 0.06, "{}", mean(&trace));
    assert!((mean(&|q| trace(q).powi(2)) - 1.0).abs() < 0.1, "{}", mean(&|q| trace(q).powi(2)));
    for at in 0..n * n {
        let first = mean(&|q| f64::from(q[at]));
        let second = mean(&|q| f64::from(q[at]).powi(2));
        assert!(first.abs() < 0.04, "entry {at}: {first}");
        assert!((second - 0.25).abs() < 0.02, "entry {at}: {second}");
    }
    let pair = mean(&|q| f64::from(q[1] * q[2]).powi(2));
    assert!((pair - 1.0 / 24.0).abs() < 0.005, "{pair}");
    // A wide matrix is Haar in its rows: each coordinate of a row in R^3 is uniform.
    let bank = noise(Kind::Orthogonal, [2, 3], false, 2, &keys).to_vec().unwrap();
    let k = kolmogorov(bank.chunks(6).map(|q| f64::from(q[4])).collect(), |x| f64::midpoint(x, 1.0));
    assert!(k < 1.95, "{k}");
}

#[test]
fn gaussian_noise_is_normal() {
    let bank = noise(Kind::Gaussian, [60, 80], false, 0, &[0, 1]).to_vec().unwrap();
    // Norm sqrt(60), so entries of variance 1 / 80; the normal distribution's cdf by its logistic approximation
    // (Bowling et al. 2009), off by 1.4e-4.
    let cdf = |x: f64| {
        let z = x * 80f64.sqrt();
        1.0 / (1.0 + (-0.07056 * z.powi(3) - 1.5976 * z).exp())
    };
    let k = kolmogorov(bank.iter().map(|&x| f64::from(x)).collect(), cdf);
    assert!(k < 1.95, "{k}");
}

#[test]
fn on_a_gpu_noise_is_that_of_the_cpu() {
    let device = match Device::parse("cuda") {
        Ok(device) => device,
        Err(error) => return eprintln!("SKIPPED on_a_gpu_noise_is_that_of_the_cpu: {error}"),
    };
    for kind in KINDS {
        for (shape, transposed) in
            [([768, 256], false), ([256, 768], true), ([300, 300], true), ([300, 300], false)]
        {
            let [cpu, gpu] = [&Device::Cpu, &device]
                .map(|device| draw(kind, device, shape, transposed, 1, 2, &[3, 4, 5]).unwrap());
            let (cpu, gpu) = (cpu.to_vec().unwrap(), gpu.to_vec().unwrap());
            let off = cpu.iter().zip(&gpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-6, "{kind:?} {shape:?} {transposed}: {off:.1e}");
        }
    }
}
