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

/// The last stage of a sum over rows on a GPU: `total = (total or 0) + sum of the rows of partial`, all f32, in one
/// order.
pub(crate) struct PartialSums {
    pub total: Tensor,
    /// Whether to add to what `total` holds.
    pub add: bool,
    /// `[n, width of total]`.
    pub partial: Tensor,
}

impl PartialSums {
    /// How many one launch can finish.
    pub const AT_ONCE: usize = 4;

    /// Finishes at most [`PartialSums::AT_ONCE`] sums with different totals.
    pub fn finish(sums: &[PartialSums]) -> Result<()> {
        match sums.first().map(|sum| sum.total.device().clone()) {
            Some(Device::Cuda(gpu)) => cuda::finish(&gpu, sums),
            _ => Ok(()),
        }
    }
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `elementwise.cu`.

    use super::PartialSums;
    use crate::cuda::{Arg, Gpu, Source};
    use crate::ops::launch::{blocks, flag, flat, int, long, ptr, target};
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
        flat(gpu, &SOURCE, to.dtype(), "add_assign", count, &[target(to, true), ptr(from), long(count)])
    }

    pub(super) fn finish(gpu: &Gpu, sums: &[PartialSums]) -> Result<()> {
        assert!(sums.len() <= PartialSums::AT_ONCE);
        let widest = sums.iter().map(|sum| sum.total.numel()).max().unwrap_or(0);
        let mut args = Vec::new();
        for i in 0..PartialSums::AT_ONCE {
            match sums.get(i) {
                Some(PartialSums { total, add, partial }) => {
                    let width = total.numel();
                    let count = partial.numel() / width;
                    args.extend([ptr(partial), int(count), target(total, *add), int(width), flag(*add)]);
                }
                None => args.extend([Arg::Ptr(0), int(0), Arg::Ptr(0), int(0), flag(false)]),
            }
        }
        let grid = [blocks(widest, 32), blocks(sums.len(), 1), 1];
        gpu.launch(&SOURCE, DType::F32, "sum_partials", grid, [32, 32, 1], 0, &args)
    }
}
