//! The files of a run folder under mutated content: refused, or read; never worse.

use std::fs;

use fuzz::{Campaign, Counting};
use runs::{Keep, Metadata, NewRun, Row, Run, Setup, State, Store, Timestamp};
use tempfile::TempDir;

#[global_allocator]
static MEMORY: Counting = Counting;

const NAMES: [&str; 14] = [
    "format",
    "step",
    "val_loss",
    "files",
    "name",
    "bytes",
    "blake3",
    "weights",
    "state",
    "manifest.json",
    "../recipe.toml",
    "/dev/null",
    ".",
    "\\u0000",
];

/// A run of two steps with a checkpoint after each, and its store.
fn run(folder: &TempDir) -> (Store, Run) {
    let now: Timestamp = "2026-11-22T05:44:00Z".parse().unwrap();
    let store = Store::new(folder.path().join("results"));
    let mut metadata = Metadata::new(vec!["muon".into()], Setup::default(), now);
    metadata.usd_per_hour = Some(3.0);
    let mut run = store.create(NewRun { name: "r", prefix: "", recipe: "a = 1\n", metadata }).unwrap();
    let mut metrics = run.metrics(&["rank", "norm/a"]).unwrap();
    for step in 1..=2 {
        let diagnostics = vec![("rank".to_owned(), 0.5)];
        let row =
            Row { step, tokens: 10 * step, loss: 6.5, val_loss: Some(1e-9), diagnostics, ..Row::default() };
        metrics.append(&row).unwrap();
        run.metadata.record(&row);
        let draft = run.checkpoints().draft(step).unwrap();
        draft.put("weights", format!("weights after step {step}").as_bytes()).unwrap();
        draft.put("state", &[step as u8; 40]).unwrap();
        draft.commit(Some(2.0)).unwrap();
    }
    run.metadata.finish(State::Stopped { reason: "told so".into() }, now);
    run.write_metadata().unwrap();
    (store, run)
}

fn folder() -> TempDir {
    tempfile::tempdir_in(fuzz::folder()).unwrap()
}

/// The same manifest with the seal that belongs to it, where it has one.
fn sealed(text: &[u8]) -> Vec<u8> {
    const KEY: &str = "\"blake3\": \"";
    let Some(at) = std::str::from_utf8(text).ok().and_then(|text| Some(text.rfind(KEY)? + KEY.len())) else {
        return text.to_vec();
    };
    let rest = text[at..].iter().position(|&byte| byte == b'"').map_or(&[][..], |end| &text[at + end..]);
    let seal = blake3::hash(&[&text[..at], rest].concat()).to_hex();
    [&text[..at], seal.as_bytes(), rest].concat()
}

#[test]
fn fuzz_manifest() {
    let folder = folder();
    let (_, run) = run(&folder);
    let checkpoints = run.checkpoints();
    let path = run.dir().join("checkpoints/step-2/manifest.json");
    let whole = fs::read(&path).unwrap();
    let seeds = [whole.clone(), fs::read(run.dir().join("checkpoints/step-1/manifest.json")).unwrap()];
    let campaign = Campaign { name: "manifest", seeds: &seeds, words: &NAMES, cases: 3000, memory: 4 << 20 };
    campaign.run(|input| {
        // Half of them with a valid seal: what is behind it must hold by itself.
        let text = if input.len().is_multiple_of(2) { sealed(input) } else { input.to_vec() };
        fs::write(&path, &text).unwrap();
        let newest = checkpoints.newest().unwrap();
        let step = newest.checkpoint.as_ref().map(|found| found.manifest.step);
        let told = newest.refused.first().map(ToString::to_string);
        assert_eq!(step, Some(if told.is_some() { 1 } else { 2 }), "the one before it is used");
        if let Some(found) = newest.checkpoint {
            let files = fs::read_dir(&found.dir).unwrap().count() - 1;
            assert!(found.manifest.files.len() <= files, "a file of it lies elsewhere, or is named twice");
        }
        told
    });
    // Pruning reads them too.
    fs::write(&path, &whole).unwrap();
    checkpoints.prune(Keep { last: 1, best: 0 }).unwrap();
}

#[test]
fn fuzz_metadata() {
    let folder = folder();
    let (store, run) = run(&folder);
    let path = run.dir().join("metadata.json");
    let whole = fs::read(&path).unwrap();
    let words = [
        "state",
        "status",
        "running",
        "failed",
        "reason",
        "2026-11-22T05:44:00Z",
        "-009999-01-01T00:00:00Z",
        "schema",
    ];
    let campaign =
        Campaign { name: "metadata", seeds: &[whole], words: &words, cases: 3000, memory: 4 << 20 };
    drop(run);
    campaign.run(|input| {
        fs::write(&path, input).unwrap();
        let listing = store.list().unwrap();
        assert_eq!(listing.runs.len() + listing.unreadable.len(), 1);
        match store.open("r") {
            Err(error) => Some(error.to_string()),
            Ok(info) => {
                let (run, _) = store.resume("r").expect("what can be read can be gone on with");
                assert_eq!(run.metadata, info.metadata);
                run.write_metadata().unwrap();
                store.open("r").expect("what was written can be read");
                None
            }
        }
    });
}

#[test]
fn fuzz_metrics() {
    let folder = folder();
    let (_, run) = run(&folder);
    let path = run.dir().join("metrics.csv");
    let seeds = [fs::read(&path).unwrap()];
    let words = ["step", "tokens", "NaN", "inf", "-inf", "rank", ",", ",,", "\r\n", "\n"];
    let campaign = Campaign { name: "metrics", seeds: &seeds, words: &words, cases: 3000, memory: 4 << 20 };
    let info = run.info();
    campaign.run(|input| {
        fs::write(&path, input).unwrap();
        let (read, followed) = (info.metrics(), info.tail().rows());
        match read {
            Err(error) => Some(error.to_string()),
            Ok(metrics) => {
                let same = |one: &Row, other: &Row| {
                    one.step == other.step && one.loss.to_bits() == other.loss.to_bits()
                };
                let rows = followed.expect("what can be read can be followed");
                assert!(rows.len() == metrics.rows.len());
                assert!(rows.iter().zip(&metrics.rows).all(|(one, other)| same(one, other)));
                None
            }
        }
    });
}

#[test]
fn fuzz_lock() {
    let folder = folder();
    let (store, run) = run(&folder);
    let path = run.dir().join("lock");
    let seeds = [fs::read(&path).unwrap(), br#"{"pid":1,"host":"elsewhere.invalid"}"#.to_vec()];
    drop(run);
    let words = ["pid", "host", "elsewhere.invalid"];
    let campaign = Campaign { name: "lock", seeds: &seeds, words: &words, cases: 3000, memory: 4 << 20 };
    campaign.run(|input| {
        fs::write(&path, input).unwrap();
        store.open("r").unwrap().writer().unwrap();
        store.resume("r").err().map(|error| error.to_string())
    });
}
