//! Time between points of the work on a device: by device events on a GPU, by the clock on the CPU.

use std::time::Instant;

use tensor::Device;
use tensor::cuda::Timer;

/// A running measurement.
pub(super) enum Stopwatch {
    Cpu(Instant, Vec<f64>),
    Cuda(Timer),
}

impl Stopwatch {
    /// Starts when all work before is done.
    pub fn start(device: &Device) -> tensor::Result<Self> {
        device.synchronize()?;
        Ok(match device {
            Device::Cpu => Stopwatch::Cpu(Instant::now(), Vec::new()),
            Device::Cuda(gpu) => Stopwatch::Cuda(Timer::start(gpu)?),
        })
    }

    /// Takes the time of what was begun so far; waits for nothing.
    pub fn lap(self) -> tensor::Result<Self> {
        Ok(match self {
            Stopwatch::Cpu(start, mut laps) => {
                laps.push(start.elapsed().as_secs_f64());
                Stopwatch::Cpu(start, laps)
            }
            Stopwatch::Cuda(timer) => Stopwatch::Cuda(timer.lap()?),
        })
    }

    /// Seconds from the start to each lap.
    pub fn stop(self) -> tensor::Result<Vec<f64>> {
        Ok(match self {
            Stopwatch::Cpu(_, laps) => laps,
            Stopwatch::Cuda(timer) => timer.laps()?.into_iter().map(|ms| f64::from(ms) / 1e3).collect(),
        })
    }
}
