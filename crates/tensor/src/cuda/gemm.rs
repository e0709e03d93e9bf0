//! Row-major matrix products through cuBLAS.
//!
//! cuBLAS is column-major. A row-major matrix is, in its eyes, the transpose; so C = A B is asked for as C^T = B^T A^T,
//! with the operands swapped and nothing moved.

use std::ffi::{c_int, c_longlong, c_void};

use cudarc::cublas::sys::{
    self, cublasComputeType_t, cublasGemmAlgo_t, cublasHandle_t, cublasOperation_t, cublasStatus_t,
    cudaDataType_t,
};

use super::profile::Work;
use crate::device::DType;
use crate::error::{Error, Result};

/// A matrix on the device, or a batch of them at equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Device address of the first element.
    pub ptr: u64,
    /// Elements from one stored row to the next; at least the stored row's length, more for a slice of columns.
    pub ld: usize,
    /// Elements from one matrix of the batch to the next; 0 uses the same one throughout (not for C).
    pub stride: usize,
    /// Whether the transpose is stored: of a [m, k] operand the array [k, m].
    pub transposed: bool,
    /// Element type.
    pub dtype: DType,
}

/// C = alpha A B + beta C for each matrix of a batch, with A [m, k], B [k, n], C [m, n].
///
/// A and B are of one type, C is f32 or of theirs. Sums are in f32: no TF32, and no partial sums in bf16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gemm {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what C held, or of the summand of [`Gpu::gemm_plus`](super::Gpu::gemm_plus); with 0 it is not read.
    pub beta: f32,
    /// Left factor.
    pub a: Operand,
    /// Right factor.
    pub b: Operand,
    /// Result.
    pub c: Operand,
    /// Matrices in the batch.
    pub batch: usize,
}

/// A [`Gemm`] as cuBLAS wants it: column-major, in C integers.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) m: c_int,
    pub(super) n: c_int,
    pub(super) k: c_int,
    pub(super) left: Factor,
    pub(super) right: Factor,
    pub(super) c: Factor,
    pub(super) batch: c_int,
}

#[derive(Debug, PartialEq)]
pub(super) struct Factor {
    pub(super) ptr: u64,
    pub(super) op: cublasOperation_t,
    pub(super) dtype: cudaDataType_t,
    pub(super) ld: c_int,
    pub(super) stride: c_longlong,
}

