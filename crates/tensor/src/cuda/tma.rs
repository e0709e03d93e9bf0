//! Tensor maps: what the copy engine of an H100 is told of a batch of matrices.

use cudarc::driver::sys::{
    self, CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave,
    CUtensorMapL2promotion, CUtensorMapSwizzle,
};

use super::check;
use crate::error::Result;

/// Rows and columns of a box: 128 bytes of bf16 are as far as swizzling goes.
const SIDE: u32 = 64;

/// Threads of a block of the kernels that work in clusters (`clusters.cuh`).
pub const CLUSTER_THREADS: u32 = 384;
/// Bytes of shared memory of each: four stages of pieces `[128, 64]` and `[256, 64]`, two results of `[64, 128]` on their
/// way out, and up to 1024 for their alignment.
pub const CLUSTER_SHARED: usize = (4 * (128 + 256) * 64 + 2 * 64 * 128) * 2 + 1024;

/// Bf16 matrices `[members, rows, columns]`, to be copied to shared memory in boxes of 64 x 64 whose lines of 128 bytes are
/// swizzled; beyond a matrix's edge boxes hold zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorMap {
    pub(super) words: [u64; 16],
    /// Of the matrices, for profiles.
    pub(super) bytes: u64,
}

impl TensorMap {
    /// Of matrices at `ptr`, a multiple of 16, next to each other; 8 divides their columns.
    pub fn new(ptr: u64, [members, rows, columns]: [usize; 3]) -> Result<Self> {
        let sizes = [columns, rows, members].map(|size| size as u64);
        let strides = [columns, rows * columns].map(|step| 2 * step as u64);
        let (part, every) = ([SIDE, SIDE, 1], [1u32; 3]);
        let mut map = CUtensorMap { opaque: [0; 16] };
        // SAFETY: the driver is loaded, or there were no device address; it reads three sizes, two strides and three numbers
        // each of box and steps, writes the map, and refuses what does not fit.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                3,
                ptr as *mut _,
                sizes.as_ptr(),
                strides.as_ptr(),
                part.as_ptr(),
                every.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check::driver("cuTensorMapEncodeTiled", status)?;
        Ok(TensorMap { words: map.opaque, bytes: sizes.iter().product::<u64>() * 2 })
    }

    /// The same for a kernel that will not touch it, for profiles.
    #[must_use]
    pub fn untouched(self) -> Self {
        TensorMap { bytes: 0, ..self }
    }
}
