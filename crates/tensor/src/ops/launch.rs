//! What the launches of kernels have in common: arguments, 16-byte access, grids.

use crate::cuda::{Arg, Gpu, Source};
use crate::{DType, Result, Tensor};

/// Warps, and so rows at a time, of a block of 32 x 8 threads.
pub(super) const WARPS: usize = 8;

/// Shared memory for one f32 row a warp: as much as lets two blocks share a multiprocessor.
const ROWS_BYTES: usize = 96 << 10;

/// A tensor that is read, or written, as a whole.
pub(super) fn ptr(tensor: &Tensor) -> Arg {
    target(tensor, false)
}

/// A tensor that is written; read before where it is added to.
pub(super) fn target(tensor: &Tensor, add: bool) -> Arg {
    let bytes = tensor.numel() * tensor.dtype().size();
    Arg::Span(tensor.ptr(), (bytes * if add { 2 } else { 1 }) as u64)
}

/// Address of the first element of what may be missing.
pub(super) fn ptr_or_null(tensor: Option<&Tensor>) -> Arg {
    tensor.map_or(Arg::Ptr(0), ptr)
}

/// Address of a column of the first row.
pub(super) fn column(tensor: &Tensor, start: usize) -> Arg {
    Arg::Ptr(address(tensor, start))
}

/// The same, of which `width` columns are read, or written, in every row.
pub(super) fn columns(tensor: &Tensor, start: usize, width: usize) -> Arg {
    some_rows(tensor, start, (tensor.rows(), width))
}

/// The same in so many rows, whichever they are.
pub(super) fn some_rows(tensor: &Tensor, start: usize, (rows, width): (usize, usize)) -> Arg {
    Arg::Span(address(tensor, start), (rows * width * tensor.dtype().size()) as u64)
}

/// `long long`: counts and strides.
pub(super) fn long(size: usize) -> Arg {
    Arg::I64(size as i64)
}

/// `int`: the length of a row, a position in it.
pub(super) fn int(size: usize) -> Arg {
    Arg::I32(i32::try_from(size).expect("a row is shorter than 2^31"))
}

/// `int`: 0 or 1.
pub(super) fn flag(set: bool) -> Arg {
    Arg::I32(i32::from(set))
}

/// How many elements in a row one lane has: 16 bytes of `elem` where each row of `width` elements, from the given
/// column of each tensor, consists of such pieces and is aligned to them, else 1.
pub(super) fn lane(elem: DType, width: usize, spans: &[(&Tensor, usize)]) -> usize {
    pieces(16 / elem.size(), width, spans)
}

/// As [`lane`] with four elements, whatever they take.
pub(super) fn lane_of_four(width: usize, spans: &[(&Tensor, usize)]) -> usize {
    pieces(4, width, spans)
}

/// The name of a kernel that there is for a residual stream in f32 and, with `_low`, for one in bf16.
pub(super) fn of_stream(kernel: &str, stream: &Tensor) -> String {
    let low = if stream.dtype() == DType::BF16 { "_low" } else { "" };
    format!("{kernel}{low}")
}

/// Blocks along an axis of the grid.
pub(super) fn blocks(count: usize, per_block: usize) -> u32 {
    u32::try_from(count.div_ceil(per_block)).expect("a grid has fewer than 2^32 blocks")
}

/// A grid over a matrix whose blocks have `rows_each` rows by 32 lanes, and go on to further rows beyond `most` of
/// them.
pub(super) fn tiles(rows: usize, rows_each: usize, most: u32, width: usize, lane: usize) -> [u32; 3] {
    [blocks(width, 32 * lane), blocks(rows, rows_each).min(most), 1]
}

/// Most blocks on a grid's second axis.
pub(super) const AXIS: u32 = 65_535;

/// Warps of a block that keeps one f32 row a warp in shared memory, and the bytes of that.
pub(super) fn row_warps(width: usize) -> (usize, usize) {
    let warps = (ROWS_BYTES / (4 * width)).clamp(1, WARPS);
    (warps, 4 * width * warps)
}

/// Blocks of a kernel that sums over rows: two rows a warp, more where there would be more than 512 partial sums.
pub(super) fn summing_blocks(rows: usize, warps: usize) -> u32 {
    blocks(rows, 2 * warps).min(512)
}

/// Launches a kernel whose threads have 16 bytes of `elem` each.
pub(super) fn flat(
    gpu: &Gpu,
    source: &Source,
    elem: DType,
    kernel: &str,
    count: usize,
    args: &[Arg],
) -> Result<()> {
    let grid = [blocks(count, 256 * 16 / elem.size()), 1, 1];
    gpu.launch(source, elem, kernel, grid, [256, 1, 1], 0, args)
}

fn address(tensor: &Tensor, start: usize) -> u64 {
    tensor.ptr() + (start * tensor.dtype().size()) as u64
}

/// `length` where rows consist of pieces of so many elements, aligned to them or to 16 bytes, else 1.
fn pieces(length: usize, width: usize, spans: &[(&Tensor, usize)]) -> usize {
    let aligned = |&(tensor, start): &(&Tensor, usize)| {
        let bytes = (length * tensor.dtype().size()).min(16);
        address(tensor, start).is_multiple_of(bytes as u64)
            && (tensor.cols() * tensor.dtype().size()).is_multiple_of(bytes)
    };
    if width.is_multiple_of(length) && spans.iter().all(aligned) { length } else { 1 }
}
