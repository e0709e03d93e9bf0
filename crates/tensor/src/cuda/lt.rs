//! Products through cuBLASLt: D = alpha A B + beta C, where the summand may stay; or with a bias for every column.
//!
//! cuBLASLt is asked once for each kind of product which algorithms it would take; the first, or one that gives the
//! same bits faster, is kept ([`super::tune`]): the same product gives the same bits, within a process and from one to
//! the next. Sums that are cut along k are put together in f32 in the workspace, never in place nor in the type of the
//! result.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr;

use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t,
    cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t as DescAttribute, cublasLtMatmulHeuristicResult_t,
    cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t as Wish, cublasLtMatrixLayout_t,
    cublasLtMatrixLayoutAttribute_t as LayoutAttribute, cublasStatus_t, cudaDataType_t,
};

use super::blas::{Blas, WORKSPACE_BYTES};
use super::gemm::{Factor, Gemm, Operand, Plan, factor};
use super::gpu::Gpu;
use super::libraries;
use super::libraries::Lib;
use super::profile::Work;
use super::tune::CANDIDATES;
use crate::device::DType;
use crate::error::{Error, Result};

/// The algorithm of each kind of product.
pub(super) type Chosen = HashMap<Key, cublasLtMatmulAlgo_t>;

/// All that an algorithm may depend on: sizes, distances, types, orders and alignments, that of a bias last (0: none).
pub(super) type Key = [i64; 25];

impl Gpu {
    /// `gemm.c = gemm.alpha A B + gemm.beta plus`; `plus` is stored as `gemm.c` is and may be the same memory.
    pub fn gemm_plus(&self, gemm: &Gemm, plus: Operand) -> Result<()> {
        self.by_lt(gemm, plus, None)
    }

    /// `gemm.c = gemm.alpha A B`, and to every row of it `bias [n]` is added before it is rounded. All in bf16: cuBLASLt
    /// takes a bias in the type of the result only.
    pub fn gemm_bias(&self, gemm: &Gemm, bias: u64) -> Result<()> {
        if gemm.c.dtype != DType::BF16 || gemm.c.transposed || gemm.beta != 0.0 {
            return Err(gemm.refuse("a bias goes with a row-major result in bf16, without a summand:"));
        }
        self.by_lt(gemm, gemm.c, Some(bias))
    }

    fn by_lt(&self, gemm: &Gemm, plus: Operand, bias: Option<u64>) -> Result<()> {
        if gemm.m == 0 || gemm.n == 0 || gemm.batch == 0 {
            return Ok(());
        }
        let plan = gemm.plan()?;
        let width = if plus.transposed { gemm.m } else { gemm.n };
        if plus.transposed != gemm.c.transposed || plus.dtype != gemm.c.dtype || plus.ld < width {
            return Err(gemm.refuse(&format!("the summand {plus:?} is not stored as C is")));
        }
        let plus = factor(plus, false)?;
        libraries::require(Lib::CublasLt)?;
        self.with_handle(|blas| {
            let key = key(&plan, &plus, bias);
            let call = Call::new(plan, plus, bias)?;
            let algo = if let Some(algo) = blas.chosen.get(&key) {
                *algo
            } else {
                let candidates = call.candidates(blas.handle.cast(), &key)?;
                let algo = self.fastest(blas, gemm, &call, &candidates)?;
                blas.chosen.insert(key, algo);
                algo
            };
            call.run(self, blas, gemm, gemm.c.ptr, &algo)
        })
        .map_err(|error| gemm.explain(error))?;
        self.note(|| {
            let work = gemm.work();
            let told = if bias.is_some() { " + bias" } else { "" };
            Work { detail: format!("{}{told}", work.detail), ..work }
        })
    }
}

fn key(plan: &Plan, plus: &Factor, bias: Option<u64>) -> Key {
    let mut key = [0; 25];
    let sizes = [plan.m, plan.n, plan.k, plan.batch].map(i64::from);
    key[..4].copy_from_slice(&sizes);
    for (place, f) in key[4..24].chunks_exact_mut(5).zip([&plan.left, &plan.right, plus, &plan.c]) {
        let words = [i64::from(f.ld), f.stride, f.dtype as i64, f.op as i64, alignment_of(f) as i64];
        place.copy_from_slice(&words);
    }
    key[24] = bias.map_or(0, |at| i64::from(alignment(at)));
    key
}

