//! Where tensors live, and in which precision a model computes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::cuda::Gpu;
use crate::host::HostBuf;
use crate::tensor::{Storage, Tensor};
use crate::{Error, Result};

/// Element type of a tensor. On the CPU everything is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// bfloat16: the upper half of an f32.
    BF16,
    /// IEEE half precision: a factor of matrix products, into which f32 can be split; no operation reads it.
    F16,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::BF16 | DType::F16 => 2,
        }
    }
}

/// In what precision a model computes, and what its weights of record are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Everything in f32. The default on the CPU.
    F32,
    /// Activations and matrix products in bf16, weights of record, gradients and optimizer state in f32.
    /// The default on CUDA.
    Mixed,
    /// As mixed, with the weights of record in bf16: every update is rounded to it; and the gradients of those that
    /// matrix products read, and the residual stream with its gradient. The CPU, which has no bf16 arithmetic here, computes in f32 on the rounded weights and keeps
    /// its gradients in f32.
    Bf16,
}

impl Precision {
    /// Element type of activations and of the weights that matrix products read.
    pub fn compute(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Mixed | Precision::Bf16 => DType::BF16,
        }
    }

    /// Element type of the residual stream and of its gradient: f32, but in bf16 that of all activations, as in a model
    /// that was cast to it.
    pub fn stream(self) -> DType {
        match self {
            Precision::F32 | Precision::Mixed => DType::F32,
            Precision::Bf16 => DType::BF16,
        }
    }

    /// Element type that the weights of record are rounded to.
    pub fn record(self) -> DType {
        match self {
            Precision::F32 | Precision::Mixed => DType::F32,
            Precision::Bf16 => DType::BF16,
        }
    }

    /// In what a device computes where this is asked for: the CPU has f32 only.
    #[must_use]
    pub fn arithmetic(self, device: &Device) -> Precision {
        if self == Precision::Bf16 && !device.is_cuda() { Precision::F32 } else { self }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Mixed => "mixed",
            Precision::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Precision::F32),
            "mixed" => Ok(Precision::Mixed),
            "bf16" => Ok(Precision::Bf16),
            other => Err(format!("unknown precision `{other}`; use f32, mixed or bf16")),
        }
    }
}

/// A place that holds tensors and computes with them.
#[derive(Clone)]
pub enum Device {
    /// The host's cores.
    Cpu,
    /// One NVIDIA GPU.
    Cuda(Arc<Gpu>),
}

impl Device {
    /// The device that a `--device` value names: `cpu`, `cuda`, `cuda:N`, or `auto` (a GPU where there is one).
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(Device::Cpu),
            "auto" if Gpu::count() == 0 => Ok(Device::Cpu),
            "auto" | "cuda" => Ok(Device::Cuda(Gpu::open(0)?)),
            other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(ordinal) => Ok(Device::Cuda(Gpu::open(ordinal)?)),
                None => Err(Error::NoGpu(format!("unknown device `{other}`; use auto, cpu, cuda or cuda:N"))),
            },
        }
    }

    /// Whether this is a GPU.
    pub fn is_cuda(&self) -> bool {
        matches!(self, Device::Cuda(_))
    }

    /// A tensor whose contents are whatever the memory held.
    pub fn empty(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let numel: usize = shape.iter().product();
        let storage = match self {
            Device::Cpu if dtype == DType::F32 => Storage::Host(HostBuf::new(numel)),
            Device::Cpu => return Err(Error::shape("empty", "the CPU computes in f32 only")),
            Device::Cuda(gpu) => Storage::Cuda(gpu.alloc((numel * dtype.size()).max(1))?),
        };
        Ok(Tensor::whole(self.clone(), storage, shape, dtype))
    }

    /// A tensor of zeros.
    pub fn zeros(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let tensor = self.empty(shape, dtype)?;
        tensor.fill_zero()?;
        Ok(tensor)
    }

    /// An f32 tensor with these values.
    pub fn from_slice(&self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        let tensor = self.empty(shape, DType::F32)?;
        tensor.copy_from_slice(values)?;
        Ok(tensor)
    }

    /// Waits until all work on the device is done.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Device::Cpu => Ok(()),
            Device::Cuda(gpu) => gpu.synchronize(),
        }
    }

    /// Most bytes that tensors held at once since the last [`Device::reset_peak`].
    pub fn peak_bytes(&self) -> usize {
        match self {
            Device::Cpu => crate::host::peak_bytes(),
            Device::Cuda(gpu) => gpu.pool_stats().peak_in_use,
        }
    }

    /// Starts the peak anew from what is held now.
    pub fn reset_peak(&self) {
        match self {
            Device::Cpu => crate::host::reset_peak(),
            Device::Cuda(gpu) => gpu.reset_peak(),
        }
    }

    pub(crate) fn same(&self, other: &Device) -> bool {
        match (self, other) {
            (Device::Cpu, Device::Cpu) => true,
            (Device::Cuda(a), Device::Cuda(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_cuda() { "cuda" } else { "cpu" })
    }
}
