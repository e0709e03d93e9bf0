//! The verbs over the run store from the outside, on runs made here.

mod common;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use common::{Muon, stderr};
use runs::{Metadata, MetricsWriter, NewRun, Row, Run, Setup, State, Store};
use serde_json::Value;

/// A run that began `minute` minutes past five, whose losses fall from `loss` to `loss - 0.1 steps`.
fn begin(muon: &Muon, name: &str, minute: u32, loss: f64, steps: u64) -> (Run, MetricsWriter) {
    let setup = Setup {
        model: "granite-nano".into(),
        optimizer: name.split('-').next().unwrap_or(name).into(),
        data: "synthetic".into(),
        steps: 5,
        ..Setup::default()
    };
    let started = format!("2026-11-22T05:{minute:02}:00Z").parse().expect("a time");
    let metadata = Metadata::new(vec!["muon".into(), "train".into()], setup, started);
    let store = Store::new(muon.dir().join("results"));
    let run = store.create(NewRun { name, prefix: "", recipe: "[run]\n", metadata }).expect("a run");
    let mut metrics = run.metrics(&[]).expect("metrics");
    (1..=steps).for_each(|step| metrics.append(&row(step, loss)).expect("a row"));
    (run, metrics)
}

fn row(step: u64, loss: f64) -> Row {
    let val_loss = (step == 5).then_some(loss);
    let loss = loss - 0.1 * step as f64;
    Row {
        step,
        tokens: 100 * step,
        loss,
        lr: 0.02,
        step_ms: 10.0,
        tokens_per_s: 1e4,
        val_loss,
        ..Row::default()
    }
}

fn finished(muon: &Muon, name: &str, minute: u32, loss: f64) {
    let (mut run, _) = begin(muon, name, minute, loss, 5);
    (1..=5).for_each(|step| run.metadata.record(&row(step, loss)));
    run.metadata.finish(State::Finished, "2026-11-22T06:00:00Z".parse().expect("a time"));
    run.write_metadata().expect("metadata");
}

/// Muon with two finished runs, `muon-a` and `nolah-b`, and `adamw-c` at step 2.
fn three() -> (Muon, Run, MetricsWriter) {
    let muon = Muon::new();
    finished(&muon, "muon-a", 1, 3.0);
    finished(&muon, "nolah-b", 2, 2.0);
    let (run, metrics) = begin(&muon, "adamw-c", 3, 4.0, 2);
    (muon, run, metrics)
}

fn lock(run: &Run) -> PathBuf {
    run.dir().join("lock")
}

/// The names in the order in which they are shown.
fn order(shown: &str) -> Vec<&str> {
    let names = shown.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    names.filter(|name| name.contains('-')).collect()
}

#[test]
fn runs_are_listed_sorted_and_filtered() {
    let (muon, ..) = three();
    let shown = muon.shows(&["runs"]);
    assert_eq!(order(&shown), ["muon-a", "nolah-b", "adamw-c"], "{shown}");
    let line = |name: &str| shown.lines().find(|line| line.contains(name)).expect("a line").to_string();
    assert!(line("muon-a").contains("| finished |") && line("muon-a").contains("| 2.5000 |"), "{shown}");
    assert!(
        line("adamw-c").contains(" 2/5 ") && line("adamw-c").contains("3.8000"),
        "of the metrics: {shown}"
    );
    assert_eq!(order(&muon.shows(&["runs", "--sort", "loss"])), ["nolah-b", "muon-a", "adamw-c"]);
    assert_eq!(order(&muon.shows(&["runs", "--sort", "validation"]))[2], "adamw-c", "unknown comes last");
    assert_eq!(
        order(&muon.shows(&["runs", "--sort", "name", "--reverse"])),
        ["nolah-b", "muon-a", "adamw-c"]
    );
    assert_eq!(order(&muon.shows(&["runs", "--filter", "FINISHED", "--filter", "muon"])), ["muon-a"]);
    assert_eq!(muon.shows(&["runs", "--filter", "nothing"]), "no runs\n");
    let json: Value = serde_json::from_str(&muon.shows(&["runs", "--json"])).expect("JSON");
    assert_eq!(json[1]["name"], "nolah-b");
    assert_eq!((&json[2]["steps_done"], &json[0]["validation_loss"]["best"]), (&2.into(), &3.0.into()));
}

