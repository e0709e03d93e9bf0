//! Random numbers as seeded streams: element `i` of a stream depends on (seed, stream, i) alone, so that order and
//! number of threads do not matter.

use std::f64::consts::TAU;

use rayon::prelude::*;

use crate::cuda::DeviceBuf;
use crate::{DType, Device, Error, Result, Tensor};

/// A stream of random numbers.
#[derive(Debug, Clone, Copy)]
pub struct Stream(u64);

impl Stream {
    /// Stream `stream` of `seed`; different streams are independent for all practical purposes.
    pub fn new(seed: u64, stream: u64) -> Self {
        Stream(mix(seed)).child(stream)
    }

    /// Stream `key` of those below this one: `new(seed, step).child(key)` depends on all three.
    #[must_use]
    pub fn child(self, key: u64) -> Self {
        Stream(mix(self.0 ^ mix(key).rotate_left(32)))
    }

    /// Independent normal numbers of mean 0 and this standard deviation (Box and Muller 1958).
    pub fn fill_normal(self, out: &mut [f32], std: f32) {
        const BLOCK: usize = 1 << 12;
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
            // A parallel decomposition may have left them dirty on this thread.
            crate::cpu::clear_vector_state();
            for (i, pair) in out.chunks_mut(2).enumerate() {
                let at = (block * BLOCK / 2 + i) as u64;
                let radius = (-2.0 * (1.0 - self.uniform(2 * at)).ln()).sqrt() * f64::from(std);
                let (sin, cos) = (TAU * self.uniform(2 * at + 1)).sin_cos();
                pair[0] = (radius * cos) as f32;
                if let Some(second) = pair.get_mut(1) {
                    *second = (radius * sin) as f32;
                }
            }
        });
    }

    /// Element `i` of the stream, uniform in [0, 1).
    pub fn uniform(self, i: u64) -> f64 {
        (self.bits(i) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Element `i` of the stream as 64 random bits.
    pub fn bits(self, i: u64) -> u64 {
        mix(self.0.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// What a kernel needs to draw from the same stream.
    pub fn state(self) -> u64 {
        self.0
    }
}

/// Streams that change from step to step: on a GPU they are in its memory, so that a captured step draws from those that
/// were set last.
pub struct Streams {
    streams: Vec<Stream>,
    memory: Option<DeviceBuf>,
}

/// Some streams in a row of [`Streams`].
#[derive(Clone, Copy)]
pub struct StreamRange<'a> {
    /// The streams.
    pub streams: &'a [Stream],
    /// On a GPU, device address of their states, one u64 each.
    pub ptr: Option<u64>,
}

impl Streams {
    /// So many streams, whichever they are until [`Streams::set`].
    pub fn new(device: &Device, count: usize) -> Result<Self> {
        let memory = match device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(gpu.alloc((8 * count).max(8))?),
        };
        Ok(Streams { streams: vec![Stream(0); count], memory })
    }

    /// Sets all of them.
    ///
    /// # Panics
    /// If their number is another one.
    pub fn set(&mut self, streams: Vec<Stream>) -> Result<()> {
        assert_eq!(streams.len(), self.streams.len(), "as many streams as there is room for");
        self.streams = streams;
        if let Some(memory) = &self.memory {
            let states: Vec<u8> = self.streams.iter().flat_map(|stream| stream.0.to_le_bytes()).collect();
            memory.gpu().upload(memory.ptr(), &states)?;
        }
        Ok(())
    }

    /// `count` of them from `start`.
    pub fn range(&self, start: usize, count: usize) -> StreamRange<'_> {
        let ptr = self.memory.as_ref().map(|memory| memory.ptr() + 8 * start as u64);
        StreamRange { streams: &self.streams[start..start + count], ptr }
    }
}

/// A bank `[L, shape..]` of independent normal numbers of mean 0 and this standard deviation, f32: member `i` holds what
/// [`Stream::fill_normal`] draws from `streams[i]`; on a GPU the last bit may differ, where its logarithm or sine does.
pub fn normal(device: &Device, streams: &[Stream], shape: &[usize], std: f32) -> Result<Tensor> {
    let size: usize = shape.iter().product();
    if streams.is_empty() || size == 0 {
        return Err(Error::shape("normal", format!("{} members of shape {shape:?}", streams.len())));
    }
    let out = device.empty(&[&[streams.len()], shape].concat(), DType::F32)?;
    match device {
        Device::Cpu => {
            out.write()
                .chunks_exact_mut(size)
                .zip(streams)
                .for_each(|(member, stream)| stream.fill_normal(member, std));
        }
        Device::Cuda(gpu) => cuda::normal(gpu, &out, streams, std)?,
    }
    Ok(out)
}

pub(crate) use cuda::SOURCE;

mod cuda {
    //! The launch of `random.cu`.

    use std::sync::Arc;

    use super::Stream;
    use crate::cuda::{Arg, Gpu, Source};
    use crate::{DType, Result, Tensor};

    pub(crate) static SOURCE: Source = Source { name: "random.cu", text: include_str!("random.cu") };

    const THREADS: u32 = 256;
    /// Blocks of one member at most; its threads go on to further pairs.
    const BLOCKS: usize = 4096;

    pub(super) fn normal(gpu: &Arc<Gpu>, out: &Tensor, streams: &[Stream], std: f32) -> Result<()> {
        let states: Vec<u8> = streams.iter().flat_map(|stream| stream.0.to_le_bytes()).collect();
        let on_device = gpu.alloc(states.len())?;
        gpu.upload(on_device.ptr(), &states)?;
        let size = out.numel() / streams.len();
        let blocks = size.div_ceil(2 * THREADS as usize).min(BLOCKS) as u32;
        // The second axis of a grid ends at 65,535.
        let grid = [blocks, streams.len().min(65_535) as u32, 1];
        let args = [
            Arg::Ptr(on_device.ptr()),
            Arg::I64(streams.len() as i64),
            Arg::Ptr(out.ptr()),
            Arg::I64(size as i64),
            Arg::F32(std),
        ];
        gpu.launch(&SOURCE, DType::F32, "normal", grid, [THREADS, 1, 1], 0, &args)
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood 2014).
fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_their_moments_and_do_not_depend_on_the_length() {
        let mut long = vec![0.0; 100_001];
        Stream::new(1, 2).fill_normal(&mut long, 2.0);
        let n = long.len() as f64;
        let moment = |k: i32| long.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / n;
        assert!(moment(1).abs() < 0.03, "{}", moment(1));
        assert!((moment(2) - 4.0).abs() < 0.08, "{}", moment(2));
        assert!((moment(4) - 48.0).abs() < 2.5, "{}", moment(4));
        let mut short = vec![0.0; 5000];
        Stream::new(1, 2).fill_normal(&mut short, 2.0);
        assert_eq!(short, long[..5000]);
        let mut other = vec![0.0; 5000];
        Stream::new(1, 3).fill_normal(&mut other, 2.0);
        assert_ne!(short, other);
    }

    #[test]
    fn a_bank_holds_what_each_stream_draws_alone() {
        let streams = [Stream::new(1, 2).child(3), Stream::new(1, 2).child(4), Stream::new(1, 2)];
        let bank = normal(&Device::Cpu, &streams, &[3, 5], 0.5).unwrap();
        assert_eq!(bank.shape(), [3, 3, 5]);
        for (member, stream) in bank.to_vec().unwrap().chunks(15).zip(streams) {
            let mut alone = [0.0; 15];
            stream.fill_normal(&mut alone, 0.5);
            assert_eq!(member, alone);
        }
        assert!(normal(&Device::Cpu, &[], &[3], 1.0).is_err());
    }
}
