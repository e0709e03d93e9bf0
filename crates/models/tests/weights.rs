//! Weight files: what is read equals what was written, and damage is named.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use models::{Config, DType, EMBEDDING, HEAD, Weights, parameters, save};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::json;
use tempfile::TempDir;
use tensor::params::ParamSpec;

/// A tensor by name: element type, shape, bytes.
type Tensors = HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn oracle(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../oracles").join(name)
}

fn specs(name: &str) -> Vec<ParamSpec> {
    parameters(&Config::load(&oracle(name)).unwrap())
}

/// The weights of a golden model, as `dtype`.
fn tensors(name: &str, dtype: Dtype) -> Tensors {
    let specs = specs(name);
    let weights = Weights::open(&oracle(name), &specs).unwrap();
    let encode = |x: f32| match dtype {
        Dtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        Dtype::F64 => f64::from(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    };
    let bytes = |spec: &ParamSpec| weights.read(&spec.name).unwrap().into_iter().flat_map(encode).collect();
    specs.iter().map(|spec| (spec.name.clone(), (dtype, spec.shape.clone(), bytes(spec)))).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

fn folder(tensors: &Tensors) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("model.safetensors"), tensors);
    dir
}

fn refusal(dir: &Path, name: &str) -> String {
    let message = Weights::open(dir, &specs(name)).err().expect("must be refused").to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

/// Writes the golden model `name` into `dir`, by way of [`save`].
fn copy(name: &str, dir: &Path, dtype: DType) {
    let config = Config::load(&oracle(name)).unwrap();
    let specs = parameters(&config);
    let weights = Weights::open(&oracle(name), &specs).unwrap();
    save(dir, &config, dtype, |i| weights.read(&specs[i].name)).unwrap();
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_saved_model_reads_back_to_the_bit() {
    for name in ["granite-hybrid", "granite-untied", "qwen2-tied", "qwen2-untied"] {
        let dir = tempfile::tempdir().unwrap();
        copy(name, dir.path(), DType::F32);
        assert_eq!(entries(dir.path()), ["config.json", "model.safetensors"]);
        assert_eq!(Config::load(dir.path()).unwrap(), Config::load(&oracle(name)).unwrap());
        let specs = specs(name);
        let (old, new) =
            (Weights::open(&oracle(name), &specs).unwrap(), Weights::open(dir.path(), &specs).unwrap());
        for spec in &specs {
            assert_eq!(old.read(&spec.name).unwrap(), new.read(&spec.name).unwrap(), "{}", spec.name);
        }
    }
}

#[test]
fn bf16_rounds_to_nearest_and_is_named_in_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    copy("granite-hybrid", dir.path(), DType::BF16);
    let specs = specs("granite-hybrid");
    let old = Weights::open(&oracle("granite-hybrid"), &specs).unwrap().read(EMBEDDING).unwrap();
    let new = Weights::open(dir.path(), &specs).unwrap().read(EMBEDDING).unwrap();
    let rounded: Vec<f32> = old.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
    assert_eq!(new, rounded);
    assert_ne!(new, old);
    assert!(fs::read_to_string(dir.path().join("config.json")).unwrap().contains("\"dtype\": \"bfloat16\""));
}

#[test]
fn a_failed_save_leaves_the_older_model_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    copy("granite-hybrid", dir.path(), DType::F32);
    let before = fs::read(dir.path().join("model.safetensors")).unwrap();
    let config = Config::load(&oracle("qwen2-tied")).unwrap();
    let message = save(dir.path(), &config, DType::F32, |_| Ok(vec![0.0; 3])).unwrap_err().to_string();
    assert!(message.contains("`model.embed_tokens.weight` [48, 16] was given 3 values"), "{message}");
    assert_eq!(entries(dir.path()), ["config.json", "model.safetensors"]);
    assert_eq!(fs::read(dir.path().join("model.safetensors")).unwrap(), before);
    assert!(matches!(Config::load(dir.path()).unwrap(), Config::Granite(_)));
}

#[test]
fn half_precision_files_are_widened() {
    for dtype in [Dtype::F16, Dtype::BF16] {
        let dir = folder(&tensors("qwen2-tied", dtype));
        let specs = specs("qwen2-tied");
        let exact = Weights::open(&oracle("qwen2-tied"), &specs).unwrap().read(EMBEDDING).unwrap();
        let found = Weights::open(dir.path(), &specs).unwrap().read(EMBEDDING).unwrap();
        assert!(exact.iter().zip(&found).all(|(a, b)| (a - b).abs() <= a.abs() / 256.0 + 1e-6), "{dtype:?}");
    }
}

