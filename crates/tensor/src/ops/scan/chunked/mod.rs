//! The chunked form of the scan on tensor cores (Dao and Gu 2024, section 6), for bf16.
//!
//! A sequence is cut into chunks of 64 steps. Within a chunk the output is a masked product of matrices, `C B^T` with
//! decays times `x`; between chunks the state goes on, in f32. Decays are powers of differences of sums of logarithms,
//! never ratios, and at most 1. Products have bf16 factors and f32 sums: the decayed `C B^T`, the states (kept in f32
//! where they go on) and the weighted `x` and `dy` are rounded to bf16 for them; nothing else is.
//!
//! Forward: `chunk_steps` makes dt and the sums of log decay, `chunk_states` the state before each chunk by going through
//! the chunks, a few heads a block; `chunk_output` has a block for each chunk and several heads. Backward: the same two,
//! `chunk_states` now in both directions, then `chunk_gradient`, again a block for each chunk and several heads, whose
//! sums over heads stay in registers; what blocks share is added up in a fixed order. Slices of 32 columns of a head are
//! independent but for those sums. All cuts follow from sizes alone.

use super::{Scan, ScanLayout};
use crate::cuda::{Arg, Gpu, Source};
use crate::ops::launch::{blocks, column, flag, int, long, ptr};
use crate::{DType, Result, Tensor};

pub static SOURCE: Source = Source {
    name: "chunked.cu",
    text: concat!(
        include_str!("tiles.cuh"),
        include_str!("steps.cuh"),
        include_str!("states.cuh"),
        include_str!("output.cuh"),
        include_str!("gradient.cuh"),
        include_str!("gradient_bc.cuh"),
        include_str!("chunked.cu"),
    ),
};

/// Sizes of `tiles.cuh`.
const CHUNK: usize = 64;
const STATE: usize = 128;
const SLICE: usize = 32;
/// Threads of four warps, `TEAM`.
const TEAM: usize = 128;

/// Bytes of shared memory: 64 rows of B or C; of x or dy; a state; dt and its log decay.
const ROWS_BYTES: usize = CHUNK * STATE * 2;
const SLICE_BYTES: usize = CHUNK * SLICE * 2;
const STATE_BYTES: usize = STATE * SLICE * 2;
const STEPS_BYTES: usize = 2 * CHUNK * 4;
/// `Shares`.
const SHARES_BYTES: usize = (9 * CHUNK + 4) * 4;
/// Stages of copies under way.
const STAGES: usize = 3;

/// Blocks of each kind that work at a time on a large GPU (132 multiprocessors), which cuts aim at.
const SWEEPS: usize = 384;
const OUTPUTS: usize = 400;
const GRADIENTS: usize = 132;
/// Fewest chunks in a segment.
const SEGMENT: usize = 8;

/// Whether this form covers a scan: in bf16, with 128 states and heads of a multiple of 32 columns, aligned to 16 bytes.
pub(super) fn covers(inputs: &Scan, layout: ScanLayout) -> bool {
    let xbc = &inputs.xbc.value;
    xbc.dtype() == DType::BF16
        && layout.state == STATE
        && layout.head_dim.is_multiple_of(SLICE)
        && xbc.ptr().is_multiple_of(16)
}