#[test]
fn a_folder_that_is_no_run_is_told_and_an_absent_store_is_an_error() {
    let muon = Muon::new();
    let told = muon.fails(&["runs"], 3);
    assert!(told.contains("no such results folder"), "{told}");
    finished(&muon, "muon-a", 1, 3.0);
    muon.write("results/stray/x", "");
    let output = muon.run(&["runs", "--results", "results"]);
    assert!(
        output.status.success() && stderr(&output).contains("warning: results/stray"),
        "{}",
        stderr(&output)
    );
    assert_eq!(order(&String::from_utf8_lossy(&output.stdout)), ["muon-a"]);
    muon.fails(&["runs", "--sort", "colour"], 2);
}

#[test]
fn a_run_whose_process_is_gone_is_shown_as_such() {
    let (muon, run, _metrics) = three();
    let standing = || {
        let json: Value = serde_json::from_str(&muon.shows(&["show", "adamw-c", "--json"])).expect("JSON");
        json["standing"].as_str().expect("a word").to_string()
    };
    let _ = fs::remove_file(lock(&run));
    assert_eq!(standing(), "running", "it cannot be known");
    let writer = File::create(lock(&run)).expect("a lock");
    writer.lock().expect("locked");
    assert_eq!(standing(), "running");
    drop(writer);
    assert_eq!(standing(), "died");
    assert!(muon.shows(&["runs"]).contains("| died "));
}

