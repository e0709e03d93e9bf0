//! Quantiles of the magnitudes of a matrix's entries, with linear interpolation between the two order statistics.
//!
//! On a GPU the lower one is found exactly by three passes of a radix select over the bits of the magnitudes, the upper
//! one by a minimum over what is above; counts are integers, so the order of the threads does not matter.

use rayon::prelude::*;
use tensor::cuda::{Arg, Source};
use tensor::{DType, Device, Tensor};

use crate::error::Result;
use crate::kernels::THREADS;

/// Kernel source of this module.
pub(crate) static SOURCE: Source = Source { name: "optim/quantile.cu", text: include_str!("quantile.cu") };

/// Bits of a magnitude in each pass, from the top.
const PASSES: [u32; 3] = [11, 10, 10];

/// The `q`-quantile, `0 <= q <= 1`, of the magnitudes in each member of `x [L, ..]`, f32 or bf16: f32 `[L]`.
pub(crate) fn of_magnitudes(x: &Tensor, q: f64) -> Result<Tensor> {
    let members = x.shape()[0];
    let size = x.numel() / members;
    let position = q * (size - 1) as f64;
    let (rank, part) = (position as usize, position.fract() as f32);
    let thresholds = x.device().empty(&[members], DType::F32)?;
    match x.device() {
        Device::Cpu => {
            let x = x.read();
            thresholds.write().par_iter_mut().zip(x.par_chunks(size)).for_each(|(threshold, x)| {
                let mut magnitudes: Vec<f32> = x.iter().map(|x| x.abs()).collect();
                let (_, low, above) = magnitudes.select_nth_unstable_by(rank, f32::total_cmp);
                let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(*low);
                *threshold = *low + part * (high - *low);
            });
        }
        Device::Cuda(gpu) => {
            // Per member: the bits found so far, the rank among what has them, and the least magnitude above.
            let state = x.device().zeros(&[members, 3], DType::F32)?;
            let counts = x.device().empty(&[members, 1 << PASSES[0]], DType::F32)?;
            let (x_ptr, state_ptr, counts_ptr) =
                (Arg::Ptr(x.ptr()), Arg::Ptr(state.ptr()), Arg::Ptr(counts.ptr()));
            let blocks = size.div_ceil(32 * THREADS as usize).min(64) as u32;
            let launch = |kernel: &str, parts: u32, args: &[Arg]| {
                let grid = [parts, members as u32, 1];
                gpu.launch(&SOURCE, x.dtype(), kernel, grid, [THREADS, 1, 1], 0, args)
            };
            let size = Arg::I64(size as i64);
            let mut shift = 31;
            for (pass, bits) in PASSES.into_iter().enumerate() {
                shift -= bits;
                counts.fill_zero()?;
                let (shift, bits) = (Arg::I32(shift as i32), Arg::I32(bits as i32));
                launch("count", blocks, &[x_ptr, size, state_ptr, shift, bits, counts_ptr])?;
                let rank = Arg::I32(if pass == 0 { rank as i32 } else { -1 });
                launch("choose", 1, &[state_ptr, shift, bits, counts_ptr, rank])?;
            }
            launch("next_above", blocks, &[x_ptr, size, state_ptr])?;
            let out = Arg::Ptr(thresholds.ptr());
            launch("interpolate", 1, &[state_ptr, Arg::F32(part), out])?;
        }
    }
    Ok(thresholds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_linearly() {
        let x = [-5.0, 1.0, 4.0, -2.0, 3.0, 0.0, 0.0, 0.0, 7.0, 0.0];
        let x = Device::Cpu.from_slice(&x, &[2, 1, 5]).unwrap();
        let at = |q: f64| of_magnitudes(&x, q).unwrap().to_vec().unwrap();
        assert_eq!(at(0.0), [1.0, 0.0]);
        assert_eq!(at(0.5), [3.0, 0.0]);
        assert_eq!(at(1.0), [5.0, 7.0]);
        let got = at(0.95);
        assert!((got[0] - 4.8).abs() < 1e-6 && (got[1] - 5.6).abs() < 1e-5, "{got:?}");
    }
}
