//! `muon commit` in repositories of its own.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use common::{Muon, stderr};

fn git(muon: &Muon, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
        .args(args)
        .current_dir(muon.dir())
        .env("HOME", muon.dir())
        .output()
        .expect("these tests need git");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn repository() -> Muon {
    let muon = Muon::new();
    git(&muon, &["init", "-q"]);
    for (key, value) in [("user.name", "t"), ("user.email", "t@example.com"), ("commit.gpgsign", "false")] {
        git(&muon, &["config", key, value]);
    }
    muon
}

/// Writes `secrets/.env`, for its owner alone.
fn keep_secrets(muon: &Muon, text: &str) {
    muon.write("secrets/.env", text);
    let file = muon.dir().join("secrets/.env");
    fs::set_permissions(file, Permissions::from_mode(0o600)).expect("a mode");
}

fn committed(muon: &Muon) -> Vec<String> {
    git(muon, &["ls-tree", "-r", "--name-only", "HEAD"]).lines().map(String::from).collect()
}

#[test]
fn code_and_metadata_are_committed_weights_data_and_secrets_are_not() {
    let muon = repository();
    muon.write("src/a file.rs", "fn main() {}");
    muon.write("results/one/metadata.json", "{}");
    muon.write("results/one/metrics.csv", "step");
    muon.write("results/one/model/model.safetensors", "weights");
    muon.write("corpus.parquet", "data");
    keep_secrets(&muon, "WANDB_API_KEY=0123456789abcdef\n");
    muon.write(".env.local", "TOKEN=x");
    let told = muon.shows(&["commit", "first run"]);
    assert_eq!(committed(&muon), ["results/one/metadata.json", "src/a file.rs"]);
    assert!(told.contains("?? src/a file.rs") && told.contains("left out: corpus.parquet (weights or data)"));
    assert!(!told.contains("0123456789abcdef"), "{told}");
    assert_eq!(git(&muon, &["log", "-1", "--format=%s"]).trim(), "first run");

    std::fs::remove_file(muon.dir().join("src/a file.rs")).unwrap();
    let told = muon.shows(&["commit", "gone", "--dry-run"]);
    assert!(told.contains(" D src/a file.rs"), "{told}");
    assert_eq!(committed(&muon).len(), 2, "a dry run changes nothing");
    muon.shows(&["commit", "gone"]);
    assert_eq!(committed(&muon), ["results/one/metadata.json"]);
    assert!(stderr(&muon.run(&["commit", "again"])).contains("nothing to commit"));
}

#[test]
fn a_secret_in_a_file_or_in_the_index_stops_it() {
    let muon = repository();
    keep_secrets(&muon, "export HF_TOKEN=\"hf_canary_value\"\n# NOTE=commented_out\nSHORT=abc\n");
    muon.write("notes.md", "abc, commented_out, and the token hf_canary_value\n");
    let told = muon.fails(&["commit", "oops"], 3);
    assert!(told.contains("notes.md") && told.contains("HF_TOKEN"), "{told}");
    assert!(!told.contains("hf_canary_value"), "{told}");
    muon.write("notes.md", "abc, commented_out\n");
    git(&muon, &["add", "-f", "secrets/.env"]);
    let told = muon.fails(&["commit", "oops"], 3);
    assert!(told.contains("secrets/.env") && told.contains("git rm --cached"), "{told}");
    git(&muon, &["rm", "-q", "--cached", "secrets/.env"]);
    muon.shows(&["commit", "fine"]);
    assert_eq!(committed(&muon), ["notes.md"]);
}

#[test]
fn hooks_run_and_what_git_refuses_is_an_error() {
    let muon = repository();
    muon.write("a.txt", "1");
    muon.write(".git/hooks/pre-commit", "#!/bin/sh\necho the hook says no >&2\nexit 1\n");
    Command::new("chmod").args(["+x", ".git/hooks/pre-commit"]).current_dir(muon.dir()).status().unwrap();
    let output = muon.run(&["commit", "no"]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("the hook says no") && told.contains("git commit failed"), "{told}");

    let nowhere = Muon::new();
    assert!(nowhere.fails(&["commit", "x"], 2).contains("git init"));
    assert!(nowhere.fails(&["commit", " "], 2).contains("message is empty"));
}

#[test]
fn odd_names_links_removals_and_submodules() {
    let muon = repository();
    muon.write("gone.bin", "weights of long ago");
    muon.write("dropped.txt", "1");
    muon.write("moved.txt", "long enough to be seen as the same");
    git(&muon, &["add", "-A"]);
    git(&muon, &["commit", "-qm", "before"]);
    let (line, odd) = ("two\nlines", std::ffi::OsStr::from_bytes(b"not\xffutf8"));
    muon.write(line, "1");
    muon.write(" spaces :(glob)* ", "1");
    fs::write(muon.dir().join(odd), "1").expect("a file");
    symlink("/dev/zero", muon.dir().join("endless")).expect("a link");
    symlink("nowhere", muon.dir().join("dangling")).expect("a link");
    fs::remove_file(muon.dir().join("gone.bin")).expect("removed");
    git(&muon, &["rm", "-q", "dropped.txt"]);
    git(&muon, &["mv", "moved.txt", "new place.txt"]);
    muon.write("nested/x", "1");
    let nested = Command::new("git").args(["init", "-q"]).current_dir(muon.dir().join("nested")).status();
    assert!(nested.expect("git").success());
    let told = muon.shows(&["commit", "odd"]);
    assert!(
        told.contains("?? two\\nlines") && told.contains("left out: nested/ (a repository of its own)"),
        "{told}"
    );
    let names = git(&muon, &["ls-tree", "-r", "-z", "--name-only", "HEAD"]);
    let mut names: Vec<&str> = names.split_terminator('\0').collect();
    names.retain(|name| name.is_ascii());
    assert_eq!(names, [" spaces :(glob)* ", "dangling", "endless", "new place.txt", "two\nlines"]);
    assert_eq!(git(&muon, &["ls-files", "-z"]).matches('\0').count(), 6, "and the one that is no text");
}

#[test]
fn what_is_staged_counts_and_not_only_what_lies_about() {
    let muon = repository();
    keep_secrets(&muon, "HF_TOKEN=hf_canary_value\n");
    // Staged with a secret, and clean since: what is committed is clean.
    muon.write("a.txt", "hf_canary_value");
    git(&muon, &["add", "a.txt"]);
    muon.write("a.txt", "clean");
    muon.shows(&["commit", "a"]);
    assert_eq!(git(&muon, &["show", "HEAD:a.txt"]), "clean");
    // A filter that puts it there behind one's back.
    git(&muon, &["config", "filter.leak.clean", "sed s/NAME/hf_canary_value/"]);
    muon.write(".gitattributes", "*.leak filter=leak\n");
    muon.write("b.leak", "NAME");
    let output =
        muon.command(&["commit", "b"]).env("PATH", std::env::var_os("PATH").unwrap_or_default()).output();
    let output = output.expect("muon runs");
    let told = stderr(&output);
    assert!(
        output.status.code() == Some(3) && told.contains("b.leak: it contains the value of HF_TOKEN"),
        "{told}"
    );
    assert_eq!(git(&muon, &["log", "--format=%s"]), "a\n", "nothing was committed");
    fs::remove_file(muon.dir().join("b.leak")).expect("removed");
    git(&muon, &["rm", "-q", "--cached", "b.leak"]);
    // In a name, and where a link leads.
    muon.write("hf_canary_value.txt", "");
    assert!(muon.fails(&["commit", "c"], 3).contains("***.txt"));
    fs::remove_file(muon.dir().join("hf_canary_value.txt")).expect("removed");
    symlink("hf_canary_value", muon.dir().join("link")).expect("a link");
    assert!(muon.fails(&["commit", "c"], 3).contains("link: it contains the value of HF_TOKEN"));
}

#[test]
fn a_conflict_is_not_committed() {
    let muon = repository();
    muon.write("a.txt", "1\n");
    muon.shows(&["commit", "one"]);
    git(&muon, &["checkout", "-qb", "other"]);
    muon.write("a.txt", "2\n");
    muon.shows(&["commit", "two"]);
    git(&muon, &["checkout", "-q", "-"]);
    muon.write("a.txt", "3\n");
    let json: serde_json::Value =
        serde_json::from_str(&muon.shows(&["commit", "three", "--json"])).expect("JSON");
    assert_eq!(
        (&json["files"][0]["path"], json["revision"].as_str().map(str::len)),
        (&"a.txt".into(), Some(40))
    );
    let merge = Command::new("git").args(["merge", "-q", "other"]).current_dir(muon.dir()).output();
    assert!(!merge.expect("git").status.success());
    assert!(muon.fails(&["commit", "four"], 3).contains("a.txt: a merge left it in conflict"));
}
