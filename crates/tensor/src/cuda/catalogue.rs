//! The CUDA libraries: their names, who carries them, whom they need, and the functions of theirs that are called.

/// The libraries that this crate knows, in an order in which each comes after those it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lib {
    /// The driver.
    Cuda,
    /// The run-time compiler.
    Nvrtc,
    /// The linker that cuSPARSE and cuSOLVER need.
    NvJitLink,
    /// The matrix products under cuBLAS, asked directly for those with a summand.
    CublasLt,
    /// Matrix products.
    Cublas,
    /// Needed by cuSOLVER.
    Cusparse,
    /// Decompositions.
    Cusolver,
    /// Communication between GPUs: looked for, not used yet by this crate.
    Nccl,
}

/// One library.
pub(super) struct Spec {
    pub(super) lib: Lib,
    pub(super) name: &'static str,
    /// File name without `lib` and `.so`.
    pub(super) stem: &'static str,
    /// The Python package that carries it.
    pub(super) wheel: Option<&'static str>,
    pub(super) needs: &'static [Lib],
    pub(super) symbols: &'static [&'static str],
}

impl Spec {
    /// How to get it.
    pub(super) fn remedy(&self) -> String {
        match self.wheel {
            Some(wheel) => format!(
                "pip install {wheel} (into $VIRTUAL_ENV or the python3 on PATH), or install the CUDA toolkit"
            ),
            None => "install the NVIDIA driver, 570 or newer, or use --device cpu".to_owned(),
        }
    }

    /// File names to try, in cudarc's order.
    pub(super) fn file_names(&self) -> Vec<String> {
        let mut names = cudarc::get_lib_name_candidates(self.stem);
        if self.lib == Lib::Nccl {
            names.push("libnccl.so.2".to_owned());
        }
        names
    }
}

/// Indexed by [`Lib`].
pub(super) static TABLE: [Spec; 8] = [
    Spec {
        lib: Lib::Cuda,
        name: "CUDA driver",
        stem: "cuda",
        wheel: None,
        needs: &[],
        symbols: &[
            "cuInit",
            "cuDriverGetVersion",
            "cuDeviceGetCount",
            "cuDeviceGet",
            "cuDeviceGetName",
            "cuDeviceGetAttribute",
            "cuDeviceTotalMem_v2",
            "cuDevicePrimaryCtxRetain",
            "cuDevicePrimaryCtxRelease_v2",
            "cuCtxSetCurrent",
            "cuStreamCreate",
            "cuStreamSynchronize",
            "cuStreamDestroy_v2",
            "cuMemGetInfo_v2",
            "cuMemAlloc_v2",
            "cuMemFree_v2",
            "cuMemHostAlloc",
            "cuMemFreeHost",
            "cuMemcpyHtoDAsync_v2",
            "cuMemcpyDtoHAsync_v2",
            "cuMemcpyDtoDAsync_v2",
            "cuMemsetD8Async",
            "cuMemsetD32Async",
            "cuEventCreate",
            "cuEventRecord",
            "cuEventSynchronize",
            "cuEventElapsedTime_v2",
            "cuEventDestroy_v2",
            "cuModuleLoadData",
            "cuModuleUnload",
            "cuModuleGetFunction",
            "cuFuncGetAttribute",
            "cuFuncSetAttribute",
            "cuFuncGetParamInfo",
            "cuLaunchKernel",
            "cuStreamBeginCapture_v2",
            "cuStreamEndCapture",
            "cuGraphInstantiateWithFlags",
            "cuGraphGetNodes",
            "cuGraphLaunch",
            "cuGraphExecDestroy",
            "cuGraphDestroy",
            "cuTensorMapEncodeTiled",
            "cuGetErrorString",
        ],
    },
    Spec {
        lib: Lib::Nvrtc,
        name: "NVRTC",
        stem: "nvrtc",
        wheel: Some("nvidia-cuda-nvrtc"),
        needs: &[],
        symbols: &[
            "nvrtcVersion",
            "nvrtcCreateProgram",
            "nvrtcCompileProgram",
            "nvrtcDestroyProgram",
            "nvrtcGetCUBIN",
            "nvrtcGetCUBINSize",
            "nvrtcGetProgramLog",
            "nvrtcGetProgramLogSize",
        ],
    },
    Spec {
        lib: Lib::NvJitLink,
        name: "nvJitLink",
        stem: "nvJitLink",
        wheel: Some("nvidia-nvjitlink"),
        needs: &[],
        symbols: &[],
    },
    Spec {
        lib: Lib::CublasLt,
        name: "cuBLASLt",
        stem: "cublasLt",
        wheel: Some("nvidia-cublas"),
        needs: &[],
        symbols: &[
            "cublasLtMatmul",
            "cublasLtMatmulAlgoGetHeuristic",
            "cublasLtMatmulDescCreate",
            "cublasLtMatmulDescDestroy",
            "cublasLtMatmulDescSetAttribute",
            "cublasLtMatmulPreferenceCreate",
            "cublasLtMatmulPreferenceDestroy",
            "cublasLtMatmulPreferenceSetAttribute",
            "cublasLtMatrixLayoutCreate",
            "cublasLtMatrixLayoutDestroy",
            "cublasLtMatrixLayoutSetAttribute",
        ],
    },
    Spec {
        lib: Lib::Cublas,
        name: "cuBLAS",
        stem: "cublas",
        wheel: Some("nvidia-cublas"),
        needs: &[Lib::CublasLt],
        symbols: &[
            "cublasCreate_v2",
            "cublasDestroy_v2",
            "cublasSetStream_v2",
            "cublasSetWorkspace_v2",
            "cublasSetMathMode",
            "cublasGemmStridedBatchedEx",
            "cublasSgeam",
            "cublasSasum_v2",
            "cublasDgemmStridedBatched",
            "cublasDtrsmBatched",
        ],
    },
    Spec {
        lib: Lib::Cusparse,
        name: "cuSPARSE",
        stem: "cusparse",
        wheel: Some("nvidia-cusparse"),
        needs: &[Lib::NvJitLink],
        symbols: &[],
    },
    Spec {
        lib: Lib::Cusolver,
        name: "cuSOLVER",
        stem: "cusolver",
        wheel: Some("nvidia-cusolver"),
        needs: &[Lib::NvJitLink, Lib::CublasLt, Lib::Cublas, Lib::Cusparse],
        symbols: &[
            "cusolverDnCreate",
            "cusolverDnDestroy",
            "cusolverDnSetStream",
            "cusolverDnSgesvd",
            "cusolverDnSgesvd_bufferSize",
            "cusolverDnDpotrfBatched",
        ],
    },
    Spec {
        lib: Lib::Nccl,
        name: "NCCL",
        stem: "nccl",
        wheel: Some("nvidia-nccl-cu13"),
        needs: &[],
        symbols: &[],
    },
];

/// The row of a library.
pub(super) fn spec(lib: Lib) -> &'static Spec {
    &TABLE[lib as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_of_need() {
        for (place, spec) in TABLE.iter().enumerate() {
            assert_eq!(spec.lib as usize, place, "{}", spec.name);
            assert!(spec.needs.iter().all(|need| (*need as usize) < place), "{}", spec.name);
        }
    }
}
