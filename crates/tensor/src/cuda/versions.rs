//! The versions that the CUDA libraries report.

use std::ffi::{c_int, c_uint};

use libloading::Library;

use super::catalogue::Lib;

/// Asks a library for its version; `None` if it does not tell.
pub(super) fn version(lib: Lib, handle: &Library) -> Option<String> {
    match lib {
        Lib::Cuda => {
            let number = one_number(handle, "cuDriverGetVersion")?;
            let cuda = format!("CUDA {}.{}", number / 1000, number % 1000 / 10);
            Some(driver_release().map_or(cuda.clone(), |release| format!("{release} ({cuda})")))
        }
        Lib::Nvrtc => two_numbers(handle, "nvrtcVersion"),
        Lib::NvJitLink => two_numbers(handle, "nvJitLinkVersion"),
        Lib::CublasLt => {
            // SAFETY: size_t cublasLtGetVersion(void), as cublasLt.h declares it.
            let ask = unsafe { handle.get::<extern "C" fn() -> usize>("cublasLtGetVersion") }.ok()?;
            let number = ask();
            Some(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
        }
        Lib::Cublas => three_properties(handle, "cublasGetProperty"),
        Lib::Cusparse => three_properties(handle, "cusparseGetProperty"),
        Lib::Cusolver => three_properties(handle, "cusolverGetProperty"),
        Lib::Nccl => {
            let number = one_number(handle, "ncclGetVersion")?;
            Some(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
        }
    }
}

fn one_number(handle: &Library, symbol: &str) -> Option<c_int> {
    let mut number = 0;
    // SAFETY: the symbols passed here have the C type int f(int *), where 0 means success.
    let status = unsafe {
        let ask = handle.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(symbol).ok()?;
        ask(&raw mut number)
    };
    (status == 0).then_some(number)
}

fn two_numbers(handle: &Library, symbol: &str) -> Option<String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the symbols passed here have the C type int f(int *, int *), of either sign, where 0 means success.
    let status = unsafe {
        let ask = handle.get::<unsafe extern "C" fn(*mut c_uint, *mut c_uint) -> c_int>(symbol).ok()?;
        ask(&raw mut major, &raw mut minor)
    };
    (status == 0).then(|| format!("{major}.{minor}"))
}

fn three_properties(handle: &Library, symbol: &str) -> Option<String> {
    // SAFETY: the symbols passed here have the C type int f(libraryPropertyType, int *), where 0 means success.
    let ask = unsafe { handle.get::<unsafe extern "C" fn(c_uint, *mut c_int) -> c_int>(symbol) }.ok()?;
    let mut parts = [0; 3];
    for (property, part) in (0..).zip(&mut parts) {
        // SAFETY: as above; 0, 1, 2 are MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL.
        if unsafe { ask(property, part) } != 0 {
            return None;
        }
    }
    let [major, minor, patch] = parts;
    Some(format!("{major}.{minor}.{patch}"))
}

/// The release of the kernel driver, such as `580.159.04`, where the operating system tells.
pub(super) fn driver_release() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    release_in(&text)
}

/// The first word of the form `digits.digits[.digits]` in the driver's version file.
fn release_in(text: &str) -> Option<String> {
    let is_release = |word: &&str| {
        word.contains('.')
            && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let line = text.lines().find(|line| line.starts_with("NVRM"))?;
    line.split_whitespace().find(is_release).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_release_is_read_from_its_version_file() {
        let text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC version: 13.3.0";
        assert_eq!(release_in(text).as_deref(), Some("580.159.04"));
        assert_eq!(release_in("GCC version: 13.3.0"), None);
    }
}
