//! Launches of `scan.cu`; `tile.cuh` tells how the work is cut.

use super::{Scan, ScanLayout};
use crate::cuda::{Arg, Gpu, Source};
use crate::{DType, Error, Result, Tensor};

pub static SOURCE: Source =
    Source { name: "scan.cu", text: concat!(include_str!("tile.cuh"), include_str!("scan.cu")) };

/// Threads of every block (`THREADS` of `tile.cuh`).
const THREADS: usize = 128;
/// Steps between two exact values of the decay's gradient (`EDGE`).
const EDGE: usize = 64;

pub(super) fn forward(gpu: &Gpu, y: &Tensor, inputs: &Scan, layout: ScanLayout) -> Result<()> {
    let plan = Plan::new(gpu, inputs, layout, y)?;
    let [dt, decay] = [plan.per_step()?, plan.per_step()?];
    plan.steps(&dt, &decay, None)?;
    let args = [y, &inputs.xbc.value, &dt, &decay, &inputs.d.value];
    plan.sweep("forward", &args)
}

pub(super) fn backward(
    gpu: &Gpu,
    dxbc: &Tensor,
    ddt: &Tensor,
    add: [bool; 3],
    dy: &Tensor,
    inputs: &Scan,
    layout: ScanLayout,
) -> Result<()> {
    let plan = Plan::new(gpu, inputs, layout, dy)?;
    let (xbc, d) = (&inputs.xbc.value, &inputs.d.value);
    let [dt, decay, xdy, change, of_dt] =
        [plan.per_step()?, plan.per_step()?, plan.per_step()?, plan.per_step()?, plan.per_step()?];
    plan.steps(&dt, &decay, Some((&xdy, dy)))?;

    let edges = plan.blocks() * ((layout.rows.len - 1) / EDGE);
    let states = plan.workspace(edges * plan.padded * plan.slice)?;
    let products = plan.workspace(edges)?;
    let parts = plan.rows() * layout.heads * plan.slices() * plan.padded;
    let [q, h] = [plan.workspace(parts)?, plan.workspace(parts)?];
    plan.sweep("backward_q", &[&q, &states, dy, xbc, &dt, &decay])?;
    plan.sweep("backward_h", &[&h, &products, dxbc, &states, dy, xbc, &dt, &decay, d])?;

    let kernel = format!("scan_backward_bc_n{}", plan.padded);
    let mut args = pointers(&[dxbc, &change, &of_dt, &q, &h, &xdy, xbc, &dt, &decay]);
    args.extend(plan.sizes());
    plan.launch(&kernel, [plan.rows(), layout.groups], &args)?;

    let sums = plan.workspace(3 * plan.pairs())?;
    plan.finish(ddt, &sums, [&change, &of_dt, &products, &xdy, &dt])?;
    for (i, param) in [&inputs.dt_bias, &inputs.a_log, &inputs.d].into_iter().enumerate() {
        let of_param = sums.range(i * plan.pairs(), plan.pairs());
        let mut args = pointers(&[&param.grad, &of_param]);
        args.extend([layout.rows.batch, layout.heads, usize::from(add[i])].map(|x| Arg::I32(x as i32)));
        plan.launch("scan_total", [layout.heads.div_ceil(THREADS), 1], &args)?;
    }
    Ok(())
}

/// How a scan is cut into blocks.
struct Plan<'a> {
    gpu: &'a Gpu,
    inputs: &'a Scan,
    layout: ScanLayout,
    /// Name of the kernels for this state size and slice.
    variant: &'static str,
    /// State size of the variant, `layout.state` or more.
    padded: usize,
    /// Columns of a head in a block.
    slice: usize,
    /// Whether rows can be read 16 bytes at a time.
    vec: bool,
}

impl<'a> Plan<'a> {
    /// `y` is the output or its gradient.
    fn new(gpu: &'a Gpu, inputs: &'a Scan, layout: ScanLayout, y: &Tensor) -> Result<Self> {
        let (variant, padded, slice) = match (layout.state, layout.head_dim) {
            (..=32, _) => ("n32", 32, 32),
            (..=64, _) => ("n64", 64, 32),
            (..=128, ..=32) => ("n128", 128, 32),
            (..=128, _) => ("n128_wide", 128, 64),
            (..=256, _) => ("n256", 256, 32),
            (state, _) => {
                let reason =
                    format!("a state of {state} is beyond the 256 of the CUDA kernels; use --device cpu");
                return Err(Error::shape("scan", reason));
            }
        };
        let xbc = &inputs.xbc.value;
        let wide = 16 / xbc.dtype().size();
        let vec = [layout.width(), layout.head_dim, layout.state].iter().all(|n| n.is_multiple_of(wide))
            && [xbc, y].iter().all(|x| x.ptr().is_multiple_of(16));
        Ok(Plan { gpu, inputs, layout, variant, padded, slice, vec })
    }

