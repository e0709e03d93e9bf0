//! Random numbers as seeded streams: element `i` of a stream depends on (seed, stream, i) alone, so that order and
//! number of threads do not matter.

use std::f64::consts::TAU;

use rayon::prelude::*;

/// A stream of random numbers.
#[derive(Debug, Clone, Copy)]
pub struct Stream(u64);

impl Stream {
    /// Stream `stream` of `seed`; different streams are independent for all practical purposes.
    pub fn new(seed: u64, stream: u64) -> Self {
        Stream(mix(mix(seed) ^ mix(stream).rotate_left(32)))
    }

    /// Independent normal numbers of mean 0 and this standard deviation (Box and Muller 1958).
    pub fn fill_normal(self, out: &mut [f32], std: f32) {
        const BLOCK: usize = 1 << 12;
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
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
}