pub(super) fn forward(gpu: &Gpu, y: &Tensor, inputs: &Scan, layout: ScanLayout) -> Result<()> {
    let plan = Plan::new(gpu, inputs, layout)?;
    let states = plan.states(1, y)?;
    let each = largest_divisor(plan.slices_of_group(), OUTPUTS / (plan.chunks_of_batch() * layout.groups));
    let members = plan.slices_of_group() / each;
    let stage = STATE_BYTES + SLICE_BYTES + STEPS_BYTES;
    let mut args = vec![ptr(y), ptr(&states), ptr(&inputs.xbc.value), ptr(&plan.dt), ptr(&plan.log_decay)];
    args.push(ptr(&inputs.d.value));
    args.extend(plan.sizes());
    args.push(int(members));
    let grid = [plan.chunks_of_batch(), layout.groups * each, 1];
    plan.launch("chunk_output", grid, TEAM, 2 * ROWS_BYTES + STAGES * stage, &args)
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
    let plan = Plan::new(gpu, inputs, layout)?;
    let states = plan.states(2, dy)?;
    let (heads, of_groups) = (layout.heads, 2 * layout.groups * STATE);
    let shares = largest_divisor(heads / layout.groups, GRADIENTS / (plan.chunks_of_batch() * layout.groups));
    let members = plan.slices_of_group() / shares;
    let parts = match shares {
        1 => None,
        _ => Some(plan.workspace(&[shares, plan.rows(), of_groups], DType::F32)?),
    };
    let sums = plan.workspace(&[3, plan.chunks_of_batch(), heads], DType::F32)?;
    let (xbc, raw) = (&inputs.xbc.value, &inputs.dt);
    let mut args = vec![ptr(dxbc), column(ddt, raw.start), parts.as_ref().map_or(Arg::Ptr(0), ptr)];
    args.extend([&sums, &states, xbc, dy].map(ptr));
    args.push(column(&raw.var.value, raw.start));
    let params = [&inputs.dt_bias, &inputs.a_log, &inputs.d];
    args.extend([&plan.dt, &plan.log_decay].map(ptr));
    args.extend(params.map(|param| ptr(&param.value)));
    args.push(int(layout.rows.batch));
    args.extend(plan.sizes());
    args.extend([int(members), long(raw.stride())]);
    args.extend([layout.dt_limit.0, layout.dt_limit.1].map(Arg::F32));
    let stage = 2 * SLICE_BYTES + 2 * STATE_BYTES + STEPS_BYTES;
    let shared = 2 * ROWS_BYTES + STAGES * stage + 2 * SHARES_BYTES;
    let grid = [plan.chunks_of_batch(), layout.groups * shares, 1];
    plan.launch("chunk_gradient", grid, 3 * TEAM, shared, &args)?;

    if let Some(parts) = &parts {
        let mut args = vec![ptr(dxbc), ptr(parts), int(shares), long(plan.rows()), int(of_groups)];
        args.extend([long(layout.width()), int(layout.inner())]);
        let grid = [blocks(plan.rows() * of_groups, 8 * 256) as usize, 1, 1];
        plan.launch("chunk_sum_parts", grid, 256, 0, &args)?;
    }
    let mut args: Vec<Arg> = params.map(|param| ptr(&param.grad)).into();
    args.extend([ptr(&sums), long(plan.chunks_of_batch()), int(heads)]);
    args.extend(add.map(flag));
    plan.launch("chunk_total", [heads.div_ceil(TEAM / 32), 3, 1], TEAM, 0, &args)
}

/// The time steps of a scan in chunks.
struct Plan<'a> {
    gpu: &'a Gpu,
    inputs: &'a Scan,
    layout: ScanLayout,
    /// `[B, H, chunks, 64]`, and so is `log_decay`.
    dt: Tensor,
    log_decay: Tensor,
}

impl<'a> Plan<'a> {
    fn new(gpu: &'a Gpu, inputs: &'a Scan, layout: ScanLayout) -> Result<Self> {
        let xbc = &inputs.xbc.value;
        let shape = [layout.rows.batch, layout.heads, layout.rows.len.div_ceil(CHUNK), CHUNK];
        let [dt, log_decay] =
            [xbc.device().empty(&shape, DType::F32)?, xbc.device().empty(&shape, DType::F32)?];
        let plan = Plan { gpu, inputs, layout, dt, log_decay };
        let warps = plan.chunks_of_batch() * layout.heads;
        let raw = &inputs.dt;
        let args = [
            ptr(&plan.dt),
            ptr(&plan.log_decay),
            column(&raw.var.value, raw.start),
            ptr(&inputs.dt_bias.value),
            ptr(&inputs.a_log.value),
            long(warps),
            int(layout.rows.len),
            int(layout.heads),
            long(raw.stride()),
            Arg::F32(layout.dt_limit.0),
            Arg::F32(layout.dt_limit.1),
        ];
        plan.launch("chunk_steps", [warps.div_ceil(TEAM / 32), 1, 1], TEAM, 0, &args)?;
        Ok(plan)
    }

