//! Logits, loss and every gradient against numbers that transformers computed (see `oracles/README.md`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use models::{Config, Model};
use safetensors::SafeTensors;
use tensor::tape::Tape;
use tensor::{Device, Precision, Tokens};

/// Relative error (Frobenius) that f32 must stay below.
const BOUND: f64 = 1e-4;

fn cases() -> Vec<PathBuf> {
    let folder = std::env::var_os("MUON_ORACLES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../oracles"), PathBuf::from);
    let entries = std::fs::read_dir(folder).expect("the oracles folder is part of the repository");
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.join("golden.safetensors").exists())
        .collect();
    cases.sort();
    cases
}

fn floats(tensor: &safetensors::tensor::TensorView) -> Vec<f32> {
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn relative(ours: &[f32], golden: &[f32]) -> f64 {
    assert_eq!(ours.len(), golden.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let off = norm(&mut ours.iter().zip(golden).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    off / norm(&mut golden.iter().map(|&b| f64::from(b))).max(1e-30)
}

#[test]
fn every_number_agrees_with_transformers() {
    let cases = cases();
    assert!(cases.len() >= 2, "found {} cases", cases.len());
    for case in cases {
        let bytes = std::fs::read(case.join("golden.safetensors")).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let ids = golden.tensor("input_ids").unwrap();
        let [batch, len] = *ids.shape() else { panic!("input_ids is not [B, T]") };
        let ids: Vec<i32> =
            ids.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
        let targets: Vec<i32> =
            (0..ids.len()).map(|i| if (i + 1) % len == 0 { -1 } else { ids[i + 1] }).collect();

        let device = Device::Cpu;
        let model = Model::new(Config::load(&case).unwrap(), &device, Precision::F32, len).unwrap();
        model.load(&case).unwrap();
        let tokens = Arc::new(Tokens::new(&device, &ids, batch, len).unwrap());
        let targets = Tokens::new(&device, &targets, batch, len).unwrap();

        let mut tape = Tape::without_gradients(&device, Precision::F32);
        let logits = model.logits(&mut tape, &tokens).unwrap().to_vec().unwrap();
        let mut worst = (0.0, String::new());
        let mut check = |name: &str, ours: &[f32]| {
            let off = relative(ours, &floats(&golden.tensor(name).unwrap()));
            if off > worst.0 {
                worst = (off, name.to_string());
            }
            assert!(off <= BOUND, "{}: {name} is off by {off:.2e}", case.display());
        };
        check("logits", &logits);
        // Layers kept, and computed again.
        for recompute in [false, true] {
            let mut tape = Tape::new(&device, Precision::F32).with_recompute(recompute);
            model.params().begin_step();
            let loss = model.loss(&mut tape, &tokens, &targets).unwrap();
            check("loss", &loss.mean.value.to_vec().unwrap());
            let seed = device.from_slice(&[1.0], &[1]).unwrap();
            tape.backward(&loss.mean, seed).unwrap();
            model.params().finish_grads().unwrap();
            for (i, spec) in model.params().specs().iter().enumerate() {
                let name = format!("grad.{}", spec.name);
                if golden.tensor(&name).is_ok() {
                    check(&name, &model.params().get(i).grad.to_vec().unwrap());
                }
            }
        }
        println!("{}: worst {:.1e} ({})", case.display(), worst.0, worst.1);
    }
}
