//! Checkpoints from the outside: damage of every kind, what killed writers leave, what is kept.

use std::fs;
use std::path::{Path, PathBuf};

use runs::{Checkpoints, Keep, Metadata, NewRun, Row, Run, Setup, Store, Timestamp};
use tempfile::TempDir;

const KEEP_ALL: Keep = Keep { last: 100, best: 0 };

fn run(folder: &TempDir) -> (Store, Run) {
    let now: Timestamp = "2026-11-22T05:44:00Z".parse().unwrap();
    let store = Store::new(folder.path().join("results"));
    let metadata = Metadata::new(vec![], Setup::default(), now);
    let run = store.create(NewRun { name: "r", prefix: "", recipe: "a = 1\n", metadata }).unwrap();
    run.metrics(&[]).unwrap();
    (store, run)
}

fn write(checkpoints: &Checkpoints, step: u64, val_loss: Option<f64>) -> PathBuf {
    let draft = checkpoints.draft(step).unwrap();
    draft.put("weights", format!("weights after step {step}").as_bytes()).unwrap();
    draft.put("state", &[step as u8; 40]).unwrap();
    let dir = draft.commit(val_loss).unwrap().dir;
    checkpoints.prune(KEEP_ALL).unwrap();
    dir
}

fn steps(run: &Run) -> Vec<String> {
    let entries = fs::read_dir(run.dir().join("checkpoints")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The newest is of step 1 and that of step 2 is refused by the name of `file`.
fn falls_back(checkpoints: &Checkpoints, file: &Path) {
    let newest = checkpoints.newest().unwrap();
    let refused: Vec<String> = newest.refused.iter().map(ToString::to_string).collect();
    assert_eq!(newest.checkpoint.map(|found| found.manifest.step), Some(1), "{}", file.display());
    assert_eq!(refused.len(), 1);
    assert!(refused[0].contains(file.to_str().unwrap()), "{} is not named by {refused:?}", file.display());
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused_by_file_name() {
    let folder = tempfile::tempdir().unwrap();
    let (_, run) = run(&folder);
    let checkpoints = run.checkpoints();
    write(&checkpoints, 1, Some(2.0));
    let dir = write(&checkpoints, 2, Some(1.5));
    for name in ["manifest.json", "state", "weights"] {
        let path = dir.join(name);
        let content = fs::read(&path).unwrap();
        for at in 0..content.len() {
            let mut damaged = content.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, damaged).unwrap();
            // A flip in the manifest may name another file than itself, but never passes.
            if name == "manifest.json" {
                assert_eq!(checkpoints.newest().unwrap().checkpoint.unwrap().manifest.step, 1);
            } else {
                falls_back(&checkpoints, &path);
            }
            fs::write(&path, &content[..at]).unwrap();
            falls_back(&checkpoints, &path);
        }
        fs::remove_file(&path).unwrap();
        falls_back(&checkpoints, &path);
        fs::write(&path, &content).unwrap();
        assert_eq!(checkpoints.newest().unwrap().checkpoint.unwrap().manifest.step, 2);
    }
}

#[test]
fn a_sealed_manifest_of_other_layout_step_or_names_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, run) = run(&folder);
    let checkpoints = run.checkpoints();
    write(&checkpoints, 1, None);
    let path = write(&checkpoints, 2, None).join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let seal = |text: &str| {
        let at = text.rfind("\"blake3\": \"").unwrap() + 11;
        let open = format!("{}{}", &text[..at], &text[at + 64..]);
        format!("{}{}{}", &open[..at], blake3::hash(open.as_bytes()).to_hex(), &open[at..])
    };
    assert_eq!(seal(&text), text);
    for (old, new) in [
        ("\"format\": 1", "\"format\": 2"),
        ("\"step\": 2", "\"step\": 3"),
        ("\"state\"", "\"../../recipe.toml\""),
        ("\"state\"", "\"/etc/hostname\""),
    ] {
        assert!(text.contains(old));
        fs::write(&path, seal(&text.replacen(old, new, 1))).unwrap();
        falls_back(&checkpoints, &path);
    }
}

