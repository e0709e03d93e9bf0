//! What readers ask of a store: finding, following, listing files, removing, and whether a run is alive.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;

use runs::{Error, Metadata, NewRun, Row, Run, Setup, State, Store, Timestamp, Writer, total_bytes};
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("results"));
    (folder, store)
}

fn create(store: &Store, name: &str, started: &str) -> Run {
    let started: Timestamp = started.parse().unwrap();
    let metadata = Metadata::new(vec![], Setup { steps: 9, ..Setup::default() }, started);
    store.create(NewRun { name, prefix: "", recipe: "steps = 9\n", metadata }).unwrap()
}

fn row(step: u64) -> Row {
    Row { step, tokens: 10 * step, loss: 9.0 - step as f64, step_ms: 500.0, ..Row::default() }
}

#[test]
fn a_run_is_found_by_name_beginning_or_last() {
    let (_folder, store) = store();
    assert!(matches!(store.find("last"), Err(Error::NoStore(_))));
    create(&store, "muon-a", "2026-11-22T05:00:00Z");
    create(&store, "muon", "2026-11-22T07:00:00Z");
    create(&store, "nolah", "2026-11-22T06:00:00Z");
    for (text, name) in [("muon", "muon"), ("muon-", "muon-a"), ("n", "nolah"), ("last", "muon")] {
        assert_eq!(store.find(text).unwrap().metadata.name, name, "{text}");
    }
    let error = store.find("mu").unwrap_err();
    assert!(matches!(&error, Error::Ambiguous { have, .. } if have.len() == 2), "{error}");
    assert!(error.to_string().contains("muon, muon-a"), "{error}");
    for text in ["", "x", "../results/muon", ".", "muon/"] {
        assert!(matches!(store.find(text), Err(Error::NoRun { .. })), "{text}");
    }
    create(&store, "last", "2026-11-22T04:00:00Z");
    assert_eq!(store.find("last").unwrap().metadata.name, "last", "a name goes before the word");
}

#[test]
fn a_running_run_stands_where_its_metrics_are() {
    let (_folder, store) = store();
    let mut run = create(&store, "a", "2026-11-22T05:00:00Z");
    assert_eq!(store.find("a").unwrap().current().unwrap(), run.metadata, "no metrics yet");
    let mut metrics = run.metrics(&[]).unwrap();
    for step in 1..=4 {
        metrics.append(&row(step)).unwrap();
    }
    let current = store.find("a").unwrap().current().unwrap();
    assert_eq!((current.steps_done, current.tokens, current.train_loss.last), (4, 40, Some(5.0)));
    assert_eq!((current.tokens_per_s, current.name.as_str()), (Some(20.0), "a"));
    run.metadata.finish(State::Finished, "2026-11-22T05:01:00Z".parse().unwrap());
    run.write_metadata().unwrap();
    assert_eq!(
        store.find("a").unwrap().current().unwrap(),
        run.metadata,
        "the record of an ended run counts"
    );
}

#[test]
fn following_gives_each_row_once_and_waits_for_whole_lines() {
    let (_folder, store) = store();
    let run = create(&store, "a", "2026-11-22T05:00:00Z");
    let mut tail = store.find("a").unwrap().tail();
    assert!(tail.rows().unwrap().is_empty(), "no file yet");
    let mut metrics = run.metrics(&["erank"]).unwrap();
    assert!(tail.rows().unwrap().is_empty(), "the header alone");
    let named = Row { diagnostics: vec![("erank".into(), 3.5)], ..row(2) };
    metrics.append(&row(1)).unwrap();
    metrics.append(&named).unwrap();
    assert_eq!(tail.rows().unwrap(), [row(1), named]);
    let path = run.dir().join("metrics.csv");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"3,30,6.0,0.0,0.0,50").unwrap();
    assert!(tail.rows().unwrap().is_empty(), "a torn line waits");
    file.write_all(b"0.0,0.0,,\n").unwrap();
    assert_eq!(tail.rows().unwrap(), [row(3)]);

    let text = fs::read_to_string(&path).unwrap();
    let first_two: usize = text.split_inclusive('\n').take(2).map(str::len).sum();
    File::options().write(true).open(&path).unwrap().set_len(first_two as u64).unwrap();
    assert!(tail.rows().unwrap().is_empty(), "cut back");
    file.write_all(b"2,20,7.0,0.0,0.0,500.0,0.0,,\n").unwrap();
    assert_eq!(tail.rows().unwrap(), [row(2)]);
    file.write_all(b"nonsense\n").unwrap();
    assert!(tail.rows().unwrap_err().to_string().contains("line 4"));
}

