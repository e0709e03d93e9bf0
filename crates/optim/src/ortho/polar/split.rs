//! The exact polar factor on a GPU: f32 results from products of half-precision numbers on the tensor cores.
//!
//! A float times a power of two is split into `high + low`, two numbers of half precision, which hold 22 of its 24 bits.
//! A product is `high low + low high + high high`, in this order in one go along a row three times as long. Of a Gram
//! matrix `X X^T = P + P^T` with `P = high (low + high / 2)^T`, two products suffice. The last step multiplies a small
//! matrix, `Q - I`, for which half precision is enough, and adds the product to `X` in f32.
//!
//! Tensor cores truncate as they add up: a sum of k terms comes out too small by up to about `k 2^-28` of itself. Hence
//! the small terms first, and long sums in pieces, which are added up in f32.
//!
//! Every step makes X and R anew. What a Q rounds away turns the singular vectors by up to its largest entry times that,
//! so the product of several Qs, as on the CPU, would turn them further than tensor cores allow.

use std::sync::Arc;

use tensor::cuda::{Arg, Gemm, Gpu, Operand};
use tensor::{DType, Device, Tensor};

use super::Iterate;
use super::schedule::PURIFY;
use crate::error::Result;
use crate::ortho::kernels::{self, SOURCE, launch, parts};

/// What entries of X are multiplied by before they are split: they are at most about 1.
const X_SCALE: f32 = 4096.0;
/// What entries of the small matrices are multiplied by: they are below 200.
const SQUARE_SCALE: f32 = 256.0;
/// The same for the one product in half precision, of entries below 1.
const HALF_SCALE: f32 = 4096.0;
/// Terms of a Gram matrix that tensor cores add up before f32 takes over.
const LONGEST: usize = 1024;

/// A bank under iteration.
pub(super) struct Bank {
    gpu: Arc<Gpu>,
    device: Device,
    /// Members, rows, columns, and the smaller of the two.
    sizes: [usize; 4],
    /// X; not written before the first step ends.
    x: Tensor,
    /// X as low, high, high: `[L, 3 m, n]` wide, `[L, m, 3 n]` tall.
    x_split: Tensor,
    r: Square,
    z: Square,
    /// Sums over parts of squares of R, and of R - I.
    sums: [Tensor; 2],
    /// Until the first step: `[L]`, what R and X are to be multiplied by; Z is R^2 then.
    start: Option<[Tensor; 2]>,
}

/// One small matrix for each member.
struct Square {
    /// `[L, r, r]`.
    value: Tensor,
    /// High, low, high, high: `[L, r, 4 r]`.
    split: Tensor,
}

impl Bank {
    /// Splits, scales and takes the Gram matrix.
    pub(super) fn new(gpu: &Arc<Gpu>, input: &Tensor) -> Result<Self> {
        let [l, m, n] = [0, 1, 2].map(|i| input.shape()[i]);
        let (rank, device) = (m.min(n), input.device().clone());
        let square = || -> Result<Square> {
            Ok(Square {
                value: device.empty(&[l, rank, rank], DType::F32)?,
                split: device.empty(&[l, rank, 4 * rank], DType::F16)?,
            })
        };
        let tiles = rank.div_ceil(32).pow(2);
        let sums = || device.empty(&[l, tiles], DType::F32);
        let mut bank = Bank {
            gpu: Arc::clone(gpu),
            sizes: [l, m, n, rank],
            x: device.empty(&[l, m, n], DType::F32)?,
            x_split: device.empty(&[l, 3, m * n], DType::F16)?,
            r: square()?,
            z: square()?,
            sums: [sums()?, sums()?],
            start: None,
            device: device.clone(),
        };
        bank.split_x(input, Some(&kernels::part_maxima(gpu, input)?))?;
        bank.gram(false)?;
        bank.scale_start()?;
        Ok(bank)
    }

    /// X.
    pub(super) fn into_factor(self) -> Tensor {
        self.x
    }

