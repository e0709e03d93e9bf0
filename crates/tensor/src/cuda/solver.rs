//! Singular value decomposition through cuSOLVER.
//!
//! The method is gesvd (bidiagonalisation and implicit QR), the most accurate of cuSOLVER's in f32; Jacobi and polar
//! methods are faster and stop at a tolerance. It is column-major and wants at least as many rows as columns:
//!
//! - A wide or square row-major A [m, n] is, read column-major, X = A^T with n >= m rows. X = P S Q^T gives
//!   A = Q S P^T; P column-major is P^T row-major, and Q^T column-major is Q row-major: nothing needs to be moved.
//! - A tall A is transposed first, and the factors after.

use std::ffi::{c_int, c_schar};
use std::ptr;
use std::sync::Arc;

use cudarc::cusolver::sys::{self, cusolverDnHandle_t};

use super::check;
use super::gemm::int;
use super::gpu::{Gpu, lock};
use super::libraries;
use super::libraries::Lib;
use super::pool::DeviceBuf;
use crate::error::{Error, Result};

/// A = U diag(S) V^T for each matrix of a batch, with r = min(m, n); all f32, row-major, contiguous.
/// The polar factor of A is U V^T.
#[derive(Debug)]
pub struct Svd {
    /// U [batch, m, r], with orthonormal columns.
    pub u: DeviceBuf,
    /// S [batch, r], descending.
    pub s: DeviceBuf,
    /// V^T [batch, r, n], with orthonormal rows.
    pub vt: DeviceBuf,
    /// r.
    pub rank: usize,
}

impl Gpu {
    /// Decomposes `batch` matrices [m, n] of f32 that lie one after the other from address `a`, which stay as they are.
    ///
    /// Waits for the result. A NaN or an infinity in a matrix, or no convergence, is an error.
    pub fn svd(self: &Arc<Self>, a: u64, batch: usize, m: usize, n: usize) -> Result<Svd> {
        let rank = m.min(n);
        if rank == 0 || batch == 0 {
            return Err(Error::Shape { op: "svd", reason: format!("[{batch}, {m}, {n}] has no element") });
        }
        let svd = Svd {
            u: self.alloc(4 * batch * m * rank)?,
            s: self.alloc(4 * batch * rank)?,
            vt: self.alloc(4 * batch * rank * n)?,
            rank,
        };
        let info = self.alloc(4 * batch)?;
        let scratch = Scratch::new(self, m, n)?;
        self.with_solver(|handle| {
            let mut length = 0;
            // SAFETY: the handle lives; the length is a local.
            check::cusolver("cusolverDnSgesvd_bufferSize", unsafe {
                sys::cusolverDnSgesvd_bufferSize(handle, scratch.long, scratch.short, &raw mut length)
            })?;
            let work = self.alloc(4 * length as usize)?;
            for i in 0..batch {
                let matrix = a + (4 * i * m * n) as u64;
                if !self.sum_of_absolutes(matrix, m * n)?.is_finite() {
                    return Err(failed(
                        i,
                        "it holds a NaN or an infinity, or its sum of absolutes overflows",
                    ));
                }
                let s = svd.s.ptr() + (4 * i * rank) as u64;
                let u = svd.u.ptr() + (4 * i * m * rank) as u64;
                let vt = svd.vt.ptr() + (4 * i * rank * n) as u64;
                let info = info.ptr() + (4 * i) as u64;
                scratch.decompose(self, handle, matrix, [u, s, vt], (work.ptr(), length), info)?;
            }
            Ok(())
        })?;
        self.check_convergence(&svd, &info, batch)?;
        Ok(svd)
    }

    fn check_convergence(&self, svd: &Svd, info: &DeviceBuf, batch: usize) -> Result<()> {
        let mut codes = vec![0; 4 * batch];
        self.download(&mut codes, info.ptr())?;
        for (i, code) in words(&codes).map(i32::from_le_bytes).enumerate() {
            match code {
                0 => {}
                1.. => {
                    return Err(failed(i, &format!("{code} superdiagonals did not converge")));
                }
                _ => {
                    return Err(failed(i, &format!("cuSOLVER refused its argument {}", -code)));
                }
            }
        }
        let mut values = vec![0; 4 * batch * svd.rank];
        self.download(&mut values, svd.s.ptr())?;
        match words(&values).map(f32::from_le_bytes).position(|value| !value.is_finite()) {
            Some(place) => Err(failed(place / svd.rank, "a singular value is not finite")),
            None => Ok(()),
        }
    }

