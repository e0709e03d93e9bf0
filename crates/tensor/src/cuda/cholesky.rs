//! Orthonormal bases in f64 by Cholesky QR: cuBLAS for products and inverses, cuSOLVER for the factors.
//!
//! `A^T A = R^T R`, `Q = A R^-1`. What is lost grows with the square of the condition number: one pass leaves
//! `norm(Q^T Q - I)` at about 1e-16 cond(A)^2, and a second pass takes what is left of that to 1e-15. cuBLAS is
//! column-major: a row-major A [m, n] is A^T in its eyes, and the R of its upper triangle is the R above.

use std::ffi::{c_int, c_longlong};
use std::sync::Arc;

use cudarc::cublas::sys::{
    self as blas_sys, cublasDiagType_t as Diagonal, cublasFillMode_t as Uplo, cublasHandle_t,
    cublasOperation_t, cublasSideMode_t as Side,
};
use cudarc::cusolver::sys::{self as solver_sys, cublasFillMode_t as Fill};

use super::check;
use super::gemm::int;
use super::gpu::Gpu;
use super::kernels::{Arg, Source};
use super::pool::DeviceBuf;
use crate::device::DType;
use crate::error::{Error, Result};

use cublasOperation_t::{CUBLAS_OP_N as N, CUBLAS_OP_T as T};

/// Most that `norm_F(Q^T Q - I)` may be.
const TOLERANCE: f64 = 1e-6;
/// Passes, after which a matrix counts as rank-deficient.
const PASSES: usize = 3;
/// Random vectors by which the norm of `Q^T Q - I` is estimated.
const PROBES: usize = 4;

/// A column-major product of f64 for each matrix of a batch: `c [m, n] = op(a) op(b)` with inner length `k`.
struct Product {
    ops: [cublasOperation_t; 2],
    sizes: [usize; 3],
    /// Address, leading dimension and distance of a, b and c.
    operands: [(u64, usize, usize); 3],
}

/// The kernels beside the libraries.
pub(crate) static SOURCE: Source = Source { name: "qr.cu", text: include_str!("qr.cu") };

impl Gpu {
    /// Q of the QR decomposition of a bank `[batch, m, n]` of f32 at address `a`, into `q`: see [`Gpu::cholesky_qr`].
    pub(crate) fn qr(self: &Arc<Self>, a: u64, q: u64, batch: usize, m: usize, n: usize) -> Result<()> {
        let count = (batch * m * n) as i64;
        let wide = self.alloc(8 * batch * m * n)?;
        self.elementwise("widen", count, &[Arg::Ptr(a), Arg::Ptr(wide.ptr())])?;
        let basis = self.cholesky_qr(wide, batch, m, n)?;
        self.elementwise("narrow", count, &[Arg::Ptr(basis.ptr()), Arg::Ptr(q)])
    }

    /// Launches a kernel whose last argument is the number of elements.
    fn elementwise(&self, kernel: &str, count: i64, args: &[Arg]) -> Result<()> {
        let grid = [(count as usize).div_ceil(256 * 4).min(1 << 20) as u32, 1, 1];
        let args = [args, &[Arg::I64(count)]].concat();
        self.launch(&SOURCE, DType::F32, kernel, grid, [256, 1, 1], 0, &args)
    }

    /// Orthonormalises the columns of `batch` row-major matrices [m, n] of f64, m >= n, one after the other in `a`; the
    /// diagonal of R is positive.
    ///
    /// Waits for the result. A matrix that is not of full rank, or not finite, is an error.
    fn cholesky_qr(self: &Arc<Self>, a: DeviceBuf, batch: usize, m: usize, n: usize) -> Result<DeviceBuf> {
        let mut a = a;
        for _ in 0..PASSES {
            a = self.cholesky_pass(&a, batch, m, n)?;
            if self.largest_deviation(&a, batch, m, n)? <= TOLERANCE {
                return Ok(a);
            }
        }
        Err(Error::Linalg {
            what: "qr",
            reason: format!("no orthonormal basis after {PASSES} passes: the columns are nearly dependent"),
        })
    }

