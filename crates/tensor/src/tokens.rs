//! Token ids of a batch, on the host and on the device.

use crate::cuda::{DeviceBuf, Gpu};
use crate::{Device, Error, Result};
use std::sync::Arc;

/// Token ids `[batch, len]`, or next-token targets of that shape with -1 where the loss ignores a position.
pub struct Tokens {
    /// Rows.
    pub batch: usize,
    /// Tokens in a row.
    pub len: usize,
    pub(crate) ids: Vec<i32>,
    pub(crate) on_gpu: Option<OnGpu>,
}

/// Device copies in one buffer of i32: the ids; how many of them are not masked; and their positions grouped by id, so
/// that an embedding's backward pass adds up the rows of each id in one order. Group `g` is
/// `order[starts[g]..starts[g + 1]]`, ascending, with id `unique[g]`; there are as many groups as ids, the last ones
/// empty where ids repeat.
pub(crate) struct OnGpu {
    buf: DeviceBuf,
    count: usize,
}

impl OnGpu {
    fn new(gpu: &Arc<Gpu>, count: usize) -> Result<Self> {
        Ok(OnGpu { buf: gpu.alloc(4 * (4 * count + 2))?, count })
    }

    /// Address of the ids.
    pub fn ids(&self) -> u64 {
        self.buf.ptr()
    }

    /// Address of the positions, grouped.
    pub fn order(&self) -> u64 {
        self.buf.ptr() + 4 * self.count as u64
    }

    /// Address of the id of each group.
    pub fn unique(&self) -> u64 {
        self.buf.ptr() + 8 * self.count as u64
    }

    /// Address of the start of each group and the end of the last.
    pub fn starts(&self) -> u64 {
        self.buf.ptr() + 12 * self.count as u64
    }

    /// Address of the number of ids that are not masked.
    pub fn unmasked(&self) -> u64 {
        self.starts() + 4 * (self.count + 1) as u64
    }
}

/// The ids of a batch and what a GPU is told of them: host work, which can be done while the device is busy.
pub struct Arranged {
    ids: Vec<i32>,
    /// All that goes to a GPU.
    bytes: Vec<u8>,
}

impl Arranged {
    /// Makes `ids` ready for `device`.
    pub fn new(device: &Device, ids: &[i32]) -> Self {
        let bytes = if device.is_cuda() { grouped(ids) } else { Vec::new() };
        Arranged { ids: ids.to_vec(), bytes }
    }
}

/// The contents of [`OnGpu`].
fn grouped(ids: &[i32]) -> Vec<u8> {
    // By id, then by position.
    let mut keys: Vec<u64> =
        ids.iter().enumerate().map(|(at, &id)| u64::from(id as u32) << 32 | at as u64).collect();
    keys.sort_unstable();
    let (mut order, mut unique, mut starts) = (Vec::with_capacity(ids.len()), Vec::new(), Vec::new());
    for (at, key) in keys.into_iter().enumerate() {
        let id = (key >> 32) as u32 as i32;
        order.push(key as u32 as i32);
        if unique.last() != Some(&id) {
            unique.push(id);
            starts.push(at as i32);
        }
    }
    unique.resize(ids.len(), 0);
    starts.resize(ids.len() + 1, ids.len() as i32);
    let words = ids.iter().chain(&order).chain(&unique).chain(&starts).copied();
    words.chain([unmasked(ids) as i32]).flat_map(i32::to_le_bytes).collect()
}

fn unmasked(ids: &[i32]) -> usize {
    ids.iter().filter(|&&id| id >= 0).count()
}

impl Tokens {
    /// Puts `ids` (row-major `[batch, len]`) on `device`. Negative ids are allowed here (masked targets); an
    /// embedding refuses them.
    pub fn new(device: &Device, ids: &[i32], batch: usize, len: usize) -> Result<Self> {
        Tokens::arranged(device, &Arranged::new(device, ids), batch, len)
    }

    /// As [`Tokens::new`], from ids made ready for `device`.
    pub fn arranged(device: &Device, arranged: &Arranged, batch: usize, len: usize) -> Result<Self> {
        let on_gpu = match device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(OnGpu::new(gpu, batch * len)?),
        };
        let mut tokens = Tokens { batch, len, ids: Vec::new(), on_gpu };
        tokens.set(arranged)?;
        Ok(tokens)
    }

    /// Puts other ids, made ready for the same device, in the place of these; on a GPU at the same addresses.
    pub fn set(&mut self, arranged: &Arranged) -> Result<()> {
        let Tokens { batch, len, .. } = *self;
        let Arranged { ids, bytes } = arranged;
        if ids.len() != batch * len || ids.is_empty() {
            return Err(Error::shape("tokens", format!("{} ids for a batch of {batch} x {len}", ids.len())));
        }
        self.ids.clone_from(ids);
        match &self.on_gpu {
            Some(on_gpu) => on_gpu.buf.gpu().upload(on_gpu.buf.ptr(), bytes),
            None => Ok(()),
        }
    }

    /// Positions that count in a loss.
    pub fn unmasked(&self) -> usize {
        unmasked(&self.ids)
    }

    /// Checks that every id is a row of a table of `vocab`; `masked` allows -1.
    pub fn check(&self, vocab: usize, masked: bool) -> Result<()> {
        let low = if masked { -1 } else { 0 };
        match self.ids.iter().position(|&id| id < low || id >= vocab as i32) {
            None => Ok(()),
            Some(position) => Err(Error::Token { id: self.ids[position], position, vocab }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_grouped_by_id_in_their_order() {
        let words: Vec<i32> = grouped(&[7, -1, 7, 3, -1])
            .chunks_exact(4)
            .map(|word| i32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let (ids, order, unique) = (&words[..5], &words[5..10], &words[10..15]);
        assert_eq!((ids, &words[15..21]), (&[7, -1, 7, 3, -1][..], &[0, 1, 3, 5, 5, 5][..]));
        assert_eq!((order, unique), (&[3, 0, 2, 1, 4][..], &[3, 7, -1, 0, 0][..]));
        assert_eq!(words[21..], [3]);
    }
}