#[test]
fn a_run_is_shown_with_its_files() {
    let (muon, ..) = three();
    let shown = muon.shows(&["show", "muon"]);
    for part in
        ["muon-a: finished", "5 of 5", "results/muon-a/recipe.toml", "metadata.json", "metrics.csv", "6 B"]
    {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    assert!(muon.shows(&["show", "last"]).starts_with("adamw-c: running"));
    let json: Value = serde_json::from_str(&muon.shows(&["show", "muon-a", "--json"])).expect("JSON");
    let files: Vec<&str> =
        json["files"].as_array().expect("files").iter().filter_map(|f| f["path"].as_str()).collect();
    assert!(files.contains(&"metrics.csv") && files.contains(&"recipe.toml"), "{files:?}");
    // Version control keeps this file alone.
    fs::remove_file(muon.dir().join("results/muon-a/metrics.csv")).expect("removed");
    assert!(muon.shows(&["show", "muon-a"]).contains("2.5000"));
    finished(&muon, "muon-b", 4, 3.0);
    let told = muon.fails(&["show", "muon"], 2);
    assert!(told.contains("muon-a, muon-b") && told.contains("write more"), "{told}");
    let told = muon.fails(&["show", "zebra"], 2);
    assert!(told.contains("no run `zebra`") && told.contains("nolah-b"), "{told}");
}

#[test]
fn logs_show_the_last_steps() {
    let (muon, ..) = three();
    let shown = muon.shows(&["logs", "muon-a", "--tail", "2"]);
    assert_eq!(
        shown,
        "step 4/5: loss 2.6000, lr 0.02, 10.0k tokens/s\n\
         step 5/5: loss 2.5000, lr 0.02, 10.0k tokens/s, validation loss 3.0000\n"
    );
    assert_eq!(muon.shows(&["logs", "muon-a"]).lines().count(), 5);
    let json = muon.shows(&["logs", "last", "--json", "--tail", "1"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["step"], &json["val_loss"]), (&2.into(), &Value::Null));
    assert_eq!(
        muon.shows(&["logs", "muon-a", "--follow"]).lines().count(),
        5,
        "it ended: nothing to wait for"
    );
}

#[test]
fn logs_follow_a_run_to_its_end() {
    let (muon, mut run, mut metrics) = three();
    let _ = fs::remove_file(lock(&run));
    let mut command = muon.command(&["logs", "adamw-c", "--tail", "1", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("muon runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    assert!(next().starts_with("step 2/5: "));
    metrics.append(&row(3, 4.0)).expect("a row");
    assert!(next().starts_with("step 3/5: "));
    metrics.append(&row(4, 4.0)).expect("a row");
    run.metadata.finish(State::Finished, "2026-11-22T06:00:00Z".parse().expect("a time"));
    run.write_metadata().expect("metadata");
    assert!(next().starts_with("step 4/5: "));
    assert!(lines.next().is_none());
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn removing_lists_asks_and_refuses_what_runs() {
    let (muon, run, _metrics) = three();
    let there = |name: &str| muon.dir().join("results").join(name).exists();
    let _ = fs::remove_file(lock(&run));
    let told = stderr(&muon.run(&["rm", "muon-a"]));
    assert!(told.contains("--yes") && told.contains("muon-a: finished, 5 of 5 steps, "), "{told}");
    assert!(there("muon-a"));
    let told = muon.fails(&["rm", "muon-a", "adamw-c", "--yes"], 2);
    assert!(told.contains("may still be running") && told.contains("--force"), "{told}");
    assert!(there("muon-a"), "all or none");
    let writer = File::create(lock(&run)).expect("a lock");
    writer.lock().expect("locked");
    let told = muon.fails(&["rm", "adamw-c", "--yes", "--force"], 2);
    assert!(told.contains("is running: stop it first"), "{told}");
    drop(writer);
    let told = stderr(&muon.run(&["rm", "adamw-c"]));
    assert!(told.contains("adamw-c: died, 2 of 5 steps, 4 files"), "{told}");
    let shown = muon.shows(&["rm", "adamw-c", "muon-a", "muon", "--yes"]);
    assert!(shown.starts_with("removed 2 runs, "), "{shown}");
    assert!(!there("muon-a") && !there("adamw-c") && there("nolah-b"));
    muon.fails(&["rm", "last", "--yes"], 2);
    muon.fails(&["rm", "../results/nolah-b", "--yes"], 2);
    assert_eq!(fs::read_dir(muon.dir().join("results")).expect("results").count(), 1);
}

#[test]
fn plots_in_characters_and_as_svg() {
    let (muon, ..) = three();
    let text = muon.shows(&["plot", "muon", "nolah"]);
    assert!(text.is_ascii(), "no colour and no lines of boxes in a pipe: {text}");
    assert!(text.starts_with("training loss of 2 runs") && text.contains("* muon-a, final 2.5"), "{text}");
    let shown = muon.shows(&["plot", "muon", "nolah", "--out", "both.svg"]);
    assert_eq!(shown.trim(), "");
    let svg = fs::read_to_string(muon.dir().join("both.svg")).expect("a file");
    assert!(svg.starts_with("<svg ") && svg.contains("nolah-b, final 1.5"), "{svg}");
    let one = muon.shows(&["plot", "last", "--out", "one.svg", "--terminal", "--log"]);
    assert!(one.starts_with("adamw-c") && muon.files().contains(&"one.svg".to_string()), "{one}");
    assert!(muon.shows(&["plot", "muon", "--validation"]).contains("validation loss of muon-a"));
    let shown = muon.shows(&["plot", "muon", "--svg", "b.SVG", "--png", "b.png"]);
    assert_eq!(shown.trim(), "");
    let png = fs::read(muon.dir().join("b.png")).expect("a file");
    // Width and height are in the first chunk.
    assert!(png.starts_with(b"\x89PNG\r\n") && png[16..24] == [0, 0, 7, 8, 0, 0, 4, 16], "{:?}", &png[..24]);
    let told = muon.fails(&["plot", "muon", "--out", "x.pdf"], 2);
    assert!(told.contains(".svg or .png"), "{told}");
    muon.fails(&["plot", "muon", "--out", "none/x.svg"], 3);
    assert_eq!(muon.files().len(), 5, "four plots and the results");
}

#[test]
fn shells_complete_and_every_verb_has_a_page() {
    let muon = Muon::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = muon.shows(&["completions", shell]);
        assert!(script.contains("orthogonalize") && script.contains("block-size"), "{shell}");
    }
    muon.fails(&["completions", "cmd"], 2);
    muon.shows(&["man", "--out", "pages/man1"]);
    let page = |name: &str| fs::read_to_string(muon.dir().join("pages/man1").join(name)).expect(name);
    assert!(page("muon.1").contains("muon\\-runs(1)") && page("muon-rm.1").contains("\\-\\-yes"));
    assert!(page("muon-lab-kernels.1").contains("Exit codes"));
    muon.write("file", "");
    muon.fails(&["man", "--out", "file"], 3);
}
