//! Passes over banks, for both devices: plain loops here, `ortho.cu` on the GPU.

use rayon::prelude::*;
use tensor::cuda::{Arg, Gpu, Source};
use tensor::{DType, Device, Tensor};

use crate::error::Result;
use crate::kernels::{BLOCK, THREADS};

pub(crate) static SOURCE: Source = Source { name: "optim/ortho.cu", text: include_str!("ortho.cu") };

/// Largest absolute value of each member of a bank `[L, ..]`; NaN where there is one.
pub(super) fn largest(x: &Tensor) -> Result<Vec<f32>> {
    let (members, size) = members(x);
    match x.device() {
        Device::Cpu => Ok(x.read().par_chunks(size).map(largest_of).collect()),
        Device::Cuda(gpu) => {
            let parts = parts(size);
            let maxima = part_maxima(gpu, x)?.to_vec()?;
            debug_assert_eq!(maxima.len(), members * parts);
            Ok(maxima.chunks_exact(parts).map(largest_of).collect())
        }
    }
}

/// Largest absolute value; NaN where there is one.
pub(super) fn largest_of(x: &[f32]) -> f32 {
    let bits = x.iter().fold(0, |most, x| u32::max(most, x.to_bits() & 0x7fff_ffff));
    f32::from_bits(bits)
}

/// Largest absolute value of each part of each member: f32 `[L, parts]`, on the GPU.
pub(super) fn part_maxima(gpu: &Gpu, x: &Tensor) -> Result<Tensor> {
    let (members, size) = members(x);
    let maxima = x.device().empty(&[members, parts(size)], DType::F32)?;
    let args = [Arg::Ptr(x.ptr()), Arg::I64(size as i64), Arg::Ptr(maxima.ptr()), vec(size)];
    launch(gpu, DType::F32, "largest", [parts(size), members], &args)?;
    Ok(maxima)
}

/// The power of two in `(x / 2, x]` of a finite x above 0.
pub(super) fn power_below(x: f32) -> f32 {
    // A subnormal number has no exponent of its own; scaling it up is exact.
    if x < f32::MIN_POSITIVE {
        return power_below(x * 16_777_216.0) / 16_777_216.0;
    }
    f32::from_bits(x.to_bits() & 0x7f80_0000)
}

/// Each member divided by the power of two below its largest entry, which `largest` tells; zeros stay.
pub(super) fn scaled_by_powers(x: &Tensor, largest: &[f32]) -> Result<Tensor> {
    let y = x.device().empty(x.shape(), DType::F32)?;
    let (members, size) = members(x);
    let power =
        |largest: f32| if largest > 0.0 { 1.0 / power_below(largest).max(f32::MIN_POSITIVE) } else { 0.0 };
    match x.device() {
        Device::Cpu => {
            let (x, mut y) = (x.read(), y.write());
            let pairs = y.par_chunks_mut(size).zip(x.par_chunks(size)).zip(largest.par_iter());
            pairs.for_each(|((y, x), &largest)| {
                y.iter_mut().zip(x).for_each(|(y, x)| *y = x * power(largest));
            });
        }
        Device::Cuda(gpu) => {
            let factors: Vec<f32> = largest.iter().map(|&x| power(x)).collect();
            let factors = x.device().from_slice(&factors, &[members])?;
            let args = [y.ptr(), x.ptr()].map(Arg::Ptr);
            let args = [&args[..], &[Arg::I64(size as i64), Arg::Ptr(factors.ptr())]].concat();
            launch(gpu, DType::F32, "scaled", [parts(size), members], &args)?;
        }
    }
    Ok(y)
}

/// Each member divided by its Frobenius norm; zeros stay. The norm is taken in f64, so that it neither overflows nor
/// vanishes. On the CPU bf16 means, as in torch.optim.Muon: x rounded, its norm rounded, the quotient rounded.
pub(crate) fn normalized(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let (members, size) = members(x);
    let device = x.device();
    match device {
        Device::Cpu => {
            let y = device.empty(x.shape(), DType::F32)?;
            let round = |x: f32| if dtype == DType::BF16 { bf16(x) } else { x };
            let x = x.read();
            y.write().par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| {
                let norm = x.iter().map(|&x| f64::from(round(x)).powi(2)).sum::<f64>().sqrt();
                let norm = if dtype == DType::BF16 { f64::from(bf16(norm as f32)) } else { norm };
                let inverse = if norm == 0.0 { 0.0 } else { 1.0 / norm };
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = round((f64::from(round(x)) * inverse) as f32));
            });
            Ok(y)
        }
        Device::Cuda(gpu) => {
            let y = device.empty(x.shape(), dtype)?;
            // One f64 a part.
            let sums = device.empty(&[members, parts(size), 2], DType::F32)?;
            let (from, length, sums) = (Arg::Ptr(x.ptr()), Arg::I64(size as i64), Arg::Ptr(sums.ptr()));
            let grid = [parts(size), members];
            launch(gpu, DType::F32, "square_sums", grid, &[from, length, sums, vec(size)])?;
            launch(gpu, dtype, "normalized", grid, &[Arg::Ptr(y.ptr()), from, length, sums, vec(size)])?;
            Ok(y)
        }
    }
}

