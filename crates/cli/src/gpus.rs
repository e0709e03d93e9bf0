//! What the GPUs of this machine are doing, from NVML, which comes with the driver and is looked for at run time.

use std::ffi::OsStr;
use std::fmt;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use report::Gpu;

/// The library's name on a machine without a toolkit; the wrapper's own is that of the toolkit.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// NVML, or what it answered with.
#[derive(Debug)]
pub struct Failed(NvmlError);

/// The library, loaded.
pub struct Gpus(Nvml);

impl Gpus {
    /// Loads the library.
    pub fn open() -> Result<Self, Failed> {
        Nvml::builder().lib_path(OsStr::new(LIBRARY)).init().map(Gpus).map_err(Failed)
    }

    /// All GPUs as of now. What one of them does not tell is `None`.
    pub fn now(&self) -> Result<Vec<Gpu>, Failed> {
        (0..self.0.device_count().map_err(Failed)?).map(|index| self.one(index).map_err(Failed)).collect()
    }

    fn one(&self, index: u32) -> Result<Gpu, NvmlError> {
        let device = self.0.device_by_index(index)?;
        let memory = device.memory_info().ok();
        let watts = |milliwatts: u32| f64::from(milliwatts) / 1e3;
        Ok(Gpu {
            index,
            name: device.name()?,
            busy: device.utilization_rates().ok().map(|rates| rates.gpu),
            memory: memory.map(|memory| (memory.used, memory.total)),
            celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            watts: device.power_usage().ok().map(watts),
            watts_limit: device.enforced_power_limit().ok().map(watts),
        })
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => {
                write!(f, "NVML: {LIBRARY} cannot be loaded (it comes with the NVIDIA driver)")
            }
            error => write!(f, "NVML: {error}"),
        }
    }
}

impl std::error::Error for Failed {}
