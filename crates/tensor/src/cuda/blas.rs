//! The cuBLAS handle of a device, and what is asked of it.

use std::ffi::c_void;
use std::ptr;

use cudarc::cublas::sys::{self, cublasHandle_t, cublasMath_t, cublasOperation_t};

use super::gemm::{Gemm, int};
use super::gpu::{Gpu, lock};
use super::libraries::Lib;
use super::lt::Chosen;
use super::{check, libraries};
use crate::device::DType;
use crate::error::Result;

impl Gpu {
    /// Runs a matrix product on the stream: by cuBLAS in f32, by cuBLASLt otherwise. The same call on the same kind of
    /// device gives the same bits.
    pub fn gemm(&self, gemm: &Gemm) -> Result<()> {
        if gemm.m == 0 || gemm.n == 0 || gemm.batch == 0 {
            return Ok(());
        }
        if gemm.a.dtype != DType::F32 {
            return self.gemm_plus(gemm, gemm.c);
        }
        let plan = gemm.plan()?;
        self.with_blas(|handle| {
            let status = plan.run(handle, gemm);
            check::cublas("cublasGemmStridedBatchedEx", status).map_err(|error| gemm.explain(error))
        })?;
        self.note(|| gemm.work())
    }

    /// Makes B [cols, rows], the transpose of A [rows, cols], both f32 and contiguous.
    pub(super) fn transpose(&self, a: u64, rows: usize, cols: usize, b: u64) -> Result<()> {
        let (rows, cols) = (int(rows)?, int(cols)?);
        let (one, zero) = (1.0f32, 0.0f32);
        self.with_blas(|handle| {
            // SAFETY: A is column-major [cols, rows], B column-major [rows, cols]; the second summand is not read.
            check::cublas("cublasSgeam", unsafe {
                sys::cublasSgeam(
                    handle,
                    cublasOperation_t::CUBLAS_OP_T,
                    cublasOperation_t::CUBLAS_OP_N,
                    rows,
                    cols,
                    &raw const one,
                    a as *const f32,
                    cols,
                    &raw const zero,
                    b as *const f32,
                    rows,
                    b as *mut f32,
                    rows,
                )
            })
        })
    }

    /// Sum of the absolute values of `count` f32; waits for it.
    pub(super) fn sum_of_absolutes(&self, x: u64, count: usize) -> Result<f32> {
        let count = int(count)?;
        let mut sum = 0.0;
        self.with_blas(|handle| {
            // SAFETY: the handle is in host pointer mode, so the call waits and writes to the local.
            check::cublas("cublasSasum", unsafe {
                sys::cublasSasum_v2(handle, count, x as *const f32, 1, &raw mut sum)
            })
        })?;
        Ok(sum)
    }

    /// Hands out the cuBLAS handle, made at first use, with the context current.
    pub(super) fn with_blas<T>(&self, work: impl FnOnce(cublasHandle_t) -> Result<T>) -> Result<T> {
        self.with_handle(|blas| work(blas.handle))
    }

    /// As `with_blas`, with all that belongs to the handle.
    pub(super) fn with_handle<T>(&self, work: impl FnOnce(&mut Blas) -> Result<T>) -> Result<T> {
        self.bind()?;
        let mut blas = lock(&self.blas);
        if blas.is_none() {
            *blas = Some(Blas::new(self)?);
        }
        work(blas.as_mut().expect("made above"))
    }
}

/// A handle with a workspace of its own: then results do not depend on what else runs, and a graph can capture it.
pub(super) struct Blas {
    pub(super) handle: cublasHandle_t,
    pub(super) workspace: u64,
    /// What cuBLASLt chose for the products asked of it so far.
    pub(super) chosen: Chosen,
}

pub(super) const WORKSPACE_BYTES: usize = 64 << 20;

impl Blas {
    fn new(gpu: &Gpu) -> Result<Self> {
        libraries::require(Lib::Cublas)?;
        let workspace = gpu.take(WORKSPACE_BYTES)?;
        let mut blas = Blas { handle: ptr::null_mut(), workspace, chosen: Chosen::default() };
        // cuBLAS would otherwise be free to add up parts of a bf16 result in bf16.
        let math = cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        // SAFETY: the context is current; the stream and the workspace outlive the handle. Setting the stream resets
        // the workspace, hence the order.
        let made = unsafe {
            check::cublas("cublasCreate", sys::cublasCreate_v2(&raw mut blas.handle))
                .and_then(|()| {
                    let status = sys::cublasSetStream_v2(blas.handle, gpu.stream.cast());
                    check::cublas("cublasSetStream", status)
                })
                .and_then(|()| {
                    let workspace = workspace as *mut c_void;
                    let status = sys::cublasSetWorkspace_v2(blas.handle, workspace, WORKSPACE_BYTES);
                    check::cublas("cublasSetWorkspace", status)
                })
                .and_then(|()| check::cublas("cublasSetMathMode", sys::cublasSetMathMode(blas.handle, math)))
        };
        match made {
            Ok(()) => Ok(blas),
            Err(error) => {
                blas.destroy(gpu);
                Err(error)
            }
        }
    }

    /// Needs the context to be current and the stream to be idle.
    pub(super) fn destroy(self, gpu: &Gpu) {
        if !self.handle.is_null() {
            // SAFETY: made in `new`, destroyed once; an error at the end has no remedy.
            let _ = unsafe { sys::cublasDestroy_v2(self.handle) };
        }
        gpu.give(self.workspace, WORKSPACE_BYTES);
    }
}
