//! Mean next-token cross-entropy straight from the head, with logits for a block of rows at a time.
//!
//! `loss = mean over unmasked rows of logsumexp(s x W^T) - (s x W^T)[target]`. While a tape records, the gradients
//! are computed in the same pass, because the block of logits is there: the head's gradient is written at once,
//! that of `x` is kept for the backward pass. The loss must therefore be the root of the backward pass.
//!
//! Logits are f32, but with bf16 weights of record they are bf16 like all that such a model computes ("as published");
//! statistics and sums are f32 always. Where logits and their gradient have one type, f32 or bf16, the gradient takes
//! their place, in blocks of up to 256 MiB of f32 or 1.25 GiB of bf16 (which may be all rows). In mixed precision a
//! block of f32 logits has up to 224 MiB, and their gradient exists in bf16 for a panel of many rows: of all that fit
//! where the tape was lent memory (gradients not yet written), else of 256 MiB.

use crate::cpu::{exp, for_row_blocks};
use crate::linalg::{Factor, matmul};
use crate::params::Param;
use crate::tape::{Tape, Var};
use crate::tokens::Tokens;
use crate::{DType, Device, Error, Precision, Result, Tensor};

/// Bytes of f32 logits that exist at once where their gradient takes their place.
const BLOCK_BYTES: usize = 256 << 20;
/// The same where it does not, as far as that is a whole number of [`ROWS`].
const SMALL_BLOCK_BYTES: usize = 224 << 20;
/// Bytes of the gradient of the logits that exist at once where no memory is lent for it.
const PANEL_BYTES: usize = 256 << 20;
/// Bytes of bf16 logits that exist at once, in the place of which their gradient comes.
const BF16_BLOCK_BYTES: usize = 1280 << 20;
/// Rows of which products like multiples.
const ROWS: usize = 128;

/// A mean loss, as a value on the tape and as the sum it comes from.
pub struct Loss {
    /// The mean, `[1]`, f32: the root of the backward pass.
    pub mean: Var,
    /// How many positions it is the mean of (0: the loss is 0 and all gradients are zero).
    pub positions: usize,
}

/// Cross-entropy of `softmax(scale * x head^T)` against `targets` (-1: position ignored); `x [R, H]`, `head [V, H]`.
pub fn linear_cross_entropy(
    tape: &mut Tape,
    x: &Var,
    head: &Param,
    targets: &Tokens,
    scale: f32,
) -> Result<Loss> {
    let [vocab, hidden] = *head.value.shape() else {
        return Err(Error::shape("cross_entropy", format!("head {:?}", head.value)));
    };
    let rows = x.value.rows();
    if x.value.cols() != hidden || targets.ids.len() != rows {
        return Err(Error::shape(
            "cross_entropy",
            format!("{:?} against {} targets", x.value, targets.ids.len()),
        ));
    }
    targets.check(vocab, true)?;
    let device = tape.device().clone();
    let losses = device.empty(&[rows], DType::F32)?;
    let dx = tape.recording().then(|| device.empty(x.value.shape(), x.value.dtype())).transpose()?;
    let work = Work::new(tape, rows, vocab, x.value.dtype());
    for from in (0..rows).step_by(work.panel) {
        let count = work.panel.min(rows - from);
        let mut dlogits = match &dx {
            Some(dx) => work.dlogits(count, dx)?,
            None => None,
        };
        for first in (from..from + count).step_by(work.block) {
            let count = work.block.min(from + count - first);
            let logits = work.logits(count, &device)?;
            matmul(&logits, false, scale, &x.value.range(first, count), Factor::from(&head.value).t())?;
            let rows = Rows { losses: losses.range(first, count), targets, first };
            let to = match (&dlogits, &dx) {
                (Some(panel), _) => Some(panel.range(first - from, count)),
                (None, Some(_)) => Some(logits.clone()),
                (None, None) => None,
            };
            match &device {
                Device::Cpu => rows_cpu(&rows, &logits, to.is_some()),
                Device::Cuda(gpu) => cuda::rows(gpu, &rows, &logits, to.as_ref())?,
            }
            dlogits = dlogits.or(to);
        }
        if let (Some(dx), Some(dlogits)) = (&dx, dlogits) {
            matmul(&dx.range(from, count), false, scale, &dlogits, &head.value)?;
            let (dlogits, x) = (Factor::from(&dlogits).t(), x.value.range(from, count));
            matmul(&head.grad, head.accumulate(), scale, dlogits, &x)?;
        }
    }
    let mean = device.empty(&[1], DType::F32)?;
    match &device {
        Device::Cpu => {
            let total: f64 = losses.read().iter().map(|&l| f64::from(l)).sum();
            mean.write()[0] = (total / targets.unmasked().max(1) as f64) as f32;
        }
        Device::Cuda(gpu) => cuda::mean(gpu, &mean, &losses, targets)?,
    }
    let x = x.id;
    let mean = tape.push("cross_entropy", mean, move |_, grads| match dx {
        Some(dx) => grads.give(x, dx),
        None => Ok(()),
    });
    Ok(Loss { mean, positions: targets.unmasked() })
}

