//! The chunked form of the scan on tensor cores (Dao and Gu 2024, section 6), for bf16.
//!
//! A sequence is cut into chunks of 64 steps. Within a chunk the output is a masked product of matrices, `C B^T` with
//! decays times `x`; between chunks the state goes on, in f32. Decays are powers of differences of sums of logarithms,
//! never ratios, and at most 1. Products have bf16 factors and f32 sums: the decayed `C B^T`, the states (kept in f32
//! where they go on) and the weighted `x` and `dy` are rounded to bf16 for them; nothing else is.
//!
//! Forward: `chunk_steps` makes dt, the decays and their logarithms; `chunk_forward` goes through the chunks with the
//! state in registers, up to three heads a block. Backward: `chunk_steps`; `chunk_states` leaves the state before each
//! chunk and the gradient of that after it, by going through them in both directions; then `chunk_gradient` has a block
//! for each chunk and several heads, whose sums over heads stay in registers; what blocks share is added up in a fixed
//! order. Slices of 32 columns of a head are independent but for those sums. All cuts follow from sizes alone.

use super::{Scan, ScanLayout};
use crate::cuda::{Arg, Gpu, Source};
use crate::ops::launch::{blocks, columns, flag, int, long, ptr, ptr_or_null};
use crate::{DType, Result, Tensor};

