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

/// Device copies, all i32: the ids, and their positions grouped by id, so that an embedding's backward pass adds up
/// the rows of each id in one order. Group `g` is `order[starts[g]..starts[g + 1]]`, ascending, with id `unique[g]`.
pub(crate) struct OnGpu {
    pub ids: DeviceBuf,
    pub groups: usize,
    pub unique: DeviceBuf,
    pub starts: DeviceBuf,
    pub order: DeviceBuf,
}

impl OnGpu {
    fn new(gpu: &Arc<Gpu>, ids: &[i32]) -> Result<Self> {
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
        starts.push(order.len() as i32);
        let put = |values: &[i32]| -> Result<DeviceBuf> {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let buf = gpu.alloc(bytes.len())?;
            gpu.upload(buf.ptr(), &bytes)?;
            Ok(buf)
        };
        Ok(OnGpu {
            ids: put(ids)?,
            groups: unique.len(),
            unique: put(&unique)?,
            starts: put(&starts)?,
            order: put(&order)?,
        })
    }
}

impl Tokens {
    /// Puts `ids` (row-major `[batch, len]`) on `device`. Negative ids are allowed here (masked targets); an
    /// embedding refuses them.
    pub fn new(device: &Device, ids: &[i32], batch: usize, len: usize) -> Result<Self> {
        if ids.len() != batch * len || ids.is_empty() {
            return Err(Error::shape("tokens", format!("{} ids for a batch of {batch} x {len}", ids.len())));
        }
        let on_gpu = match device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(OnGpu::new(gpu, ids)?),
        };
        Ok(Tokens { batch, len, ids: ids.to_vec(), on_gpu })
    }

    /// Positions that count in a loss.
    pub fn unmasked(&self) -> usize {
        self.ids.iter().filter(|&&id| id >= 0).count()
    }

    /// Checks that every id is a row of a table of `vocab`; `masked` allows -1.
    pub(crate) fn check(&self, vocab: usize, masked: bool) -> Result<()> {
        let low = if masked { -1 } else { 0 };
        match self.ids.iter().position(|&id| id < low || id >= vocab as i32) {
            None => Ok(()),
            Some(position) => Err(Error::Token { id: self.ids[position], position, vocab }),
        }
    }
}