#[test]
fn files_are_listed_and_a_removed_run_leaves_nothing() {
    let (folder, store) = store();
    let run = create(&store, "a", "2026-11-22T05:00:00Z");
    create(&store, "b", "2026-11-22T05:00:00Z");
    run.write_file("plots/x.svg", b"12345").unwrap();
    let info = store.find("a").unwrap();
    let files = info.files().unwrap();
    let names: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
    assert_eq!(names, ["lock", "metadata.json", "plots/x.svg", "recipe.toml"]);
    let size = |name: &str| fs::metadata(run.dir().join(name)).unwrap().len();
    assert_eq!(total_bytes(&files), size("lock") + size("metadata.json") + 5 + 10);
    store.remove(&info).unwrap();
    let left: Vec<_> = fs::read_dir(folder.path().join("results")).unwrap().flatten().collect();
    assert!(left.len() == 1 && left[0].file_name() == "b", "{left:?}");
    assert!(matches!(store.remove(&info), Err(Error::Io { .. })));
    assert_eq!(fs::read_dir(folder.path().join("results")).unwrap().count(), 1);
}

#[test]
fn a_lock_tells_whether_the_writer_lives() {
    let (_folder, store) = store();
    let mut run = create(&store, "a", "2026-11-22T05:00:00Z");
    let path = run.dir().join("lock");
    let _ = fs::remove_file(&path);
    assert_eq!(run.info().writer().unwrap(), Writer::Unknown);
    assert!(!run.info().died().unwrap());
    let lock = File::create(&path).unwrap();
    lock.lock().unwrap();
    assert_eq!(run.info().writer().unwrap(), Writer::Alive);
    assert!(!run.info().died().unwrap());
    drop(lock);
    assert_eq!(run.info().writer().unwrap(), Writer::Gone);
    assert!(run.info().died().unwrap());
    fs::write(&path, r#"{"pid": 1, "host": "elsewhere.invalid"}"#).unwrap();
    assert_eq!(run.info().writer().unwrap(), Writer::Unknown, "locks of other hosts do not reach here");
    for unreadable in [&b"{\"pid\": 1, \"ho"[..], b"\xff\xfe", &b"[".repeat(1 << 20)] {
        fs::write(&path, unreadable).unwrap();
        assert_eq!(run.info().writer().unwrap(), Writer::Gone, "it names no one");
    }
    fs::write(&path, "").unwrap();
    run.metadata.finish(State::Finished, "2026-11-22T05:01:00Z".parse().unwrap());
    assert!(!run.info().died().unwrap(), "it ended");
}

#[test]
fn the_process_that_writes_is_told_and_no_other_one_with_its_number() {
    let (_folder, store) = store();
    let run = create(&store, "a", "2026-11-22T05:00:00Z");
    let path = run.dir().join("lock");
    assert_eq!(run.info().process().unwrap(), Some(std::process::id()));
    let text = fs::read_to_string(&path).unwrap();
    // The parent's number: it lives, and has not this file open.
    let other =
        text.replace(&std::process::id().to_string(), &std::os::unix::process::parent_id().to_string());
    fs::write(&path, &other).unwrap();
    assert_eq!(run.info().writer().unwrap(), Writer::Alive);
    assert_eq!(run.info().process().unwrap(), None);
    fs::write(&path, text.replace("\"host\":\"", "\"host\":\"not-")).unwrap();
    assert_eq!(run.info().process().unwrap(), None, "on another host");
    fs::write(&path, text).unwrap();
    let info = run.info();
    drop(run);
    assert_eq!(info.process().unwrap(), None, "it gave the run up");
}

#[test]
fn a_log_belongs_to_the_store_and_is_not_replaced() {
    let (_folder, store) = store();
    let run = create(&store, "a", "2026-11-22T05:00:00Z");
    assert_eq!(run.info().log().lines().unwrap(), None);
    run.log().unwrap().say("2026-11-22T05:00:00Z".parse().unwrap(), "began").unwrap();
    assert!(matches!(run.write_file("log.txt", b""), Err(Error::Path(_))));
    assert_eq!(run.info().log().lines().unwrap().unwrap(), ["2026-11-22T05:00:00Z began"]);
}
