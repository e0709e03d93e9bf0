//! The order of samples as a pure function of (seed, step): no state, nothing to save for a resume.
//!
//! Epoch `e` visits all `n` rows once, in the order of a permutation keyed by `(seed, e)`. The permutation is a
//! balanced Feistel network on the smallest even number of bits that holds `n`, walked along its cycle until the
//! value falls below `n` (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): constant memory for
//! any `n`, at most four steps a sample on average.

use crate::random::mix;

/// Feistel rounds; four already pass as random to any poly-time test (Luby and Rackoff 1988), six leave a margin.
const ROUNDS: u64 = 6;

/// The row ids of the batch of `step` (from 0): positions `step * batch ..` of the endless concatenation of epochs.
///
/// A batch may cross from one epoch into the next; `n` may be smaller than `batch`.
///
/// # Panics
/// When `n` is zero.
///
/// ```
/// let epoch: Vec<usize> = (0..5).flat_map(|step| data::order::samples(7, step, 2, 10)).collect();
/// let mut sorted = epoch.clone();
/// sorted.sort_unstable();
/// assert_eq!(sorted, (0..10).collect::<Vec<_>>());
/// ```
pub fn samples(seed: u64, step: u64, batch: usize, n: usize) -> Vec<usize> {
    shard(seed, step, batch, n, 0, 1)
}

/// The part of [`samples`] that falls to `rank` of `world`: the global batch dealt in `world` contiguous runs whose
/// lengths differ by at most one, so that the runs of all ranks in order are the global batch.
///
/// # Panics
/// When `n` is zero, or `rank` is not below `world`.
pub fn shard(seed: u64, step: u64, batch: usize, n: usize, rank: usize, world: usize) -> Vec<usize> {
    assert!(n > 0, "no rows to order");
    assert!(rank < world, "rank {rank} of {world}");
    let (from, to) = (batch * rank / world, batch * (rank + 1) / world);
    let first = u128::from(step) * batch as u128;
    (from..to)
        .map(|j| {
            let position = first + j as u128;
            let (epoch, index) = (position / n as u128, position % n as u128);
            permute(seed, epoch as u64, index as u64, n as u64) as usize
        })
        .collect()
}

/// The image of `index` under the permutation of `0..n` keyed by `(seed, epoch)`.
fn permute(seed: u64, epoch: u64, index: u64, n: u64) -> u64 {
    let bits = u64::BITS - (n - 1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let key = mix(mix(seed) ^ epoch);
    let mut value = index;
    loop {
        let (mut left, mut right) = (value >> half, value & mask);
        for round in 0..ROUNDS {
            let f = mix(key ^ mix(round << 32 ^ right)) & mask;
            (left, right) = (right, left ^ f);
        }
        value = left << half | right;
        if value < n {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_permuted() {
        for n in (1..70).chain([127, 128, 129, 1000, 4097]) {
            let mut seen = vec![false; n];
            for i in 0..n as u64 {
                let image = permute(3, 1, i, n as u64) as usize;
                assert!(!std::mem::replace(&mut seen[image], true), "{n}: {image} twice");
            }
        }
    }

    #[test]
    fn every_sample_once_an_epoch_whatever_the_batch() {
        let (n, batch) = (100, 7);
        let stream: Vec<usize> = (0..100).flat_map(|step| samples(5, step, batch, n)).collect();
        for epoch in stream.chunks_exact(n) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..n).collect::<Vec<_>>());
        }
        assert_ne!(stream[..n], stream[n..2 * n], "epochs differ in order");
        assert_ne!(samples(6, 0, n, n), stream[..n], "seeds differ in order");
    }

    #[test]
    fn ranks_partition_the_batch() {
        let whole = samples(1, 9, 10, 1 << 40);
        let parts: Vec<usize> = (0..3).flat_map(|r| shard(1, 9, 10, 1 << 40, r, 3)).collect();
        assert_eq!(whole, parts);
    }

    /// Mean image per tenth of the domain: uniform to 4 standard errors, and neighbours uncorrelated.
    #[test]
    fn looks_random() {
        let n = 20_000u64;
        let scale = n as f64;
        let images: Vec<f64> = (0..n).map(|i| permute(11, 0, i, n) as f64 / scale - 0.5).collect();
        for tenth in images.chunks_exact(2000) {
            let mean = tenth.iter().sum::<f64>() / 2000.0;
            assert!(mean.abs() < 4.0 * (1.0f64 / 12.0 / 2000.0).sqrt(), "{mean}");
        }
        let correlation = images.windows(2).map(|w| w[0] * w[1]).sum::<f64>() * 12.0 / scale;
        assert!(correlation.abs() < 4.0 / scale.sqrt(), "{correlation}");
    }

    /// The published order of a run must never change between versions.
    #[test]
    fn pinned() {
        assert_eq!(samples(0, 0, 6, 1000), PINNED);
    }

    const PINNED: [usize; 6] = [570, 342, 80, 454, 782, 585];
}
