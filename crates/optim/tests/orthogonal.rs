//! The orthogonalisers over a zoo of matrices: orthogonality, symmetry, agreement with f64, and the cases at the edge.

use optim::ortho::{self, Method, Ortho, measure};
use tensor::random::Stream;
use tensor::{DType, Device, Tensor};

fn ortho(method: &str, dtype: DType) -> Ortho {
    Ortho::parse(method, "", 0, dtype).unwrap()
}

fn bank(values: &[f32], shape: [usize; 3]) -> Tensor {
    Device::Cpu.from_slice(values, &shape).unwrap()
}

fn gaussian(shape: [usize; 3], seed: u64) -> Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    Stream::new(seed, shape[1] as u64).fill_normal(&mut values, 1.0);
    bank(&values, shape)
}

/// `[1, m, n]` with these singular values.
fn spectrum([m, n]: [usize; 2], values: impl Fn(usize) -> f32) -> Tensor {
    let (r, svd) = (m.min(n), ortho("svd", DType::F32));
    let u = svd.apply(&gaussian([1, m, r], 1)).unwrap();
    let vt = svd.apply(&gaussian([1, r, n], 2)).unwrap();
    u.write().iter_mut().enumerate().for_each(|(i, x)| *x *= values(i % r));
    let x = Device::Cpu.empty(&[1, m, n], DType::F32).unwrap();
    tensor::linalg::matmul(&x, false, 1.0, &u, &vt).unwrap();
    x
}

fn geometric(shape: [usize; 2], condition: f32) -> Tensor {
    let last = (shape[0].min(shape[1]) - 1).max(1) as f32;
    spectrum(shape, |i| condition.powf(-(i as f32) / last))
}

