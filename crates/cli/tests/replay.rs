//! `muon lab replay` from the outside: golden traces, traces of any names, what stops it.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::Muon;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../oracles/optimizers").join(name)
}

fn write(path: &Path, tensors: &Tensors) {
    let bytes: Vec<Vec<u8>> =
        tensors.values().map(|(_, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("the sizes fit"))
    });
    safetensors::serialize_to_file(views, None, path).expect("a file");
}

fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let values =
        |view: &TensorView| view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    file.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), values(&view)))).collect()
}

/// One matrix and one vector with names of their own, over `steps` steps.
fn trace(steps: usize) -> Tensors {
    let values =
        |n: usize, seed: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * 1.7 + seed).sin()).collect() };
    let mut tensors = Tensors::from([("rate".to_string(), (vec![steps], vec![0.125; steps]))]);
    for (name, shape) in [("layers.0.up", vec![3, 5]), ("norm", vec![4])] {
        let n = shape.iter().product();
        tensors.insert(format!("{name}.0"), (shape.clone(), values(n, 0.0)));
        for step in 1..=steps {
            tensors.insert(format!("{name}.grad.{step}"), (shape.clone(), values(n, step as f32)));
        }
    }
    tensors
}

/// The largest number of the column "worst difference / moved".
fn worst(shown: &str) -> f64 {
    let cells = shown.lines().skip(1).filter_map(|line| line.split_whitespace().rev().nth(1));
    cells.map(|cell| cell.parse::<f64>().expect("a number")).fold(0.0, f64::max)
}

#[test]
fn golden_traces_are_followed() {
    let muon = Muon::new();
    for (file, optimizer, set) in [
        ("muon-svd.safetensors", "muon", &[][..]),
        ("muon-svd.safetensors", "muon", &["--set", "ortho=svd"]),
        ("adamw.safetensors", "adamw", &[]),
    ] {
        let path = golden(file);
        let path = path.to_str().expect("UTF-8");
        let common = ["lab", "replay", "--optimizer", optimizer, "--in", path, "--out", "out.safetensors"];
        let shown = muon.shows(&[&common[..], set].concat());
        assert!(worst(&shown) < 1e-4, "{file}: {shown}");
        let (golden, out) = (read(Path::new(path)), read(&muon.dir().join("out.safetensors")));
        let (shape, _) = &out["tall.6"];
        assert_eq!(*shape, golden["tall.6"].0);
        let steps = golden["rate"].1.len();
        let names = golden.keys().filter(|key| key.ends_with(".0")).count();
        assert_eq!(out.len(), steps * names);
    }
}

#[test]
fn a_trace_may_have_any_names_and_any_number_of_steps() {
    let muon = Muon::new();
    for steps in [1, 9] {
        write(&muon.dir().join("in"), &trace(steps));
        let args = ["lab", "replay", "--optimizer", "muon", "--in", "in", "--out", "out"];
        let shown = muon.shows(&args);
        assert!(shown.contains("no golden values"), "{shown}");
        let out = read(&muon.dir().join("out"));
        assert_eq!(out.len(), 2 * steps);
        // A matrix of full rank moves by the rate times the root of its rank, a vector by AdamW's rate.
        let moved = |name: &str| {
            let start = &trace(steps)[&format!("{name}.0")].1;
            let after = &out[&format!("{name}.1")].1;
            start.iter().zip(after).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
        };
        assert!((moved("layers.0.up") - 0.125 * 3f64.sqrt()).abs() < 1e-4, "{}", moved("layers.0.up"));
        assert!((moved("norm") - 3e-4 * 2.0).abs() < 2e-5, "{}", moved("norm"));
        muon.shows(&[&args[..], &["--set", "adamw.lr=0"]].concat());
        let out = read(&muon.dir().join("out"));
        assert_eq!(out["norm.1"], trace(steps)["norm.0"]);
    }
}

#[test]
fn what_is_no_trace_is_refused() {
    let muon = Muon::new();
    let whole = trace(2);
    let refuse = |told: &str, tensors: &Tensors| {
        write(&muon.dir().join("in"), tensors);
        let error = muon.fails(&["lab", "replay", "--optimizer", "muon", "--in", "in", "--out", "out"], 3);
        assert!(error.contains("error: in: ") && error.contains(told), "{error}");
        assert!(!muon.dir().join("out").exists());
    };
    let without = |key: &str| whole.clone().into_iter().filter(|(name, _)| name != key).collect::<Tensors>();
    let with = |key: &str, shape: Vec<usize>, values: Vec<f32>| {
        let mut tensors = whole.clone();
        tensors.insert(key.to_string(), (shape, values));
        tensors
    };
    refuse("no tensor `rate`", &without("rate"));
    refuse("no tensor `norm.grad.2`", &without("norm.grad.2"));
    refuse("nothing to step through", &with("rate", vec![0], vec![]));
    refuse("expected one axis or two", &with("stack.0", vec![1, 1, 1], vec![1.0]));
    refuse("`norm.grad.1` is [5]", &with("norm.grad.1", vec![5], vec![1.0; 5]));
    refuse("`norm.grad.2` holds NaN", &with("norm.grad.2", vec![4], vec![f32::NAN; 4]));
    refuse("`norm.0` is [0], which holds no number", &with("norm.0", vec![0], vec![]));
    refuse("`norm.0` holds inf", &with("norm.0", vec![4], vec![0.0, 0.0, f32::INFINITY, 0.0]));
    refuse("`rate` holds NaN", &with("rate", vec![2], vec![0.1, f32::NAN]));
    refuse("`rate` is [2, 1]; expected one axis", &with("rate", vec![2, 1], vec![0.1; 2]));
    refuse("`layers.0.up.grad.2` has no learning rate: `rate` has 1", &with("rate", vec![1], vec![0.1]));
    refuse("no tensor `layers.0.up.grad.3`, but `rate` has 3", &with("rate", vec![3], vec![0.1; 3]));
    write(&muon.dir().join("in"), &whole);
    let args = ["lab", "replay", "--in", "in", "--out", "out", "--optimizer"];
    assert!(muon.fails(&[&args[..], &["lion"]].concat(), 2).contains("there are: muon"));
    let told = muon.fails(&[&args[..], &["muon", "--set", "train.precision=mixed"]].concat(), 4);
    assert!(told.contains("train.precision") && told.contains("--device cuda"), "{told}");
    let nowhere = ["lab", "replay", "--in", "in", "--out", "no/where", "--optimizer", "muon"];
    assert!(muon.fails(&nowhere, 3).contains("there is no folder no;"));
    let told = muon.fails(&[&args[..], &["muon", "--set", "momentun=0.9"]].concat(), 2);
    assert!(told.contains("did you mean `optimizer.momentum`?"), "{told}");
    muon.fails(&["lab", "replay", "--optimizer", "muon", "--in", "none", "--out", "out"], 3);
}