/// On a GPU, a bank as an orthogonaliser with fixed steps begins with it.
pub(crate) struct Start {
    /// `[L, m, n]`, of the type of its arithmetic.
    pub x: Tensor,
    /// `[L]`, by what each member has yet to be multiplied to have norm 1.
    pub by: Tensor,
}

impl Start {
    /// From the sums of squares of the parts of each member, `[L, parts, 2]`, each an f64 in two f32.
    pub fn new(gpu: &Gpu, x: Tensor, sums: &Tensor) -> Result<Self> {
        let (members, size) = members(&x);
        let by = x.device().empty(&[members], DType::F32)?;
        let summed = sums.shape()[1];
        let args = [Arg::Ptr(x.ptr()), Arg::I64(size as i64), Arg::Ptr(sums.ptr())];
        let args = [&args[..], &[Arg::I32(summed as i32), Arg::Ptr(by.ptr())]].concat();
        launch(gpu, x.dtype(), "tamed", [parts(size).min(8), members], &args)?;
        Ok(Start { x, by })
    }
}

/// On a GPU: a copy of a bank as `dtype`, in one pass.
pub(super) fn taken(gpu: &Gpu, x: &Tensor, dtype: DType) -> Result<Start> {
    let (members, size) = members(x);
    let y = x.device().empty(x.shape(), dtype)?;
    let sums = x.device().empty(&[members, parts(size), 2], DType::F32)?;
    let args = [Arg::Ptr(y.ptr()), Arg::Ptr(x.ptr()), Arg::I64(size as i64), Arg::Ptr(sums.ptr()), vec(size)];
    launch(gpu, dtype, "taken", [parts(size), members], &args)?;
    Start::new(gpu, y, &sums)
}

/// Columns of `u [L, m, r]` whose singular value is at most `share` of the largest become zero.
pub(super) fn drop_columns(u: &Tensor, s: &Tensor, share: f32) -> Result<()> {
    let [l, m, r] = [0, 1, 2].map(|i| u.shape()[i]);
    match u.device() {
        Device::Cpu => {
            let s = s.read();
            u.write().par_chunks_mut(m * r).zip(s.par_chunks(r)).for_each(|(u, s)| {
                let kept = s.iter().take_while(|&&x| x > share * s[0]).count();
                u.chunks_exact_mut(r).for_each(|row| row[kept..].fill(0.0));
            });
            Ok(())
        }
        Device::Cuda(gpu) => {
            let args = [Arg::Ptr(u.ptr()), Arg::Ptr(s.ptr()), Arg::I32(m as i32), Arg::I32(r as i32)];
            let args = [&args[..], &[Arg::F32(share)]].concat();
            launch(gpu, DType::F32, "drop_columns", [parts(m * r), l], &args)
        }
    }
}

/// Rounds a CPU tensor to bf16.
pub(super) fn round_bf16(t: &Tensor) {
    t.write().par_chunks_mut(BLOCK).for_each(|x| x.iter_mut().for_each(|x| *x = bf16(*x)));
}

/// The nearest bf16, ties to even; NaN stays.
pub(crate) fn bf16(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

/// Members of a bank, and the entries of each.
pub(super) fn members(x: &Tensor) -> (usize, usize) {
    (x.shape()[0], x.numel() / x.shape()[0])
}

/// Blocks that share a member of so many entries.
pub(super) fn parts(size: usize) -> usize {
    size.div_ceil(32 * THREADS as usize).clamp(1, 64)
}

/// Whether members of so many entries can be read 16 at a time.
pub(super) fn vec(size: usize) -> Arg {
    Arg::I32(i32::from(size.is_multiple_of(16)))
}

/// Launches over `[parts, members]`.
pub(super) fn launch(gpu: &Gpu, elem: DType, kernel: &str, grid: [usize; 2], args: &[Arg]) -> Result<()> {
    let grid = [grid[0] as u32, grid[1] as u32, 1];
    Ok(gpu.launch(&SOURCE, elem, kernel, grid, [THREADS, 1, 1], 0, args)?)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    #[test]
    fn powers_and_roundings() {
        for (x, power) in [(1.0, 1.0), (1.9, 1.0), (0.3, 0.25), (1e-40, 9.183_55e-41), (3e38, 1.701_411_8e38)]
        {
            assert_eq!(power_below(x), power, "{x:e}");
        }
        for (x, rounded) in [(1.0 + 1.0 / 256.0, 1.0), (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0), (-0.0, -0.0)] {
            assert_eq!(bf16(x).to_bits(), f32::to_bits(rounded));
        }
        assert!(largest_of(&[1.0, f32::NAN, f32::INFINITY]).is_nan());
        assert_eq!(largest_of(&[1.0, -3.0]), 3.0);
    }
}
