//! Runs that are killed, stopped, damaged and resumed, with real processes: they end as if nothing had happened.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Muon, stderr};

mod common;

/// A run of 12 steps with a checkpoint after each and an optimizer that has state and draws random numbers.
const RUN: [&str; 20] = [
    "train",
    "--optimizer",
    "orthonoise",
    "--steps",
    "12",
    "--batch-size",
    "2",
    "--seq-len",
    "48",
    "--device",
    "cpu",
    "--eval-steps",
    "4",
    "--set",
    "train.eval_batches=1",
    "--schedule",
    "cosine",
    "--checkpoint-steps",
    "1",
    "--name",
];

fn train(name: &str) -> Vec<&str> {
    [&RUN[..], &[name]].concat()
}

fn start(muon: &Muon, args: &[&str]) -> Child {
    muon.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("muon starts")
}

fn run_dir(muon: &Muon, name: &str) -> PathBuf {
    muon.dir().join("results").join(name)
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_mins(2), "{} does not come", path.display());
        sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

/// The rows without the columns of time.
fn rows(dir: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(dir.join("metrics.csv")).expect("metrics");
    let cells = |line: &str| {
        let cells = line.split(',').enumerate().filter(|(at, _)| !matches!(at, 5 | 6));
        cells.map(|(_, cell)| cell.to_owned()).collect()
    };
    text.lines().map(cells).collect()
}

/// Holds a run to another, file by file: weights, optimizer state, rows, losses on record.
fn same(one: &Path, other: &Path, step: u64) {
    let state = format!("checkpoints/step-{step}");
    for file in [
        "recipe.toml".to_owned(),
        "model/model.safetensors".to_owned(),
        "model/config.json".to_owned(),
        format!("{state}/model.safetensors"),
        format!("{state}/optimizer.safetensors"),
    ] {
        let read = |dir: &Path| fs::read(dir.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(read(one) == read(other), "{file} differs in {}", other.display());
    }
    assert_eq!(rows(one), rows(other), "{}", other.display());
    let told = |dir: &Path| -> serde_json::Value {
        let text = fs::read(dir.join("metadata.json")).expect("metadata");
        let mut told: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        for key in [
            "name",
            "command",
            "resumed",
            "started",
            "finished",
            "wall_seconds",
            "step_seconds",
            "tokens_per_s",
            "saves",
        ] {
            told.as_object_mut().expect("an object").remove(key);
        }
        told["peak_memory_bytes"].take();
        told
    };
    assert_eq!(told(one), told(other));
    for folder in [other.join("checkpoints"), other.to_owned(), other.join("model")] {
        for entry in fs::read_dir(folder).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            assert!(!name.to_string_lossy().starts_with('.'), "{} was left", name.display());
        }
    }
}

/// `MUON_KILLS` says how often; a few times unless told.
#[test]
fn killed_at_any_moment_a_run_ends_the_same() {
    let kills: u64 = std::env::var("MUON_KILLS").map_or(4, |text| text.parse().expect("a number"));
    let muon = Muon::new();
    let begin = Instant::now();
    muon.shows(&train("whole"));
    let span = begin.elapsed().as_micros() as u64;
    let whole = run_dir(&muon, "whole");
    let mut seed = 7_u64;
    for kill in 0..kills {
        let name = format!("killed-{kill}");
        let dir = run_dir(&muon, &name);
        let mut child = start(&muon, &train(&name));
        wait_for(&dir.join("checkpoints/step-1"));
        // Twice: in the run and in its continuation.
        for _ in 0..2 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sleep(Duration::from_micros((seed >> 33) % span));
            child.kill().expect("a kill");
            child.wait().expect("an end");
            child = start(&muon, &["resume", &name]);
        }
        let status = child.wait().expect("an end");
        // A run that the kill came too late for is finished.
        assert!(status.success() || status.code() == Some(2), "{name}: {status}");
        same(&whole, &dir, 12);
        fs::remove_dir_all(dir).expect("removed");
    }
}