/// How the rows are cut: logits exist in blocks; their gradient in panels of several blocks, since the more rows the
/// product for the head's gradient sums over, the less often that gradient is read and written. Where both have the
/// same type the gradient takes the place of the logits.
struct Work {
    block: usize,
    panel: usize,
    vocab: usize,
    /// Element type of the logits.
    logits: DType,
    /// Whether their gradient takes their place.
    in_place: bool,
    /// Memory for a panel and, behind it, a block.
    lent: Option<Tensor>,
}

impl Work {
    fn new(tape: &Tape, rows: usize, vocab: usize, dtype: DType) -> Self {
        let bf16 = tape.precision() == Precision::Bf16;
        if dtype == DType::F32 || bf16 {
            let bytes = if bf16 { BF16_BLOCK_BYTES } else { BLOCK_BYTES };
            let most = (bytes / (dtype.size() * vocab)).clamp(1, rows);
            // Blocks of like size.
            let block = rows.div_ceil(rows.div_ceil(most));
            return Work { block, panel: block, vocab, logits: dtype, in_place: true, lent: None };
        }
        let block = (SMALL_BLOCK_BYTES / (4 * vocab)).clamp(1, rows);
        let block = if block > ROWS { block / ROWS * ROWS } else { block };
        let row = dtype.size() * vocab;
        let own = (PANEL_BYTES / row).clamp(block, rows);
        let beside = |memory: &Tensor| (4 * memory.numel()).saturating_sub(4 * block * vocab) / row;
        let lent = tape.lent().filter(|memory| beside(memory) >= own);
        let most = lent.map_or(own, beside).min(rows);
        // Panels of like size.
        let panel = rows.div_ceil(rows.div_ceil(most));
        Work { block, panel, vocab, logits: DType::F32, in_place: false, lent: lent.cloned() }
    }

    fn logits(&self, count: usize, device: &Device) -> Result<Tensor> {
        let shape = [count, self.vocab];
        match &self.lent {
            // A block is a whole number of f32 from the end.
            Some(memory) => {
                let from = memory.numel() - self.block * self.vocab;
                Ok(memory.range(from, count * self.vocab).view(&shape))
            }
            None => device.empty(&shape, self.logits),
        }
    }

    /// The panel of `count` rows that the rows of `dx` need, if it is a tensor of its own.
    fn dlogits(&self, count: usize, dx: &Tensor) -> Result<Option<Tensor>> {
        let shape = [count, self.vocab];
        match &self.lent {
            _ if self.in_place => Ok(None),
            Some(memory) => Ok(Some(memory.recast(&shape, dx.dtype()))),
            None => dx.device().empty(&shape, dx.dtype()).map(Some),
        }
    }
}

/// One block of rows.
struct Rows<'a> {
    /// Loss of each row, 0 where masked.
    losses: Tensor,
    targets: &'a Tokens,
    /// Row of the batch that the block starts with.
    first: usize,
}

/// Losses of a block; turns logits into their gradient `(softmax - onehot) / unmasked rows` in place if asked to.
fn rows_cpu(rows: &Rows, logits: &Tensor, gradient: bool) {
    let (vocab, weight) = (logits.cols(), 1.0 / rows.targets.unmasked().max(1) as f32);
    for_row_blocks(
        [(&mut logits.write(), vocab), (&mut rows.losses.write(), 1)],
        #[inline(always)]
        |first, [logits, losses]| {
            for (i, (row, loss)) in logits.chunks_exact_mut(vocab).zip(losses).enumerate() {
                let target = rows.targets.ids[rows.first + first + i];
                if target < 0 {
                    *loss = 0.0;
                    row.fill(0.0);
                    continue;
                }
                let at = row[target as usize];
                let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let mut total = 0.0f64;
                for part in row.chunks_mut(64) {
                    part.iter_mut().for_each(|l| *l = exp(*l - max));
                    total += f64::from(crate::cpu::sum2(
                        part,
                        part,
                        #[inline(always)]
                        |x, _| x,
                    ));
                }
                *loss = (total.ln() + f64::from(max) - f64::from(at)) as f32;
                if gradient {
                    let k = weight / total as f32;
                    row.iter_mut().for_each(|l| *l *= k);
                    row[target as usize] -= weight;
                }
            }
        },
    );
}

