//! What this machine is made of, as far as the system tells.

use std::fs;
use std::thread;

use tensor::Device;
use train::Place;

/// Cores that this process may use.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The processor's name.
pub fn processor() -> String {
    let name = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| field(&text, "model name"));
    name.unwrap_or_else(|| format!("unknown {} CPU", std::env::consts::ARCH))
}

/// Bytes of main memory, available and in all.
pub fn memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let size = |name| Some(field(&text, name)?.split_whitespace().next()?.parse::<u64>().ok()? << 10);
    Some((size("MemAvailable")?, size("MemTotal")?))
}

/// The widest vector instructions that the CPU path can use here.
pub fn simd() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        let levels = [
            ("AVX-512", is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")),
            ("AVX2 and FMA", is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
        ];
        levels.iter().find(|(_, there)| *there).map_or("SSE2 (slow: no AVX2)", |(name, _)| name)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        if cfg!(target_arch = "aarch64") { "NEON" } else { "unknown" }
    }
}

/// A device that was found.
pub struct Found {
    /// The device and what the record of a run calls it.
    pub place: Place,
    /// Its name for `--device`.
    pub flag: String,
}

impl Found {
    /// Looks at a device.
    pub fn on(device: Device) -> tensor::Result<Self> {
        let info = match &device {
            Device::Cuda(gpu) => gpu.info()?,
            Device::Cpu => {
                let free = memory().map(|(available, _)| available);
                let place = Place { device, name: processor(), driver: None, free };
                return Ok(Found { place, flag: "cpu".into() });
            }
        };
        let flag = format!("cuda:{}", info.ordinal);
        let free = Some(info.free_memory as u64);
        Ok(Found { place: Place { device, name: info.name, driver: info.driver, free }, flag })
    }
}

/// The value after the first `name :` of a file in /proc.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:       100 kB\nmodel name\t: A: B\nmodel\t: 7\n";
        assert_eq!(field(text, "MemTotal").as_deref(), Some("100 kB"));
        assert_eq!(field(text, "model name").as_deref(), Some("A: B"));
        assert_eq!(field(text, "model").as_deref(), Some("7"));
        assert_eq!(field(text, "Mem"), None);
    }
}
