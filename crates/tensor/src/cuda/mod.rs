//! One NVIDIA GPU, without a CUDA installation at build time.
//!
//! - [`survey`]: the driver, NVRTC, cuBLAS, cuSOLVER and NCCL, as found at run time, with remedies.
//! - [`Gpu`]: a device, its primary context and the one stream on which everything runs, in order.
//! - [`DeviceBuf`]: memory from a caching pool; once warm, a training step asks the driver for nothing.
//! - [`Source`] and [`Gpu::launch`]: kernels, compiled by NVRTC at first use and kept on disk.
//! - [`Gemm`], [`Gpu::gemm`], [`Gpu::gemm_plus`] and [`Gpu::gemm_bias`]: row-major matrix products by cuBLAS and cuBLASLt.
//! - [`Gpu::svd`]: the singular value decomposition by cuSOLVER.
//! - [`Staged`]: a copy of tensors at one moment, brought to the host by a [`Lane`] while the stream goes on.
//!
//! One stream means that order of calls is order of execution: a buffer that goes back to the pool may be handed out
//! again at once, since whatever still reads it comes first on the stream. The one other stream is that of a [`Lane`],
//! which reads memory that stands still. Device addresses are plain `u64`; that they lie within living buffers is the
//! caller's duty, and a kernel that strays makes the next call on the device fail. To learn which one strayed, run with
//! `CUDA_LAUNCH_BLOCKING=1`: the driver then reports at the launch itself.

mod blas;
mod cache;
mod catalogue;
mod check;
pub(crate) mod cholesky;
mod copies;
mod gemm;
mod gpu;
mod graph;
mod kernels;
pub(crate) mod libraries;
mod lt;
mod nvrtc;
mod pool;
mod profile;
mod search;
mod solver;
mod staged;
mod tma;
pub(crate) mod tune;
mod versions;

#[cfg(test)]
mod tests;

pub use cache::folder as cache_folder;
pub use copies::Timer;
pub use gemm::{Gemm, Operand};
pub use gpu::{Gpu, Info};
pub use graph::Graph;
pub use kernels::{Arg, KernelStats, Source};
pub use libraries::{Found, survey};
pub use nvrtc::{Compiled, compile, compile_verbose, keep};
pub use pool::{DeviceBuf, PoolStats};
pub use profile::{Cost, Work};
pub use solver::Svd;
pub use staged::{Lane, Staged};
pub use tma::{CLUSTER_SHARED, CLUSTER_THREADS, TensorMap};
