//! `muon commit` in repositories of its own.

mod common;

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
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn repository() -> Muon {
    let muon = Muon::new();
    git(&muon, &["init", "-q"]);
    for (key, value) in [("user.name", "t"), ("user.email", "t@example.com"), ("commit.gpgsign", "false")] {
        git(&muon, &["config", key, value]);
    }
    muon
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
    muon.write("secrets/.env", "WANDB_API_KEY=0123456789abcdef\n");
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
    assert!(muon.shows(&["commit", "again"]).contains("nothing to commit"));
}

#[test]
fn a_secret_in_a_file_or_in_the_index_stops_it() {
    let muon = repository();
    muon.write("secrets/.env", "export HF_TOKEN=\"hf_canary_value\"\n# NOTE=commented_out\nSHORT=abc\n");
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
