//! `muon lab orthogonalize` and `muon bench optim` from the outside.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::Muon;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// Bytes of a tensor by name, with shape and type.
type Tensors = BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>;

fn values(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| ((i * i % 97) as f32 * 1.7 + seed).sin()).collect()
}

fn f32s(shape: &[usize], seed: f32) -> (Dtype, Vec<usize>, Vec<u8>) {
    let bytes = values(shape.iter().product(), seed).iter().flat_map(|x| x.to_le_bytes()).collect();
    (Dtype::F32, shape.to_vec(), bytes)
}

/// The upper halves of f32.
fn bf16s(shape: &[usize], seed: f32) -> (Dtype, Vec<usize>, Vec<u8>) {
    let half = |x: &f32| ((x.to_bits() >> 16) as u16).to_le_bytes();
    (Dtype::BF16, shape.to_vec(), values(shape.iter().product(), seed).iter().flat_map(half).collect())
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("the sizes fit"))
    });
    safetensors::serialize_to_file(views, None, path).expect("a file");
}

/// `norm_F(Y Y^T - I) / sqrt(m)` of a wide matrix in a file.
fn orthogonality(path: &Path, name: &str) -> f64 {
    let bytes = std::fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = file.tensor(name).expect("the tensor is there");
    assert_eq!(view.dtype(), Dtype::F32);
    let [m, n] = *view.shape() else { panic!("{:?}", view.shape()) };
    let y: Vec<f64> = view.data().as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect();
    let entry = |i: usize, j: usize| {
        (0..n).map(|k| y[i * n + k] * y[j * n + k]).sum::<f64>() - f64::from(u8::from(i == j))
    };
    let square: f64 = (0..m * m).map(|at| entry(at / m, at % m).powi(2)).sum();
    (square / m as f64).sqrt()
}

#[test]
fn every_matrix_of_a_file_is_orthogonalized() {
    let muon = Muon::new();
    let tensors = Tensors::from([
        ("bank", f32s(&[2, 12, 5], 0.1)),
        ("half", bf16s(&[6, 9], 0.2)),
        ("vector", f32s(&[7], 0.3)),
        ("wide", f32s(&[8, 20], 0.4)),
    ]);
    write(&muon.dir().join("x.safetensors"), &tensors);
    let run = |method: &[&str]| {
        let args = ["lab", "orthogonalize", "--in", "x.safetensors", "--out", "y.safetensors", "--method"];
        let shown = muon.shows(&[&args[..], method].concat());
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 4, "{shown}");
        assert!(lines[0].starts_with("tensor") && lines[0].contains("asymmetry"), "{shown}");
        assert!(lines[1].starts_with("bank") && lines[1].contains("2 x 12 x 5"), "{shown}");
        orthogonality(&muon.dir().join("y.safetensors"), "wide")
    };
    for exact in ["polar", "svd", "svd-f64"] {
        assert!(run(&[exact]) < 1e-6, "{exact}");
    }
    assert!(run(&["polar-express", "--steps", "12"]) < 1e-5);
    assert!(run(&["newton-schulz", "--coefficients", "2,-1.5,0.5", "--steps", "15"]) < 1e-4);
    let rough = run(&["gram", "--coefficients", "jordan", "--dtype", "bf16"]);
    assert!((1e-3..0.5).contains(&rough), "{rough}");
}

#[test]
fn what_cannot_be_orthogonalized_is_named() {
    let muon = Muon::new();
    let path = muon.dir().join("x.safetensors");
    let mut bad = f32s(&[3, 4], 0.1);
    bad.2[20..24].copy_from_slice(&f32::INFINITY.to_le_bytes());
    write(&path, &Tensors::from([("good", f32s(&[3, 4], 0.2)), ("layers.0.bad", bad)]));
    let args = ["lab", "orthogonalize", "--in", "x.safetensors", "--out", "y.safetensors", "--method"];
    for method in ["polar", "newton-schulz", "gram"] {
        let told = muon.fails(&[&args[..], &[method]].concat(), 3);
        assert!(told.contains("x.safetensors") && told.contains("`layers.0.bad`"), "{told}");
        assert!(told.contains("not finite"), "{told}");
    }
    assert_eq!(muon.files(), ["x.safetensors"]);

    let no_folder = ["lab", "orthogonalize", "--in", "none", "--out", "no/y", "--method", "polar"];
    assert!(muon.fails(&no_folder, 3).contains("there is no folder no;"));
    let told = muon.fails(&[&args[..], &["polar", "--steps", "3"]].concat(), 2);
    assert!(told.contains("--steps 3: polar"), "{told}");

    write(&path, &Tensors::from([("vector", f32s(&[7], 0.3))]));
    let told = muon.fails(&[&args[..], &["polar"]].concat(), 3);
    assert!(told.contains("no tensor with two or three axes"), "{told}");
    let told = muon.fails(&[&args[..], &["polr"]].concat(), 2);
    assert!(told.contains("polr") && told.contains("newton-schulz"), "{told}");
    let told = muon.fails(&[&args[..], &["gram", "--coefficients", "1,2"]].concat(), 4);
    assert!(told.contains("1,2") && told.contains("jordan"), "{told}");
}

#[test]
fn what_is_no_matrix_is_skipped_and_named() {
    let muon = Muon::new();
    let path = muon.dir().join("x.safetensors");
    let ids = (Dtype::I64, vec![2], vec![0; 16]);
    let none = (Dtype::F32, vec![0, 3], vec![]);
    let mut tensors = Tensors::from([("ids", ids), ("none", none), ("wide", f32s(&[3, 4], 0.2))]);
    write(&path, &tensors);
    let args = ["lab", "orthogonalize", "--in", "x.safetensors", "--out", "y.safetensors", "--method"];
    let output = muon.run(&[&args[..], &["polar"]].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert_eq!(told, "note: x.safetensors: skipped ids [2], none [0, 3]\n");
    // Rank and what holds on it are told of exact methods alone.
    let cells = |method: &str| {
        let shown = muon.shows(&[&args[..], &[method]].concat());
        shown.lines().nth(1).expect("a row").split_whitespace().count()
    };
    assert_eq!(cells("polar"), cells("gram") + 2);
    tensors.insert("table", (Dtype::I64, vec![2, 1], vec![0; 16]));
    write(&path, &tensors);
    let output = muon.run(&[&args[..], &["polar"]].concat());
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`table` is I64"));
}

#[test]
fn the_benchmark_names_what_it_times() {
    let muon = Muon::new();
    let bench = ["bench", "optim", "--device", "cpu", "--repeats", "1", "--no-steps"];
    let told = muon.fails(&[&bench[..], &["--only", "polr"]].concat(), 2);
    assert!(
        told.contains("--only polr") && told.contains("`polar, f32`") && told.contains("--svd"),
        "{told}"
    );
    assert!(muon.fails(&[&bench[..], &["--condition", "0.5"]].concat(), 2).contains("a number from 1"));
    let shown = muon.shows(&[&bench[..], &["--only", "polar"]].concat());
    assert!(shown.contains("polar, f32") && !shown.contains("polar-express"), "{shown}");
}

#[test]
fn the_benchmark_times_every_method_and_shows_how_good_it_is() {
    let shown = Muon::new().shows(&["bench", "optim", "--device", "cpu", "--repeats", "1", "--no-steps"]);
    for word in ["granite-nano", "orthogonality", "newton-schulz jordan x5, bf16", "gram", "polar, f32"] {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
}
