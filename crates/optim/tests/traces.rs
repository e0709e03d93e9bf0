//! Traces of weights over six steps, held against other people's optimizers (see `oracles/README.md`).

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

fn replay(file: &str, optimizer: &str, given: &str, bound: f64) {
    let bytes = std::fs::read(folder().join(format!("{file}.safetensors"))).unwrap();
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
    let given: BTreeMap<String, Value> = given.split_whitespace().map(value).collect();
    let mut rule = Optimizer::new(optimizer, &given, &Common::default(), &params).unwrap();
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
            assert!(off <= bound, "{file} by {optimizer}: {name} after step {} is off by {off:.1e}", t + 1);
        }
    }
}

#[test]
fn adamw_follows_torch() {
    replay("adamw", "adamw", "", F32);
}

#[test]
fn muon_follows_the_published_optimizer_by_svd_and_by_iteration() {
    replay("muon-svd", "muon", "ortho=svd", F32);
    replay("muon-svd", "muon", "ortho=polar", F32);
}

#[test]
fn nolah_follows_the_published_optimizer() {
    for (gate, scale) in [("tanh", "0.90"), ("sigmoid", "0.99"), ("relu", "0.90")] {
        let given = format!("gate={gate} momentum_scale={scale}");
        replay(&format!("nolah-{gate}-{scale}"), "nolah", &given, F32);
    }
}

#[test]
fn torch_muon_is_followed_in_both_scalings() {
    replay("torch-muon-original", "muon-nesterov", "weight_decay=0.1", BF16);
    replay("torch-muon-match-rms", "moonlight", "", BF16);
}

#[test]
fn block_muon_follows_the_published_optimizer() {
    for size in ["16", "32"] {
        let given = format!("block_size={size} scale_shape=full");
        replay(&format!("block-muon-{size}"), "block-muon", &given, BF16);
    }
}