/// Bytes of which every matrix of a batch starts at a multiple, at most 256.
fn alignment_of(f: &Factor) -> u32 {
    let size = if f.dtype == cudarc::cublas::sys::cudaDataType_t::CUDA_R_32F { 4 } else { 2 };
    alignment(f.ptr | (f.stride as u64 * size))
}

fn alignment(bits: u64) -> u32 {
    1 << (bits | 256).trailing_zeros()
}

/// One product with its descriptions, which are destroyed when it is dropped.
pub(super) struct Call {
    plan: Plan,
    plus: Factor,
    desc: cublasLtMatmulDesc_t,
    /// Of the left and right factor, the summand and the result.
    layouts: [cublasLtMatrixLayout_t; 4],
}

impl Call {
    fn new(plan: Plan, plus: Factor, bias: Option<u64>) -> Result<Self> {
        let mut call = Call { plan, plus, desc: ptr::null_mut(), layouts: [ptr::null_mut(); 4] };
        let Plan { m, n, k, ref left, ref right, ref c, batch } = call.plan;
        let (compute, scale) = (cublasComputeType_t::CUBLAS_COMPUTE_32F, cudaDataType_t::CUDA_R_32F);
        // SAFETY: cuBLASLt is loaded; the pointer is to a field, and what is made is destroyed in `drop`.
        check("cublasLtMatmulDescCreate", unsafe {
            sys::cublasLtMatmulDescCreate(&raw mut call.desc, compute, scale)
        })?;
        call.set(DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA, &(left.op as c_int))?;
        call.set(DescAttribute::CUBLASLT_MATMUL_DESC_TRANSB, &(right.op as c_int))?;
        if let Some(bias) = bias {
            // One for every row of what cuBLASLt sees, which is a column of C.
            let epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            call.set(DescAttribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            call.set(DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        let stored = |f: &Factor, rows: c_int, cols: c_int| {
            if f.op == cudarc::cublas::sys::cublasOperation_t::CUBLAS_OP_T {
                (cols, rows)
            } else {
                (rows, cols)
            }
        };
        let sizes = [stored(left, m, k), stored(right, k, n), (m, n), (m, n)];
        let factors = [left, right, &call.plus, c];
        for ((layout, f), (rows, cols)) in call.layouts.iter_mut().zip(factors).zip(sizes) {
            *layout = layout_of(f, rows, cols, batch)?;
        }
        Ok(call)
    }

    fn set<T>(&self, name: DescAttribute, value: &T) -> Result<()> {
        // SAFETY: the description lives; the value is read in the call, with its size.
        check("cublasLtMatmulDescSetAttribute", unsafe {
            sys::cublasLtMatmulDescSetAttribute(self.desc, name, ptr::from_ref(value).cast(), size_of::<T>())
        })
    }

    /// What cuBLASLt would take, best first; at least one.
    fn candidates(&self, handle: cublasLtHandle_t, key: &Key) -> Result<Vec<cublasLtMatmulAlgo_t>> {
        let wishes = Wishes::new(key)?;
        let [left, right, plus, c] = self.layouts;
        // SAFETY: it consists of numbers and an array of them, for which zeros are valid.
        let none = unsafe { std::mem::zeroed::<cublasLtMatmulHeuristicResult_t>() };
        let mut found = [none; CANDIDATES];
        let mut count = 0;
        // SAFETY: all descriptions live; there is room for as many results as are asked for.
        check("cublasLtMatmulAlgoGetHeuristic", unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.desc,
                left,
                right,
                plus,
                c,
                wishes.0,
                CANDIDATES as c_int,
                found.as_mut_ptr(),
                &raw mut count,
            )
        })?;
        if count == 0 {
            return Err(failed("cublasLtMatmulAlgoGetHeuristic", "there is no algorithm for this product"));
        }
        Ok(found[..count as usize].iter().map(|result| result.algo).collect())
    }

    /// Runs the product with its result at `to`.
    pub(super) fn run(
        &self,
        gpu: &Gpu,
        blas: &Blas,
        gemm: &Gemm,
        to: u64,
        algo: &cublasLtMatmulAlgo_t,
    ) -> Result<()> {
        let [left, right, summand, c] = self.layouts;
        // SAFETY: the handle is cuBLAS's, which is one of cuBLASLt's too; shapes and distances fit (`Gemm::plan`), the
        // addresses are the caller's, and both numbers are read in the call.
        check("cublasLtMatmul", unsafe {
            sys::cublasLtMatmul(
                blas.handle.cast(),
                self.desc,
                (&raw const gemm.alpha).cast(),
                self.plan.left.ptr as *const c_void,
                left,
                self.plan.right.ptr as *const c_void,
                right,
                (&raw const gemm.beta).cast(),
                self.plus.ptr as *const c_void,
                summand,
                to as *mut c_void,
                c,
                algo,
                blas.workspace as *mut c_void,
                WORKSPACE_BYTES,
                gpu.stream.cast(),
            )
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: each was made in `new` or is null; destroyed once, an error at the end has no remedy.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = sys::cublasLtMatrixLayoutDestroy(layout);
            }
            if !self.desc.is_null() {
                let _ = sys::cublasLtMatmulDescDestroy(self.desc);
            }
        }
    }
}

fn layout_of(f: &Factor, rows: c_int, cols: c_int, batch: c_int) -> Result<cublasLtMatrixLayout_t> {
    let dtype = match f.dtype {
        cudarc::cublas::sys::cudaDataType_t::CUDA_R_16BF => cudaDataType_t::CUDA_R_16BF,
        cudarc::cublas::sys::cudaDataType_t::CUDA_R_16F => cudaDataType_t::CUDA_R_16F,
        _ => cudaDataType_t::CUDA_R_32F,
    };
    let mut layout = ptr::null_mut();
    // SAFETY: cuBLASLt is loaded; the pointer is to a local, the caller destroys what is made.
    check("cublasLtMatrixLayoutCreate", unsafe {
        sys::cublasLtMatrixLayoutCreate(&raw mut layout, dtype, rows as u64, cols as u64, i64::from(f.ld))
    })?;
    let (count, stride) = (LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, f.stride);
    let offset = LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
    // SAFETY: the layout was made above; the values are locals of the sizes that are told.
    unsafe {
        check(
            "cublasLtMatrixLayoutSetAttribute",
            sys::cublasLtMatrixLayoutSetAttribute(
                layout,
                count,
                (&raw const batch).cast(),
                size_of::<c_int>(),
            ),
        )?;
        check(
            "cublasLtMatrixLayoutSetAttribute",
            sys::cublasLtMatrixLayoutSetAttribute(
                layout,
                offset,
                (&raw const stride).cast(),
                size_of::<i64>(),
            ),
        )?;
    }
    Ok(layout)
}

/// What an algorithm must keep to.
struct Wishes(cublasLtMatmulPreference_t);

impl Wishes {
    fn new(key: &Key) -> Result<Self> {
        let mut wishes = Wishes(ptr::null_mut());
        // SAFETY: cuBLASLt is loaded; the pointer is to a field, and what is made is destroyed in `drop`.
        check("cublasLtMatmulPreferenceCreate", unsafe {
            sys::cublasLtMatmulPreferenceCreate(&raw mut wishes.0)
        })?;
        let in_workspace = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &(WORKSPACE_BYTES as u64))?;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &in_workspace)?;
        for (name, place) in [
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, 8),
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, 13),
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, 18),
            (Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, 23),
        ] {
            wishes.set(name, &(key[place] as u32))?;
        }
        Ok(wishes)
    }

    fn set<T>(&self, name: Wish, value: &T) -> Result<()> {
        // SAFETY: the preference lives; the value is read in the call, with its size.
        check("cublasLtMatmulPreferenceSetAttribute", unsafe {
            sys::cublasLtMatmulPreferenceSetAttribute(
                self.0,
                name,
                ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        })
    }
}

impl Drop for Wishes {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once.
        let _ = unsafe { sys::cublasLtMatmulPreferenceDestroy(self.0) };
    }
}

fn check(call: &str, status: cublasStatus_t) -> Result<()> {
    if status == cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    Err(failed(call, &format!("{status:?}")))
}

fn failed(call: &str, reason: &str) -> Error {
    Error::Cuda { call: call.to_owned(), reason: reason.to_owned() }
}