    /// Scales R to norm 1, squares it, and tells by what R and X are to be multiplied so that the largest eigenvalue of R
    /// lies in `[r^(-1/4), 1]`.
    fn scale_start(&mut self) -> Result<()> {
        let [l, ..] = self.sizes;
        let vector = || self.device.empty(&[l], DType::F32);
        let (first, second, by, for_x) = (vector()?, vector()?, vector()?, vector()?);
        let members = Arg::I32(l as i32);
        let one = |kernel: &str, args: &[Arg]| launch(&self.gpu, DType::F32, kernel, [1, 1], args);
        self.norms(&self.sums[0], &first)?;
        one("first_scales", &[Arg::Ptr(first.ptr()), Arg::Ptr(by.ptr()), members])?;
        self.split(&self.r.value, Some(&by), Some(&self.r.value), &self.r.split)?;
        self.product(&self.z.value, 1.0, &self.r, &self.r, 0.0, &self.r.value)?;
        self.square_norms(&self.z.value, &self.z.value, &second)?;
        let vectors = [&first, &second, &by, &for_x].map(|t| Arg::Ptr(t.ptr()));
        one("second_scales", &[&vectors[..], &[members]].concat())?;
        self.start = Some([by, for_x]);
        Ok(())
    }

    fn wide(&self) -> bool {
        self.sizes[1] <= self.sizes[2]
    }

    fn split_x(&self, x: &Tensor, maxima: Option<&Tensor>) -> Result<()> {
        let [l, m, n, _] = self.sizes;
        let tall = !self.wide();
        let vec = if tall { n.is_multiple_of(8) } else { (m * n).is_multiple_of(8) };
        let args = [
            Arg::Ptr(x.ptr()),
            Arg::Ptr(self.x_split.ptr()),
            Arg::I32(m as i32),
            Arg::I32(n as i32),
            Arg::I32(tall.into()),
            Arg::F32(X_SCALE),
            Arg::Ptr(maxima.map_or(0, Tensor::ptr)),
            Arg::I32(maxima.map_or(0, |t| t.shape()[1]) as i32),
            Arg::I32(vec.into()),
        ];
        launch(&self.gpu, DType::F32, "split_matrix", [parts(m * n), l], &args)
    }

    /// `src` times the factors of the members, in f32 into `copy` and split into `halves`.
    fn split(&self, src: &Tensor, by: Option<&Tensor>, copy: Option<&Tensor>, halves: &Tensor) -> Result<()> {
        let [l, _, _, rank] = self.sizes;
        let pointer = |t: Option<&Tensor>| Arg::Ptr(t.map_or(0, Tensor::ptr));
        let args = [
            Arg::Ptr(src.ptr()),
            Arg::I32(rank as i32),
            pointer(by),
            pointer(copy),
            Arg::Ptr(halves.ptr()),
            Arg::F32(SQUARE_SCALE),
            Arg::I32(rank.is_multiple_of(8).into()),
        ];
        launch(&self.gpu, DType::F32, "split_square", [parts(rank * rank), l], &args)
    }

    /// Q of the first step, split into Z.
    fn split_first(&self, [by, for_x]: &[Tensor; 2], steps: [f32; 3]) -> Result<()> {
        let [l, _, _, rank] = self.sizes;
        let squares = [&self.r.value, &self.z.value].map(|t| Arg::Ptr(t.ptr()));
        let vectors = [by, for_x].map(|t| Arg::Ptr(t.ptr()));
        let rest =
            [Arg::Ptr(self.z.split.ptr()), Arg::F32(SQUARE_SCALE), Arg::I32(rank.is_multiple_of(8).into())];
        let args = [&squares[..], &[Arg::I32(rank as i32)], &vectors, &steps.map(Arg::F32), &rest].concat();
        launch(&self.gpu, DType::F32, "split_first", [parts(rank * rank), l], &args)
    }

    /// `src + a I` times [`HALF_SCALE`] in half precision `[L, r, r]`, and in f32 into `copy`.
    fn halve(&self, src: &Tensor, diagonal: f32, copy: Option<&Tensor>) -> Result<Tensor> {
        let [l, _, _, rank] = self.sizes;
        let halves = self.device.empty(&[l, rank, rank], DType::F16)?;
        let args = [
            Arg::Ptr(src.ptr()),
            Arg::I32(rank as i32),
            Arg::F32(diagonal),
            Arg::Ptr(copy.map_or(0, Tensor::ptr)),
            Arg::Ptr(halves.ptr()),
            Arg::F32(HALF_SCALE),
        ];
        launch(&self.gpu, DType::F32, "half_square", [parts(rank * rank), l], &args)?;
        Ok(halves)
    }

