//! Names and places of runs that cannot be are refused before any work is done.

mod common;

use std::path::Path;

use common::{Muon, stderr};

/// A corpus that does not parse: whoever gets to reading it fails with 3 and its name.
fn with_bad_data() -> Muon {
    let muon = Muon::new();
    muon.write("bad.jsonl", "{\n");
    muon
}

const DATA: [&str; 5] = ["train", "--data", "bad.jsonl", "--tokenizer", "bytes"];

fn fails_early(muon: &Muon, rest: &[&str], code: i32) -> String {
    let told = muon.fails(&[&DATA[..], rest].concat(), code);
    assert!(!told.contains("bad.jsonl"), "the data was read first: {told}");
    told
}

#[test]
fn a_name_that_is_taken_or_cannot_be_is_refused_first() {
    let muon = with_bad_data();
    muon.write("results/mine/recipe.toml", "");
    let told = fails_early(&muon, &["--name", "mine"], 2);
    assert!(
        told.contains("results/mine: this run exists already (choose another name, or `auto`)"),
        "{told}"
    );
    for name in ["..", "a/b", "", "-x"] {
        let flag = format!("--name={name}");
        fails_early(&muon, &[&flag], 2);
    }
    let output = muon.run(&[&DATA[..], &["--name", "other"]].concat());
    assert!(
        output.status.code() == Some(3) && stderr(&output).contains("error: bad.jsonl"),
        "{}",
        stderr(&output)
    );
    assert_eq!(std::fs::read_dir(muon.dir().join("results")).expect("results").count(), 1, "nothing stays");
}

#[test]
fn a_results_folder_that_cannot_be_written_is_refused_first() {
    let muon = with_bad_data();
    muon.write("file", "");
    let told = fails_early(&muon, &["--results", "file"], 3);
    assert!(told.contains("file: cannot write in the results folder") && told.contains("move it"), "{told}");
    let told = fails_early(&muon, &["--results", "none/results"], 3);
    assert!(
        told.contains("cannot make the results folder") && told.contains("make the folder above"),
        "{told}"
    );
    // A folder in which not even root makes folders.
    if Path::new("/sys/kernel").is_dir() {
        for results in ["/sys/kernel", "/sys/kernel/results"] {
            let told = fails_early(&muon, &["--results", results], 3);
            assert!(told.contains("make the results folder writable, or choose another one"), "{told}");
        }
    } else {
        eprintln!("SKIPPED: there is no /sys/kernel");
    }
    assert_eq!(muon.files().len(), 2, "nothing was made");
}

#[test]
fn made_up_names_read_well_and_never_meet() {
    let muon = Muon::new();
    let small = ["--steps", "1", "--batch-size", "2", "--seq-len", "16", "--device", "cpu", "--name", "auto"];
    for _ in 0..2 {
        let output = muon.run(&[&["train", "--set", "train.eval_batches=1"], &small[..]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let runs = std::fs::read_dir(muon.dir().join("results")).expect("results");
    let names: Vec<String> =
        runs.map(|run| run.expect("a run").file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 2);
    assert!(
        names.iter().all(|name| name.starts_with("muon-granite-nano-20") && name.split('-').count() == 7),
        "{names:?}"
    );
}