#[test]
fn a_signal_saves_and_a_second_one_ends_at_once() {
    let muon = Muon::new();
    muon.shows(&train("whole"));
    for (name, sent, code) in [("term", "-TERM", 143), ("int", "-INT", 130)] {
        let mut child = start(&muon, &train(name));
        wait_for(&run_dir(&muon, name).join("checkpoints/step-1"));
        signal(&child, sent);
        assert_eq!(child.wait().expect("an end").code(), Some(code));
        let told = fs::read_to_string(run_dir(&muon, name).join("metadata.json")).expect("metadata");
        assert!(told.contains("\"stopped\""), "{told}");
        muon.shows(&["resume", name]);
        same(&run_dir(&muon, "whole"), &run_dir(&muon, name), 12);
    }
    // Steps that last: the second signal comes within the step that the first one waits for.
    let args = ["train", "--steps", "9", "--batch-size", "2", "--seq-len", "4096", "--device", "cpu"];
    let args = [&args[..], &["--name", "twice"]].concat();
    let mut child = start(&muon, &args);
    wait_for(&run_dir(&muon, "twice").join("metrics.csv"));
    sleep(Duration::from_millis(300));
    signal(&child, "-TERM");
    sleep(Duration::from_millis(50));
    signal(&child, "-TERM");
    let begin = Instant::now();
    assert_eq!(child.wait().expect("an end").code(), Some(143));
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert!(!run_dir(&muon, "twice").join("checkpoints").exists());
}

#[test]
fn a_run_has_one_writer() {
    let muon = Muon::new();
    let mut child = start(&muon, &train("one"));
    wait_for(&run_dir(&muon, "one").join("checkpoints/step-1"));
    let told = muon.fails(&["resume", "one"], 2);
    assert!(told.contains(&format!("process {}", child.id())) && told.contains("already"), "{told}");
    child.kill().expect("a kill");
    child.wait().expect("an end");
    let output = muon.run(&["resume", "one"]);
    assert!(output.status.success() && stderr(&output).contains("taking over"), "{}", stderr(&output));
    let told = muon.fails(&["resume", "one"], 2);
    assert!(told.contains("finished at step 12") && told.contains("--extend-steps"), "{told}");
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let muon = Muon::new();
    muon.shows(&train("whole"));
    let mut child = start(&muon, &train("hurt"));
    let dir = run_dir(&muon, "hurt");
    wait_for(&dir.join("checkpoints/step-4"));
    signal(&child, "-TERM");
    child.wait().expect("an end");
    let steps = fs::read_dir(dir.join("checkpoints")).expect("checkpoints").map(|entry| {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        name.strip_prefix("step-").expect("a step").parse::<u64>().expect("a number")
    });
    let newest = dir.join(format!("checkpoints/step-{}", steps.max().expect("there are some")));
    let file = newest.join("optimizer.safetensors");
    let mut bytes = fs::read(&file).expect("state");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("written");
    let output = muon.run(&["resume", "hurt"]);
    let told = stderr(&output);
    let relative = file.strip_prefix(muon.dir()).expect("in the folder").display().to_string();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("WARNING: ") && told.contains(&relative) && told.contains("damaged"), "{told}");
    same(&run_dir(&muon, "whole"), &dir, 12);
}

