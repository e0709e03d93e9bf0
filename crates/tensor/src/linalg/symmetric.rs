//! Symmetric products: on an H100's tensor cores little more than half of the work where sizes suit that, else whole
//! products; and what becomes of them before they are rounded.

use std::sync::atomic::{AtomicBool, Ordering};

use super::product::{self, Factor, dims};
use super::transpose;
use crate::cuda::{Arg, CLUSTER_SHARED, CLUSTER_THREADS, Gemm, Gpu, Operand, Source, TensorMap};
use crate::{DType, Device, Error, Result, Tensor};

pub(crate) static SOURCE: Source = Source { name: "symmetric.cu", text: include_str!("symmetric.cu") };

/// Side of the blocks that `symmetric.cu` computes, each by a cluster.
const SIDE: usize = 256;

/// Whether the next launch goes from the last member to the first. Every other one does: what one left in L2 last, the next
/// takes first (4 to 9 % on an H100). No result depends on it.
static BACK: AtomicBool = AtomicBool::new(false);

/// What a symmetric product becomes, `by^power (.. + diagonal I)`, and who reads it.
#[derive(Clone, Copy, Default)]
pub struct Finish<'a> {
    /// What is added to the diagonal.
    pub diagonal: f32,
    /// A factor of each member, f32 `[L]`, and its power, 1 or 2.
    pub by: Option<(&'a Tensor, i32)>,
    /// Nobody reads the result but symmetric products of its shape and type: as one of two factors, neither transposed, or as
    /// the summand, and with an `alpha` that is not 0. What lies above the diagonal may then be left unwritten.
    pub half: bool,
}

/// As [`affine`](super::affine), where the caller knows that `a b` and `c` are symmetric: `X X^T`, or products of powers
/// of one symmetric matrix. Without `c`, `d = alpha a b`. What is computed once for both sides of the diagonal is
/// symmetric to the bit: all on the CPU, all but blocks of 64 on the diagonal by `symmetric.cu` (unless only half of it is
/// written, see [`Finish::half`]), nothing by cuBLAS.
///
/// In half precision powers of one matrix commute only up to rounding, and iterations can amplify what is lost where a
/// half is taken for the whole: let the factor that is symmetric to the bit be `b`. Of both, what lies above the diagonal
/// may be read from below it.
pub fn symmetric<'a>(
    d: &Tensor,
    alpha: f32,
    a: impl Into<Factor<'a>>,
    b: impl Into<Factor<'a>>,
    summand: Option<(f32, &Tensor)>,
) -> Result<()> {
    symmetric_finished(d, alpha, a, b, summand, Finish::default())
}

/// The same with `finish` at the end, in the same pass where there is a fast one.
pub fn symmetric_finished<'a>(
    d: &Tensor,
    alpha: f32,
    a: impl Into<Factor<'a>>,
    b: impl Into<Factor<'a>>,
    summand: Option<(f32, &Tensor)>,
    finish: Finish,
) -> Result<()> {
    let (a, b) = (a.into(), b.into());
    let (l, r, _) = a.shape();
    let fits = |c: &Tensor| dims(c) == (l, r, r);
    if !fits(d) || a.t().shape() != b.shape() || summand.is_some_and(|(_, c)| !fits(c)) {
        let sizes = format!("{:?} = {:?} x {:?}", dims(d), a.shape(), b.shape());
        return Err(Error::shape("symmetric", sizes));
    }
    match d.device() {
        Device::Cpu => {
            product::symmetric_on_cpu(d, alpha, a, b, summand)?;
            self::finish(d, finish)
        }
        Device::Cuda(gpu) => {
            if suits(gpu, d, alpha, a, b, summand) {
                return blocks(gpu, d, alpha, a, b, summand, finish);
            }
            whole(gpu, d, alpha, a, b, summand)?;
            self::finish(d, finish)
        }
    }
}

/// Whether `symmetric.cu` takes it: the copy engine wants rows that start at multiples of 16 bytes, of a single block
/// nothing is spared, and sums that start from a summand are scaled by `alpha` at the end.
fn suits(gpu: &Gpu, d: &Tensor, alpha: f32, a: Factor, b: Factor, summand: Option<(f32, &Tensor)>) -> bool {
    let (l, r, k) = a.shape();
    let tensors = [Some(d), Some(a.tensor), Some(b.tensor), summand.map(|(_, c)| c)];
    let blocks = r / SIDE;
    gpu.is_hopper()
        && blocks > 1
        && (alpha != 0.0 || summand.is_none())
        && r.is_multiple_of(SIDE)
        && (k.is_multiple_of(8) || a.transposed && !b.transposed)
        && (k == r || a.transposed != b.transposed)
        && (1..1 << 20).contains(&k)
        && l * blocks * (blocks + 1) < 1 << 31
        && tensors.into_iter().flatten().all(|t| t.dtype() == DType::BF16 && t.ptr().is_multiple_of(16))
}

