//! Stochastic rounding to bf16: a value becomes one of its two neighbours, with the probability that keeps the mean.
//!
//! The random bits depend on (seed, step, weight, index within the weight) alone: each weight has a stream of its own in
//! every step. Number `i` of it rounds entry `i` of the weight of record. State takes numbers further on, 16 bits an
//! entry: number `k 2^40 + i / 4` rounds entries `i` to `i + 3` of its part `k`. `kernels.cu` draws the same.

use rayon::prelude::*;
use tensor::cuda::Arg;
use tensor::random::{Stream, StreamRange};
use tensor::{DType, Device, Tensor};

use crate::error::Result;
use crate::kernels::{self, BLOCK, SOURCE, THREADS};

/// How bf16 weights of record are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// To the nearest value, ties to even: steps below half the spacing of the weights are lost.
    #[default]
    Nearest,
    /// To one of the two neighbours, with the probability that keeps the mean.
    Stochastic,
}

/// In what an optimizer keeps momenta and moments between steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateType {
    /// f32.
    #[default]
    F32,
    /// bf16, rounded stochastically: to the nearest value a moment that changes by less than one part in 512 a step
    /// would never change. The CPU keeps the rounded values in f32.
    Bf16,
}

impl StateType {
    /// Element type of tensors that hold it on a device.
    pub fn stored(self, device: &Device) -> DType {
        if self == StateType::Bf16 && device.is_cuda() { DType::BF16 } else { DType::F32 }
    }
}

/// A part of a weight's state: where its numbers begin in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A momentum, or the first moment.
    First = 1,
    /// The second moment.
    Second = 2,
}

/// One of the two bf16 that enclose x: the larger in magnitude with the probability `(x - smaller) / (larger - smaller)`,
/// if `random` is uniform. NaN stays.
#[inline(always)]
pub(crate) fn stochastic(x: f32, random: u16) -> f32 {
    if x.is_nan() { x } else { f32::from_bits((x.to_bits() + u32::from(random)) & 0xffff_0000) }
}

/// Rounds entries `from` on of a part of a weight's state.
pub(crate) fn round_state(x: &mut [f32], stream: Stream, part: Part, from: usize) {
    for (i, x) in (from..).zip(x) {
        let bits = stream.bits(((part as u64) << 40) + (i as u64 >> 2));
        *x = stochastic(*x, (bits >> (16 * (i & 3))) as u16);
    }
}

/// Rounds `x [L, ..]` into `state`, which on the CPU is x itself, by the members' streams.
pub(crate) fn keep(x: &Tensor, state: &Tensor, streams: StreamRange, part: Part) -> Result<()> {
    let members = streams.streams.len();
    let size = x.numel() / members;
    match x.device() {
        Device::Cpu => {
            let mut x = x.write();
            for (member, stream) in x.chunks_exact_mut(size).zip(streams.streams) {
                let blocks = member.par_chunks_mut(BLOCK).enumerate();
                blocks.for_each(|(at, block)| round_state(block, *stream, part, at * BLOCK));
            }
            Ok(())
        }
        Device::Cuda(gpu) => {
            let pointers =
                [kernels::array(x, 1), kernels::array(state, 1), Arg::Ptr(streams.ptr.unwrap_or(0))];
            let whole = kernels::vec(&[x, state], members);
            let args = [&pointers[..], &[Arg::I32(part as i32), whole, Arg::I64(size as i64)]].concat();
            let grid = [kernels::blocks(size, kernels::MANY), members as u32, 1];
            Ok(gpu.launch(&SOURCE, DType::F32, "keep_state", grid, [THREADS, 1, 1], 0, &args)?)
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    #[test]
    fn every_value_keeps_its_mean_exactly_over_all_bits() {
        for x in [1.0f32, 1.000_123, -2.345_678, 1.3e-41, 6.02e23, 0.0, -0.0, f32::MIN_POSITIVE] {
            let rounded = (0..=u16::MAX).map(|random| f64::from(stochastic(x, random)));
            let mean = rounded.clone().sum::<f64>() / 65_536.0;
            assert!((mean - f64::from(x)).abs() <= 1e-15 * f64::from(x).abs(), "{x:e}: {mean:e}");
            let neighbours = rounded.fold(std::collections::BTreeSet::new(), |mut seen, y| {
                seen.insert(y.to_bits());
                seen
            });
            let exact = x.to_bits().trailing_zeros() >= 16;
            assert_eq!(neighbours.len(), if exact { 1 } else { 2 }, "{x:e}");
        }
        for x in [f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(stochastic(x, u16::MAX), x);
        }
        for bits in [0x7fff_ffff, 0xffff_ffff, 0x7fc0_0000] {
            assert!(stochastic(f32::from_bits(bits), u16::MAX).is_nan());
        }
    }

    #[test]
    fn entries_and_parts_draw_apart_and_blocks_do_not_matter() {
        let stream = Stream::new(3, 5);
        let rounded = |part, from: usize| {
            let mut x = vec![1.002_f32; 4096];
            round_state(&mut x[from..], stream, part, from);
            x
        };
        let (first, second) = (rounded(Part::First, 0), rounded(Part::Second, 0));
        for from in [1, 6, 4095] {
            assert_eq!(rounded(Part::First, from)[from..], first[from..]);
        }
        // Independent bits agree where both go up or both go down: at 0.002 of 0.0078 in 62 % of the entries.
        let same =
            |a: &[f32], b: &[f32]| a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64;
        assert!((same(&first, &second) - 0.62).abs() < 0.05, "{}", same(&first, &second));
        for apart in 1..8 {
            let share = same(&first[..4088], &first[apart..4088 + apart]);
            assert!((share - 0.62).abs() < 0.05, "{apart}: {share}");
        }
    }
}
