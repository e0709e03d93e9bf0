//! The store from the outside: making, finding and refusing runs.

use std::fs;
use std::path::Path;

use runs::{Error, Git, Metadata, NewRun, Run, Setup, State, Store, Timestamp};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn metadata() -> Metadata {
    let setup = Setup { model: "granite-nano".into(), optimizer: "muon".into(), ..Setup::default() };
    Metadata::new(vec!["muon".into(), "baseline".into()], setup, at("2026-11-22T05:44:00Z"))
}

fn create(store: &Store, name: &str) -> runs::Result<Run> {
    store.create(NewRun { name, prefix: "muon-nano", recipe: "steps = 3\n", metadata: metadata() })
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("results"));
    (folder, store)
}

#[test]
fn a_run_appears_with_recipe_and_metadata() {
    let (folder, store) = store();
    let run = create(&store, "one").unwrap();
    assert_eq!(files(&folder.path().join("results")), ["one"]);
    assert_eq!(files(run.dir()), ["lock", "metadata.json", "recipe.toml"]);
    let info = store.open("one").unwrap();
    assert_eq!(info.recipe().unwrap(), "steps = 3\n");
    assert_eq!(info.metadata, run.metadata);
    assert_eq!(info.metadata.name, "one");
    assert_eq!(info.metadata.recipe_hash, blake3::hash(b"steps = 3\n").to_hex().as_str());
}

#[test]
fn metadata_reads_back_the_same() {
    let (_folder, store) = store();
    let mut run = create(&store, "one").unwrap();
    run.metadata.git = Some(Git { revision: "0".repeat(40), dirty: true });
    run.metadata.setup.entropy_floor = Some(0.1 + 0.2);
    run.metadata.train_loss.record(1, 5.551_115_123_125_783e-17);
    run.metadata.validation_loss.record(1, 2.225_073_858_507_201e-308);
    run.metadata.usd_per_hour = Some(2.8);
    let reason = "loss is NaN at step 7".to_owned();
    run.metadata.finish(State::Failed { reason }, at("2026-11-22T05:45:01.25Z"));
    run.write_metadata().unwrap();
    assert_eq!(store.open("one").unwrap().metadata, run.metadata);
}

#[test]
fn the_layout_of_metadata_is_stable() {
    let (_folder, store) = store();
    let mut run = create(&store, "one").unwrap();
    run.metadata.spend(60.0);
    run.metadata.finish(State::Failed { reason: "why".into() }, at("2026-11-22T05:45:00Z"));
    run.metadata.train_loss.record(1, f64::NAN);
    run.metadata.version = "v".into();
    run.metadata.recipe_hash = "h".into();
    run.write_metadata().unwrap();
    let text = fs::read_to_string(run.dir().join("metadata.json")).unwrap();
    let expected = r#"{
  "schema": 1,
  "name": "one",
  "state": {
    "status": "failed",
    "reason": "why"
  },
  "command": [
    "muon",
    "baseline"
  ],
  "version": "v",
  "git": null,
  "recipe_hash": "h",
  "setup": {
    "model": "granite-nano",
    "parameters": 0,
    "optimizer": "muon",
    "data": "",
    "entropy_floor": null,
    "seed": 0,
    "steps": 0,
    "device": "",
    "driver": null,
    "precision": ""
  },
  "steps_done": 0,
  "tokens": 0,
  "skipped_steps": 0,
  "resumed": [],
  "loss_spikes": 0,
  "spikes": [],
  "saves": {
    "checkpoints": 0,
    "bytes": 0,
    "stall_seconds": 0.0,
    "longest_stall_seconds": 0.0,
    "longest_write_seconds": 0.0
  },
  "train_loss": {
    "first": null,
    "final": null,
    "best": null,
    "best_step": null
  },
  "validation_loss": {
    "first": null,
    "final": null,
    "best": null,
    "best_step": null
  },
  "started": "2026-11-22T05:44:00Z",
  "finished": "2026-11-22T05:45:00Z",
  "wall_seconds": 60.0,
  "step_seconds": 0.0,
  "tokens_per_s": null,
  "peak_memory_bytes": null,
  "usd_per_hour": null,
  "usd": null
}
"#;
    assert_eq!(text, expected);
    // Files of runs from before all between these two was there.
    let (from, to) = (text.find("  \"skipped_steps\"").unwrap(), text.find("  \"train_loss\"").unwrap());
    let old = format!("{}{}", &text[..from], &text[to..]);
    fs::write(run.dir().join("metadata.json"), old).unwrap();
    assert_eq!(store.open("one").unwrap().metadata.name, "one");
}

#[test]
fn a_taken_name_is_refused_and_left_alone() {
    let (folder, store) = store();
    let run = create(&store, "one").unwrap();
    run.write_file("note.txt", b"mine").unwrap();
    let error = create(&store, "one").unwrap_err();
    assert!(matches!(error, Error::Taken(_)), "{error}");
    assert_eq!(files(run.dir()), ["lock", "metadata.json", "note.txt", "recipe.toml"]);
    fs::create_dir(folder.path().join("results/empty")).unwrap();
    fs::write(folder.path().join("results/file"), "").unwrap();
    assert!(matches!(create(&store, "empty"), Err(Error::Taken(_))));
    assert!(matches!(create(&store, "file"), Err(Error::Taken(_))));
    assert_eq!(files(&folder.path().join("results")), ["empty", "file", "one"]);
}

#[test]
fn of_racing_runs_one_gets_the_name() {
    let (folder, store) = store();
    let won: usize = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8).map(|_| scope.spawn(|| create(&store, "one").is_ok())).collect();
        racers.into_iter().map(|racer| usize::from(racer.join().unwrap())).sum()
    });
    assert_eq!(won, 1);
    assert_eq!(files(&folder.path().join("results")), ["one"]);
}