    fn cholesky_pass(self: &Arc<Self>, a: &DeviceBuf, batch: usize, m: usize, n: usize) -> Result<DeviceBuf> {
        let (square, whole) = (n * n, m * n);
        let factor = self.alloc(8 * batch * square)?;
        let inverse = self.alloc(8 * batch * square)?;
        let q = self.alloc(8 * batch * whole)?;
        let info = self.alloc(4 * batch)?;
        let factors = self.addresses(factor.ptr(), 8 * square, batch)?;
        let inverses = self.addresses(inverse.ptr(), 8 * square, batch)?;
        let at = (a.ptr(), n, whole);
        self.product(
            batch,
            &Product { ops: [N, T], sizes: [n, n, m], operands: [at, at, (factor.ptr(), n, square)] },
        )?;
        self.with_solver(|handle| {
            // SAFETY: `factors` holds `batch` addresses of [n, n] f64 each, `info` that many integers.
            check::cusolver("cusolverDnDpotrfBatched", unsafe {
                solver_sys::cusolverDnDpotrfBatched(
                    handle,
                    Fill::CUBLAS_FILL_MODE_UPPER,
                    int(n)?,
                    factors.ptr() as *mut *mut f64,
                    int(n)?,
                    info.ptr() as *mut c_int,
                    int(batch)?,
                )
            })
        })?;
        let count = (batch * square) as i64;
        self.elementwise("identity", count, &[Arg::Ptr(inverse.ptr()), Arg::I64(n as i64)])?;
        let one = 1.0f64;
        self.with_blas(|handle| {
            // SAFETY: both lists hold `batch` addresses of [n, n] f64; the factor is read in the call.
            check::cublas("cublasDtrsmBatched", unsafe {
                blas_sys::cublasDtrsmBatched(
                    handle,
                    Side::CUBLAS_SIDE_LEFT,
                    Uplo::CUBLAS_FILL_MODE_UPPER,
                    N,
                    Diagonal::CUBLAS_DIAG_NON_UNIT,
                    int(n)?,
                    int(n)?,
                    &raw const one,
                    factors.ptr() as *const *const f64,
                    int(n)?,
                    inverses.ptr() as *const *mut f64,
                    int(n)?,
                    int(batch)?,
                )
            })
        })?;
        // Q^T [n, m] = R^-T A^T.
        self.product(
            batch,
            &Product {
                ops: [T, N],
                sizes: [n, m, n],
                operands: [(inverse.ptr(), n, square), at, (q.ptr(), n, whole)],
            },
        )?;
        self.check_factors(&info, batch)?;
        Ok(q)
    }

    fn check_factors(&self, info: &DeviceBuf, batch: usize) -> Result<()> {
        let mut codes = vec![0; 4 * batch];
        self.download(&mut codes, info.ptr())?;
        let codes = codes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
        match codes.enumerate().find(|(_, code)| *code != 0) {
            None => Ok(()),
            Some((i, code)) => Err(Error::Linalg {
                what: "qr",
                reason: format!(
                    "matrix {i} of the bank: column {code} depends on those before it, or is not finite"
                ),
            }),
        }
    }

    /// An estimate of the largest `norm_F(Q^T Q - I)` of the batch: `E norm(D z)^2 = norm_F(D)^2` for random signs z.
    fn largest_deviation(self: &Arc<Self>, q: &DeviceBuf, batch: usize, m: usize, n: usize) -> Result<f64> {
        let stream = crate::random::Stream::new(0, n as u64);
        let signs: Vec<f64> =
            (0..n * PROBES).map(|i| if stream.uniform(i as u64) < 0.5 { -1.0 } else { 1.0 }).collect();
        let z = self.alloc(8 * n * PROBES)?;
        self.upload(z.ptr(), &signs.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?;
        let image = self.alloc(8 * batch * m * PROBES)?;
        let back = self.alloc(8 * batch * n * PROBES)?;
        let (q, image) = ((q.ptr(), n, m * n), (image.ptr(), m, m * PROBES));
        let first = [q, (z.ptr(), n, 0), image];
        let second = [q, image, (back.ptr(), n, n * PROBES)];
        self.product(batch, &Product { ops: [T, N], sizes: [m, PROBES, n], operands: first })?;
        self.product(batch, &Product { ops: [N, N], sizes: [n, PROBES, m], operands: second })?;
        let mut bytes = vec![0; 8 * batch * n * PROBES];
        self.download(&mut bytes, back.ptr())?;
        let found: Vec<f64> = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        let norm = |found: &[f64]| {
            let square: f64 = found.iter().zip(&signs).map(|(x, z)| (x - z).powi(2)).sum();
            (square / PROBES as f64).sqrt()
        };
        // A NaN must come out as one.
        Ok(found
            .chunks(n * PROBES)
            .map(norm)
            .fold(0.0, |worst: f64, x| if worst.is_nan() || x <= worst { worst } else { x }))
    }

    /// Addresses of `count` matrices that lie `bytes` apart, on the device.
    fn addresses(self: &Arc<Self>, first: u64, bytes: usize, count: usize) -> Result<DeviceBuf> {
        let list = self.alloc(8 * count)?;
        let addresses: Vec<u8> =
            (0..count).flat_map(|i| (first + (bytes * i) as u64).to_le_bytes()).collect();
        self.upload(list.ptr(), &addresses)?;
        Ok(list)
    }

    fn product(&self, batch: usize, product: &Product) -> Result<()> {
        self.with_blas(|handle| product.run(handle, batch))
    }
}

impl Product {
    fn run(&self, handle: cublasHandle_t, batch: usize) -> Result<()> {
        let ([m, n, k], [a, b, c]) = (self.sizes, self.operands);
        let (one, zero) = (1.0f64, 0.0f64);
        // SAFETY: the handle is in host pointer mode; addresses, leading dimensions and distances are those of arrays
        // that the callers above have allocated for these sizes.
        check::cublas("cublasDgemmStridedBatched", unsafe {
            blas_sys::cublasDgemmStridedBatched(
                handle,
                self.ops[0],
                self.ops[1],
                int(m)?,
                int(n)?,
                int(k)?,
                &raw const one,
                a.0 as *const f64,
                int(a.1)?,
                a.2 as c_longlong,
                b.0 as *const f64,
                int(b.1)?,
                b.2 as c_longlong,
                &raw const zero,
                c.0 as *mut f64,
                int(c.1)?,
                c.2 as c_longlong,
                int(batch)?,
            )
        })
    }
}