impl Plan {
    pub(super) fn run(&self, handle: cublasHandle_t, gemm: &Gemm) -> cublasStatus_t {
        let (left, right, c) = (&self.left, &self.right, &self.c);
        // SAFETY: the handle is in host pointer mode and reads both factors in the call; shapes and leading dimensions
        // fit (`Gemm::plan`), and the addresses are the caller's.
        unsafe {
            sys::cublasGemmStridedBatchedEx(
                handle,
                left.op,
                right.op,
                self.m,
                self.n,
                self.k,
                (&raw const gemm.alpha).cast(),
                left.ptr as *const c_void,
                left.dtype,
                left.ld,
                left.stride,
                right.ptr as *const c_void,
                right.dtype,
                right.ld,
                right.stride,
                (&raw const gemm.beta).cast(),
                c.ptr as *mut c_void,
                c.dtype,
                c.ld,
                c.stride,
                self.batch,
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
    }
}

impl Gemm {
    pub(super) fn plan(&self) -> Result<Plan> {
        let Gemm { m, n, k, a, b, c, batch, .. } = *self;
        if k == 0 {
            return Err(self.refuse("k is 0"));
        }
        if a.dtype != b.dtype {
            return Err(self.refuse("A and B differ in type"));
        }
        if c.dtype != DType::F32 && c.dtype != a.dtype {
            return Err(self.refuse("C must be f32 or of A's type"));
        }
        for (name, operand, rows, cols) in [("A", a, m, k), ("B", b, k, n), ("C", c, m, n)] {
            let row = if operand.transposed { rows } else { cols };
            if operand.ld < row {
                return Err(self.refuse(&format!("{name} has rows of {row} at a distance of {}", operand.ld)));
            }
        }
        if batch > 1 && c.stride == 0 {
            return Err(self.refuse("the results of a batch lie on each other"));
        }
        // C^T [n, m] = B^T A^T. If it is C^T that is stored, C [m, n] = A B is asked for, and each operand as stored is
        // the transpose of what is wanted.
        if c.transposed {
            Ok(Plan {
                m: int(m)?,
                n: int(n)?,
                k: int(k)?,
                left: factor(a, !a.transposed)?,
                right: factor(b, !b.transposed)?,
                c: factor(c, false)?,
                batch: int(batch)?,
            })
        } else {
            Ok(Plan {
                m: int(n)?,
                n: int(m)?,
                k: int(k)?,
                left: factor(b, b.transposed)?,
                right: factor(a, a.transposed)?,
                c: factor(c, false)?,
                batch: int(batch)?,
            })
        }
    }

    /// What it is in a profile.
    pub(super) fn work(&self) -> Work {
        let Gemm { m, n, k, batch, a, c, .. } = *self;
        let name = |dtype| match dtype {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
        };
        let many = if batch > 1 { format!("{batch} of ") } else { String::new() };
        let sum = if self.beta == 0.0 { "" } else { " added" };
        let into = if c.dtype == a.dtype { String::new() } else { format!(" to {}", name(c.dtype)) };
        let detail = format!("{many}{m} x {n} x {k}, {}{into}{sum}", name(a.dtype));
        let factors = (m * k + k * n) * a.dtype.size();
        let result = m * n * c.dtype.size() * if self.beta == 0.0 { 1 } else { 2 };
        let flops = 2.0 * (m * n) as f64 * (k * batch) as f64;
        Work { name: "products", detail, bytes: (batch * (factors + result)) as u64, flops }
    }

    pub(super) fn refuse(&self, reason: &str) -> Error {
        Error::Shape { op: "gemm", reason: format!("{reason} in {self:?}") }
    }

    pub(super) fn explain(&self, error: Error) -> Error {
        match error {
            Error::Cuda { call, reason } => Error::Cuda { call, reason: format!("{reason} for {self:?}") },
            other => other,
        }
    }
}

pub(super) fn factor(operand: Operand, transpose: bool) -> Result<Factor> {
    Ok(Factor {
        ptr: operand.ptr,
        op: if transpose { cublasOperation_t::CUBLAS_OP_T } else { cublasOperation_t::CUBLAS_OP_N },
        dtype: match operand.dtype {
            DType::F32 => cudaDataType_t::CUDA_R_32F,
            DType::BF16 => cudaDataType_t::CUDA_R_16BF,
            DType::F16 => cudaDataType_t::CUDA_R_16F,
        },
        ld: int(operand.ld)?,
        stride: operand.stride as c_longlong,
    })
}

/// A size as cuBLAS and cuSOLVER take it.
pub(super) fn int(size: usize) -> Result<c_int> {
    c_int::try_from(size).map_err(|_| Error::Shape {
        op: "matrix",
        reason: format!("a size of {size} is beyond the {} that CUDA's libraries take", c_int::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};

    fn operand(ptr: u64, ld: usize, transposed: bool) -> Operand {
        Operand { ptr, ld, stride: 0, transposed, dtype: DType::F32 }
    }

    /// [2, 4] x [4, 3].
    fn product() -> Gemm {
        let (a, b, c) = (operand(1, 4, false), operand(2, 3, false), operand(3, 3, false));
        Gemm { m: 2, n: 3, k: 4, alpha: 1.0, beta: 0.0, a, b, c, batch: 1 }
    }

    #[test]
    fn a_row_major_product_swaps_the_operands() {
        let plan = product().plan().unwrap();
        assert_eq!((plan.m, plan.n, plan.k), (3, 2, 4));
        assert_eq!((plan.left.ptr, plan.left.op, plan.left.ld), (2, CUBLAS_OP_N, 3));
        assert_eq!((plan.right.ptr, plan.right.op, plan.right.ld), (1, CUBLAS_OP_N, 4));
    }

    #[test]
    fn a_transposed_result_keeps_the_order_and_turns_the_factors() {
        let gemm = Gemm { a: operand(1, 2, true), c: operand(3, 2, true), ..product() };
        let plan = gemm.plan().unwrap();
        assert_eq!((plan.m, plan.n, plan.k, plan.c.ld), (2, 3, 4, 2));
        assert_eq!((plan.left.ptr, plan.left.op), (1, CUBLAS_OP_N));
        assert_eq!((plan.right.ptr, plan.right.op), (2, CUBLAS_OP_T));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let bf16 = Operand { dtype: DType::BF16, ..product().a };
        for (gemm, word) in [
            (Gemm { a: operand(1, 3, false), ..product() }, "A has rows of 4"),
            (Gemm { b: operand(2, 3, true), ..product() }, "B has rows of 4"),
            (Gemm { a: bf16, ..product() }, "differ in type"),
            (Gemm { c: Operand { dtype: DType::BF16, ..product().c }, ..product() }, "C must be f32"),
            (Gemm { k: 0, ..product() }, "k is 0"),
            (Gemm { batch: 2, ..product() }, "lie on each other"),
            (Gemm { m: 1 << 31, ..product() }, "beyond"),
        ] {
            let message = gemm.plan().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
