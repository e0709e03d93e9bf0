//! Traces of weights over six steps, held against other people's optimizers (see `oracles/README.md`). Each file says
//! in its metadata which optimizer and settings made it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use optim::{Common, Optimizer, Rates, Value, Watch};
use safetensors::SafeTensors;
use tensor::params::{Init, ParamSpec, Params, Role};
use tensor::{Device, Precision};

/// Largest difference, relative to the distance moved, of traces in f32.
const F32: f64 = 1e-4;
/// The same where the trace's orthogonaliser works in bf16.
const BF16: f64 = 2e-2;

fn folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../oracles/optimizers");
    std::env::var_os("MUON_OPTIMIZER_ORACLES").map_or_else(own, PathBuf::from)
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

/// `key=value` as settings take it.
fn value(text: &str) -> (String, Value) {
    let (key, value) = text.split_once('=').unwrap();
    let value = match (value.parse(), value.parse()) {
        (Ok(number), _) => Value::Number(number),
        (_, Ok(switch)) => Value::Switch(switch),
        _ => Value::Word(value.into()),
    };
    (key.into(), value)
}

/// What made a trace that does not say so itself.
fn by_name(file: &str) -> String {
    match file.split('-').collect::<Vec<_>>()[..] {
        ["adamw"] => "adamw".into(),
        ["muon", "svd"] => "muon ortho=svd".into(),
        ["nolah", gate, scale] => format!("nolah gate={gate} momentum_scale={scale}"),
        ["block", "muon", size] => format!("block-muon block_size={size} scale_shape=full"),
        ["torch", "muon", "original"] => "muon-nesterov weight_decay=0.1".into(),
        ["torch", "muon", "match", "rms"] => "moonlight".into(),
        _ => panic!("nobody knows what made {file}"),
    }
}

/// Replays a file as it says.
fn replay(path: &Path) -> (String, f64) {
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let said = header.metadata().as_ref().and_then(|metadata| metadata.get("replay").cloned());
    let file = path.file_stem().unwrap().to_string_lossy();
    let replay = said.unwrap_or_else(|| by_name(&file));
    let worst = replay_as(path, &replay);
    (replay, worst)
}

/// Replays a file by this optimizer with these settings: the largest difference of any weight after any step, relative
/// to the distance moved.
fn replay_as(path: &Path, replay: &str) -> f64 {
    let bytes = std::fs::read(path).unwrap();
    let (optimizer, settings) = replay.split_once(' ').unwrap_or((replay, ""));
    let trace = SafeTensors::deserialize(&bytes).unwrap();
    let read = |name: &str| -> Vec<f32> {
        let data = trace.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}")).data().to_vec();
        data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    };
    let names: Vec<&str> = ["tall", "wide", "square", "vector"]
        .into_iter()
        .filter(|name| trace.tensor(&format!("{name}.0")).is_ok())
        .collect();
    assert!(names.len() >= 3);
    let spec = |name: &&str| ParamSpec {
        name: (*name).into(),
        shape: trace.tensor(&format!("{name}.0")).unwrap().shape().to_vec(),
        role: if *name == "vector" { Role::Vector } else { Role::Matrix },
        out_axis: 0,
        segments: vec![],
        init: Init::Zeros,
    };
    let params = Params::new(&Device::Cpu, Precision::F32, names.iter().map(spec).collect()).unwrap();
    for (i, name) in names.iter().enumerate() {
        params.set_weight(i, &read(&format!("{name}.0"))).unwrap();
    }
    let given: BTreeMap<String, Value> = settings.split_whitespace().map(value).collect();
    let mut rule = Optimizer::new(optimizer, &given, &Common::default(), &params).unwrap();
    let mut worst = 0.0f64;
    for (t, &rate) in read("rate").iter().enumerate() {
        for (i, name) in names.iter().enumerate() {
            params.get(i).grad.copy_from_slice(&read(&format!("{name}.grad.{}", t + 1))).unwrap();
        }
        // The vectors of the Muon traces run at AdamW's own rate, which their script does not warm up.
        rule.step(&params, Rates { matrices: rate, rest: 3e-4 }, Watch::Off).unwrap();
        for (i, name) in names.iter().enumerate() {
            let golden = read(&format!("{name}.{}", t + 1));
            let moved = distance(&golden, &read(&format!("{name}.0")));
            let off = distance(&params.weight(i).unwrap(), &golden) / moved;
            worst = if off.is_nan() { f64::NAN } else { worst.max(off) };
        }
    }
    worst
}

#[test]
fn every_trace_is_followed() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let (replay, worst) = replay(&path);
        println!("{worst:.1e} {replay}");
        let half = replay.contains("bf16") || path.to_string_lossy().contains("block-muon");
        let half = half || path.to_string_lossy().contains("torch-muon");
        let bound = if half && !replay.contains("ortho_dtype=f32") { BF16 } else { F32 };
        assert!(worst <= bound, "{}: {replay} is off by {worst:.1e}", path.display());
        count += 1;
    }
    assert!(count >= 12, "{count} traces");
}

#[test]
fn the_iteration_takes_the_path_of_the_decomposition() {
    let worst = replay_as(&folder().join("muon-svd.safetensors"), "muon ortho=polar");
    assert!(worst <= F32, "{worst:.1e}");
}

/// Without noise, `OrthoNoise` is Muon: with an exact polar factor its cubic steps change nothing but rounding.
#[test]
fn orthonoise_without_noise_is_muon() {
    let worst =
        replay_as(&folder().join("muon-svd.safetensors"), "orthonoise ortho=svd alpha=0 adaptive=false");
    assert!(worst <= 1e-3, "{worst:.1e}");
}
