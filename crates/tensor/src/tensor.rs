//! A dense row-major array on one device: a shape over a shared buffer.
//!
//! Cloning shares the buffer. Views ([`Tensor::slot`], [`Tensor::view`]) share it too; there are no strides, an
//! operation that works on some columns of a matrix is told which.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard};

use crate::cuda::DeviceBuf;
use crate::host::HostBuf;
use crate::{DType, Device, Error, Result, ops};

pub(crate) enum Storage {
    Host(HostBuf),
    Cuda(DeviceBuf),
}

/// A dense row-major array.
#[derive(Clone)]
pub struct Tensor {
    device: Device,
    storage: Arc<Storage>,
    offset: usize,
    shape: Vec<usize>,
    dtype: DType,
}

/// Shared access to the elements of a CPU tensor.
pub struct HostRef<'a>(RwLockReadGuard<'a, Vec<f32>>, usize, usize);

/// Exclusive access to the elements of a CPU tensor.
pub struct HostMut<'a>(RwLockWriteGuard<'a, Vec<f32>>, usize, usize);

impl Deref for HostRef<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0[self.1..self.2]
    }
}

impl Deref for HostMut<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0[self.1..self.2]
    }
}

impl DerefMut for HostMut<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0[self.1..self.2]
    }
}

impl Tensor {
    pub(crate) fn whole(device: Device, storage: Storage, shape: &[usize], dtype: DType) -> Self {
        Tensor { device, storage: Arc::new(storage), offset: 0, shape: shape.to_vec(), dtype }
    }