#[test]
fn automatic_names_never_collide() {
    let (folder, store) = store();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| drop(create(&store, "auto").unwrap())));
        }
    });
    let names = files(&folder.path().join("results"));
    assert_eq!(names.len(), 20);
    assert!(names.iter().all(|name| name.starts_with("muon-nano-20261122-0544-")), "{names:?}");
}

#[test]
fn bad_names_are_refused_before_anything_is_made() {
    let (folder, store) = store();
    for name in ["", "../up", "a/b", ".hidden", "a b"] {
        assert!(matches!(create(&store, name), Err(Error::Name { .. })), "{name:?}");
    }
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_results_folder_that_cannot_be_made_is_told_plainly() {
    let (folder, _) = store();
    let deep = folder.path().join("none/results");
    let error = create(&Store::new(&deep), "one").unwrap_err().to_string();
    assert!(
        error.contains("none/results: cannot make the results folder")
            && error.contains("(make the folder above it"),
        "{error}"
    );
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = create(&Store::new(&file), "one").unwrap_err().to_string();
    assert!(error.contains("file: cannot make the results folder") && error.contains("move it"), "{error}");
    assert!(matches!(Store::new(&deep).list(), Err(Error::NoStore(_))));
}

#[test]
fn the_list_is_in_order_and_tells_what_it_could_not_read() {
    let (folder, store) = store();
    let root = folder.path().join("results");
    for (name, started) in
        [("b", "2026-01-02T00:00:00Z"), ("a", "2026-01-03T00:00:00Z"), ("c", "2026-01-01T00:00:00Z")]
    {
        let metadata = Metadata::new(vec![], Setup::default(), at(started));
        store.create(NewRun { name, prefix: "", recipe: "", metadata }).unwrap();
    }
    fs::write(root.join("README.md"), "").unwrap();
    fs::create_dir(root.join(".new-left")).unwrap();
    fs::create_dir(root.join("bare")).unwrap();
    fs::create_dir(root.join("future")).unwrap();
    fs::write(root.join("future/metadata.json"), r#"{"schema": 2, "other": 1}"#).unwrap();
    fs::create_dir(root.join("torn")).unwrap();
    fs::write(root.join("torn/metadata.json"), r#"{"schema": 1, "na"#).unwrap();

    let listing = store.list().unwrap();
    let names: Vec<&str> = listing.runs.iter().map(|run| run.metadata.name.as_str()).collect();
    assert_eq!(names, ["c", "b", "a"]);
    let told: Vec<String> = listing.unreadable.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("bare: a run folder without metadata.json"), "{}", told[0]);
    assert!(told[1].contains("schema 2, but this program reads schema 1"), "{}", told[1]);
    assert!(told[2].contains("torn/metadata.json: not valid run metadata"), "{}", told[2]);
    assert!(told.iter().all(|line| !line.contains('\n')));
}

#[test]
fn a_run_that_is_not_there_names_those_that_are() {
    let (_folder, store) = store();
    create(&store, "one").unwrap();
    let error = store.open("two").unwrap_err().to_string();
    assert!(error.ends_with("no run `two`; it has: one"), "{error}");
    assert!(matches!(store.open("../results/one"), Err(Error::Name { .. })));
}

#[test]
fn files_stay_inside_the_run() {
    let (folder, store) = store();
    let run = create(&store, "one").unwrap();
    run.write_file("plots/loss.svg", b"<svg/>").unwrap();
    assert_eq!(fs::read(run.dir().join("plots/loss.svg")).unwrap(), b"<svg/>");
    for rel in [
        "",
        ".",
        "..",
        "../x",
        "a/../../x",
        "/x",
        "metadata.json",
        "recipe.toml",
        "metrics.csv",
        "./metadata.json",
    ] {
        assert!(matches!(run.write_file(rel, b""), Err(Error::Path(_))), "{rel:?}");
    }
    assert_eq!(files(&folder.path().join("results")), ["one"]);
    assert!(run.model_dir().unwrap().is_dir());
    assert_eq!(run.model_dir().unwrap(), run.dir().join("model"));
}

#[test]
fn files_are_readable_as_the_umask_says() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, store) = store();
    let run = create(&store, "one").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    assert_eq!(mode(&run.dir().join("metadata.json")), mode(&plain));
    fs::remove_file(&plain).unwrap();
    fs::create_dir(&plain).unwrap();
    assert_eq!(mode(run.dir()), mode(&plain));
}

/// The folders are the index: nothing else is kept that could disagree with them, and of each nothing but its record is read.
#[test]
fn a_thousand_runs_are_listed_from_their_folders_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("results"));
    let made = metadata();
    let run = store.create(NewRun { name: "run-0000", prefix: "", recipe: "", metadata: made }).unwrap();
    let text = std::fs::read_to_string(run.dir().join("metadata.json")).unwrap();
    for at in 1..1000 {
        let name = format!("run-{at:04}");
        let dir = store.root().join(&name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("metadata.json"), text.replace("run-0000", &name)).unwrap();
    }
    let began = std::time::Instant::now();
    let listing = store.list().unwrap();
    println!("1,000 runs listed in {:?}", began.elapsed());
    assert_eq!((listing.runs.len(), listing.unreadable.len()), (1000, 0));
    assert_eq!(listing.runs[999].metadata.name, "run-0999", "equal starts are in the order of their names");
    std::fs::remove_dir_all(store.root().join("run-0500")).unwrap();
    assert_eq!(store.list().unwrap().runs.len(), 999);
}