    /// Hands out the cuSOLVER handle, made at first use, with the context current.
    pub(super) fn with_solver<T>(&self, work: impl FnOnce(cusolverDnHandle_t) -> Result<T>) -> Result<T> {
        self.bind()?;
        let mut solver = lock(&self.solver);
        if solver.is_none() {
            *solver = Some(Solver::new(self)?);
        }
        work(solver.as_ref().expect("made above").handle)
    }
}

fn failed(matrix: usize, reason: &str) -> Error {
    Error::Linalg { what: "svd", reason: format!("matrix {matrix} of the batch: {reason}") }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    bytes.as_chunks::<4>().0.iter().copied()
}

/// Room for one matrix on its way through gesvd, which destroys its input.
struct Scratch {
    /// More than or as many as `short`; the column-major rows.
    long: c_int,
    short: c_int,
    /// [long, short] column-major.
    matrix: DeviceBuf,
    /// For a tall matrix U^T [short, long] and V [short, short], before they are transposed.
    factors: Option<(DeviceBuf, DeviceBuf)>,
}

impl Scratch {
    fn new(gpu: &Arc<Gpu>, m: usize, n: usize) -> Result<Self> {
        let (long, short) = (m.max(n), m.min(n));
        let factors = || Ok::<_, Error>((gpu.alloc(4 * long * short)?, gpu.alloc(4 * short * short)?));
        Ok(Scratch {
            long: int(long)?,
            short: int(short)?,
            matrix: gpu.alloc(4 * long * short)?,
            factors: if m > n { Some(factors()?) } else { None },
        })
    }

    /// One matrix; `work` is an address and a length in f32.
    fn decompose(
        &self,
        gpu: &Gpu,
        handle: cusolverDnHandle_t,
        matrix: u64,
        [u, s, vt]: [u64; 3],
        work: (u64, c_int),
        info: u64,
    ) -> Result<()> {
        let (long, short) = (self.long as usize, self.short as usize);
        let x = self.matrix.ptr();
        match &self.factors {
            None => {
                gpu.copy(x, matrix, 4 * long * short)?;
                self.gesvd(handle, [vt, s, u], work, info)
            }
            Some((ut, v)) => {
                gpu.transpose(matrix, long, short, x)?;
                self.gesvd(handle, [ut.ptr(), s, v.ptr()], work, info)?;
                gpu.transpose(ut.ptr(), short, long, u)?;
                gpu.transpose(v.ptr(), short, short, vt)
            }
        }
    }

    /// X = P S Q^T: `p` gets P [long, short] and `qt` Q^T [short, short], column-major.
    fn gesvd(
        &self,
        handle: cusolverDnHandle_t,
        [p, s, qt]: [u64; 3],
        work: (u64, c_int),
        info: u64,
    ) -> Result<()> {
        let economy = b'S' as c_schar;
        // SAFETY: every address has room for what goes there, in f32; the real variant accepts no superdiagonal.
        check::cusolver("cusolverDnSgesvd", unsafe {
            sys::cusolverDnSgesvd(
                handle,
                economy,
                economy,
                self.long,
                self.short,
                self.matrix.ptr() as *mut f32,
                self.long,
                s as *mut f32,
                p as *mut f32,
                self.long,
                qt as *mut f32,
                self.short,
                work.0 as *mut f32,
                work.1,
                ptr::null_mut(),
                info as *mut c_int,
            )
        })
    }
}

/// A cuSOLVER handle on the stream.
pub(super) struct Solver {
    handle: cusolverDnHandle_t,
}

impl Solver {
    fn new(gpu: &Gpu) -> Result<Self> {
        libraries::require(Lib::Cusolver)?;
        let mut solver = Solver { handle: ptr::null_mut() };
        // SAFETY: the context is current; the stream outlives the handle.
        unsafe {
            check::cusolver("cusolverDnCreate", sys::cusolverDnCreate(&raw mut solver.handle))?;
            let status = sys::cusolverDnSetStream(solver.handle, gpu.stream.cast());
            if let Err(error) = check::cusolver("cusolverDnSetStream", status) {
                solver.destroy();
                return Err(error);
            }
        }
        Ok(solver)
    }

    /// Needs the context to be current and the stream to be idle.
    pub(super) fn destroy(self) {
        // SAFETY: made in `new`, destroyed once; an error at the end has no remedy.
        let _ = unsafe { sys::cusolverDnDestroy(self.handle) };
    }
}