    /// Whether another tensor has memory of the same allocation.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.storage) > 1
    }

    /// The device it is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Product of all axes but the last: how many rows it has as a matrix.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len() - 1].iter().product()
    }

    /// Length of the last axis.
    pub fn cols(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    /// The same elements under another shape of equal size.
    #[must_use]
    pub fn view(&self, shape: &[usize]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), self.numel(), "view {shape:?} of {:?}", self.shape);
        Tensor { shape: shape.to_vec(), ..self.clone() }
    }

    /// Member `i` of the first axis.
    #[must_use]
    pub fn slot(&self, i: usize) -> Tensor {
        self.range(i, 1).view(&self.shape[1..])
    }

    /// `count` members of the first axis from `start`.
    #[must_use]
    pub fn range(&self, start: usize, count: usize) -> Tensor {
        assert!(start + count <= self.shape[0], "range {start}+{count} of {:?}", self.shape);
        let stride: usize = self.shape[1..].iter().product();
        let mut shape = self.shape.clone();
        shape[0] = count;
        Tensor { offset: self.offset + start * stride, shape, ..self.clone() }
    }

    /// The beginning of a GPU tensor's memory under another shape and type.
    pub(crate) fn recast(&self, shape: &[usize], dtype: DType) -> Tensor {
        let (have, want) = (self.dtype.size(), dtype.size());
        let count: usize = shape.iter().product();
        assert!(count * want <= self.numel() * have, "{shape:?} in the memory of {self:?}");
        assert!((self.offset * have).is_multiple_of(want), "a tensor that starts inside an element");
        Tensor { offset: self.offset * have / want, shape: shape.to_vec(), dtype, ..self.clone() }
    }

    /// These tensors as one, along their first axis, where they lie next to each other in this order.
    pub(crate) fn joined(parts: &[&Tensor]) -> Option<Tensor> {
        let (first, rest) = parts.split_first()?;
        let mut whole = (*first).clone();
        for part in rest {
            let follows = Arc::ptr_eq(&part.storage, &whole.storage)
                && part.dtype == whole.dtype
                && part.offset == whole.offset + whole.numel()
                && part.shape[1..] == whole.shape[1..];
            if !follows {
                return None;
            }
            whole.shape[0] += part.shape[0];
        }
        Some(whole)
    }

    /// Reads a CPU tensor in place.
    ///
    /// # Panics
    /// If it is on a GPU, or if somebody writes to the same buffer at the same time: both are bugs of the caller.
    pub fn read(&self) -> HostRef<'_> {
        match &*self.storage {
            Storage::Host(buf) => {
                let guard = buf.data.try_read().expect("the buffer is being written");
                HostRef(guard, self.offset, self.offset + self.numel())
            }
            Storage::Cuda(_) => panic!("host access to a GPU tensor"),
        }
    }

    /// Writes a CPU tensor in place; panics as [`Tensor::read`] does.
    pub fn write(&self) -> HostMut<'_> {
        match &*self.storage {
            Storage::Host(buf) => {
                let guard = buf.data.try_write().expect("the buffer is in use");
                HostMut(guard, self.offset, self.offset + self.numel())
            }
            Storage::Cuda(_) => panic!("host access to a GPU tensor"),
        }
    }

    /// Device address of the first element of a GPU tensor; panics on a CPU tensor.
    pub fn ptr(&self) -> u64 {
        match &*self.storage {
            Storage::Cuda(buf) => buf.ptr() + (self.offset * self.dtype.size()) as u64,
            Storage::Host(_) => panic!("device address of a CPU tensor"),
        }
    }

    /// Device address of the allocation that a GPU tensor lies in; panics on a CPU tensor.
    pub(crate) fn allocation(&self) -> u64 {
        match &*self.storage {
            Storage::Cuda(buf) => buf.ptr(),
            Storage::Host(_) => panic!("device address of a CPU tensor"),
        }
    }

    /// Copies the elements to the host as f32, waiting for the device.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        match (&self.device, self.dtype) {
            (Device::Cpu, _) => Ok(self.read().to_vec()),
            (Device::Cuda(gpu), DType::F32) => {
                let mut bytes = vec![0u8; 4 * self.numel()];
                gpu.download(&mut bytes, self.ptr())?;
                Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            (Device::Cuda(gpu), DType::BF16) => {
                let mut bytes = vec![0u8; 2 * self.numel()];
                gpu.download(&mut bytes, self.ptr())?;
                Ok(bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
            }
            (Device::Cuda(gpu), DType::F16) => {
                let mut bytes = vec![0u8; 2 * self.numel()];
                gpu.download(&mut bytes, self.ptr())?;
                Ok(bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
            }
        }
    }

    /// Overwrites the elements from the host; a bf16 tensor rounds to nearest even.
    pub fn copy_from_slice(&self, values: &[f32]) -> Result<()> {
        if values.len() != self.numel() {
            return Err(Error::shape("copy", format!("{} values for shape {:?}", values.len(), self.shape)));
        }
        match (&self.device, self.dtype) {
            (Device::Cpu, _) => {
                self.write().copy_from_slice(values);
                Ok(())
            }
            (Device::Cuda(gpu), DType::F32) => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                gpu.upload(self.ptr(), &bytes)
            }
            (Device::Cuda(gpu), DType::BF16) => {
                let bytes: Vec<u8> =
                    values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
                gpu.upload(self.ptr(), &bytes)
            }
            (Device::Cuda(gpu), DType::F16) => {
                let bytes: Vec<u8> =
                    values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
                gpu.upload(self.ptr(), &bytes)
            }
        }
    }

    /// Sets every element to zero.
    pub fn fill_zero(&self) -> Result<()> {
        match &self.device {
            Device::Cpu => {
                self.write().fill(0.0);
                Ok(())
            }
            Device::Cuda(gpu) => gpu.fill_zero(self.ptr(), self.numel() * self.dtype.size()),
        }
    }

    /// Copies all elements into `to`, which has the same shape and device; converts between element types.
    pub fn cast_into(&self, to: &Tensor) -> Result<()> {
        if !self.device.same(&to.device) || self.numel() != to.numel() {
            return Err(Error::shape("cast", format!("{:?} into {:?}", self.shape, to.shape)));
        }
        ops::elementwise::cast(self, to)
    }

    /// A copy with another element type.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        let to = self.device.empty(&self.shape, dtype)?;
        self.cast_into(&to)?;
        Ok(to)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} on {:?}", self.dtype, self.shape, self.device)
    }
}
