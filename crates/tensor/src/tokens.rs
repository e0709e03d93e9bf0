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

/// Device copies in one buffer of i32: the ids; how many of them are not masked; and their positions grouped by id, so that
/// an embedding's backward pass adds up the rows of each id in one order. Group `g` is `order[starts[g]..starts[g + 1]]`,
/// ascending, with id `unique[g]`; there are as many groups as ids, the last ones empty where ids repeat.
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

    fn set(&self, ids: &[i32]) -> Result<()> {
        let mut order: Vec<i32> = (0..ids.len() as i32).collect();
        order.sort_by_key(|&i| ids[i as usize]);
        let (mut unique, mut starts) = (Vec::new(), Vec::new());
        for (at, &position) in order.iter().enumerate() {
            let id = ids[position as usize];
            if unique.last() != Some(&id) {
                unique.push(id);
                starts.push(at as i32);
            }
        }
        unique.resize(ids.len(), 0);
        starts.resize(ids.len() + 1, ids.len() as i32);
        let words = ids.iter().chain(&order).chain(&unique).chain(&starts).copied();
        let bytes: Vec<u8> = words.chain([unmasked(ids) as i32]).flat_map(i32::to_le_bytes).collect();
        self.buf.gpu().upload(self.buf.ptr(), &bytes)
    }
}

fn unmasked(ids: &[i32]) -> usize {
    ids.iter().filter(|&&id| id >= 0).count()
}

impl Tokens {
    /// Puts `ids` (row-major `[batch, len]`) on `device`. Negative ids are allowed here (masked targets); an
    /// embedding refuses them.
    pub fn new(device: &Device, ids: &[i32], batch: usize, len: usize) -> Result<Self> {
        let on_gpu = match device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(OnGpu::new(gpu, batch * len)?),
        };
        let mut tokens = Tokens { batch, len, ids: Vec::new(), on_gpu };
        tokens.set(ids)?;
        Ok(tokens)
    }

    /// Puts other ids in the place of these, on a GPU at the same addresses.
    pub fn set(&mut self, ids: &[i32]) -> Result<()> {
        let Tokens { batch, len, .. } = *self;
        if ids.len() != batch * len || ids.is_empty() {
            return Err(Error::shape("tokens", format!("{} ids for a batch of {batch} x {len}", ids.len())));
        }
        self.ids = ids.to_vec();
        self.on_gpu.as_ref().map_or(Ok(()), |on_gpu| on_gpu.set(ids))
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