fn scaled(x: &Tensor, factor: f32) -> Tensor {
    let values: Vec<f32> = x.read().iter().map(|x| x * factor).collect();
    Device::Cpu.from_slice(&values, x.shape()).unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    a.read().iter().zip(b.read().iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Matrices of full rank, by name.
fn zoo() -> Vec<(String, Tensor)> {
    let mut zoo = Vec::new();
    for [m, n] in [[40, 96], [96, 40], [48, 48], [1, 7], [7, 1], [1, 1], [130, 200]] {
        zoo.push((format!("gaussian {m} x {n}"), gaussian([1, m, n], 3)));
    }
    for [m, n] in [[48, 80], [80, 48], [64, 64]] {
        for condition in [1e2, 1e3, 1e4, 1e5, 1e6] {
            zoo.push((format!("condition {condition:e}, {m} x {n}"), geometric([m, n], condition)));
        }
    }
    let noisy = spectrum([60, 90], |i| if i < 4 { 1.0 } else { 1e-4 });
    zoo.push(("low rank and noise".into(), noisy));
    // One direction far above, one far below the rest.
    zoo.push(("outliers".into(), spectrum([50, 70], |i| [1.0, 1e-3, 1e-6][i.min(1) + usize::from(i == 49)])));
    for factor in [1e-30, 1e30] {
        zoo.push((format!("gaussian times {factor:e}"), scaled(&gaussian([1, 33, 65], 4), factor)));
    }
    zoo
}

#[test]
fn exact_methods_are_orthogonal_and_symmetric_over_the_zoo() {
    for (name, x) in zoo() {
        for method in ["polar", "svd", "svd-f64"] {
            let y = ortho(method, DType::F32).apply(&x).unwrap();
            let told = measure::quality(&x.slot(0), &y.slot(0)).unwrap();
            let what = format!("{method} of {name}: {told:?}");
            assert!(told.orthogonality <= 1e-5 && ortho::error(&y).unwrap() <= 1e-5, "{what}");
            assert!(told.projector <= 1e-5 && told.asymmetry <= 1e-4 && told.residual <= 1e-5, "{what}");
            assert!(told.positivity >= -1e-5, "{what}");
            assert_eq!(told.rank, x.shape()[1].min(x.shape()[2]), "{what}");
        }
    }
}

#[test]
fn polar_agrees_with_f64_where_the_condition_allows() {
    for (name, x, bound) in [
        ("gaussian", gaussian([3, 40, 96], 5), 2e-6),
        ("condition 1e3", geometric([48, 80], 1e3), 1e-4),
        ("condition 1e4", geometric([80, 48], 1e4), 1e-3),
    ] {
        let [polar, exact] = ["polar", "svd-f64"].map(|method| ortho(method, DType::F32).apply(&x).unwrap());
        let off = largest_difference(&polar, &exact);
        assert!(off <= bound, "{name}: off by {off:.1e}");
    }
}

#[test]
fn polar_agrees_with_the_plain_iteration() {
    // All steps of polar-express, then (1.875, -1.25, 0.375) to the end.
    let plain = Ortho { method: Method::PolarExpress { steps: 20 }, dtype: DType::F32 };
    for x in [gaussian([2, 48, 80], 6), gaussian([2, 80, 48], 6), geometric([64, 64], 1e2)] {
        let [a, b] = [&ortho("polar", DType::F32), &plain].map(|method| method.apply(&x).unwrap());
        let off = largest_difference(&a, &b);
        assert!(off <= 2e-5, "{x:?}: off by {off:.1e}");
    }
}

#[test]
fn a_rank_deficient_matrix_gives_the_partial_isometry() {
    for (m, n, rank) in [(60, 90, 7), (90, 60, 59), (48, 48, 1), (5, 40, 3)] {
        let x = spectrum([m, n], |i| if i < rank { 1.0 / (1 + i) as f32 } else { 0.0 });
        // Rows of zeros too: dead neurons.
        x.write()[..n].fill(0.0);
        let rank = rank.min(m - 1);
        let ys = ["polar", "svd", "svd-f64"].map(|method| ortho(method, DType::F32).apply(&x).unwrap());
        for y in &ys[..2] {
            let told = measure::quality(&x.slot(0), &y.slot(0)).unwrap();
            assert_eq!(told.rank, rank, "{m} x {n}: {told:?}");
            assert!(told.projector <= 1e-5 && told.residual <= 1e-5, "{m} x {n}, rank {rank}: {told:?}");
        }
        let off = largest_difference(&ys[0], &ys[1]);
        assert!(off <= 1e-3, "{m} x {n}, rank {rank}: polar and svd differ by {off:.1e}");
    }
}

#[test]
fn zeros_give_zeros_also_beside_others() {
    for method in Method::NAMES {
        for dtype in [DType::F32, DType::BF16] {
            let x = gaussian([3, 6, 10], 7);
            x.write()[60..120].fill(0.0);
            let y = ortho(method, dtype).apply(&x).unwrap();
            assert!(y.read()[60..120].iter().all(|&y| y == 0.0), "{method}");
            assert!(y.read()[..60].iter().any(|&y| y != 0.0), "{method}");
        }
    }
}

#[test]
fn scale_does_not_matter() {
    let x = gaussian([1, 8, 12], 8);
    for method in Method::NAMES {
        let reference = ortho(method, DType::F32).apply(&x).unwrap();
        for factor in [1e-30, 1e30] {
            let y = ortho(method, DType::F32).apply(&scaled(&x, factor)).unwrap();
            let off = largest_difference(&y, &reference);
            // Roundings to bf16 fall elsewhere at another scale.
            let bound = if *method == "jordan-bf16" { 5e-2 } else { 1e-5 };
            assert!(off < bound, "{method} at {factor:e}: off by {off:.1e}");
        }
    }
}

#[test]
fn what_is_not_finite_is_refused_by_the_exact_methods_and_the_check() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let x = gaussian([3, 4, 6], 9);
        x.write()[30] = bad;
        for method in ["polar", "svd", "svd-f64"] {
            let error = ortho(method, DType::F32).apply(&x).unwrap_err().to_string();
            assert!(error.contains("not finite") && error.contains("matrix 1"), "{method}: {error}");
        }
        assert!(ortho::check_finite(&x).unwrap_err().to_string().contains("matrix 1"));
    }
    ortho::check_finite(&gaussian([3, 4, 6], 9)).unwrap();
}

