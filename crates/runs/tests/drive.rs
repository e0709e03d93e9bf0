//! Moving runs to a drive and back, interrupted anywhere, on one file system and across two.

use std::fs;
use std::path::{Path, PathBuf};

use runs::{Error, Keep, Metadata, NewRun, Row, Setup, State, Store, Timestamp};
use tempfile::TempDir;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A store with two finished runs that have models and checkpoints, and a place for a drive in `other`.
fn store(other: &Path) -> (TempDir, Store, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("results"));
    for (name, minute) in [("one", 1), ("two", 2)] {
        run(&store, name, minute);
    }
    (folder, store, tempfile::tempdir_in(other).unwrap())
}

fn run(store: &Store, name: &str, minute: u32) {
    let started = at(&format!("2026-11-22T05:0{minute}:00Z"));
    let metadata = Metadata::new(vec![], Setup { steps: 1, ..Setup::default() }, started);
    let mut run = store.create(NewRun { name, prefix: "", recipe: "steps = 1\n", metadata }).unwrap();
    let mut metrics = run.metrics(&[]).unwrap();
    let row = Row { step: 1, tokens: 8, loss: 3.0, ..Row::default() };
    metrics.append(&row).unwrap();
    run.metadata.record(&row);
    fs::write(run.model_dir().unwrap().join("model.safetensors"), format!("weights of {name}")).unwrap();
    let draft = run.checkpoints().draft(1).unwrap();
    draft.put("state", name.as_bytes()).unwrap();
    draft.commit(None).unwrap();
    run.metadata.finish(State::Finished, at("2026-11-22T06:00:00Z"));
    run.write_metadata().unwrap();
}

/// Every file below a folder with its content, links followed; locks and what is hidden left out.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(folder.join(&below)).unwrap() {
            let name = entry.unwrap().file_name();
            if name == "lock" || name.to_str().unwrap().starts_with('.') {
                continue;
            }
            let path = below.join(name);
            if folder.join(&path).is_dir() {
                folders.push(path);
            } else {
                all.push((path.clone(), fs::read(folder.join(&path)).unwrap()));
            }
        }
    }
    all.sort();
    all
}

/// A folder on another file system than the temporary one, where this machine has one.
fn other_file_system() -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let (shm, here) = (PathBuf::from("/dev/shm"), std::env::temp_dir());
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    let other = device(&shm).is_some() && device(&shm) != device(&here) && tempfile::tempdir_in(&shm).is_ok();
    if !other {
        eprintln!("SKIPPED: /dev/shm is no other file system here");
    }
    other.then_some(shm)
}

fn attach(store: &Store, drive: &Path) -> runs::Result<u64> {
    let mut bytes = 0;
    store.plan_attach(drive)?.execute(&mut |more| bytes += more)?;
    Ok(bytes)
}

fn detach(store: &Store) -> runs::Result<()> {
    store.plan_detach()?.map_or(Ok(()), |moves| moves.execute(&mut |_| ()))
}

