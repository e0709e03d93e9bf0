//! NaN in the memory that comes next out of a pool.

use std::sync::Arc;

use crate::cuda::Gpu;
use crate::{DType, Device, Result};

/// Blocks of each size: as many tensors of one size as an operation allocates at once.
const COPIES: usize = 6;
/// The GPU pool's blocks of every size up to this are filled; beyond it only those of the sizes named.
const EVERY_SIZE: usize = 64 << 10;
/// Sizes of the GPU pool's blocks are multiples of this.
const GRAIN: usize = 512;

/// Fills free memory of the pool with NaN, in either element type: blocks for tensors of these numbers of elements
/// and, on a GPU, small blocks of every size, from which work space comes.
pub(super) fn poison(device: &Device, numels: &[usize]) -> Result<()> {
    match device {
        Device::Cpu => numels.iter().try_for_each(|&numel| {
            let held =
                (0..COPIES).map(|_| Device::Cpu.empty(&[numel], DType::F32)).collect::<Result<Vec<_>>>()?;
            for tensor in &held {
                tensor.write().fill(f32::NAN);
            }
            Ok(())
        }),
        Device::Cuda(gpu) => {
            let named = numels.iter().flat_map(|numel| [2 * numel, 4 * numel]);
            let all = (GRAIN..=EVERY_SIZE).step_by(GRAIN).chain(named.filter(|&bytes| bytes > EVERY_SIZE));
            all.into_iter().try_for_each(|bytes| fill(gpu, bytes))
        }
    }
}

fn fill(gpu: &Arc<Gpu>, bytes: usize) -> Result<()> {
    let words = bytes.div_ceil(4);
    let held = (0..COPIES).map(|_| gpu.alloc(4 * words)).collect::<Result<Vec<_>>>()?;
    // All bits set: NaN as an f32, and as each bf16 of a pair.
    held.iter().try_for_each(|block| gpu.fill_f32(block.ptr(), f32::from_bits(u32::MAX), words))
}
