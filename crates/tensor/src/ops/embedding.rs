//! Token embedding: rows of a table, times a constant.

use crate::params::Param;
use crate::tape::{Tape, Var};
use crate::tokens::Tokens;
use crate::{Device, Error, Result, Tensor};
use std::sync::Arc;

/// `scale * table[ids]`: `[batch * len, H]`, in the element type of the residual stream, from a table `[V, H]`.
///
/// The row of the id `padding` gets no gradient from here, as in PyTorch's `nn.Embedding(padding_idx)`.
pub fn embedding(
    tape: &mut Tape,
    ids: &Arc<Tokens>,
    table: &Param,
    scale: f32,
    padding: Option<u32>,
) -> Result<Var> {
    let [vocab, hidden] = *table.value.shape() else {
        return Err(Error::shape("embedding", format!("table {:?}", table.value)));
    };
    ids.check(vocab, false)?;
    let out = tape.device().empty(&[ids.ids.len(), hidden], tape.precision().stream())?;
    match tape.device() {
        Device::Cpu => forward_cpu(&out, ids, &table.value, scale),
        Device::Cuda(gpu) => cuda::forward(gpu, &out, ids, &table.value, scale)?,
    }
    let (ids, table) = (Arc::clone(ids), table.clone());
    let padding = padding.map_or(-1, |id| id as i32);
    Ok(tape.push("embedding", out, move |dout, _| {
        let accumulate = table.accumulate();
        if !accumulate {
            table.grad.fill_zero()?;
        }
        match dout.device() {
            Device::Cpu => {
                backward_cpu(&table.grad, dout, &ids, scale, padding);
                Ok(())
            }
            Device::Cuda(gpu) => cuda::backward(gpu, &table.grad, dout, &ids, scale, padding),
        }
    }))
}

fn forward_cpu(out: &Tensor, ids: &Tokens, table: &Tensor, scale: f32) {
    let width = table.cols();
    let (table, mut out) = (table.read(), out.write());
    for (row, &id) in out.chunks_exact_mut(width).zip(&ids.ids) {
        let from = &table[id as usize * width..][..width];
        row.iter_mut().zip(from).for_each(|(o, t)| *o = scale * t);
    }
}

/// `dtable[id] += scale * sum of the rows of dout at that id`, in order of position.
fn backward_cpu(dtable: &Tensor, dout: &Tensor, ids: &Tokens, scale: f32, padding: i32) {
    let width = dout.cols();
    let (dout, mut dtable) = (dout.read(), dtable.write());
    for (row, &id) in dout.chunks_exact(width).zip(&ids.ids).filter(|(_, id)| **id != padding) {
        let to = &mut dtable[id as usize * width..][..width];
        to.iter_mut().zip(row).for_each(|(t, d)| *t = scale.mul_add(*d, *t));
    }
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `embedding.cu`.

    use crate::cuda::{Arg, Gpu, Source};
    use crate::ops::launch::{AXIS, WARPS, blocks, flag, int, lane, long, of_stream, ptr, some_rows, tiles};
    use crate::tokens::{OnGpu, Tokens};
    use crate::{Error, Result, Tensor};

    pub(in crate::ops) static SOURCE: Source =
        Source { name: "embedding.cu", text: include_str!("embedding.cu") };

    pub(super) fn forward(gpu: &Gpu, out: &Tensor, ids: &Tokens, table: &Tensor, scale: f32) -> Result<()> {
        let (elem, rows, width) = (table.dtype(), out.rows(), out.cols());
        let lane = lane(elem, width, &[(out, 0), (table, 0)]);
        let ids = Arg::Ptr(on_gpu(ids)?.ids());
        let from = some_rows(table, 0, (rows, width));
        let args = [ptr(out), ids, from, Arg::F32(scale), long(rows), int(width), flag(lane > 1)];
        let grid = tiles(rows, WARPS, AXIS, width, lane);
        let kernel = of_stream("embedding_forward", out);
        gpu.launch(&SOURCE, elem, &kernel, grid, [32, WARPS as u32, 1], 0, &args)
    }

    pub(super) fn backward(
        gpu: &Gpu,
        dtable: &Tensor,
        dout: &Tensor,
        ids: &Tokens,
        scale: f32,
        padding: i32,
    ) -> Result<()> {
        let width = dout.cols();
        let lane = lane(dout.dtype(), width, &[(dout, 0)]);
        let groups = on_gpu(ids)?;
        let [unique, starts, order] = [groups.unique(), groups.starts(), groups.order()].map(Arg::Ptr);
        let args = [
            // Read and written; of a row for each position, if all ids differ.
            some_rows(dtable, 0, (2 * dout.rows(), width)),
            ptr(dout),
            unique,
            starts,
            order,
            Arg::F32(scale),
            int(width),
            Arg::I32(padding),
            flag(lane > 1),
        ];
        // A group for every row: as many as there could be, so that the launch does not depend on the ids.
        let grid = [blocks(dout.rows(), 1), blocks(width, 32 * lane), 1];
        let kernel = of_stream("embedding_backward", dout);
        gpu.launch(&SOURCE, dtable.dtype(), &kernel, grid, [32, WARPS as u32, 1], 0, &args)
    }

    fn on_gpu(ids: &Tokens) -> Result<&OnGpu> {
        ids.on_gpu
            .as_ref()
            .ok_or_else(|| Error::shape("embedding", "the ids are on the CPU, the table on a GPU"))
    }
}