fn there_and_back(other: &Path) {
    let (_folder, store, drive) = store(other);
    let was = content(store.root());
    let planned = store.plan_attach(drive.path()).unwrap();
    assert_eq!(planned.runs().map(|(name, _)| name).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(attach(&store, drive.path()).unwrap(), planned.bytes());
    assert_eq!(content(store.root()), was, "through the links all is as it was");
    assert_eq!(content(drive.path()), was, "the drive has the runs as a whole");
    assert_eq!(store.drive().unwrap().unwrap(), fs::canonicalize(drive.path()).unwrap());
    assert_eq!(attach(&store, drive.path()).unwrap(), 0, "already so");
    let newest = store.resume("one").unwrap().0.checkpoints().newest().unwrap();
    assert_eq!(newest.checkpoint.unwrap().file("state").unwrap(), b"one");
    detach(&store).unwrap();
    assert_eq!(content(store.root()), was);
    assert_eq!(fs::read_dir(drive.path()).unwrap().count(), 0);
    assert!(store.drive().unwrap().is_none() && store.plan_detach().unwrap().is_none());
}

#[test]
fn runs_go_to_a_drive_and_come_back() {
    there_and_back(&std::env::temp_dir());
}

#[test]
fn across_file_systems_they_are_copied() {
    if let Some(other) = other_file_system() {
        there_and_back(&other);
    }
}

#[test]
fn a_move_that_was_interrupted_anywhere_goes_on() {
    // What each moment leaves behind, made by hand: the folder of a run here and on the drive.
    type Moment = (&'static str, fn(&Path, &Path));
    let moments: [Moment; 6] = [
        ("before the copies", |_, there| fs::create_dir_all(there.join(".x.tmp")).unwrap()),
        ("while it is copied", |here, there| {
            small(here, there);
            fs::create_dir_all(there.join(".moving-model")).unwrap();
            fs::write(there.join(".moving-model/model.safetensors"), "weig").unwrap();
        }),
        ("copied and not removed", |here, there| {
            small(here, there);
            fs::create_dir_all(there.join("model")).unwrap();
            fs::copy(here.join("model/model.safetensors"), there.join("model/model.safetensors")).unwrap();
        }),
        ("half removed", |here, there| {
            small(here, there);
            fs::create_dir_all(there.join("model")).unwrap();
            fs::copy(here.join("model/model.safetensors"), there.join("model/model.safetensors")).unwrap();
            fs::rename(here.join("model"), here.join(".moving-model")).unwrap();
            fs::remove_file(here.join(".moving-model/model.safetensors")).unwrap();
        }),
        ("moved and not linked", |here, there| {
            small(here, there);
            fs::rename(here.join("model"), there.join("model")).unwrap();
        }),
        ("linked and not its other folder", |here, there| {
            small(here, there);
            fs::rename(here.join("model"), there.join("model")).unwrap();
            std::os::unix::fs::symlink(there.join("model"), here.join("model")).unwrap();
        }),
    ];
    for (moment, interrupt) in moments {
        let (_folder, store, drive) = store(&std::env::temp_dir());
        let drive = fs::canonicalize(drive.path()).unwrap();
        let was = content(store.root());
        fs::create_dir_all(drive.join("one")).unwrap();
        interrupt(&store.root().join("one"), &drive.join("one"));
        std::os::unix::fs::symlink(&drive, store.root().join(".drive")).unwrap();
        let back = moment.starts_with("half") || moment.starts_with("moved") || moment.starts_with("linked");
        if back {
            detach(&store).unwrap();
            assert_eq!(content(store.root()), was, "{moment}: brought back");
        }
        attach(&store, &drive).unwrap();
        assert_eq!(content(store.root()), was, "{moment}");
        assert_eq!(content(&drive), was, "{moment}");
        let hidden = fs::read_dir(store.root().join("one")).unwrap();
        let hidden =
            hidden.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.'));
        assert_eq!(hidden.count(), 0, "{moment}");
        detach(&store).unwrap();
        assert_eq!(content(store.root()), was, "{moment}");
    }
}

#[test]
fn what_an_interrupted_way_back_left_on_the_drive_goes() {
    let (_folder, store, drive) = store(&std::env::temp_dir());
    let drive = fs::canonicalize(drive.path()).unwrap();
    let was = content(store.root());
    std::os::unix::fs::symlink(&drive, store.root().join(".drive")).unwrap();
    small(&store.root().join("one"), &drive.join("one"));
    fs::create_dir_all(drive.join("one/.moving-model")).unwrap();
    fs::create_dir_all(drive.join("two")).unwrap();
    detach(&store).unwrap();
    assert_eq!((content(store.root()), fs::read_dir(&drive).unwrap().count()), (was, 0));
}

/// The copies that come first.
fn small(here: &Path, there: &Path) {
    fs::create_dir_all(there).unwrap();
    for name in ["metadata.json", "recipe.toml", "metrics.csv"] {
        fs::copy(here.join(name), there.join(name)).unwrap();
    }
}

#[test]
fn nothing_on_the_drive_is_written_over() {
    let refused = |prepare: &dyn Fn(&Store, &Path)| {
        let (_folder, store, drive) = store(&std::env::temp_dir());
        prepare(&store, drive.path());
        let (mine, theirs) = (content(store.root()), content(drive.path()));
        let error = attach(&store, drive.path()).unwrap_err();
        assert_eq!((content(store.root()), content(drive.path())), (mine, theirs), "{error}");
        assert!(matches!(error, Error::Drive { .. }), "{error}");
        error.to_string()
    };
    let told = refused(&|_, drive| {
        fs::create_dir(drive.join("two")).unwrap();
        fs::write(drive.join("two/notes"), "mine").unwrap();
    });
    assert!(told.contains("two: something else has this name"), "{told}");
    let told = refused(&|_, drive| run(&Store::new(drive), "two", 7));
    assert!(told.contains("two: another run has this name"), "{told}");
    let told = refused(&|store, drive| {
        small(&store.root().join("one"), &drive.join("one"));
        fs::create_dir(drive.join("one/model")).unwrap();
        fs::write(drive.join("one/model/model.safetensors"), "other weights").unwrap();
    });
    assert!(told.contains("one/model: it differs from"), "{told}");
    let told = refused(&|store, drive| {
        small(&store.root().join("one"), &drive.join("one"));
        let path = drive.join("one/metadata.json");
        let text = fs::read_to_string(&path).unwrap().replace("\"steps_done\": 1", "\"steps_done\": 9");
        fs::write(path, text).unwrap();
    });
    assert!(told.contains("at step 9"), "{told}");
}

#[test]
fn records_of_runs_from_elsewhere_and_links_of_ones_own_stay() {
    let (_folder, store, drive) = store(&std::env::temp_dir());
    let record = store.root().join("record");
    fs::create_dir(&record).unwrap();
    let text =
        fs::read_to_string(store.root().join("one/metadata.json")).unwrap().replace("\"one\"", "\"record\"");
    fs::write(record.join("metadata.json"), text).unwrap();
    let own = tempfile::tempdir().unwrap();
    for large in ["model", "checkpoints"] {
        let (here, there) = (store.root().join("two").join(large), own.path().join(large));
        fs::rename(&here, &there).unwrap();
        std::os::unix::fs::symlink(&there, &here).unwrap();
    }
    attach(&store, drive.path()).unwrap();
    assert!(!drive.path().join("record").exists());
    assert!(own.path().join("model/model.safetensors").is_file());
    let two = store.open("two").unwrap();
    store.remove(&two).unwrap();
    assert!(own.path().join("model/model.safetensors").is_file(), "what is not the store's stays");
    assert!(!drive.path().join("two").exists() && drive.path().join("one").exists());
    detach(&store).unwrap();
    assert_eq!(fs::read_dir(&record).unwrap().count(), 1);
}

#[test]
fn checkpoints_are_pruned_on_the_drive_and_a_taken_name_is_taken_there_too() {
    let (_folder, store, drive) = store(&std::env::temp_dir());
    attach(&store, drive.path()).unwrap();
    let (mut run, _) = store.resume("one").unwrap();
    run.metadata.steps_done = 3;
    run.write_metadata().unwrap();
    let copy = fs::read_to_string(drive.path().join("one/metadata.json")).unwrap();
    assert!(copy.contains("\"steps_done\": 3"), "the copy follows: {copy}");
    for step in [2, 3] {
        let draft = run.checkpoints().draft(step).unwrap();
        draft.put("state", b"later").unwrap();
        draft.commit(None).unwrap();
    }
    run.checkpoints().prune(Keep { last: 1, best: 0 }).unwrap();
    let names: Vec<_> =
        fs::read_dir(drive.path().join("one/checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["step-3"]);
    fs::create_dir(drive.path().join("three")).unwrap();
    assert!(matches!(store.check_new("three"), Err(Error::Taken(place)) if place.ends_with("three")));
    assert!(store.check_new("four").is_ok() && store.check_new("auto").is_ok());
}