#[test]
fn shards_are_read_through_their_index() {
    let all = tensors("granite-hybrid", Dtype::F32);
    let dir = tempfile::tempdir().unwrap();
    let mut map = serde_json::Map::new();
    let mut parts = [Tensors::new(), Tensors::new()];
    for (i, (name, tensor)) in all.into_iter().enumerate() {
        map.insert(name.clone(), json!(format!("model-0000{}-of-00002.safetensors", i % 2 + 1)));
        parts[i % 2].insert(name, tensor);
    }
    for (i, part) in parts.iter().enumerate() {
        write(&dir.path().join(format!("model-0000{}-of-00002.safetensors", i + 1)), part);
    }
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    let specs = specs("granite-hybrid");
    let (whole, sharded) = (
        Weights::open(&oracle("granite-hybrid"), &specs).unwrap(),
        Weights::open(dir.path(), &specs).unwrap(),
    );
    for spec in &specs {
        assert_eq!(whole.read(&spec.name).unwrap(), sharded.read(&spec.name).unwrap());
    }

    let second = dir.path().join("model-00002-of-00002.safetensors");
    fs::rename(&second, dir.path().join("elsewhere")).unwrap();
    assert!(
        refusal(dir.path(), "granite-hybrid")
            .contains("shard model-00002-of-00002.safetensors is not in the")
    );
    map[EMBEDDING] = json!("../model.safetensors");
    fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    assert!(refusal(dir.path(), "granite-hybrid").contains("it must be a file name in this folder"));
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_named() {
    let good = tensors("granite-hybrid", Dtype::F32);

    let mut missing = good.clone();
    missing.remove("model.layers.0.mamba.D");
    let message = refusal(folder(&missing).path(), "granite-hybrid");
    assert!(message.contains("missing tensor `model.layers.0.mamba.D`; do the weights belong"), "{message}");

    let mut unexpected = good.clone();
    unexpected.insert("extra".into(), (Dtype::F32, vec![1], vec![0; 4]));
    let message = refusal(folder(&unexpected).path(), "granite-hybrid");
    assert!(message.contains("unexpected tensor `extra`"), "{message}");

    let mut reshaped = good.clone();
    reshaped.get_mut(EMBEDDING).unwrap().1 = vec![16, 48];
    let message = refusal(folder(&reshaped).path(), "granite-hybrid");
    assert!(message.contains("has shape [16, 48], the config asks for [48, 16]"), "{message}");

    let message = refusal(folder(&tensors("granite-hybrid", Dtype::F64)).path(), "granite-hybrid");
    assert!(message.contains("has element type F64; convert it to F32, BF16 or F16"), "{message}");

    let message = refusal(&oracle("qwen2-tied"), "granite-hybrid");
    assert!(message.contains("missing tensors `model.layers.0.mamba.in_proj.weight`, "), "{message}");
    assert!(message.contains(" more; do the weights belong"), "{message}");
}

#[test]
fn a_tied_head_in_the_file_must_equal_the_embedding() {
    let mut tensors = tensors("granite-hybrid", Dtype::F32);
    tensors.insert(HEAD.into(), tensors[EMBEDDING].clone());
    assert!(Weights::open(folder(&tensors).path(), &specs("granite-hybrid")).is_ok());
    tensors.get_mut(HEAD).unwrap().2[2] ^= 1;
    let message = refusal(folder(&tensors).path(), "granite-hybrid");
    assert!(message.contains("lm_head.weight differs from model.embed_tokens.weight"), "{message}");
}

#[test]
fn damaged_files_are_refused() {
    let whole = fs::read(oracle("granite-hybrid").join("model.safetensors")).unwrap();
    let mut garbled = whole.clone();
    garbled[20..30].fill(0xff);
    let cases: [(&[u8], &str); 7] = [
        (&[], "truncated: 0 bytes hold no safetensors header"),
        (&whole[..5], "truncated: 5 bytes hold no safetensors header"),
        (&whole[..100], "truncated: its header is longer than its 100 bytes"),
        (&whole[..whole.len() - 1], "truncated or damaged: its header describes another length"),
        (&garbled, "its header is damaged"),
        (b"PK\x03\x04 a zip archive, for one", "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
    ];
    for (bytes, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        let message = refusal(dir.path(), "granite-hybrid");
        assert!(message.contains("model.safetensors: ") && message.contains(expected), "{message}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(
        refusal(empty.path(), "granite-hybrid")
            .contains("no model.safetensors and no model.safetensors.index")
    );
}
