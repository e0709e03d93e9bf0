//! `muon setup` from the outside: the file for secrets, and runs that live on a drive.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use common::{Muon, SMALL, stderr};
use serde_json::Value;

fn train(muon: &Muon, name: &str) {
    let output = muon.run(&[&["train", "--name", name][..], &SMALL].concat());
    assert!(output.status.success(), "{}", stderr(&output));
}

fn json(muon: &Muon, args: &[&str]) -> Value {
    serde_json::from_str(&muon.shows(&[args, &["--json"]].concat())).expect("JSON")
}

fn git(muon: &Muon, args: &[&str]) -> (bool, String) {
    let output = Command::new("git").args(args).current_dir(muon.dir()).env("HOME", muon.dir()).output();
    let output = output.expect("these tests need git");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_file_for_secrets_is_made_once_for_its_owner_alone() {
    let muon = Muon::new();
    git(&muon, &["init", "-q"]);
    assert_eq!(json(&muon, &["setup", "--dry-run"])["secrets"]["state"], "missing");
    assert!(!muon.dir().join("secrets").exists(), "a dry run makes nothing");
    assert_eq!(json(&muon, &["setup"])["secrets"]["state"], "made");
    let mode = |name: &str| fs::metadata(muon.dir().join(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!((mode("secrets"), mode("secrets/.env")), (0o700, 0o600));
    assert!(git(&muon, &["check-ignore", "secrets/.env"]).0, "git ignores it");
    assert_eq!(git(&muon, &["status", "--short", "-uall"]).1, "");
    fs::write(muon.dir().join("secrets/.env"), "HF_TOKEN=mine-and-mine-alone\n").expect("a file");
    assert_eq!(json(&muon, &["setup"])["secrets"]["state"], "there");
    assert!(muon.shows(&["doctor"]).contains("HF_TOKEN (secrets/.env)"));
    // From a folder within, it is the same file.
    muon.write("src/x", "");
    let mut command = muon.command(&["setup"]);
    let output = command.current_dir(muon.dir().join("src")).output().expect("muon runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("there already"));
    assert!(!muon.dir().join("src/secrets").exists());
    git(&muon, &["add", "-f", "secrets/.env"]);
    let output = muon.command(&["setup"]).env("PATH", std::env::var_os("PATH").unwrap_or_default()).output();
    assert!(stderr(&output.expect("muon runs")).contains("git rm --cached"));
}

#[test]
fn runs_live_on_a_drive_and_come_back() {
    let muon = Muon::new();
    train(&muon, "before");
    fs::create_dir(muon.dir().join("drive")).expect("a drive");
    let args = ["setup", "--drive-path", "drive"];
    let planned = json(&muon, &[&args[..], &["--dry-run"]].concat());
    assert_eq!(
        (&planned["drive"]["state"], &planned["drive"]["runs"][0]["name"]),
        (&"would be moved".into(), &"before".into())
    );
    assert!(!muon.dir().join("results/.drive").exists());
    let model = |name: &str| {
        fs::read(muon.dir().join("results").join(name).join("model/model.safetensors")).expect("a model")
    };
    let was = model("before");
    assert_eq!(json(&muon, &args)["drive"]["state"], "on");
    assert_eq!(model("before"), was);
    assert!(muon.shows(&args).contains("there already"));

    // A new run, one that goes on, one that is shown and one that is removed: all as without a drive.
    train(&muon, "after");
    let on_drive = |name: &str| muon.dir().join("drive").join(name);
    for name in ["before", "after"] {
        for file in [
            "model/model.safetensors",
            "checkpoints/step-2/manifest.json",
            "metadata.json",
            "metrics.csv",
            "loss.png",
        ] {
            assert!(on_drive(name).join(file).is_file(), "{name}/{file}");
        }
        assert!(!muon.dir().join("results").join(name).join("metadata.json").is_symlink());
    }
    let told = muon.run(&["resume", "before", "--extend-steps", "1"]);
    assert!(told.status.success(), "{}", stderr(&told));
    assert!(on_drive("before").join("checkpoints/step-3/manifest.json").is_file());
    let same = |name: &str| {
        fs::read(on_drive("before").join(name)).expect("a copy")
            == fs::read(muon.dir().join("results/before").join(name)).expect("a file")
    };
    assert!(
        ["metadata.json", "metrics.csv", "recipe.toml", "loss.svg"].into_iter().all(same),
        "the copies follow"
    );
    let shown = json(&muon, &["show", "before"]);
    let files: Vec<&str> =
        shown["files"].as_array().expect("files").iter().filter_map(|file| file["path"].as_str()).collect();
    assert!(files.contains(&"model/model.safetensors"), "{files:?}");
    muon.fails(&["train", "--name", "after"], 2);
    muon.shows(&["rm", "after", "--yes"]);
    assert!(!on_drive("after").exists() && !muon.dir().join("results/after").exists());

    // A drive that is not there is told by every verb that needs it, and loses nothing.
    fs::rename(muon.dir().join("drive"), muon.dir().join("away")).expect("renamed");
    for (args, code) in [
        (&["resume", "before", "--extend-steps", "1"][..], 3),
        (&["rm", "before", "--yes"], 3),
        (&["train", "--name", "new"], 3),
        (&["setup", "--undo"], 3),
    ] {
        let told = muon.fails(args, code);
        assert!(told.contains("drive") && told.contains("is not there"), "{args:?}: {told}");
    }
    muon.shows(&["show", "before"]);
    fs::rename(muon.dir().join("away"), muon.dir().join("drive")).expect("renamed");

    let was = model("before");
    assert_eq!(json(&muon, &["setup", "--undo"])["drive"]["state"], "off");
    assert_eq!(model("before"), was);
    assert!(!muon.dir().join("results/before/model").is_symlink());
    assert_eq!(fs::read_dir(muon.dir().join("drive")).expect("the drive").count(), 0, "nothing stays there");
    assert!(muon.shows(&["setup", "--undo"]).contains("there is no drive"));
}

#[test]
fn a_run_that_is_written_and_a_drive_that_cannot_be_are_refused() {
    let muon = Muon::new();
    train(&muon, "one");
    let told = muon.fails(&["setup", "--drive-path", "none"], 3);
    assert!(told.contains("none: cannot find it"), "{told}");
    muon.write("drive/one/other", "mine");
    let told = muon.fails(&["setup", "--drive-path", "drive"], 3);
    assert!(told.contains("something else has this name on the drive"), "{told}");
    let told = muon.fails(&["setup", "--drive-path", "results"], 3);
    assert!(told.contains("in the results folder"), "{told}");
    fs::create_dir(muon.dir().join("free")).expect("a folder");
    let lock = File::create(muon.dir().join("results/one/lock")).expect("a lock");
    lock.lock().expect("locked");
    let told = muon.fails(&["setup", "--drive-path", "free"], 2);
    assert!(told.contains("writes this run already"), "{told}");
    drop(lock);
    assert!(!muon.dir().join("results/.drive").exists(), "nothing was begun");
    assert_eq!(fs::read_dir(muon.dir().join("free")).expect("a folder").count(), 0);
    muon.shows(&["setup", "--drive-path", "free"]);
    let told = muon.fails(&["setup", "--drive-path", "drive"], 3);
    assert!(told.contains("muon setup --undo"), "{told}");
}

#[test]
fn commit_keeps_the_records_of_runs_on_a_drive() {
    let muon = Muon::new();
    git(&muon, &["init", "-q"]);
    for (key, value) in [("user.name", "t"), ("user.email", "t@example.com"), ("commit.gpgsign", "false")] {
        git(&muon, &["config", key, value]);
    }
    train(&muon, "one");
    let drive = tempfile::tempdir().expect("a drive");
    let path = drive.path().to_str().expect("UTF-8");
    muon.shows(&["setup", "--drive-path", path]);
    let told = muon.shows(&["commit", "a run on a drive"]);
    assert!(told.contains("left out: results/one/model (of a run only metadata.json is kept)"), "{told}");
    assert_eq!(git(&muon, &["ls-tree", "-r", "--name-only", "HEAD"]).1, "results/one/metadata.json\n");
    let output = muon.run(&["resume", "one", "--extend-steps", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    muon.shows(&["commit", "longer"]);
    assert!(git(&muon, &["show", "HEAD:results/one/metadata.json"]).1.contains("\"steps_done\": 3"));

    // A results folder that is a link itself would have git remove all records.
    fs::rename(muon.dir().join("results"), muon.dir().join("elsewhere")).expect("renamed");
    std::os::unix::fs::symlink("elsewhere", muon.dir().join("results")).expect("a link");
    assert!(muon.fails(&["commit", "oops"], 3).contains("git follows none"));
    assert!(Path::new(path).join("one/model").is_dir());
}