pub(super) use cuda::SOURCE;

mod cuda {
    //! Launches of `cross_entropy.cu`.

    use super::Rows;
    use crate::cuda::{Arg, Gpu, Source};
    use crate::ops::launch::{blocks, flag, int, lane, lane_of_four, long, ptr};
    use crate::tokens::{OnGpu, Tokens};
    use crate::{DType, Error, Result, Tensor};

    pub(in crate::ops) static SOURCE: Source =
        Source { name: "cross_entropy.cu", text: include_str!("cross_entropy.cu") };

    /// Shared memory that the kernel has besides the beginning of a row.
    const RESERVED: usize = 1 << 10;

    /// Threads of a block that has a slice of a row, and most bytes of that: three blocks share a multiprocessor.
    const SLICE_THREADS: u32 = 512;
    const SLICE_BYTES: usize = 76_032;

    pub(super) fn rows(gpu: &Gpu, rows: &Rows, logits: &Tensor, dlogits: Option<&Tensor>) -> Result<()> {
        let (count, vocab) = (logits.rows(), logits.cols());
        let targets = on_gpu(rows.targets)?;
        let elem = dlogits.unwrap_or(logits).dtype();
        let kernel = if elem == logits.dtype() { "cross_entropy_in_place" } else { "cross_entropy_rows" };
        let mut spans = vec![(logits, 0)];
        spans.extend(dlogits.map(|dlogits| (dlogits, 0)));
        let mut args = vec![
            ptr(logits),
            dlogits.map_or(Arg::Ptr(0), ptr),
            ptr(&rows.losses),
            Arg::Ptr(targets.ids() + 4 * rows.first as u64),
            Arg::Ptr(targets.unmasked()),
            int(vocab),
        ];
        let whole = lane(logits.dtype(), vocab, &spans);
        if let Some(blocks_of_row) = cluster(gpu, vocab * logits.dtype().size()).filter(|_| whole > 1) {
            let shared = (vocab / whole).div_ceil(blocks_of_row) * 16;
            let grid = [blocks(count * blocks_of_row, 1), 1, 1];
            let kernel = format!("{kernel}_{blocks_of_row}");
            return gpu.launch(&SOURCE, elem, &kernel, grid, [SLICE_THREADS, 1, 1], shared, &args);
        }
        let lane = lane_of_four(vocab, &spans);
        let room = (gpu.shared_memory_per_block() - RESERVED) / 16 * 4;
        let cached = if dlogits.is_some() { vocab.min(room) } else { 0 };
        let threads = vocab.div_ceil(4).next_multiple_of(32).min(1024);
        args.extend([int(cached), flag(lane > 1)]);
        let grid = [blocks(count, 1), 1, 1];
        gpu.launch(&SOURCE, elem, kernel, grid, [threads as u32, 1, 1], 4 * cached, &args)
    }

    /// Blocks of a cluster that hold a row of so many bytes between them, where clusters are to be had: none for a row
    /// that one block could hold.
    fn cluster(gpu: &Gpu, bytes: usize) -> Option<usize> {
        let count = bytes.div_ceil(SLICE_BYTES).next_power_of_two();
        (gpu.compute_capability().0 >= 9 && (2..=8).contains(&count)).then_some(count)
    }

    pub(super) fn mean(gpu: &Gpu, mean: &Tensor, losses: &Tensor, targets: &Tokens) -> Result<()> {
        let unmasked = Arg::Ptr(on_gpu(targets)?.unmasked());
        let args = [ptr(losses), ptr(mean), unmasked, long(losses.numel())];
        gpu.launch(&SOURCE, DType::F32, "cross_entropy_mean", [1, 1, 1], [1024, 1, 1], 0, &args)
    }

    fn on_gpu(targets: &Tokens) -> Result<&OnGpu> {
        let apart = || Error::shape("cross_entropy", "the targets are on the CPU, the logits on a GPU");
        targets.on_gpu.as_ref().ok_or_else(apart)
    }
}