/// By the blocks on and below the diagonal.
fn blocks(
    gpu: &Gpu,
    d: &Tensor,
    alpha: f32,
    a: Factor,
    b: Factor,
    summand: Option<(f32, &Tensor)>,
    finish: Finish,
) -> Result<()> {
    let (l, r, k) = a.shape();
    // Factors that are transposed alike are square and symmetric, so that a half of each is enough.
    let kernel = match (a.transposed, b.transposed) {
        (false, true) => "symmetric",
        (true, false) => "symmetric_turned",
        _ => "symmetric_of_halves",
    };
    let map = |t: &Tensor| {
        let (l, m, n) = dims(t);
        TensorMap::new(t.ptr(), [l, m, n])
    };
    let (beta, c) = match summand {
        Some((beta, c)) => (beta, map(c)?),
        None => (0.0, map(d)?.untouched()),
    };
    let (by, power) = finish.by.map_or((0, 1), |(by, power)| (by.ptr(), power));
    let back = usize::from(BACK.fetch_xor(true, Ordering::Relaxed));
    let numbers = [r, k, l, back, usize::from(finish.half)].map(|size| Arg::I32(size as i32));
    let scalars = [alpha, beta, finish.diagonal].map(Arg::F32);
    let maps = [map(a.tensor)?, map(b.tensor)?, c, map(d)?].map(Arg::Map);
    let args = [&maps[..], &numbers, &scalars, &[Arg::Ptr(by), Arg::I32(power)]].concat();
    let side = r / SIDE;
    let clusters = (l * side * (side + 1) / 2).min(gpu.multiprocessors() as usize / 2);
    gpu.launch(
        &SOURCE,
        DType::BF16,
        kernel,
        [2 * clusters as u32, 1, 1],
        [CLUSTER_THREADS, 1, 1],
        CLUSTER_SHARED,
        &args,
    )
}

/// By cuBLAS.
fn whole(
    gpu: &Gpu,
    d: &Tensor,
    alpha: f32,
    a: Factor,
    b: Factor,
    summand: Option<(f32, &Tensor)>,
) -> Result<()> {
    match summand {
        Some((beta, c)) => product::affine(d, alpha, a, b, beta, c),
        None if worth_halving(a.shape()) => halves(gpu, d, alpha, a, b),
        None => product::matmul(d, false, alpha, a, b),
    }
}

/// Whether a product `[r, k] x [k, r]` by cuBLAS is faster in two panels and a mirrored quarter, three quarters of the
/// work: on an H100 with sums 2.5 times as long as `r`, not with shorter ones.
fn worth_halving((l, r, k): (usize, usize, usize)) -> bool {
    r >= 512 && r.is_multiple_of(64) && 2 * k >= 5 * r && l <= 65_535
}

/// `d = alpha a b`, symmetric: the upper left quarter, the lower half, and the rest mirrored.
fn halves(gpu: &Gpu, d: &Tensor, alpha: f32, a: Factor, b: Factor) -> Result<()> {
    let (l, r, _) = a.shape();
    let (whole, half) = (product::gemm(d, alpha, a, b, 0.0), r / 2);
    gpu.gemm(&Gemm { m: half, n: half, ..whole })?;
    let below = |o: Operand| {
        let step = if o.transposed { 1 } else { o.ld };
        Operand { ptr: o.ptr + (half * step * o.dtype.size()) as u64, ..o }
    };
    gpu.gemm(&Gemm { m: half, a: below(whole.a), c: below(whole.c), ..whole })?;
    transpose::mirror(gpu, d, l, r)
}

/// [`Finish`] in a pass of its own, over `d [L, r, r]`.
pub fn finish(d: &Tensor, finish: Finish) -> Result<()> {
    let (_, _, r) = dims(d);
    match d.device() {
        Device::Cpu => {
            finish_on_cpu(d, r, finish);
            Ok(())
        }
        Device::Cuda(gpu) => finish_on_gpu(gpu, d, r, finish),
    }
}

fn finish_on_cpu(d: &Tensor, r: usize, finish: Finish) {
    let by = finish.by.map(|(by, power)| (by.read(), power));
    if by.is_none() && finish.diagonal == 0.0 {
        return;
    }
    for (i, d) in d.write().chunks_exact_mut(r * r).enumerate() {
        d.iter_mut().step_by(r + 1).for_each(|x| *x += finish.diagonal);
        if let Some((by, power)) = &by {
            let factor = by[i].powi(*power);
            d.iter_mut().for_each(|x| *x *= factor);
        }
    }
}

fn finish_on_gpu(gpu: &Gpu, d: &Tensor, r: usize, finish: Finish) -> Result<()> {
    if finish.by.is_none() && finish.diagonal == 0.0 {
        return Ok(());
    }
    let (by, power) = finish.by.map_or((0, 1), |(by, power)| (by.ptr(), power));
    let args =
        [Arg::Ptr(d.ptr()), Arg::I32(r as i32), Arg::F32(finish.diagonal), Arg::Ptr(by), Arg::I32(power)];
    // Only the diagonal, or all of it.
    let rows = if by == 0 { 1 } else { r };
    let grid = [(rows * r).div_ceil(1024).min(1024) as u32, d.rows() as u32 / r as u32, 1];
    gpu.launch(&SOURCE, d.dtype(), "finish", grid, [256, 1, 1], 0, &args)
}