#[test]
fn what_a_killed_writer_leaves_is_no_checkpoint_and_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let (store, run) = run(&folder);
    let checkpoints = run.checkpoints();
    write(&checkpoints, 1, None);
    // Killed in the middle: no destructor runs.
    let draft = checkpoints.draft(2).unwrap();
    draft.put("weights", b"half").unwrap();
    std::mem::forget(draft);
    fs::create_dir(run.dir().join("checkpoints/.old-step-0")).unwrap();
    fs::write(run.dir().join(".metadata.tmp"), "half").unwrap();
    assert_eq!(checkpoints.newest().unwrap().checkpoint.unwrap().manifest.step, 1);
    let dir = run.dir().to_owned();
    assert!(store.resume("r").is_err(), "two writers");
    drop(run);
    let (run, killed) = store.resume("r").unwrap();
    assert!(killed.is_none());
    assert_eq!(steps(&run), ["step-1"]);
    assert!(!dir.join(".metadata.tmp").exists());
    // A draft given up leaves nothing, and a damaged checkpoint gives way to a new one of its step.
    drop(checkpoints.draft(2).unwrap());
    assert_eq!(steps(&run), ["step-1"]);
    fs::write(dir.join("checkpoints/step-1/weights"), "short").unwrap();
    assert!(checkpoints.newest().unwrap().checkpoint.is_none());
    write(&checkpoints, 1, None);
    assert!(checkpoints.newest().unwrap().refused.is_empty());
}

#[test]
fn the_newest_and_the_best_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (_, run) = run(&folder);
    let checkpoints = run.checkpoints();
    for (step, loss) in
        [(1, None), (2, Some(2.0)), (3, Some(1.0)), (10, Some(1.0)), (11, None), (12, Some(3.0))]
    {
        write(&checkpoints, step, loss);
    }
    checkpoints.prune(Keep { last: 2, best: 1 }).unwrap();
    assert_eq!(steps(&run), ["step-11", "step-12", "step-3"]);
    checkpoints.prune(Keep { last: 2, best: 0 }).unwrap();
    assert_eq!(steps(&run), ["step-11", "step-12"]);
    // One that is cut does not count.
    fs::write(run.dir().join("checkpoints/step-12/state"), "cut").unwrap();
    checkpoints.prune(Keep { last: 1, best: 0 }).unwrap();
    assert_eq!(steps(&run), ["step-11", "step-12"]);
}

#[test]
fn rows_after_the_checkpoint_are_cut_off_and_the_metadata_tell_of_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut run) = run(&folder);
    fs::remove_file(run.dir().join("metrics.csv")).unwrap();
    let mut metrics = run.metrics(&["rank"]).unwrap();
    let mut bytes = 0;
    for step in 1..=5 {
        let grad_norm = if step == 2 { f64::NAN } else { 1.0 };
        let row = Row { step, tokens: 10 * step, loss: 6.0 - step as f64, grad_norm, ..Row::default() };
        metrics.append(&row).unwrap();
        run.metadata.record(&row);
        bytes = if step == 3 { metrics.bytes() } else { bytes };
    }
    drop(metrics);
    let path = run.dir().join("metrics.csv");
    let whole = fs::read(&path).unwrap();
    for (names, step, bytes) in
        [(&["rank"][..], 3, bytes + 1), (&["rank"], 2, bytes), (&["other"], 3, bytes), (&["rank"], 3, 9999)]
    {
        assert!(run.rewind(names, step, bytes).is_err(), "{names:?} {step} {bytes}");
        assert_eq!(fs::read(&path).unwrap(), whole, "a refusal cuts nothing");
    }
    let (mut metrics, rows) = run.rewind(&["rank"], 3, bytes).unwrap();
    assert_eq!((rows.len(), metrics.bytes()), (3, bytes));
    let told = &run.metadata;
    assert_eq!((told.steps_done, told.tokens, told.skipped_steps), (3, 30, 1));
    assert_eq!((told.train_loss.first, told.train_loss.best), (Some(5.0), Some(3.0)));
    metrics.append(&Row { step: 4, ..rows[2].clone() }).unwrap();
    assert_eq!(run.info().metrics().unwrap().rows.len(), 4);
}
