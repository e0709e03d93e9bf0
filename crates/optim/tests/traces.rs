//! Traces of weights over six steps, held against other people's optimizers (see `oracles/README.md`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use optim::{AdamWSettings, Optimizer, Rates, Value};
use safetensors::SafeTensors;
use tensor::params::{Init, ParamSpec, Params, Role};
use tensor::{Device, Precision};

/// Largest difference, relative to the distance moved.
const BOUND: f64 = 1e-4;

fn folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../oracles/optimizers");
    std::env::var_os("MUON_OPTIMIZER_ORACLES").map_or_else(own, PathBuf::from)
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

fn replay(trace: &str, optimizer: &str, given: &[(&str, &str)]) {
    let bytes = std::fs::read(folder().join(trace)).unwrap();
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
    let given: BTreeMap<String, Value> =
        given.iter().map(|(key, word)| ((*key).to_string(), Value::Word((*word).to_string()))).collect();
    let mut rule = Optimizer::new(optimizer, &given, &AdamWSettings::default(), &params).unwrap();
    for (t, &rate) in read("rate").iter().enumerate() {
        for (i, name) in names.iter().enumerate() {
            params.get(i).grad.copy_from_slice(&read(&format!("{name}.grad.{}", t + 1))).unwrap();
        }
        // The vectors of the Muon traces run at AdamW's own rate, which their script does not warm up.
        rule.step(&params, Rates { matrices: rate, rest: 3e-4 }).unwrap();
        for (i, name) in names.iter().enumerate() {
            let golden = read(&format!("{name}.{}", t + 1));
            let moved = distance(&golden, &read(&format!("{name}.0")));
            let off = distance(&params.weight(i).unwrap(), &golden) / moved;
            assert!(off <= BOUND, "{optimizer} {given:?}: {name} after step {} is off by {off:.1e}", t + 1);
        }
    }
}

#[test]
fn adamw_follows_torch() {
    replay("adamw.safetensors", "adamw", &[]);
}

#[test]
fn muon_by_svd_follows_the_published_optimizer() {
    replay("muon-svd.safetensors", "muon", &[("ortho", "svd")]);
}

#[test]
fn muon_by_polar_iteration_takes_the_same_path() {
    replay("muon-svd.safetensors", "muon", &[("ortho", "polar")]);
}
