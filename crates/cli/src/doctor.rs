//! `muon doctor`: what this machine has for training, what is missing and how to get it.

use report::format;
use serde_json::json;
use tensor::cuda::{Gpu, cache_folder, survey};

use crate::machine;
use crate::output::{columns, show};
use crate::secrets::{self, Origin};

/// Prints the processor, the memory, every CUDA library and every GPU.
pub fn run() -> anyhow::Result<()> {
    let memory = machine::memory().map_or("unknown".into(), |(available, total)| {
        format!("{} of {} available", format::bytes(available), format::bytes(total))
    });
    let cache =
        cache_folder().map_or("none: set MUON_CACHE to a folder".into(), |dir| dir.display().to_string());
    let mut rows = vec![
        [
            "CPU".to_string(),
            format!("{}, {} cores, {}", machine::processor(), machine::cores(), machine::simd()),
        ],
        ["memory".to_string(), memory],
        ["kernel cache".to_string(), cache],
    ];
    let libraries = survey();
    for found in &libraries {
        let version = found.version.as_deref().unwrap_or("version unknown");
        let state = match &found.path {
            Some(path) => format!("{version}, {}", path.display()),
            None => format!("missing: {}", found.remedy),
        };
        rows.push([found.name.to_string(), state]);
    }
    let gpus = Gpu::count();
    rows.extend((0..gpus).map(|ordinal| [format!("cuda:{ordinal}"), gpu(ordinal)]));
    if gpus == 0 {
        let reason = Gpu::open(0).err().map_or_else(String::new, |error| format!(": {error}"));
        rows.push(["GPU".to_string(), format!("none{reason}")]);
    }
    let missing: Vec<&str> = libraries.iter().filter(|f| f.path.is_none()).map(|f| f.name).collect();
    let verdict = match (gpus, missing.as_slice()) {
        (0, _) => "trains on the CPU (--device cpu)".to_string(),
        (_, []) => "trains on the GPU (--device cuda) and on the CPU".to_string(),
        (_, missing) => {
            format!("trains on the CPU; the GPU may need what is missing above: {}", missing.join(", "))
        }
    };
    rows.push(["verdict".to_string(), verdict]);
    rows.push(["secrets".to_string(), set_secrets()]);
    let value = || rows.iter().map(|[what, found]| json!({ "what": what, "found": found })).collect();
    show(value, || columns(&rows))
}

/// Which secrets are set, by name, and where.
fn set_secrets() -> String {
    if let Some(wrong) = secrets::wrong() {
        return format!("refused: {wrong}");
    }
    let one = |(name, origin): (&str, Origin)| match origin {
        Origin::Environment => format!("{name} (environment)"),
        Origin::File => format!("{name} ({})", secrets::FILE),
    };
    let all: Vec<String> = secrets::names().into_iter().map(one).collect();
    if all.is_empty() { format!("none (muon setup makes {})", secrets::FILE) } else { all.join(", ") }
}

fn gpu(ordinal: usize) -> String {
    match Gpu::open(ordinal).and_then(|gpu| gpu.info()) {
        Ok(info) => {
            let (major, minor) = info.compute_capability;
            format!(
                "{}, sm_{major}{minor}, {} multiprocessors, {} of {} free, driver {}, CUDA up to {}",
                info.name,
                info.multiprocessors,
                format::bytes(info.free_memory as u64),
                format::bytes(info.total_memory as u64),
                info.driver.as_deref().unwrap_or("unknown"),
                info.cuda,
            )
        }
        Err(error) => format!("cannot be used: {error}"),
    }
}