    /// R of X, with its sums of squares; also split, where X is at its scale.
    fn gram(&self, split: bool) -> Result<()> {
        let [l, m, n, rank] = self.sizes;
        let (low, high) = (self.x_block(0), self.x_block(1));
        let (k, turned) = if self.wide() { (n, false) } else { (m, true) };
        // From one of the summed columns (wide) or rows (tall) to the next.
        let step = 2 * if self.wide() { 1 } else { high.ld } as u64;
        let p = self.square_operand(&self.z.value);
        let scale = 1.0 / (X_SCALE * X_SCALE);
        let add = |alpha: f32, b: Operand, from: usize, k: usize, beta: f32| {
            let at = |o: Operand, transposed| Operand { ptr: o.ptr + from as u64 * step, transposed, ..o };
            let (a, b) = (at(high, turned), at(b, !turned));
            let gemm = Gemm { m: rank, n: rank, k, alpha, beta, a, b, c: p, batch: l };
            self.gpu.gemm_plus(&gemm, p)
        };
        add(scale, low, 0, k, 0.0)?;
        for from in (0..k).step_by(LONGEST) {
            add(0.5 * scale, high, from, LONGEST.min(k - from), 1.0)?;
        }
        let tiles = rank.div_ceil(32) as u32;
        let args = [&self.z.value, &self.r.value].map(|t| Arg::Ptr(t.ptr()));
        let sums = [&self.sums[0], &self.sums[1]].map(|t| Arg::Ptr(t.ptr()));
        let halves = if split { self.r.split.ptr() } else { 0 };
        let rest = [Arg::Ptr(halves), Arg::F32(SQUARE_SCALE)];
        let args = [&args[..], &[Arg::I32(rank as i32)], &sums, &rest].concat();
        let grid = [tiles, tiles, l as u32];
        Ok(self.gpu.launch(&SOURCE, DType::F32, "fold", grid, [32, 8, 1], 0, &args)?)
    }

    /// One of the blocks of the split X, as it is stored.
    fn x_block(&self, block: usize) -> Operand {
        let [_, m, n, _] = self.sizes;
        let (ld, first) = if self.wide() { (n, block * m * n) } else { (3 * n, block * n) };
        Operand {
            ptr: self.x_split.ptr() + 2 * first as u64,
            ld,
            stride: 3 * m * n,
            transposed: false,
            dtype: DType::F16,
        }
    }

    fn square_operand(&self, t: &Tensor) -> Operand {
        let rank = self.sizes[3];
        Operand { ptr: t.ptr(), ld: rank, stride: rank * rank, transposed: false, dtype: t.dtype() }
    }

    /// High, low, high (block 0) or low, high, high (block 1) of a small matrix: `[r, 3 r]`.
    fn split_operand(&self, split: &Tensor, block: usize) -> Operand {
        let rank = self.sizes[3];
        Operand {
            ptr: split.ptr() + 2 * (block * rank) as u64,
            ld: 4 * rank,
            stride: 4 * rank * rank,
            transposed: false,
            dtype: DType::F16,
        }
    }

    /// `d = alpha a b + beta c` of small symmetric matrices.
    fn product(&self, d: &Tensor, alpha: f32, a: &Square, b: &Square, beta: f32, c: &Tensor) -> Result<()> {
        let [l, _, _, rank] = self.sizes;
        let gemm = Gemm {
            m: rank,
            n: rank,
            k: 3 * rank,
            alpha: alpha / (SQUARE_SCALE * SQUARE_SCALE),
            beta,
            a: self.split_operand(&a.split, 0),
            b: Operand { transposed: true, ..self.split_operand(&b.split, 1) },
            c: self.square_operand(d),
            batch: l,
        };
        Ok(self.gpu.gemm_plus(&gemm, self.square_operand(c))?)
    }

    /// `X = Q X + a X`, and its Gram matrix.
    fn apply(&mut self, q: &Tensor, a: f32) -> Result<()> {
        let [l, m, n, rank] = self.sizes;
        // Until the first step X is known as split alone.
        let next = self.device.empty(self.x.shape(), DType::F32)?;
        let whole =
            |t: &Tensor| Operand { ptr: t.ptr(), ld: n, stride: m * n, transposed: false, dtype: DType::F32 };
        let (q, halves) = (self.split_operand(q, 0), self.x_block(0));
        // Wide: [high low high] [low; high; high]. Tall: [low high high] [high low high]^T, Q being symmetric.
        let (left, right) =
            if self.wide() { (q, halves) } else { (halves, Operand { transposed: true, ..q }) };
        let (alpha, c) = (1.0 / (X_SCALE * SQUARE_SCALE), whole(&next));
        let gemm = Gemm { m, n, k: 3 * rank, alpha, beta: a, a: left, b: right, c, batch: l };
        self.gpu.gemm_plus(&gemm, if a == 0.0 { c } else { whole(&self.x) })?;
        self.x = next;
        self.split_x(&self.x, None)?;
        self.gram(true)
    }

