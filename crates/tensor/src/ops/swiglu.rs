//! `silu(gate) * up`, the activation of the gated feed-forward layer (Shazeer 2020).

use crate::cpu::{for_row_blocks, sigmoid};
use crate::ops::Cols;
use crate::tape::{Tape, Var};
use crate::{DType, Device, Error, Result, Tensor};

/// `silu(gate) * up`, both `[R, F]`: columns of one fused projection, or of two.
pub fn swiglu(tape: &mut Tape, gate: &Cols, up: &Cols) -> Result<Var> {
    let (rows, width) = (gate.var.value.rows(), gate.width);
    if up.width != width || up.var.value.rows() != rows {
        return Err(Error::shape("swiglu", format!("gate of {width} columns, up of {}", up.width)));
    }
    let out = tape.device().empty(&[rows, width], gate.var.value.dtype())?;
    forward(&out, gate, up)?;
    let (gate, up) = (gate.clone(), up.clone());
    Ok(tape.push_remade("swiglu", out, move |dout, again, grads| {
        let dgate = grads.columns(&gate.var, width)?;
        let dup = grads.columns(&up.var, width)?;
        backward([&dgate, &dup], again, dout, &gate, &up)
    }))
}

pub(super) fn forward(out: &Tensor, gate: &Cols, up: &Cols) -> Result<()> {
    match out.device() {
        Device::Cpu => {
            forward_cpu(out, gate, up);
            Ok(())
        }
        Device::Cuda(gpu) => cuda::forward(gpu, out, gate, up),
    }
}

/// Gradients to the columns of `dgate` and `dup` that gate and up have of their values; `again` is the result once more.
pub(super) fn backward(
    [dgate, dup]: [&Tensor; 2],
    again: Option<&Tensor>,
    dout: &Tensor,
    gate: &Cols,
    up: &Cols,
) -> Result<()> {
    match dout.device() {
        Device::Cpu => {
            let again =
                again.map_or_else(|| dout.device().empty(dout.shape(), DType::F32), |t| Ok(t.clone()))?;
            backward_cpu(dgate, dup, &again, dout, gate, up);
            Ok(())
        }
        Device::Cuda(gpu) => cuda::backward(gpu, dgate, dup, again, dout, gate, up),
    }
}

fn forward_cpu(out: &Tensor, gate: &Cols, up: &Cols) {
    let width = gate.width;
    let (gates, ups) = (gate.var.value.read(), up.var.value.read());
    for_row_blocks(
        [(&mut out.write(), width)],
        #[inline(always)]
        |first, [out]| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let g = &gates[(first + i) * gate.stride() + gate.start..][..width];
                let u = &ups[(first + i) * up.stride() + up.start..][..width];
                for ((out, g), u) in out.iter_mut().zip(g).zip(u) {
                    *out = g * sigmoid(*g) * u;
                }
            }
        },
    );
}

/// `dgate = dout up silu'(gate)`, `dup = dout silu(gate)`, which may be columns of one buffer; `again = silu(gate) up`.
fn backward_cpu(dgate: &Tensor, dup: &Tensor, again: &Tensor, dout: &Tensor, gate: &Cols, up: &Cols) {
    let width = gate.width;
    let (dout, gates, ups) = (dout.read(), gate.var.value.read(), up.var.value.read());
    for_row_blocks(
        [(&mut dgate.write(), gate.stride())],
        #[inline(always)]
        |first, [dgate]| {
            for (i, dgate) in dgate.chunks_exact_mut(gate.stride()).enumerate() {
                let r = first + i;
                let dout = &dout[r * width..][..width];
                let g = &gates[r * gate.stride() + gate.start..][..width];
                let u = &ups[r * up.stride() + up.start..][..width];
                let to = &mut dgate[gate.start..][..width];
                for (((to, dout), g), u) in to.iter_mut().zip(dout).zip(g).zip(u) {
                    let s = sigmoid(*g);
                    *to = dout * u * s * (1.0 + g * (1.0 - s));
                }
            }
        },
    );
    for_row_blocks(
        [(&mut dup.write(), up.stride()), (&mut again.write(), width)],
        #[inline(always)]
        |first, [dup, again]| {
            let rows = dup.chunks_exact_mut(up.stride()).zip(again.chunks_exact_mut(width));
            for (i, (dup, again)) in rows.enumerate() {
                let r = first + i;
                let dout = &dout[r * width..][..width];
                let g = &gates[r * gate.stride() + gate.start..][..width];
                let u = &ups[r * up.stride() + up.start..][..width];
                let to = &mut dup[up.start..][..width];
                for ((((to, again), dout), g), u) in to.iter_mut().zip(again).zip(dout).zip(g).zip(u) {
                    let s = sigmoid(*g);
                    *to = dout * g * s;
                    *again = g * s * u;
                }
            }
        },
    );
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `swiglu.cu`.

    use crate::cuda::{Gpu, Source};
    use crate::ops::Cols;
    use crate::ops::launch::{AXIS, WARPS, columns, flag, int, lane, long, ptr, ptr_or_null, tiles};
    use crate::{Result, Tensor};

    pub(in crate::ops) static SOURCE: Source = Source { name: "swiglu.cu", text: include_str!("swiglu.cu") };

    pub(super) fn forward(gpu: &Gpu, out: &Tensor, gate: &Cols, up: &Cols) -> Result<()> {
        let (elem, rows, width) = (out.dtype(), out.rows(), out.cols());
        let (gates, ups) = (&gate.var.value, &up.var.value);
        let lane = lane(elem, width, &[(out, 0), (gates, gate.start), (ups, up.start)]);
        let args = [
            ptr(out),
            columns(gates, gate.start, width),
            long(gate.stride()),
            columns(ups, up.start, width),
            long(up.stride()),
            long(rows),
            int(width),
            flag(lane > 1),
        ];
        let grid = tiles(rows, WARPS, AXIS, width, lane);
        gpu.launch(&SOURCE, elem, "swiglu_forward", grid, [32, WARPS as u32, 1], 0, &args)
    }

    pub(super) fn backward(
        gpu: &Gpu,
        dgate: &Tensor,
        dup: &Tensor,
        again: Option<&Tensor>,
        dout: &Tensor,
        gate: &Cols,
        up: &Cols,
    ) -> Result<()> {
        let (elem, rows, width) = (dout.dtype(), dout.rows(), dout.cols());
        let (gates, ups) = (&gate.var.value, &up.var.value);
        let mut spans =
            vec![(dgate, gate.start), (dup, up.start), (dout, 0), (gates, gate.start), (ups, up.start)];
        spans.extend(again.map(|again| (again, 0)));
        let lane = lane(elem, width, &spans);
        let args = [
            columns(dgate, gate.start, width),
            columns(dup, up.start, width),
            ptr_or_null(again),
            ptr(dout),
            columns(gates, gate.start, width),
            long(gate.stride()),
            columns(ups, up.start, width),
            long(up.stride()),
            long(rows),
            int(width),
            flag(lane > 1),
        ];
        let grid = tiles(rows, WARPS, AXIS, width, lane);
        gpu.launch(&SOURCE, elem, "swiglu_backward", grid, [32, WARPS as u32, 1], 0, &args)
    }
}