#[test]
fn what_changed_is_listed_and_what_is_harmless_is_not() {
    let muon = Muon::new();
    let lines = |word: &str| {
        let lines: Vec<String> = (0..300).map(|i| format!("{{\"text\": \"{word} {i} of some\"}}")).collect();
        lines.join("\n")
    };
    muon.write("a.jsonl", &lines("document"));
    let args = ["train", "--steps", "3", "--batch-size", "2", "--seq-len", "32", "--device", "cpu"];
    let more = ["--data", "a.jsonl", "--set", "train.eval_batches=1", "--name", "r"];
    muon.shows(&[&args[..], &more].concat());
    let extend = ["resume", "r", "--extend-steps", "2"];
    let with = |more: &[&'static str]| [&extend[..], more].concat();
    let told = muon.fails(&with(&["--set", "optimizer.lr=0.5", "--set", "train.seed=1"]), 4);
    assert!(told.contains("optimizer.lr: ") && told.contains("-> 0.5; train.seed: 42 -> 1"), "{told}");
    let told = muon.fails(&with(&["--set", "optimizer.state=bf16"]), 4);
    assert!(told.contains("optimizer.state: \"f32\" -> \"bf16\""), "{told}");
    let told = muon.fails(&["resume", "r", "--extend-steps", "2", "--set", "model.preset=qwen-nano"], 4);
    assert!(told.contains("model.preset: "), "{told}");
    muon.write("a.jsonl", &lines("another"));
    let output = muon.run(&extend);
    let told = stderr(&output);
    assert!(output.status.code() == Some(4) && told.contains("the data or the tokenizer"), "{told}");
    // The same content in another place is the same data.
    muon.write("moved/a.jsonl", &lines("document"));
    let harmless = ["--set", "data.source=moved/a.jsonl", "--set", "train.save_steps=1"];
    muon.shows(&with(&harmless));
    let rows = rows(&run_dir(&muon, "r"));
    assert_eq!(rows.len(), 6, "a header and five steps");
    let frozen = fs::read_to_string(run_dir(&muon, "r").join("recipe.toml")).expect("a recipe");
    assert!(frozen.contains("steps = 5\n") && frozen.contains("moved/a.jsonl"), "{frozen}");
}

#[test]
fn a_run_made_longer_is_the_longer_run() {
    let muon = Muon::new();
    let args = ["train", "--batch-size", "2", "--seq-len", "48", "--device", "cpu", "--eval-steps", "3"];
    let args = [&args[..], &["--set", "train.eval_batches=1", "--optimizer"]].concat();
    for more in [
        &["muon", "--precision", "bf16", "--rounding", "stochastic", "--set", "optimizer.state=bf16"][..],
        &["normuon", "--clip", "0.5"],
        &["block-periodic"],
    ] {
        let args = [&args[..], more].concat();
        let (long, short) = (format!("{}-long", more[0]), format!("{}-short", more[0]));
        muon.shows(&[&args[..], &["--steps", "6", "--name", &long]].concat());
        muon.shows(&[&args[..], &["--steps", "3", "--name", &short]].concat());
        muon.shows(&["resume", &short, "--extend-steps", "3"]);
        same(&run_dir(&muon, &long), &run_dir(&muon, &short), 6);
    }
}

#[test]
fn steps_that_are_not_finite_move_nothing_and_a_limit_stops_them() {
    let muon = Muon::new();
    let args = ["train", "--optimizer", "adamw", "--lr", "1e30", "--warmup", "0", "--steps", "9"];
    let more = ["--batch-size", "2", "--seq-len", "48", "--device", "cpu", "--set", "train.eval_batches=1"];
    let model = |limit: &str, last: &str| {
        let set = format!("train.nonfinite_limit={limit}");
        let output = muon.run(&[&args[..], &more, &["--name", limit, "--set", &set]].concat());
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(6), "{told}");
        assert!(told.contains("diverged at step 2") && told.contains(last), "{told}");
        assert_eq!(told.matches("skipped, the ").count().to_string(), limit, "{told}");
        let metadata = fs::read_to_string(run_dir(&muon, limit).join("metadata.json")).expect("metadata");
        assert!(metadata.contains(&format!("\"skipped_steps\": {limit}")), "{metadata}");
        fs::read(run_dir(&muon, limit).join("model/model.safetensors")).expect("weights")
    };
    assert!(model("1", "the loss is") == model("4", "in 4 steps in a row"));
}

#[test]
fn a_limit_of_hours_stops_with_a_checkpoint() {
    let muon = Muon::new();
    muon.shows(&train("whole"));
    let output = muon.run(&[&train("late")[..], &["--max-hours", "1e-5"]].concat());
    let told = stderr(&output);
    assert!(output.status.code() == Some(7) && told.contains("train.max_hours"), "{told}");
    muon.shows(&["resume", "late", "--max-hours", "0"]);
    let (whole, late) = (run_dir(&muon, "whole"), run_dir(&muon, "late"));
    fs::copy(whole.join("recipe.toml"), late.join("recipe.toml")).expect("a copy");
    assert_eq!(rows(&whole), rows(&late));
}
