//! Random banks of matrices for benchmarks: Gaussian, or with a given condition number.

use optim::ortho::{Method, Ortho};
use tensor::linalg;
use tensor::random::Stream;
use tensor::{DType, Device, Tensor};

/// Independent normal entries.
pub fn gaussian(device: &Device, shape: [usize; 3], seed: u64) -> anyhow::Result<Tensor> {
    let mut values = vec![0.0; shape.iter().product()];
    Stream::new(seed, (shape[1] * 1_000_003 + shape[2]) as u64).fill_normal(&mut values, 0.01);
    Ok(device.from_slice(&values, &shape)?)
}

/// `U diag(s_0, s_1, ..) V^T` with random orthonormal U and V, the same values for all members.
pub fn spectrum(
    device: &Device,
    [l, m, n]: [usize; 3],
    seed: u64,
    values: impl Fn(usize) -> f32,
) -> anyhow::Result<Tensor> {
    let (r, polar) = (m.min(n), Ortho { method: Method::Polar, dtype: DType::F32 });
    let u = polar.apply(&gaussian(device, [l, m, r], seed)?)?;
    let vt = polar.apply(&gaussian(device, [l, r, n], seed + 1)?)?;
    let diagonal = |i: usize| if i % r == i / r % r { values(i % r) } else { 0.0 };
    let diagonal: Vec<f32> = (0..l * r * r).map(diagonal).collect();
    let diagonal = device.from_slice(&diagonal, &[l, r, r])?;
    let scaled = device.empty(&[l, r, n], DType::F32)?;
    linalg::matmul(&scaled, false, 1.0, &diagonal, &vt)?;
    let x = device.empty(&[l, m, n], DType::F32)?;
    linalg::matmul(&x, false, 1.0, &u, &scaled)?;
    Ok(x)
}

/// Singular values from 1 down to 1 / condition in equal ratios.
pub fn geometric(device: &Device, shape: [usize; 3], seed: u64, condition: f32) -> anyhow::Result<Tensor> {
    let last = (shape[1].min(shape[2]) - 1).max(1) as f32;
    spectrum(device, shape, seed, |i| condition.powf(-(i as f32) / last))
}
