//! One device: its primary context, its stream, its pool, and what was loaded onto it.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute as Attribute, CUresult, CUstream};

use super::blas::Blas;
use super::check;
use super::copies::Staging;
use super::kernels::Kernels;
use super::libraries;
use super::libraries::Lib;
use super::pool::{DeviceBuf, Memory, Pool, PoolStats};
use super::profile::Recorder;
use super::solver::Solver;
use super::versions;
use crate::error::{Error, Result};

/// One NVIDIA GPU, shared by reference. All work goes to one stream, in the order of the calls; calls may come from
/// any thread. Two `Gpu`s of one ordinal share the device's context but neither stream nor pool.
pub struct Gpu {
    ordinal: usize,
    device: CUdevice,
    context: CUcontext,
    pub(super) stream: CUstream,
    facts: Facts,
    pub(super) pool: Mutex<Pool>,
    pub(super) profile: Mutex<Option<Recorder>>,
    /// Whether a graph is being recorded.
    pub(super) capturing: AtomicBool,
    pub(super) staging: Mutex<Option<Staging>>,
    pub(super) kernels: Mutex<Kernels>,
    pub(super) blas: Mutex<Option<Blas>>,
    pub(super) solver: Mutex<Option<Solver>>,
}

// SAFETY: the raw handles may be used from any thread that has the context current, which every call makes sure of
// (`bind`); what the driver and the libraries do not serialise themselves is behind a mutex.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its number.
    pub ordinal: usize,
    /// Its name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Bytes of memory.
    pub total_memory: usize,
    /// Bytes not taken by anyone; what a pool has cached counts as taken.
    pub free_memory: usize,
    /// Release of the kernel driver, such as `580.159.04`, where the operating system tells.
    pub driver: Option<String>,
    /// The newest CUDA version that the driver serves, such as `13.0`.
    pub cuda: String,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block can opt in to.
    pub shared_memory_per_block: usize,
}

/// The part of [`Info`] that does not change.
struct Facts {
    name: String,
    compute_capability: (u32, u32),
    total_memory: usize,
    cuda: String,
    multiprocessors: u32,
    shared_memory_per_block: usize,
}

impl Gpu {
    /// How many GPUs can be used: none without a driver.
    pub fn count() -> usize {
        devices().unwrap_or(0)
    }

    /// Opens a GPU by its number, from 0.
    pub fn open(ordinal: usize) -> Result<Arc<Self>> {
        let count = devices()?;
        if ordinal >= count {
            return Err(Error::NoGpu(format!(
                "there is no GPU {ordinal}: the driver shows {count}, numbered from 0 (see CUDA_VISIBLE_DEVICES)"
            )));
        }
        let mut device = 0;
        // SAFETY: the driver is initialised and the ordinal below its count.
        check::driver("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, ordinal as c_int) })?;
        let facts = Facts::of(device)?;
        let mut context = ptr::null_mut();
        // SAFETY: `device` is a device of this process; the release is in `drop`.
        check::driver("cuDevicePrimaryCtxRetain", unsafe {
            sys::cuDevicePrimaryCtxRetain(&raw mut context, device)
        })?;
        let mut gpu = Gpu {
            ordinal,
            device,
            context,
            stream: ptr::null_mut(),
            facts,
            pool: Mutex::default(),
            profile: Mutex::default(),
            capturing: AtomicBool::default(),
            staging: Mutex::default(),
            kernels: Mutex::default(),
            blas: Mutex::default(),
            solver: Mutex::default(),
        };
        gpu.bind()?;
        let non_blocking = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current; the stream is destroyed in `drop`.
        check::driver("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut gpu.stream, non_blocking) })?;
        Ok(Arc::new(gpu))
    }

    /// What this device is, and how much of its memory is free now.
    pub fn info(&self) -> Result<Info> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current; both pointers are to locals.
        check::driver("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok(Info {
            ordinal: self.ordinal,
            name: self.facts.name.clone(),
            compute_capability: self.facts.compute_capability,
            total_memory: self.facts.total_memory,
            free_memory: free,
            driver: versions::driver_release(),
            cuda: self.facts.cuda.clone(),
            multiprocessors: self.facts.multiprocessors,
            shared_memory_per_block: self.facts.shared_memory_per_block,
        })
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.facts.multiprocessors
    }

    /// Bytes of shared memory that a block can opt in to.
    pub fn shared_memory_per_block(&self) -> usize {
        self.facts.shared_memory_per_block
    }

    /// Major and minor.
    pub fn compute_capability(&self) -> (u32, u32) {
        self.facts.compute_capability
    }

    /// The architecture that kernels are compiled for, such as `sm_80`; that of an H100 or H200 is `sm_90a`, with what
    /// they alone have.
    pub fn arch(&self) -> String {
        let (major, minor) = self.facts.compute_capability;
        format!("sm_{major}{minor}{}", if self.is_hopper() { "a" } else { "" })
    }

    /// Whether it has the matrix and copy instructions that H100 and H200 alone have.
    pub fn is_hopper(&self) -> bool {
        self.facts.compute_capability == (9, 0)
    }

