//! Copies between element types and sums of gradients; no tape.

use crate::{Device, Result, Tensor};

/// `to = from`, converted.
pub fn cast(from: &Tensor, to: &Tensor) -> Result<()> {
    match from.device() {
        Device::Cpu => {
            to.write().copy_from_slice(&from.read());
            Ok(())
        }
        Device::Cuda(gpu) => cuda::cast(gpu, from, to),
    }
}

/// `to += from`, of one element type.
pub fn add_assign(to: &Tensor, from: &Tensor) -> Result<()> {
    match to.device() {
        Device::Cpu => {
            let from = from.read();
            to.write().iter_mut().zip(from.iter()).for_each(|(t, f)| *t += f);
            Ok(())
        }
        Device::Cuda(gpu) => cuda::add_assign(gpu, to, from),
    }
}

pub(super) use cuda::{SOURCE, sum_partials};

mod cuda {
    //! Launches of `elementwise.cu`.

    use crate::cuda::{Gpu, Source};
    use crate::ops::launch::{blocks, flag, flat, int, long, ptr};
    use crate::{DType, Result, Tensor};

    pub(in crate::ops) static SOURCE: Source =
        Source { name: "elementwise.cu", text: include_str!("elementwise.cu") };

    pub(super) fn cast(gpu: &Gpu, from: &Tensor, to: &Tensor) -> Result<()> {
        let count = from.numel();
        let kernel = match (from.dtype(), to.dtype()) {
            (DType::F32, DType::BF16) => "from_f32",
            (DType::BF16, DType::F32) => "to_f32",
            _ => return gpu.copy(to.ptr(), from.ptr(), count * to.dtype().size()),
        };
        flat(gpu, &SOURCE, DType::BF16, kernel, count, &[ptr(from), ptr(to), long(count)])
    }

    pub(super) fn add_assign(gpu: &Gpu, to: &Tensor, from: &Tensor) -> Result<()> {
        let count = to.numel();
        flat(gpu, &SOURCE, to.dtype(), "add_assign", count, &[ptr(to), ptr(from), long(count)])
    }

    /// `total = (total or 0) + sum of the rows of partial`, all f32; one order of summation.
    pub(in crate::ops) fn sum_partials(gpu: &Gpu, total: &Tensor, add: bool, partial: &Tensor) -> Result<()> {
        let width = total.numel();
        let count = partial.numel() / width;
        let args = [ptr(partial), long(count), ptr(total), int(width), flag(add)];
        let grid = [blocks(width, 32), 1, 1];
        gpu.launch(&SOURCE, DType::F32, "sum_partials", grid, [32, 32, 1], 0, &args)
    }
}
