//! What a run goes on with, and until when: limits, foreign checkpoints, changed data, clocks that go back, strays.

use std::fs::{self, File};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Muon, stderr};

mod common;

const RUN: [&str; 14] = [
    "train",
    "--optimizer",
    "muon",
    "--steps",
    "4",
    "--batch-size",
    "2",
    "--seq-len",
    "32",
    "--device",
    "cpu",
    "--set",
    "train.eval_batches=1",
    "--name",
];

fn train<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&RUN[..], &[name], more].concat()
}

fn metadata(muon: &Muon, name: &str) -> serde_json::Value {
    let path = muon.dir().join("results").join(name).join("metadata.json");
    serde_json::from_slice(&fs::read(path).expect("metadata")).expect("JSON")
}

fn number(metadata: &serde_json::Value, key: &str) -> f64 {
    metadata[key].as_f64().unwrap_or_else(|| panic!("{key} in {metadata}"))
}

#[test]
fn a_limit_of_cost_stops_and_time_between_processes_costs_nothing() {
    let muon = Muon::new();
    let told = muon.fails(&train("free", &["--max-cost", "3"]), 2);
    assert!(told.contains("train.max_cost") && told.contains("--price"), "{told}");
    // A dollar a second.
    let begin = Instant::now();
    let output = muon.run(&train("dear", &["--price", "3600", "--max-cost", "1e-6"]));
    let mut worked = begin.elapsed();
    let told = stderr(&output);
    assert!(output.status.code() == Some(7) && told.contains("after step 1 by train.max_cost"), "{told}");
    let first = metadata(&muon, "dear");
    assert!((number(&first, "usd") - number(&first, "wall_seconds")).abs() < 1e-9, "{first}");
    sleep(Duration::from_millis(1500));
    // The price is on record; the limit is that of the whole run.
    let output = muon.run(&["resume", "dear"]);
    let told = stderr(&output);
    assert!(output.status.code() == Some(7) && told.contains("train.max_cost = 0.000001 already"), "{told}");
    let begin = Instant::now();
    muon.shows(&["resume", "dear", "--max-cost", "0"]);
    worked += begin.elapsed();
    let last = metadata(&muon, "dear");
    let [before, wall, usd] =
        [number(&first, "wall_seconds"), number(&last, "wall_seconds"), number(&last, "usd")];
    assert!(wall > before && wall < worked.as_secs_f64(), "{before} s, then {wall} s of {worked:?}");
    assert!((usd - wall).abs() < 1e-9, "{last}");
    let shown = muon.shows(&["show", "dear"]);
    assert!(shown.contains(" at $3600.00 an hour"), "{shown}");
    // Another price from here on.
    muon.shows(&["resume", "dear", "--extend-steps", "1", "--price", "2"]);
    assert!((number(&metadata(&muon, "dear"), "usd_per_hour") - 2.0).abs() < 1e-9);
}

#[test]
fn a_limit_of_hours_is_that_of_the_whole_run() {
    let muon = Muon::new();
    let output = muon.run(&train("late", &["--max-hours", "1e-7"]));
    assert!(output.status.code() == Some(7), "{}", stderr(&output));
    let output = muon.run(&["resume", "late", "--max-hours", "2e-7"]);
    let told = stderr(&output);
    assert!(
        output.status.code() == Some(7) && told.contains("train.max_hours = 0.0000002 already"),
        "{told}"
    );
    muon.shows(&["resume", "late", "--max-hours", "1"]);
}

#[test]
fn spikes_are_told_and_on_record_across_a_resume() {
    let muon = Muon::new();
    // A rate at which the second loss is far above the first.
    let run = |name: &'static str, steps: &'static str| {
        let more =
            ["--lr", "1", "--warmup", "0", "--set", "train.spike_window=2", "--set", "optimizer.name=adamw"];
        let args = train(name, &more).into_iter().filter(|arg| !["--optimizer", "muon"].contains(arg));
        let args: Vec<&str> = args.map(|arg| if arg == "4" { steps } else { arg }).collect();
        stderr(&muon.run(&args))
    };
    let told = run("whole", "5");
    assert!(
        told.contains("WARNING: step 2: the loss of ") && told.contains("the median before it"),
        "{told}"
    );
    run("short", "2");
    muon.shows(&["resume", "short", "--extend-steps", "3"]);
    let [whole, short] = ["whole", "short"].map(|name| metadata(&muon, name));
    assert!(number(&whole, "loss_spikes") >= 1.0 && whole["spikes"][0]["step"] == 2, "{whole}");
    assert_eq!((&whole["loss_spikes"], &whole["spikes"]), (&short["loss_spikes"], &short["spikes"]));
    assert!(muon.shows(&["show", "whole"]).contains(" loss spikes "));
    let told = muon.run(&["resume", "short", "--extend-steps", "1", "--set", "train.spike_window=0"]);
    assert!(told.status.success() && !stderr(&told).contains("stands out"), "{}", stderr(&told));
}

