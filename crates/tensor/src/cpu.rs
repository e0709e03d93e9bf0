//! What CPU operations are made of: matrix products, parallel loops over rows, and loops that the compiler
//! vectorises for the widest instruction set of the machine it finds at run time.

use faer::linalg::matmul::matmul as product;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Runs `f` with AVX-512, AVX2 or whatever else this CPU has switched on for the code inlined into it.
///
/// Only inlined code profits: `f` and the functions it calls must be `#[inline(always)]`. Where that is forgotten,
/// `mul_add` becomes a call of a software routine and the loop is a hundred times slower.
#[inline(always)]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    struct Run<F>(F);
    impl<R, F: FnOnce() -> R> pulp::WithSimd for Run<F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Run(f))
}

/// A row-major matrix in a slice: `rows x cols`, `stride` elements from row to row.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    stride: usize,
    transposed: bool,
}

impl<'a> Mat<'a> {
    /// A contiguous matrix.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Mat::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows are `stride` elements apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        Mat { data, rows, cols, stride, transposed: false }
    }

    /// Its transpose.
    pub fn t(self) -> Self {
        Mat { transposed: !self.transposed, ..self }
    }

    fn view(&self) -> MatRef<'a, f32> {
        let m = MatRef::from_row_major_slice_with_stride(self.data, self.rows, self.cols, self.stride);
        if self.transposed { m.transpose() } else { m }
    }
}

/// `c [m, n] = (c or 0) + alpha a b`, `c` contiguous, on the calling thread.
pub fn matmul_seq(c: &mut [f32], accumulate: bool, alpha: f32, a: Mat, b: Mat) {
    multiply(c, accumulate, alpha, a.view(), b.view());
}

fn multiply(c: &mut [f32], accumulate: bool, alpha: f32, a: MatRef<f32>, b: MatRef<f32>) {
    let c = MatMut::from_row_major_slice_mut(c, a.nrows(), b.ncols());
    product(c, if accumulate { Accum::Add } else { Accum::Replace }, a, b, alpha, Par::Seq);
    clear_vector_state();
}

/// Clears the upper halves of the vector registers, which faer's kernels leave dirty: until then every SSE
/// instruction on this thread (those of libm, of code outside [`simd`]) waits for them and is up to 35 times slower.
pub fn clear_vector_state() {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx")]
        fn zero_upper() {
            std::arch::x86_64::_mm256_zeroupper();
        }
        if is_x86_feature_detected!("avx") {
            // SAFETY: the CPU has AVX.
            unsafe { zero_upper() }
        }
    }
}

/// [`matmul_seq`] with the rows of `c` shared among all cores. Each entry is summed in one order whatever the
/// number of cores.
pub fn matmul(c: &mut [f32], accumulate: bool, alpha: f32, a: Mat, b: Mat) {
    rows(c, accumulate, alpha, a.view(), b.view());
}

fn rows(c: &mut [f32], accumulate: bool, alpha: f32, a: MatRef<f32>, b: MatRef<f32>) {
    let (m, n) = (a.nrows(), b.ncols());
    let block = m.div_ceil(rayon::current_num_threads()).next_multiple_of(16).max(16);
    c[..m * n].par_chunks_mut(block * n).enumerate().for_each(|(i, c)| {
        let rows = c.len() / n;
        let a = a.subrows(i * block, rows);
        multiply(c, accumulate, alpha, a, b);
    });
}

/// Rows of a panel of [`matmul_symmetric`].
const PANEL: usize = 96;

/// `c [r, r] = (c or 0) + alpha a b`, of which it is known that it is symmetric: panels of rows are computed up to their
/// diagonal block (small matrices as a whole, which is faster), the rest is mirrored. Each entry is summed in one order whatever the number of cores.
pub fn matmul_symmetric(c: &mut [f32], accumulate: bool, alpha: f32, a: Mat, b: Mat) {
    let (a, b) = (a.view(), b.view());
    let r = a.nrows();
    if r < 2 * PANEL {
        rows(c, accumulate, alpha, a, b);
        mirror(&mut c[..r * r], r, 0);
        return;
    }
    // Long panels first, so that none is left over at the end.
    c[..r * r].par_chunks_mut(PANEL * r).enumerate().rev().for_each(|(i, c)| {
        let (first, rows) = (i * PANEL, c.len() / r);
        let width = first + rows;
        let accumulate = if accumulate { Accum::Add } else { Accum::Replace };
        // faer 0.24 mistakes the strides of a row-major mutable view, so it is made as the transpose of its transpose.
        let c = MatMut::from_column_major_slice_with_stride_mut(c, width, rows, r).transpose_mut();
        product(c, accumulate, a.subrows(first, rows), b.subcols(0, width), alpha, Par::Seq);
        clear_vector_state();
    });
    mirror(&mut c[..r * r], r, 0);
}

