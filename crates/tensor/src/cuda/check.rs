//! Turns the status codes of the CUDA libraries into errors that name the call.

use std::ffi::CStr;
use std::ptr;

use cudarc::cublas::sys::cublasStatus_t;
use cudarc::cusolver::sys::cusolverStatus_t;
use cudarc::driver::sys::{self, CUresult};

use crate::error::{Error, Result};

/// The status of a driver call.
pub(super) fn driver(call: &str, status: CUresult) -> Result<()> {
    if status == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    Err(Error::Cuda { call: call.to_owned(), reason: describe(status) })
}

/// The status of a cuBLAS call.
pub(super) fn cublas(call: &str, status: cublasStatus_t) -> Result<()> {
    if status == cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    Err(Error::Cuda { call: call.to_owned(), reason: format!("{status:?}") })
}

/// The status of a cuSOLVER call.
pub(super) fn cusolver(call: &str, status: cusolverStatus_t) -> Result<()> {
    if status == cusolverStatus_t::CUSOLVER_STATUS_SUCCESS {
        return Ok(());
    }
    Err(Error::Cuda { call: call.to_owned(), reason: format!("{status:?}") })
}

/// Name and meaning of a driver status, such as `CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)`.
pub(super) fn describe(status: CUresult) -> String {
    let mut text: *const std::ffi::c_char = ptr::null();
    // SAFETY: the driver is loaded, since it returned `status`; it writes a pointer to a string of its own that is
    // never freed, or null for a code it does not know.
    let meaning = unsafe {
        let known = sys::cuGetErrorString(status, &raw mut text);
        if known == CUresult::CUDA_SUCCESS && !text.is_null() {
            CStr::from_ptr(text).to_string_lossy()
        } else {
            "no description".into()
        }
    };
    format!("{status:?} ({meaning})")
}
