//! Ranks: their definitions, both estimates against the singular value decomposition, and what is not finite.

use optim::spectrum::{self, STEPS, Spectrum};
use tensor::linalg::{matmul, qr, transpose};
use tensor::random::{Stream, normal};
use tensor::{DType, Device, Tensor};

fn gaussian(key: u64, shape: [usize; 2]) -> Tensor {
    normal(&Device::Cpu, &[Stream::new(8, key)], &shape, 1.0).unwrap()
}

/// A tall matrix `[1, m, r]` with these singular values and random vectors.
fn with_values(values: &[f32], m: usize) -> Tensor {
    let r = values.len();
    let (left, right) = (qr(&gaussian(1, [m, r])).unwrap(), qr(&gaussian(2, [r, r])).unwrap());
    left.write().chunks_exact_mut(r).for_each(|row| row.iter_mut().zip(values).for_each(|(x, s)| *x *= s));
    let x = Device::Cpu.empty(&[1, m, r], DType::F32).unwrap();
    matmul(&x, false, 1.0, &left, &right).unwrap();
    x
}

/// Spectra as momenta have them, and such as are hard: name, matrix, most that the effective rank may be off.
fn zoo(m: usize, r: usize) -> Vec<(&'static str, Tensor, f64)> {
    let geometric = |condition: f32| {
        let values: Vec<f32> = (0..r).map(|i| condition.powf(-(i as f32) / (r - 1) as f32)).collect();
        with_values(&values, m)
    };
    let power = |exponent: f32| {
        let values: Vec<f32> = (0..r).map(|i| ((i + 1) as f32).powf(-exponent)).collect();
        with_values(&values, m)
    };
    let low_rank = |rank: usize, noise: f32| {
        let x = Device::Cpu.empty(&[1, m, r], DType::F32).unwrap();
        x.copy_from_slice(&gaussian(3, [m, r]).to_vec().unwrap()).unwrap();
        x.write().iter_mut().for_each(|x| *x *= noise);
        matmul(&x, true, 1.0, &gaussian(4, [m, rank]), &gaussian(5, [rank, r])).unwrap();
        x
    };
    vec![
        ("Gaussian", gaussian(6, [m, r]), 0.01),
        ("square Gaussian", gaussian(7, [r, r]), 0.02),
        ("rank 4 and noise", low_rank(4, 0.1), 0.05),
        ("rank 40 and noise", low_rank(40, 0.1), 0.05),
        ("geometric to 1e2", geometric(1e2), 0.04),
        ("geometric to 1e4", geometric(1e4), 0.08),
        ("inverse root", power(0.5), 0.02),
        ("inverse", power(1.0), 0.1),
    ]
}

#[test]
fn ranks_follow_their_definitions() {
    let same = Spectrum::of(&[2.0; 8]);
    assert!((same.erank - 8.0).abs() < 1e-9 && (same.stable_rank - 8.0).abs() < 1e-9, "{same:?}");
    assert!((same.entropy - 1.0).abs() < 1e-12);
    assert_eq!(Spectrum::of(&[3.0, 0.0, 0.0]), Spectrum { erank: 1.0, stable_rank: 1.0, entropy: 0.0 });
    assert_eq!(Spectrum::of(&[0.0; 3]), Spectrum::default());
    // p = (3/4, 1/4): H = ln 4 - (3/4) ln 3.
    let two = Spectrum::of(&[3.0, 1.0]);
    assert!((two.erank - 4.0 / 3f64.powf(0.75)).abs() < 1e-12, "{two:?}");
    assert!((two.stable_rank - 10.0 / 9.0).abs() < 1e-12, "{two:?}");
}

fn off(found: f64, want: f64) -> f64 {
    (found / want - 1.0).abs()
}