    fn rows(&self) -> usize {
        self.layout.rows.batch * self.layout.rows.len
    }

    /// Sequences times heads.
    fn pairs(&self) -> usize {
        self.layout.rows.batch * self.layout.heads
    }

    fn slices(&self) -> usize {
        self.layout.head_dim.div_ceil(self.slice)
    }

    fn blocks(&self) -> usize {
        self.pairs() * self.slices()
    }

    fn workspace(&self, numel: usize) -> Result<Tensor> {
        self.inputs.xbc.value.device().empty(&[numel], DType::F32)
    }

    /// A workspace `[B, H, T]`.
    fn per_step(&self) -> Result<Tensor> {
        self.workspace(self.pairs() * self.layout.rows.len)
    }

    fn sizes(&self) -> [Arg; 6] {
        let l = self.layout;
        [l.rows.len, l.heads, l.head_dim, l.groups, l.state, self.slices()].map(|x| Arg::I32(x as i32))
    }

    /// The raw time steps: address of the first, and elements from row to row.
    fn raw(&self, of: &Tensor) -> (Arg, Arg) {
        let dt = &self.inputs.dt;
        (Arg::Ptr(of.ptr() + (dt.start * of.dtype().size()) as u64), Arg::I64(dt.stride() as i64))
    }

    /// `dt` and `decay`, and with `(xdy, dy)` the product of each head's x with dy.
    fn steps(&self, dt: &Tensor, decay: &Tensor, product: Option<(&Tensor, &Tensor)>) -> Result<()> {
        let l = self.layout;
        let (raw, raw_stride) = self.raw(&self.inputs.dt.var.value);
        let (xdy, dy) = product.map_or((0, 0), |(xdy, dy)| (xdy.ptr(), dy.ptr()));
        let args = [
            Arg::Ptr(dt.ptr()),
            Arg::Ptr(decay.ptr()),
            Arg::Ptr(xdy),
            raw,
            Arg::Ptr(self.inputs.dt_bias.value.ptr()),
            Arg::Ptr(self.inputs.a_log.value.ptr()),
            Arg::Ptr(self.inputs.xbc.value.ptr()),
            Arg::Ptr(dy),
            Arg::I64(self.rows() as i64),
            Arg::I32(l.rows.len as i32),
            Arg::I32(l.heads as i32),
            Arg::I32(l.head_dim as i32),
            raw_stride,
            Arg::I64(l.width() as i64),
            Arg::F32(l.dt_limit.0),
            Arg::F32(l.dt_limit.1),
        ];
        self.launch("scan_steps", [(8 * self.rows() * l.heads).div_ceil(THREADS), 1], &args)
    }

    /// One of the kernels that go through time, a block for each sequence, head and slice.
    fn sweep(&self, kernel: &str, tensors: &[&Tensor]) -> Result<()> {
        let mut args = pointers(tensors);
        args.extend(self.sizes());
        args.push(Arg::I32(i32::from(self.vec)));
        self.launch(&format!("scan_{kernel}_{}", self.variant), [self.blocks(), 1], &args)
    }

    /// Gradients of the raw steps, and the parameters' sums over each sequence.
    fn finish(&self, ddt: &Tensor, sums: &Tensor, per_step: [&Tensor; 5]) -> Result<()> {
        let l = self.layout;
        let (draw, _) = self.raw(ddt);
        let (raw, raw_stride) = self.raw(&self.inputs.dt.var.value);
        let mut args = vec![draw, Arg::Ptr(sums.ptr())];
        args.extend(pointers(&per_step));
        args.extend([
            raw,
            Arg::Ptr(self.inputs.dt_bias.value.ptr()),
            Arg::Ptr(self.inputs.a_log.value.ptr()),
            Arg::I32(l.rows.len as i32),
            Arg::I32(l.heads as i32),
            Arg::I32(self.slices() as i32),
            Arg::I64(self.pairs() as i64),
            raw_stride,
            Arg::F32(l.dt_limit.0),
            Arg::F32(l.dt_limit.1),
        ]);
        self.launch("scan_finish", [self.pairs().div_ceil(THREADS / 32), 1], &args)
    }

    fn launch(&self, kernel: &str, [x, y]: [usize; 2], args: &[Arg]) -> Result<()> {
        let dtype = self.inputs.xbc.value.dtype();
        let grid = [x as u32, y as u32, 1];
        self.gpu.launch(&SOURCE, dtype, kernel, grid, [THREADS as u32, 1, 1], 0, args)
    }
}

fn pointers(tensors: &[&Tensor]) -> Vec<Arg> {
    tensors.iter().map(|t| Arg::Ptr(t.ptr())).collect()
}
