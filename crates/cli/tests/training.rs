//! Short runs from the outside: the run folder, the same bits twice, what stops a run.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A run small enough for a test.
const SMALL: [&str; 10] = [
    "--steps",
    "3",
    "--batch-size",
    "2",
    "--seq-len",
    "48",
    "--device",
    "cpu",
    "--set",
    "train.eval_batches=1",
];

fn muon(dir: &TempDir, args: &[&str]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("muon"))
        .args(args)
        .args(SMALL)
        .current_dir(dir.path())
        .env_clear()
        .env("HOME", dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("muon runs")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn succeeds(output: &Output) -> (String, String) {
    let (out, err) = (&output.stdout, &output.stderr);
    let told = (String::from_utf8_lossy(out).into_owned(), String::from_utf8_lossy(err).into_owned());
    assert!(output.status.success(), "{}", told.1);
    told
}

#[test]
fn a_run_leaves_its_folder_and_comes_out_the_same_again() {
    let dir = folder();
    let (table, progress) = succeeds(&muon(&dir, &["baseline", "--name", "first"]));
    assert!(table.contains("validation") && table.contains("floor") && table.contains("first"), "{table}");
    assert!(progress.contains("step 3/3: loss ") && progress.contains("tokens/s"), "{progress}");
    let first = dir.path().join("results/first");
    for file in [
        "recipe.toml",
        "metadata.json",
        "metrics.csv",
        "loss.svg",
        "loss.png",
        "model/config.json",
        "model/model.safetensors",
    ] {
        assert!(!read(first.join(file)).is_empty(), "{file}");
    }
    let metrics = String::from_utf8(read(first.join("metrics.csv"))).expect("UTF-8");
    assert_eq!(metrics.lines().count(), 4, "a header and a row a step: {metrics}");

    // The frozen recipe gives the same recipe and the same bits under another name.
    let recipe = first.join("recipe.toml");
    succeeds(&muon(&dir, &["train", "--recipe", recipe.to_str().expect("UTF-8"), "--name", "second"]));
    let second = dir.path().join("results/second");
    for file in ["recipe.toml", "model/model.safetensors"] {
        assert!(read(first.join(file)) == read(second.join(file)), "{file} differs");
    }
}

#[test]
fn a_taken_name_is_refused_before_anything_runs() {
    let dir = folder();
    succeeds(&muon(&dir, &["train", "--optimizer", "adamw", "--name", "x"]));
    let metadata = read(dir.path().join("results/x/metadata.json"));
    let output = muon(&dir, &["baseline", "--name", "x"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(read(dir.path().join("results/x/metadata.json")), metadata);
}

#[test]
fn text_trains_and_its_cache_lies_in_the_cache_folder() {
    let dir = folder();
    let lines: Vec<String> =
        (0..400).map(|i| format!("{{\"text\": \"document {i} of some length\"}}")).collect();
    std::fs::write(dir.path().join("a.jsonl"), lines.join("\n")).expect("a file");
    succeeds(&muon(&dir, &["baseline", "--data", "a.jsonl", "--name", "text", "--packing", "truncate"]));
    assert!(dir.path().join(".cache/muonbench/tokens").is_dir());
}

#[test]
fn too_little_text_exits_with_3_and_leaves_no_run() {
    let dir = folder();
    std::fs::write(dir.path().join("a.txt"), "hardly anything\n").expect("a file");
    let output = muon(&dir, &["baseline", "--data", "a.txt"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.lines().any(|line| line.starts_with("error: ")), "{told}");
    assert!(!Path::exists(&dir.path().join("results")));
}

#[test]
fn divergence_exits_with_6_and_is_on_record() {
    let dir = folder();
    let args = ["train", "--optimizer", "adamw", "--lr", "1e30", "--warmup", "0", "--name", "wild"];
    let output = muon(&dir, &args);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{told}");
    assert!(told.contains("error: training diverged at step 2"), "{told}");
    let metadata = String::from_utf8(read(dir.path().join("results/wild/metadata.json"))).expect("UTF-8");
    assert!(metadata.contains("\"failed\"") && metadata.contains("diverged"), "{metadata}");
}

#[test]
fn diagnostics_have_columns_that_their_level_decides() {
    let dir = folder();
    let header = |level: &str| {
        let args = ["pretrain", "--orthonoise", "--name", level, "--diagnostics", level];
        succeeds(&muon(&dir, &args));
        let metrics = String::from_utf8(read(dir.path().join(format!("results/{level}/metrics.csv"))));
        let metrics = metrics.expect("UTF-8");
        assert_eq!(metrics.lines().count(), 4, "{metrics}");
        metrics.lines().next().expect("a header").to_string()
    };
    let (off, cheap, full) = (header("off"), header("cheap"), header("full"));
    assert!(off.ends_with(",val_loss"), "{off}");
    assert!(cheap.contains("update_survival") && cheap.contains("noise_added"), "{cheap}");
    assert!(!cheap.contains("erank") && full.contains("erank") && full.contains("orth_error"), "{full}");
    // Measuring changes nothing.
    let model = |level: &str| read(dir.path().join(format!("results/{level}/model/model.safetensors")));
    assert!(model("off") == model("cheap") && model("cheap") == model("full"));
}

#[test]
fn a_run_in_bf16_tells_how_little_of_its_updates_survives() {
    let dir = folder();
    let args = ["baseline", "--precision", "bf16", "--lr", "1e-5", "--warmup", "0", "--name"];
    let (table, progress) = succeeds(&muon(&dir, &[&args[..], &["nearest"]].concat()));
    assert!(table.contains("survival") && table.contains("the matrices moved by"), "{table}");
    assert!(progress.contains("of the update survives"), "{progress}");
    succeeds(&muon(&dir, &[&args[..], &["stochastic", "--rounding", "stochastic"]].concat()));
    let model = |name: &str| read(dir.path().join(format!("results/{name}/model/model.safetensors")));
    assert!(model("nearest") != model("stochastic"));
}

#[test]
fn the_rate_on_record_follows_the_schedule() {
    let dir = folder();
    let args = ["baseline", "--schedule", "linear", "--warmup", "1", "--lr", "0.01", "--name", "linear"];
    succeeds(&muon(&dir, &args));
    let metrics = String::from_utf8(read(dir.path().join("results/linear/metrics.csv"))).expect("UTF-8");
    let rates: Vec<&str> = metrics.lines().skip(1).filter_map(|line| line.split(',').nth(3)).collect();
    assert_eq!(rates, ["0.01", "0.005", "0.0"]);
}