/// Copies the lower triangle of `c`, rows of length `r` of which the first is row `first`, over the upper one, as far as
/// the rows reach: halves by themselves, then the square between them, tile by tile.
fn mirror(c: &mut [f32], r: usize, first: usize) {
    const TILE: usize = 32;
    let rows = c.len() / r;
    if rows <= TILE {
        for i in 0..rows {
            for j in 0..i {
                c[j * r + first + i] = c[i * r + first + j];
            }
        }
        return;
    }
    let half = (rows / 2).next_multiple_of(TILE);
    let (above, below) = c.split_at_mut(half * r);
    above.par_chunks_mut(TILE * r).enumerate().for_each(|(block, above)| {
        for tile in (0..rows - half).step_by(TILE) {
            for (j, row) in above.chunks_exact_mut(r).enumerate() {
                let from = first + block * TILE + j;
                for i in tile..(tile + TILE).min(rows - half) {
                    row[first + half + i] = below[i * r + from];
                }
            }
        }
    });
    rayon::join(|| mirror(above, r, first), || mirror(below, r, first + half));
}

/// Rows handled by one task of a loop over rows: fixed, so that partial sums do not depend on the machine.
pub const ROW_BLOCK: usize = 64;

/// Calls `f(first_row, rows)` for blocks of [`ROW_BLOCK`] rows of `outs` (slices with their widths), in parallel.
///
/// Closures given to this and its neighbour carry `#[inline(always)]`, so that their loops are compiled for the
/// instruction set that [`simd`] picks.
#[inline(always)]
pub fn for_row_blocks<const N: usize>(
    outs: [(&mut [f32], usize); N],
    f: impl Fn(usize, [&mut [f32]; N]) + Sync,
) {
    blocks(outs).into_par_iter().enumerate().for_each(|(i, rows)| {
        simd(
            #[inline(always)]
            || f(i * ROW_BLOCK, rows),
        );
    });
}

/// As [`for_row_blocks`]; each block also sums into its own zeroed `partial` as long as `total`, and the partial
/// sums are then added up in order into `total` (overwritten, or added to).
#[inline(always)]
pub fn for_row_blocks_summing<const N: usize>(
    outs: [(&mut [f32], usize); N],
    (total, accumulate): (&mut [f32], bool),
    f: impl Fn(usize, [&mut [f32]; N], &mut [f32]) + Sync,
) {
    let blocks = blocks(outs);
    let mut partial = vec![0.0; blocks.len() * total.len()];
    blocks.into_par_iter().zip(partial.par_chunks_mut(total.len())).enumerate().for_each(
        |(i, (rows, partial))| {
            simd(
                #[inline(always)]
                || f(i * ROW_BLOCK, rows, partial),
            );
        },
    );
    if !accumulate {
        total.fill(0.0);
    }
    for part in partial.chunks_exact(total.len()) {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
}

fn blocks<const N: usize>(outs: [(&mut [f32], usize); N]) -> Vec<[&mut [f32]; N]> {
    let count = outs[0].0.len().div_ceil(ROW_BLOCK * outs[0].1);
    let mut chunks = outs.map(|(out, width)| out.chunks_mut(ROW_BLOCK * width));
    (0..count).map(|_| chunks.each_mut().map(|c| c.next().expect("outputs have equally many rows"))).collect()
}

/// Sum of `f(a_i, b_i)` in sixteen interleaved lanes.
#[inline(always)]
pub fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (xs, ys) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(&x, &y)| f(x, y)).sum();
    for (x, y) in xs.zip(ys) {
        for i in 0..16 {
            lanes[i] += f(x[i], y[i]);
        }
    }
    tail + lanes.iter().sum::<f32>()
}

/// Dot product.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum2(
        a,
        b,
        #[inline(always)]
        |x, y| x * y,
    )
}

/// `e^x` by range reduction and a polynomial of degree 6: relative error below 2e-7 within -87.3..=88.3, constant
/// beyond, and nothing that keeps a loop from being vectorised.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, so that the remainder keeps all its digits.
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.0 / 720.0;
    let p = r.mul_add(p, 1.0 / 120.0);
    let p = r.mul_add(p, 1.0 / 24.0);
    let p = r.mul_add(p, 1.0 / 6.0);
    let p = r.mul_add(p, 0.5);
    let p = r.mul_add(p, 1.0);
    let p = r.mul_add(p, 1.0);
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    p * f32::from_bits(exponent << 23)
}

/// Logistic function.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `ln(1 + e^x)`, `x` itself where the exponential would overflow (above 20, as PyTorch does).
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { exp(x).ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symmetric_products_stay_within_their_matrix() {
        for (r, k) in
            [(1, 7), (5, 5), (16, 7), (34, 34), (96, 7), (97, 9), (130, 130), (130, 200), (200, 200)]
        {
            let x: Vec<f32> = (0..r * k).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
            for accumulate in [false, true] {
                let mut c = vec![1.0f32; r * r + 4096];
                let x = Mat::new(&x, r, k);
                matmul_symmetric(&mut c[..r * r], accumulate, 0.5, x, x.t());
                let mut want = vec![1.0f32; r * r];
                matmul(&mut want, accumulate, 0.5, x, x.t());
                let beyond = c[r * r..].iter().position(|x| x.to_bits() != 1f32.to_bits());
                assert_eq!(beyond, None, "{r} {accumulate}");
                let off = c.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 1e-4, "{r} {k} {accumulate}: off by {off}");
            }
        }
    }
}