#[test]
fn a_bank_is_its_members_and_a_tall_one_the_transpose_of_a_wide_one() {
    let x = gaussian([3, 20, 36], 10);
    let turned = Device::Cpu.empty(&[3, 36, 20], DType::F32).unwrap();
    for (i, value) in x.read().iter().enumerate() {
        turned.write()[i / 720 * 720 + i % 36 * 20 + i % 720 / 36] = *value;
    }
    for method in Method::NAMES {
        for dtype in [DType::F32, DType::BF16] {
            let ortho = ortho(method, dtype);
            let whole = ortho.apply(&x).unwrap();
            for i in 0..3 {
                let alone = ortho.apply(&x.range(i, 1)).unwrap();
                assert_eq!(*alone.read(), *whole.slot(i).read(), "{method}");
            }
            let tall = ortho.apply(&turned).unwrap();
            let off = (0..whole.numel())
                .map(|i| whole.read()[i] - tall.read()[i / 720 * 720 + i % 36 * 20 + i % 720 / 36])
                .fold(0.0, |worst: f32, off| worst.max(off.abs()));
            assert!(off <= if ortho.dtype == DType::F32 { 2e-5 } else { 0.03 }, "{method}: off by {off:.1e}");
        }
    }
}

#[test]
fn fixed_steps_reach_the_orthogonality_of_their_coefficients() {
    // Reference values in f32 for a Gaussian of the same aspect: jordan 0.28, you 0.034, polar-express x8 5e-6.
    let x = gaussian([1, 64, 256], 11);
    for (method, coefficients, steps, dtype, least, most) in [
        ("newton-schulz", "jordan", 0, DType::F32, 0.1, 0.4),
        ("newton-schulz", "you", 0, DType::F32, 0.01, 0.06),
        ("newton-schulz", "convergent", 0, DType::F32, 0.0, 1e-3),
        ("newton-schulz", "2,-1.5,0.5", 12, DType::F32, 0.0, 1e-3),
        ("polar-express", "", 8, DType::F32, 0.0, 1e-5),
        ("newton-schulz", "jordan", 0, DType::BF16, 0.1, 0.4),
        ("newton-schulz", "you", 0, DType::BF16, 0.01, 0.07),
    ] {
        let ortho = Ortho::parse(method, coefficients, steps, dtype).unwrap();
        let error = ortho::error(&ortho.apply(&x).unwrap()).unwrap();
        assert!((least..=most).contains(&error), "{method} {coefficients} {dtype:?}: {error:.1e}");
    }
}

#[test]
fn gram_is_the_same_polynomial() {
    for shape in [[2, 24, 60], [2, 60, 24], [2, 32, 32]] {
        let x = gaussian(shape, 12);
        for (coefficients, steps) in
            [("jordan", 5), ("you", 5), ("polar-express", 8), ("jordan", 1), ("you", 2), ("you", 3)]
        {
            let [plain, gram] = ["newton-schulz", "gram"].map(|method| {
                Ortho::parse(method, coefficients, steps, DType::F32).unwrap().apply(&x).unwrap()
            });
            let off = largest_difference(&plain, &gram);
            assert!(off <= 2e-5, "{shape:?} {coefficients} x{steps}: off by {off:.1e}");
            let half = Ortho::parse("gram", coefficients, steps, DType::BF16).unwrap().apply(&x).unwrap();
            let off = largest_difference(&plain, &half);
            assert!(off <= 0.06, "{shape:?} {coefficients} x{steps} in bf16: off by {off:.1e}");
        }
    }
}

#[test]
fn gram_in_bf16_leaves_what_lies_far_below_the_largest_singular_values_small() {
    // As momenta are early in training. Rounding gives the Gram matrix negative eigenvalues, which grow with every step
    // until X is made anew.
    for (leaders, rest) in
        [1usize, 4, 16].into_iter().flat_map(|k| [1e-1, 1e-2, 1e-3, 1e-6].map(|rest| (k, rest)))
    {
        let x = spectrum([64, 256], |i| if i < leaders { 1.0 } else { rest });
        for coefficients in ["you", "jordan", "polar-express"] {
            let y = Ortho::parse("gram", coefficients, 0, DType::BF16).unwrap().apply(&x).unwrap();
            let error = ortho::error(&y).unwrap();
            assert!(error < 1.1, "{leaders} of 64 at 1, {rest:e}, {coefficients}: {error:.2}");
        }
    }
}

#[test]
fn unknown_words_are_refused_with_those_that_are_known() {
    for (method, coefficients, word) in
        [("polr", "", "newton-schulz"), ("gram", "jordann", "jordan, you"), ("newton-schulz", "1,2", "a,b,c")]
    {
        let error = Ortho::parse(method, coefficients, 0, DType::F32).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