#[test]
fn foreign_checkpoints_are_refused_with_what_differs() {
    let muon = Muon::new();
    muon.shows(&train("own", &[]));
    muon.shows(&train("seed", &["--seed", "5"]));
    muon.shows(&train("rule", &["--lr", "0.5"]));
    muon.shows(&train("model", &["--model", "qwen-nano"]));
    let own = muon.dir().join("results/own/checkpoints/step-4");
    for (other, difference) in
        [("seed", "train.seed: 5 -> 42"), ("rule", "optimizer.lr: 0.5 -> "), ("model", "model.preset: ")]
    {
        fs::remove_dir_all(&own).expect("removed");
        let foreign = muon.dir().join(format!("results/{other}/checkpoints/step-4"));
        copy(&foreign, &own);
        let output = muon.run(&["resume", "own", "--extend-steps", "1"]);
        let told = stderr(&output);
        assert!(output.status.code() == Some(4), "{told}");
        assert!(told.contains("not the same run any more") && told.contains(difference), "{told}");
        // Under the name of a later step.
        let later = own.with_file_name("step-9");
        copy(&foreign, &later);
        let output = muon.run(&["resume", "own", "--extend-steps", "1"]);
        let told = stderr(&output);
        assert!(told.contains("step-9/manifest.json: ") && told.contains("it is that of step 4"), "{told}");
        fs::remove_dir_all(later).expect("removed");
    }
}

const WORDS: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
  {"id": 0, "content": "<|end_of_text|>", "single_word": false, "lstrip": false, "rstrip": false,
   "normalized": false, "special": true}],
 "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
 "model": {"type": "WordLevel", "unk_token": "<|end_of_text|>", "vocab": {"<|end_of_text|>": 0, "one": 1, "two": 2}}}"#;

#[test]
fn a_changed_shard_or_tokenizer_is_refused() {
    let muon = Muon::new();
    // Each document has content of its own: the split goes by it.
    let lines = |word: &str| {
        let lines: Vec<String> =
            (0..400).map(|i| format!("{{\"text\": \"{word} one two {i} {word} two one\"}}\n")).collect();
        lines.concat()
    };
    for shard in ["data/a.jsonl", "data/b.jsonl"] {
        muon.write(shard, &lines("one"));
    }
    muon.write("tokenizer.json", WORDS);
    muon.shows(&train("r", &["--data", "data", "--tokenizer", "tokenizer.json"]));
    let extend = ["resume", "r", "--extend-steps", "1"];
    let refused = |what: &str| {
        let output = muon.run(&extend);
        let told = stderr(&output);
        assert!(
            output.status.code() == Some(4) && told.contains("the data or the tokenizer"),
            "{what}: {told}"
        );
    };
    muon.write("data/b.jsonl", &lines("two"));
    refused("the second shard");
    muon.write("data/b.jsonl", &lines("one"));
    muon.write("tokenizer.json", &WORDS.replace("\"one\": 1, \"two\": 2", "\"one\": 2, \"two\": 1"));
    refused("the tokenizer");
    muon.write("tokenizer.json", WORDS);
    muon.write("data/c.jsonl", &lines("one"));
    refused("one shard more");
    fs::remove_file(muon.dir().join("data/c.jsonl")).expect("removed");
    muon.shows(&extend);
}

/// A run that began in what is the future by now, as after a clock was set back.
#[test]
fn a_clock_that_went_back_breaks_nothing() {
    let muon = Muon::new();
    muon.shows(&train("r", &[]));
    let path = muon.dir().join("results/r/metadata.json");
    let mut told = metadata(&muon, "r");
    let began = "2150-01-01T00:00:00Z";
    told["started"] = began.into();
    fs::write(&path, serde_json::to_vec(&told).expect("JSON")).expect("written");
    let wall = number(&told, "wall_seconds");
    muon.shows(&["resume", "r", "--extend-steps", "1"]);
    let told = metadata(&muon, "r");
    assert_eq!((&told["started"], &told["finished"]), (&began.into(), &began.into()));
    assert!(number(&told, "wall_seconds") > wall && number(&told, "step_seconds") > 0.0, "{told}");
    for verb in [&["runs"][..], &["show", "last"], &["logs", "r"], &["runs", "--json"]] {
        let shown = muon.shows(verb);
        assert!(!shown.contains("unknown"), "a time that is none, in {verb:?}: {shown}");
    }
    // The next run has a name of its own and is listed.
    muon.shows(&train("next", &[]));
    let shown = muon.shows(&["runs"]);
    assert!(shown.contains("next") && shown.contains("0 ms"), "{shown}");
}

#[test]
fn strays_of_killed_processes_are_swept_at_the_next_start() {
    let muon = Muon::new();
    muon.shows(&train("r", &[]));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let host = host.trim().replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "-");
    let results = muon.dir().join("results");
    let stray = |what: &str| {
        let path = results.join(format!(".{what}-{host}-abc"));
        fs::create_dir_all(path.join("run")).expect("a folder");
        fs::write(path.join("run/metadata.json"), "{}").expect("a file");
        path
    };
    for start in [&train("next", &[])[..], &["resume", "r", "--extend-steps", "1"]] {
        let strays = [stray("new"), stray("removed")];
        // One of a process that lives.
        let alive = results.join(format!(".new-{host}-def"));
        fs::create_dir(&alive).expect("a folder");
        let held = File::open(&alive).expect("open");
        held.lock().expect("locked");
        muon.shows(start);
        assert!(strays.iter().all(|path| !path.exists()) && alive.exists(), "{start:?}");
        fs::remove_dir(alive).expect("removed");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}
