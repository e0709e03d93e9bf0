//! What the tests of the command share.
#![allow(dead_code, reason = "each test file uses its own part")]

#[cfg(target_os = "linux")]
pub mod disturbed;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// What makes a run small enough for a test.
pub const SMALL: [&str; 10] = [
    "--steps",
    "2",
    "--batch-size",
    "2",
    "--seq-len",
    "16",
    "--device",
    "cpu",
    "--set",
    "train.eval_batches=1",
];

/// A run of `muon` in an empty folder, with an environment of its own.
pub struct Muon(TempDir);

impl Muon {
    pub fn new() -> Self {
        Muon(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("muon"));
        command.args(args).current_dir(self.dir()).env_clear().env("HOME", self.dir()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("muon runs")
    }

    /// Standard output of a command that must succeed.
    pub fn shows(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The one line that a command must fail with.
    pub fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        assert!(output.stdout.is_empty(), "{args:?} wrote to standard output");
        let lines: Vec<&str> = told.lines().filter(|line| !line.starts_with("  hint: ")).collect();
        assert!(lines.len() == 1 && lines[0].starts_with("error: "), "{args:?}: {told}");
        told
    }

    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir()).expect("the folder is there");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Value and origin of a key in a dry run.
pub fn row<'a>(shown: &'a str, key: &str) -> (&'a str, &'a str) {
    let line = shown.lines().find(|line| line.split_whitespace().next() == Some(key));
    let rest = line.unwrap_or_else(|| panic!("no {key} in {shown}"))[key.len()..].trim();
    let (value, from) = rest.split_once("  ").unwrap_or_else(|| panic!("no origin in {rest}"));
    (value.trim(), from.trim())
}