pub static SOURCE: Source = Source {
    name: "chunked.cu",
    text: concat!(
        include_str!("tiles.cuh"),
        include_str!("steps.cuh"),
        include_str!("states.cuh"),
        include_str!("forward.cuh"),
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

/// Parts of what `chunk_steps` leaves of a chunk of a head, and how many of them the forward pass reads.
const PARTS: usize = 5;
const FORWARD_PARTS: usize = 4;

/// Bytes of shared memory: 64 rows of B or C; of x or dy; a state; a part of the steps; the product of B and C.
const ROWS_BYTES: usize = CHUNK * (STATE * 2 + 16);
const SLICE_BYTES: usize = CHUNK * SLICE * 2;
const STATE_BYTES: usize = STATE * SLICE * 2;
const PART_BYTES: usize = CHUNK * 4;
const PRODUCT_BYTES: usize = CHUNK * CHUNK * 4;
/// `Shares` of `gradient.cuh`.
const SHARES_BYTES: usize = (9 * CHUNK + 4) * 4;

/// Heads in a block of `chunk_steps`.
const STEPS_HEADS: usize = 16;

/// Teams and blocks that fill a large GPU (132 multiprocessors), which cuts aim at.
const TEAMS: usize = 384;
const GRADIENTS: usize = 132;
/// Fewest chunks in a segment.
const SEGMENT: usize = 8;

/// Shared memory of a block of `chunk_gradient`, the most of any here; of the other kernels with three teams less.
const GRADIENT_BYTES: usize = 2 * ROWS_BYTES
    + PRODUCT_BYTES
    + 4 * (2 * SLICE_BYTES + 2 * STATE_BYTES + PARTS * PART_BYTES + SHARES_BYTES);

/// Whether this form covers a scan: in bf16, with 128 states and heads of a multiple of 32 columns, aligned to 16 bytes
/// (as whole tensors from a pool are), on a GPU whose blocks may have 164 KB of shared memory (`sm_80` and `sm_90`, not
/// `sm_86`, `sm_89` and `sm_120`).
pub(super) fn covers(gpu: &Gpu, inputs: &Scan, layout: ScanLayout) -> bool {
    let xbc = &inputs.xbc.value;
    gpu.shared_memory_per_block() >= GRADIENT_BYTES
        && xbc.dtype() == DType::BF16
        && layout.state == STATE
        && layout.head_dim.is_multiple_of(SLICE)
        && xbc.ptr().is_multiple_of(16)
}

pub(super) fn forward(gpu: &Gpu, y: &Tensor, inputs: &Scan, layout: ScanLayout) -> Result<()> {
    let plan = Plan::new(gpu, inputs, layout)?;
    let cut = plan.cut();
    let starts = plan.starts(1, y, &cut)?;
    let mut args = vec![ptr(y), starts.as_ref().map_or(Arg::Ptr(0), ptr)];
    args.extend([&inputs.xbc.value, &plan.steps, &inputs.d.value].map(ptr));
    args.extend(plan.sizes());
    args.push(int(cut.each));
    let stage = 2 * ROWS_BYTES + cut.teams * (SLICE_BYTES + FORWARD_PARTS * PART_BYTES);
    let shared = PRODUCT_BYTES + cut.teams * STATE_BYTES + 2 * stage;
    plan.launch("chunk_forward", [plan.tasks() / cut.teams, cut.segments, 1], cut.teams * TEAM, shared, &args)
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
    let states = plan.states(dy)?;
    let (heads, of_groups) = (layout.heads, 2 * layout.groups * STATE);
    let shares = largest_divisor(heads / layout.groups, GRADIENTS / (plan.chunks_of_batch() * layout.groups));
    let members = plan.slices_of_group() / shares;
    let parts = match shares {
        1 => None,
        _ => Some(plan.workspace(&[shares, plan.rows(), of_groups], DType::F32)?),
    };
    let sums = plan.workspace(&[3, plan.chunks_of_batch(), heads], DType::F32)?;
    let (xbc, raw) = (&inputs.xbc.value, &inputs.dt);
    let params = [&inputs.dt_bias, &inputs.a_log, &inputs.d];
    // B and C are written here or, from the parts, below.
    let here = if parts.is_some() { layout.inner() } else { layout.width() };
    let mut args = vec![columns(dxbc, 0, here), columns(ddt, raw.start, heads), ptr_or_null(parts.as_ref())];
    args.extend([&sums, &states, xbc, dy, &plan.steps].map(ptr));
    args.extend([&inputs.a_log.value, &inputs.d.value].map(ptr));
    args.push(int(layout.rows.batch));
    args.extend(plan.sizes());
    args.extend([int(members), long(raw.stride())]);
    let grid = [plan.chunks_of_batch(), layout.groups * shares, 1];
    plan.launch("chunk_gradient", grid, 4 * TEAM, GRADIENT_BYTES, &args)?;

    let totals = (3 * heads).div_ceil(8);
    let adding = parts.as_ref().map_or(0, |_| (plan.rows() * of_groups).div_ceil(8 * 256));
    let there = columns(dxbc, 0, if parts.is_some() { of_groups } else { 0 });
    let mut args = vec![there, ptr_or_null(parts.as_ref()), int(shares), long(plan.rows())];
    args.extend([int(of_groups), long(layout.width()), int(layout.inner())]);
    args.extend(params.map(|param| ptr(&param.grad)));
    args.extend([ptr(&sums), long(plan.chunks_of_batch()), int(heads)]);
    args.extend(add.map(flag));
    args.push(int(totals));
    plan.launch("chunk_sum", [totals + adding, 1, 1], 256, 0, &args)
}

/// A scan in chunks.
struct Plan<'a> {
    gpu: &'a Gpu,
    inputs: &'a Scan,
    layout: ScanLayout,
    /// What `chunk_steps` makes, `[B, H, chunks, 5, 64]`.
    steps: Tensor,
}

/// How going through the chunks is cut.
struct Cut {
    /// Chunks in a segment.
    each: usize,
    segments: usize,
    /// Slices of heads in a block.
    teams: usize,
}

impl<'a> Plan<'a> {
    fn new(gpu: &'a Gpu, inputs: &'a Scan, layout: ScanLayout) -> Result<Self> {
        let shape = [layout.rows.batch, layout.heads, layout.rows.len.div_ceil(CHUNK), PARTS, CHUNK];
        let steps = inputs.xbc.value.device().empty(&shape, DType::F32)?;
        let plan = Plan { gpu, inputs, layout, steps };
        let raw = &inputs.dt;
        let mut args = vec![ptr(&plan.steps), columns(&raw.var.value, raw.start, layout.heads)];
        args.extend([&inputs.dt_bias, &inputs.a_log].map(|param| ptr(&param.value)));
        args.extend([int(layout.rows.len), int(layout.heads), long(raw.stride())]);
        args.extend([layout.dt_limit.0, layout.dt_limit.1].map(Arg::F32));
        let grid = [plan.chunks_of_batch(), layout.heads.div_ceil(STEPS_HEADS), 1];
        plan.launch("chunk_steps", grid, 256, 0, &args)?;
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

    /// Slices of all sequences, each for a team.
    fn tasks(&self) -> usize {
        self.layout.rows.batch * self.slices()
    }

    fn workspace(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        self.inputs.xbc.value.device().empty(shape, dtype)
    }

    fn sizes(&self) -> [Arg; 4] {
        let l = self.layout;
        [l.rows.len, l.heads, l.head_dim / SLICE, l.groups].map(int)
    }

    /// Long sequences are cut into segments where there are too few heads for a whole GPU; blocks have as many teams,
    /// which share B and C, as leave enough blocks.
    fn cut(&self) -> Cut {
        let most = (self.chunks() / SEGMENT).max(1);
        let each = self.chunks().div_ceil((TEAMS / self.tasks()).clamp(1, most));
        let segments = self.chunks().div_ceil(each);
        let fits = |teams: &usize| {
            self.slices_of_group().is_multiple_of(*teams) && 3 * self.tasks() * segments >= TEAMS * teams
        };
        Cut { each, segments, teams: [3, 2].into_iter().find(fits).unwrap_or(1) }
    }

    /// The states before each chunk and, behind them, the gradients of those after each chunk:
    /// `[2, B, chunks, H slices, N, 32]` in bf16.
    fn states(&self, dy: &Tensor) -> Result<Tensor> {
        let shape = [2, self.chunks_of_batch(), self.slices(), STATE, SLICE];
        let states = self.workspace(&shape, DType::BF16)?;
        let cut = self.cut();
        let starts = self.starts(2, dy, &cut)?;
        self.sweep(2, dy, &cut, &[ptr(&states), Arg::Ptr(0), starts.as_ref().map_or(Arg::Ptr(0), ptr)])?;
        Ok(states)
    }

    /// What the segments start from, `[directions, B, H slices, segments, 32, 128]` (thread by thread): their final
    /// states, from zero, and then those joined; nothing where a sequence is one segment.
    fn starts(&self, directions: usize, dy: &Tensor, cut: &Cut) -> Result<Option<Tensor>> {
        if cut.segments == 1 {
            return Ok(None);
        }
        let ends = self.workspace(&[directions, self.tasks(), cut.segments, STATE * SLICE], DType::F32)?;
        self.sweep(directions, dy, cut, &[Arg::Ptr(0), ptr(&ends), Arg::Ptr(0)])?;
        let l = self.layout;
        let mut args = vec![ptr(&ends), ptr(&self.steps)];
        args.extend([l.rows.batch, l.rows.len, l.heads, l.head_dim / SLICE, cut.segments, cut.each].map(int));
        self.launch("chunk_join", [self.tasks(), STATE * SLICE / 256, directions], 256, 0, &args)?;
        Ok(Some(ends))
    }

    /// Goes through the chunks, with `[states, ends, starts]` of `chunk_states`.
    fn sweep(&self, directions: usize, dy: &Tensor, cut: &Cut, outputs: &[Arg; 3]) -> Result<()> {
        let mut args = outputs.to_vec();
        args.extend([&self.inputs.xbc.value, dy, &self.steps].map(ptr));
        args.push(int(self.layout.rows.batch));
        args.extend(self.sizes());
        args.push(int(cut.each));
        let shared = 3 * (ROWS_BYTES + cut.teams * (SLICE_BYTES + 2 * PART_BYTES));
        let grid = [self.tasks() / cut.teams, cut.segments, directions];
        self.launch("chunk_states", grid, cut.teams * TEAM, shared, &args)
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