    /// Waits until everything launched so far has run; errors of kernels show here at the latest.
    pub fn synchronize(&self) -> Result<()> {
        self.outside_graphs("waiting for the device")?;
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        check::driver("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) })
    }

    /// Memory for so many bytes, with whatever contents.
    pub fn alloc(self: &Arc<Self>, bytes: usize) -> Result<DeviceBuf> {
        let ptr = self.take(bytes)?;
        Ok(DeviceBuf::new(Arc::clone(self), ptr, bytes))
    }

    /// What the pool holds.
    pub fn pool_stats(&self) -> PoolStats {
        lock(&self.pool).stats()
    }

    /// Starts the peak anew from what is in use now.
    pub fn reset_peak(&self) {
        lock(&self.pool).reset_peak();
    }

    /// A block from the pool without an owner: it goes back by [`Gpu::give`], or with the device.
    pub(super) fn take(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        let mut pool = lock(&self.pool);
        pool.take(bytes, self)?.ok_or_else(|| Error::OutOfMemory {
            device: self.facts.name.clone(),
            wanted: bytes,
            in_use: pool.stats().in_use,
            total: self.facts.total_memory,
        })
    }

    pub(super) fn give(&self, ptr: u64, bytes: usize) {
        lock(&self.pool).give(ptr, bytes);
    }

    /// Makes the device's context the calling thread's.
    pub(super) fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained as long as `self` lives.
        check::driver("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) })
    }
}

impl Memory for Gpu {
    fn alloc(&self, bytes: usize) -> Result<Option<u64>> {
        let mut address = 0;
        // SAFETY: the context is current (`take`); the address is a local.
        match unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            status => check::driver("cuMemAlloc", status).map(|()| Some(address)),
        }
    }

    fn free(&self, ptr: u64) -> Result<()> {
        // SAFETY: the pool frees what `alloc` gave, once; cuMemFree waits for the work that uses it.
        check::driver("cuMemFree", unsafe { sys::cuMemFree_v2(ptr) })
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // Nothing can be done about an error here, and after a failed kernel every call returns one. Work in flight
        // may still use what is freed below, hence the wait first.
        let _ = self.synchronize();
        *lock(&self.profile) = None;
        let blas = lock(&self.blas).take();
        if let Some(blas) = blas {
            blas.destroy(self);
        }
        if let Some(solver) = lock(&self.solver).take() {
            solver.destroy();
        }
        if let Some(staging) = lock(&self.staging).take() {
            staging.destroy();
        }
        lock(&self.kernels).unload();
        let mut pool = std::mem::take(&mut *lock(&self.pool));
        let _ = pool.release_cached(self);
        // SAFETY: both were made in `open` and nothing uses them any more.
        unsafe {
            let _ = sys::cuStreamDestroy_v2(self.stream);
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({}: {})", self.ordinal, self.facts.name)
    }
}

impl Facts {
    fn of(device: CUdevice) -> Result<Self> {
        let mut name: [c_char; 128] = [0; 128];
        let (mut total_memory, mut version) = (0, 0);
        // SAFETY: `device` is valid; the lengths are those of the locals, and the name comes back terminated.
        let name = unsafe {
            check::driver("cuDeviceGetName", sys::cuDeviceGetName(name.as_mut_ptr(), 128, device))?;
            check::driver("cuDeviceTotalMem", sys::cuDeviceTotalMem_v2(&raw mut total_memory, device))?;
            check::driver("cuDriverGetVersion", sys::cuDriverGetVersion(&raw mut version))?;
            CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
        };
        let attribute = |which| -> Result<u32> {
            let mut value = 0;
            // SAFETY: `device` is valid and `value` a local.
            let status = unsafe { sys::cuDeviceGetAttribute(&raw mut value, which, device) };
            check::driver("cuDeviceGetAttribute", status).map(|()| value as u32)
        };
        Ok(Facts {
            name,
            compute_capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            total_memory,
            cuda: format!("{}.{}", version / 1000, version % 1000 / 10),
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_memory_per_block: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )? as usize,
        })
    }
}

/// Holds a mutex even if another thread panicked with it: none of the states guarded here can be left half-changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Loads and initialises the driver once a process, and counts its devices.
fn devices() -> Result<usize> {
    static COUNT: OnceLock<Result<usize, String>> = OnceLock::new();
    let initialise = || {
        libraries::require(Lib::Cuda).map_err(|error| error.to_string())?;
        let mut count = 0;
        // SAFETY: the driver is loaded with both functions.
        let status = unsafe {
            match sys::cuInit(0) {
                CUresult::CUDA_SUCCESS => sys::cuDeviceGetCount(&raw mut count),
                failure => failure,
            }
        };
        match status {
            CUresult::CUDA_SUCCESS if count > 0 => Ok(count as usize),
            CUresult::CUDA_SUCCESS | CUresult::CUDA_ERROR_NO_DEVICE => Err(
                "the NVIDIA driver shows no GPU: see nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu".to_owned(),
            ),
            failure => Err(format!(
                "the NVIDIA driver does not start, {}: see nvidia-smi, or use --device cpu",
                check::describe(failure)
            )),
        }
    };
    COUNT.get_or_init(initialise).clone().map_err(Error::NoGpu)
}