    fn norms(&self, sums: &Tensor, to: &Tensor) -> Result<()> {
        let (members, parts) = (sums.shape()[0] as u32, sums.shape()[1]);
        let args = [Arg::Ptr(sums.ptr()), Arg::I32(parts as i32), Arg::Ptr(to.ptr())];
        Ok(self.gpu.launch(&SOURCE, DType::F32, "norms", [1, members, 1], [32, 1, 1], 0, &args)?)
    }

    /// `norm_F(a - b)` of each member, or `norm_F(a)` where both are one.
    fn square_norms(&self, a: &Tensor, b: &Tensor, to: &Tensor) -> Result<()> {
        let [l, _, _, rank] = self.sizes;
        let sums = self.device.empty(&[l, parts(rank * rank)], DType::F32)?;
        let pointers = [a.ptr(), b.ptr()].map(Arg::Ptr);
        let args = [&pointers[..], &[Arg::I64((rank * rank) as i64), Arg::Ptr(sums.ptr())]].concat();
        launch(&self.gpu, DType::F32, "squares", [parts(rank * rank), l], &args)?;
        self.norms(&sums, to)
    }
}

impl Iterate for Bank {
    fn steps(&mut self, steps: &[[f64; 3]]) -> Result<()> {
        for [a, b, c] in steps.iter().map(|k| k.map(|k| k as f32)) {
            let q = self.z.split.clone();
            if let Some(start) = self.start.take() {
                self.split_first(&start, [a, b, c])?;
                self.apply(&q, 0.0)?;
            } else {
                self.product(&self.z.value, c, &self.r, &self.r, b, &self.r.value)?;
                self.split(&self.z.value, None, None, &q)?;
                self.apply(&q, a)?;
            }
        }
        Ok(())
    }

    fn distances(&mut self) -> Result<Vec<f64>> {
        let norms = self.device.empty(&[2, self.sizes[0]], DType::F32)?;
        self.norms(&self.sums[0], &norms.slot(0))?;
        self.norms(&self.sums[1], &norms.slot(1))?;
        let norms = norms.to_vec()?;
        let (norms, off) = norms.split_at(self.sizes[0]);
        Ok(norms.iter().zip(off).map(|(&norm, &off)| if norm == 0.0 { 0.0 } else { off.into() }).collect())
    }

    fn polish(&mut self) -> Result<()> {
        let [l, m, n, rank] = self.sizes;
        // E replaces R, (Q - I) = 3/8 E^2 - 1/2 E goes to Z.
        let e = self.halve(&self.r.value, -1.0, Some(&self.r.value))?;
        let (e, z) = (self.square_operand(&e), self.square_operand(&self.z.value));
        let alpha = 0.375 / (HALF_SCALE * HALF_SCALE);
        let gemm = Gemm { m: rank, n: rank, k: rank, alpha, beta: -0.5, a: e, b: e, c: z, batch: l };
        self.gpu.gemm_plus(&gemm, self.square_operand(&self.r.value))?;
        let q = self.halve(&self.z.value, 0.0, None)?;
        let (q, high) = (self.square_operand(&q), self.x_block(1));
        let (a, b) = if self.wide() { (q, high) } else { (high, q) };
        let x = Operand { ptr: self.x.ptr(), ld: n, stride: m * n, transposed: false, dtype: DType::F32 };
        let alpha = 1.0 / (HALF_SCALE * X_SCALE);
        Ok(self.gpu.gemm_plus(&Gemm { m, n, k: rank, alpha, beta: 1.0, a, b, c: x, batch: l }, x)?)
    }

    fn purify(&mut self) -> Result<Vec<f64>> {
        let [_, b, c] = PURIFY;
        self.product(&self.z.value, c as f32, &self.r, &self.r, b as f32, &self.r.value)?;
        // Z = b R + c R^2 with b + c = 1, so Z - R = c (R^2 - R).
        let off = self.device.empty(&[self.sizes[0]], DType::F32)?;
        self.square_norms(&self.z.value, &self.r.value, &off)?;
        let q = self.z.split.clone();
        self.split(&self.z.value, None, None, &q)?;
        self.apply(&q, 0.0)?;
        Ok(off.to_vec()?.into_iter().map(|off| f64::from(off) / -c).collect())
    }

    fn rank(&self) -> usize {
        self.sizes[3]
    }
}