    fn rows(&self) -> usize {
        self.layout.rows.batch * self.layout.rows.len
    }

    fn chunks(&self) -> usize {
        self.layout.rows.len.div_ceil(CHUNK)
    }

    fn chunks_of_batch(&self) -> usize {
        self.layout.rows.batch * self.chunks()
    }

    /// Slices of 32 columns of all heads; of those of a group.
    fn slices(&self) -> usize {
        self.layout.inner() / SLICE
    }

    fn slices_of_group(&self) -> usize {
        self.slices() / self.layout.groups
    }

    fn workspace(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        self.inputs.xbc.value.device().empty(shape, dtype)
    }

    fn sizes(&self) -> [Arg; 4] {
        let l = self.layout;
        [l.rows.len, l.heads, l.head_dim / SLICE, l.groups].map(int)
    }

    /// The states before each chunk and, with two directions, behind them their gradients after each chunk, from `dy`:
    /// `[directions, B, chunks, H slices, N, 32]` in bf16. Long sequences are cut into segments where there are too
    /// few heads for a whole GPU: their final states come first, from zero, then what each starts from.
    fn states(&self, directions: usize, dy: &Tensor) -> Result<Tensor> {
        let batch = self.layout.rows.batch;
        let states =
            self.workspace(&[directions, self.chunks_of_batch(), self.slices(), STATE, SLICE], DType::BF16)?;
        let sweeps = batch * self.slices();
        let each = self.chunks().div_ceil((SWEEPS / sweeps).clamp(1, (self.chunks() / SEGMENT).max(1)));
        let segments = self.chunks().div_ceil(each);
        let blocks_of = |teams: &usize| sweeps * segments / teams;
        let divides = |teams: &usize| self.slices_of_group().is_multiple_of(*teams);
        let teams = [3, 2].into_iter().find(|n| divides(n) && 3 * blocks_of(n) >= SWEEPS).unwrap_or(1);
        let sweep = |states: Arg, ends: Arg, starts: Arg| {
            let mut args = vec![states, ends, starts, ptr(&self.inputs.xbc.value), ptr(dy)];
            args.extend([ptr(&self.dt), ptr(&self.log_decay), int(batch)]);
            args.extend(self.sizes());
            args.push(int(each));
            let shared = STAGES * (ROWS_BYTES + teams * (SLICE_BYTES + STEPS_BYTES));
            self.launch("chunk_states", [sweeps / teams, segments, directions], teams * TEAM, shared, &args)
        };
        let none = Arg::Ptr(0);
        if segments == 1 {
            sweep(ptr(&states), none, none)?;
            return Ok(states);
        }
        let ends = self.workspace(&[directions, sweeps, segments, STATE * SLICE], DType::F32)?;
        sweep(none, ptr(&ends), none)?;
        let mut args = vec![ptr(&ends), ptr(&self.log_decay), int(batch)];
        args.extend(self.sizes());
        args.truncate(6);
        args.extend([int(segments), int(each)]);
        self.launch("chunk_join", [sweeps, STATE * SLICE / 256, directions], 256, 0, &args)?;
        sweep(ptr(&states), none, ptr(&ends))?;
        Ok(states)
    }

    fn launch(
        &self,
        kernel: &str,
        grid: [usize; 3],
        threads: usize,
        shared: usize,
        args: &[Arg],
    ) -> Result<()> {
        let grid = grid.map(|n| blocks(n, 1));
        self.gpu.launch(&SOURCE, DType::BF16, kernel, grid, [threads as u32, 1, 1], shared, args)
    }
}

/// The largest divisor of `count` that is at most `most`; at least 1.
fn largest_divisor(count: usize, most: usize) -> usize {
    (1..=most.min(count)).rev().find(|&n| count.is_multiple_of(n)).unwrap_or(1)
}
