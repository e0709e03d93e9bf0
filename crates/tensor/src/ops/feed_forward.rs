//! The gated feed-forward layer: `y = (silu(g) * u) D^T` with `[g u] = x W^T` (Shazeer 2020).
//!
//! On an H100 in bf16 the products form the activation and its gradient themselves, where sizes suit that. Each value is
//! rounded as by a product and [`swiglu`](super::swiglu) one after the other. The activation is made again in the
//! backward pass.

use std::sync::Arc;

use super::{Cols, linear, swiglu};
use crate::cuda::Gpu;
use crate::linalg::{Factor, matmul};
use crate::params::Param;
use crate::tape::{Kernels, Tape, Var};
use crate::{DType, Device, Error, Result, Tensor};

/// Of `x [R, K]`: by `gate_up [2 F, K]`, first the gate, and `down [C, F]`: `[R, C]`.
pub fn feed_forward(tape: &mut Tape, x: &Var, gate_up: &Param, down: &Param) -> Result<Var> {
    let ([both, inner], [out, width]) = (dims(gate_up)?, dims(down)?);
    let rows = x.value.rows();
    if inner != x.value.cols() || both != 2 * width {
        let sizes = format!("{:?} by {:?} and {:?}", x.value, gate_up.value, down.value);
        return Err(Error::shape("feed_forward", sizes));
    }
    let (device, dtype) = (tape.device().clone(), x.value.dtype());
    let empty = move |columns| device.empty(&[rows, columns], dtype);
    let (values, active, y) = (empty(both)?, empty(width)?, empty(out)?);
    let fused = fused(tape, [&x.value, &gate_up.value, &down.value], [inner, out, width]);
    let var = tape.leaf(values);
    let (gate, up) = (Cols::new(&var, 0, width), Cols::new(&var, width, width));
    if let Some(gpu) = &fused {
        cuda::forward(gpu, &x.value, &gate_up.value, &var.value, &active)?;
    } else {
        matmul(&var.value, false, 1.0, &x.value, Factor::from(&gate_up.value).t())?;
        swiglu::forward(&active, &gate, &up)?;
    }
    matmul(&y, false, 1.0, &active, Factor::from(&down.value).t())?;
    let (x, kept, gate_up, down) = (x.id, x.kept(), gate_up.clone(), down.clone());
    Ok(tape.push("feed_forward", y, move |dy, grads| {
        let (dvalues, dactive) = (empty(both)?, empty(width)?);
        // On a GPU in the place of its gradient, of which an element is read before that of the value is written.
        let again = if dy.device().is_cuda() { dactive.clone() } else { empty(width)? };
        if let Some(gpu) = &fused {
            cuda::backward(gpu, dy, &down.value, &var.value, &dvalues, &again)?;
        } else {
            matmul(&dactive, false, 1.0, dy, &down.value)?;
            swiglu::backward([&dvalues, &dvalues], Some(&again), &dactive, &gate, &up)?;
        }
        drop(dactive);
        matmul(&down.grad, down.accumulate(), 1.0, Factor::from(dy).t(), &again)?;
        drop(again);
        linear::backward(grads, (x, kept.as_ref()), &gate_up, &dvalues)
    }))
}

fn dims(weight: &Param) -> Result<[usize; 2]> {
    let told = || Error::shape("feed_forward", format!("weight {:?}", weight.value));
    <[usize; 2]>::try_from(weight.value.shape()).map_err(|_| told())
}

/// The GPU, where `feed_forward.cu` takes it: the copy engine wants rows of whole 16 bytes, each pair of multiprocessors a
/// block in either pass; and the four parts of a gradient are made after different pieces of the next block's sums, of
/// which there have to be eleven (all four after one piece would wait for its stage for ever).
fn fused(tape: &Tape, tensors: [&Tensor; 3], [inner, out, width]: [usize; 3]) -> Option<Arc<Gpu>> {
    let Device::Cuda(gpu) = tape.device() else { return None };
    let blocks = tensors[0].rows().div_ceil(cuda::SIDE) * (width / cuda::SIDE);
    let suits = tape.kernels() == Kernels::Fast
        && gpu.is_hopper()
        && width.is_multiple_of(cuda::SIDE)
        && inner.is_multiple_of(8)
        && out.is_multiple_of(8)
        && out > 10 * cuda::PIECE
        && blocks >= gpu.multiprocessors() as usize / 2
        && tensors.iter().all(|t| t.dtype() == DType::BF16 && t.ptr().is_multiple_of(16));
    suits.then(|| gpu.clone())
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `feed_forward.cu`.

    use crate::cuda::{Arg, Gpu, Source, TensorMap};
    use crate::{DType, Result, Tensor};

    pub(in crate::ops) static SOURCE: Source =
        Source { name: "feed_forward.cu", text: include_str!("feed_forward.cu") };

    /// Side of the blocks that a pair of multiprocessors computes.
    pub(super) const SIDE: usize = 256;
    /// Elements of the sums in a piece.
    pub(super) const PIECE: usize = 64;

    pub(super) fn forward(gpu: &Gpu, x: &Tensor, w: &Tensor, values: &Tensor, active: &Tensor) -> Result<()> {
        launch(gpu, "feed_forward", &[x, w, values, active], SIDE / 2, [active, x])
    }

    pub(super) fn backward(
        gpu: &Gpu,
        dy: &Tensor,
        w: &Tensor,
        values: &Tensor,
        dvalues: &Tensor,
        active: &Tensor,
    ) -> Result<()> {
        launch(gpu, "feed_forward_backward", &[dy, w, values, dvalues, active], SIDE, [active, dy])
    }

    /// With blocks of the activation so many columns wide; `[R, F]` and `[R, K]`.
    fn launch(
        gpu: &Gpu,
        kernel: &'static str,
        tensors: &[&Tensor],
        block: usize,
        [active, factor]: [&Tensor; 2],
    ) -> Result<()> {
        let (rows, width, depth) = (active.rows(), active.cols(), factor.cols());
        let map = |t: &&Tensor| TensorMap::new(t.ptr(), [1, t.rows(), t.cols()]).map(Arg::Map);
        let mut args = tensors.iter().map(map).collect::<Result<Vec<_>>>()?;
        args.extend([rows, width, depth].map(|size| Arg::I32(size as i32)));
        let clusters = (rows.div_ceil(SIDE) * (width / block)).min(gpu.multiprocessors() as usize / 2);
        let (grid, threads) = ([2 * clusters as u32, 1, 1], [crate::cuda::CLUSTER_THREADS, 1, 1]);
        gpu.launch(&SOURCE, DType::BF16, kernel, grid, threads, crate::cuda::CLUSTER_SHARED, &args)
    }
}