#[test]
fn estimates_are_near_the_exact_values() {
    for (name, x, bound) in zoo(180, 120) {
        let wide = transpose(&x).unwrap();
        for x in [x, wide] {
            let exact = spectrum::exact(&x).unwrap()[0];
            let [values, rule] = [spectrum::by_eigenvalues(&x), spectrum::by_quadrature(&x, STEPS)]
                .map(|found| found.unwrap()[0]);
            assert!(off(values.erank, exact.erank) < 1e-3, "{name}: {values:?} {exact:?}");
            assert!(off(values.stable_rank, exact.stable_rank) < 1e-3, "{name}: {values:?} {exact:?}");
            assert!(off(rule.erank, exact.erank) < bound, "{name}: {rule:?} {exact:?}");
            assert!(off(rule.stable_rank, exact.stable_rank) < 0.02, "{name}: {rule:?} {exact:?}");
            assert_eq!(spectrum::spectrum(&x).unwrap()[0], values, "{name}");
        }
    }
}

#[test]
fn scale_does_not_matter_and_a_bank_is_the_loop() {
    let parts: Vec<f32> = [1.0f32, 1e-25, 1e25, 0.0]
        .iter()
        .flat_map(|scale| gaussian(9, [60, 90]).to_vec().unwrap().into_iter().map(move |x| x * scale))
        .collect();
    let bank = Device::Cpu.from_slice(&parts, &[4, 60, 90]).unwrap();
    for estimate in [spectrum::by_eigenvalues, |x: &Tensor| spectrum::by_quadrature(x, 16)] {
        let found = estimate(&bank).unwrap();
        for (i, member) in found.iter().enumerate() {
            let alone = estimate(&bank.range(i, 1)).unwrap();
            assert_eq!(*member, alone[0]);
        }
        for scaled in &found[1..3] {
            assert!(off(scaled.erank, found[0].erank) < 1e-3, "{scaled:?} {:?}", found[0]);
        }
        assert_eq!(found[3], Spectrum::default());
    }
}

#[test]
fn vectors_have_rank_one_and_what_is_not_finite_is_refused() {
    let vector = gaussian(10, [1, 9]);
    for found in [spectrum::exact(&vector), spectrum::spectrum(&vector), spectrum::by_quadrature(&vector, 32)]
    {
        let found = found.unwrap()[0];
        assert!((found.erank - 1.0).abs() < 1e-6 && (found.entropy - 1.0).abs() < 1e-6, "{found:?}");
    }
    let bad = normal(&Device::Cpu, &[Stream::new(1, 1), Stream::new(1, 2)], &[50, 60], 1.0).unwrap();
    for poison in [f32::NAN, f32::INFINITY] {
        bad.write()[50 * 60 + 7] = poison;
        for result in [spectrum::spectrum(&bad), spectrum::by_quadrature(&bad, 32), spectrum::exact(&bad)] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("finite"), "{message}");
        }
    }
    assert!(spectrum::by_quadrature(&vector, 7).unwrap_err().to_string().contains("even number"));
}

#[test]
fn on_a_gpu_the_quadrature_is_that_of_the_cpu() {
    let device = match Device::parse("cuda") {
        Ok(device) => device,
        Err(error) => return eprintln!("SKIPPED on_a_gpu_the_quadrature_is_that_of_the_cpu: {error}"),
    };
    for (name, x, _) in zoo(384, 256).into_iter().chain(zoo(203, 135)) {
        let cpu = spectrum::by_quadrature(&x, STEPS).unwrap()[0];
        let wide = transpose(&x).unwrap();
        for x in [x, wide] {
            let on_device = device.from_slice(&x.to_vec().unwrap(), x.shape()).unwrap();
            let gpu = spectrum::spectrum(&on_device).unwrap()[0];
            assert_eq!(gpu, spectrum::spectrum(&on_device).unwrap()[0], "{name}: not the same bits twice");
            println!("{name} {:?}: cpu {:.3} gpu {:.3}", x.shape(), cpu.erank, gpu.erank);
            assert!(off(gpu.erank, cpu.erank) < 0.03, "{name}: {gpu:?} {cpu:?}");
            assert!(off(gpu.stable_rank, cpu.stable_rank) < 0.01, "{name}: {gpu:?} {cpu:?}");
        }
    }
    let bad = device.from_slice(&vec![f32::NAN; 200 * 200], &[1, 200, 200]).unwrap();
    assert!(spectrum::spectrum(&bad).unwrap_err().to_string().contains("not finite"));
    let zeros = device.zeros(&[1, 200, 200], DType::F32).unwrap();
    assert_eq!(spectrum::spectrum(&zeros).unwrap(), [Spectrum::default()]);
}
