//! Small runs, processes whose file operations fail, and what they are held to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{Muon, stderr};

/// Steps of the runs.
pub const STEPS: u64 = 4;
const CONFIG: &str = r#"{"model_type": "granitemoehybrid", "vocab_size": 258, "hidden_size": 16, "num_hidden_layers": 2,
    "layer_types": ["mamba", "attention"], "num_attention_heads": 2, "num_key_value_heads": 1, "shared_intermediate_size": 16,
    "num_local_experts": 0, "mamba_n_heads": 2, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}"#;

/// A folder with a small model and a small corpus.
pub fn muon() -> Muon {
    let muon = Muon::new();
    muon.write("model/config.json", CONFIG);
    let lines: Vec<String> =
        (0..400).map(|i| format!("{{\"text\": \"document {i} says bla bla\"}}")).collect();
    muon.write("a.jsonl", &lines.join("\n"));
    muon
}

/// A run of so many steps with a checkpoint after each and an optimizer that has state and draws random numbers.
pub fn train<'a>(name: &'a str, steps: &'a str) -> Vec<&'a str> {
    let args = [
        "train",
        "--model",
        "model",
        "--data",
        "a.jsonl",
        "--tokenizer",
        "bytes",
        "--optimizer",
        "orthonoise",
    ];
    let more = [
        "--batch-size",
        "2",
        "--seq-len",
        "16",
        "--device",
        "cpu",
        "--eval-steps",
        "2",
        "--checkpoint-steps",
        "1",
    ];
    let keys =
        ["--set", "train.eval_batches=1", "--set", "data.cache_dir=cache", "--steps", steps, "--name", name];
    [&args[..], &more, &keys].concat()
}

pub fn results(muon: &Muon) -> PathBuf {
    muon.dir().join("results")
}

/// The command with the library before it; `at` is the operation that fails, none is where it is 0.
pub fn disturbed(muon: &Muon, args: &[&str], kind: &str, at: usize, log: &Path) -> Command {
    let library =
        Path::new(assert_cmd::cargo::cargo_bin!("muon")).with_file_name("deps").join("libfaults.so");
    assert!(library.is_file(), "{}: the crate `faults` was not built", library.display());
    let mut command = muon.command(args);
    command.env("LD_PRELOAD", library).env("FAULTS_UNDER", results(muon)).env("FAULTS_LOG", log);
    command.env("FAULTS_KIND", kind).env("FAULTS_AT", at.to_string());
    command
}

/// The files of a run that its recipe decides, by their paths; of the metrics what is no time.
pub fn content(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let told = ["lock", "metadata.json", "state.json", "manifest.json", "loss.svg", "loss.png", "log.txt"];
    let mut files = BTreeMap::new();
    let mut folders = vec![run.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = fs::read(&path).expect("a file");
            if name == "metrics.csv" {
                let text = String::from_utf8(bytes).expect("text");
                let cells = |line: &str| {
                    let cells: Vec<&str> = line.split(',').collect();
                    [&cells[..5], &cells[7..]].concat().join(",")
                };
                bytes = text.lines().map(cells).collect::<Vec<_>>().join("\n").into_bytes();
            }
            if !told.contains(&name.as_str()) {
                files.insert(path.strip_prefix(run).expect("below").display().to_string(), bytes);
            }
        }
    }
    files
}

/// What runs are held to: an undisturbed one, and one like it that keeps all its checkpoints.
pub struct Whole {
    run: BTreeMap<String, Vec<u8>>,
    every: BTreeMap<String, Vec<u8>>,
    /// The files of a checkpoint.
    names: Vec<String>,
}

impl Whole {
    pub fn new(muon: &Muon) -> Self {
        let steps = STEPS.to_string();
        muon.shows(&train("whole", &steps));
        muon.shows(&[&train("every", &steps)[..], &["--set", "train.keep_last=99"]].concat());
        let [run, every] = ["whole", "every"].map(|name| content(&results(muon).join(name)));
        Whole { run, every, names: names(&results(muon).join("every/checkpoints/step-1")) }
    }

    /// Every checkpoint under its name is that of its step, whole.
    pub fn holds(&self, run: &Path, what: &str) -> usize {
        let here = if run.is_dir() { content(run) } else { BTreeMap::new() };
        let checkpoint =
            |path: &&String| path.starts_with("checkpoints/step-") && !path.ends_with("recipe.toml");
        for path in here.keys().filter(checkpoint) {
            assert!(self.every.get(path) == here.get(path), "{what}: {path} is no checkpoint of the run");
        }
        let folder = run.join("checkpoints");
        let entries =
            fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.expect("an entry").path());
        let steps: Vec<PathBuf> = entries
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")))
            .collect();
        for step in &steps {
            assert_eq!(names(step), self.names, "{what}: {} is not whole", step.display());
        }
        steps.len()
    }

    /// The run came to the same end; older checkpoints of it may be there still.
    pub fn same(&self, run: &Path, what: &str) {
        let mut here = content(run);
        for (path, bytes) in &self.run {
            let found = here.remove(path).unwrap_or_else(|| panic!("{what}: {path} is missing"));
            assert!(found == *bytes, "{what}: {path} differs");
        }
        here.retain(|path, _| !self.every.contains_key(path));
        assert!(here.is_empty(), "{what}: {:?} was left", here.keys());
    }
}

/// One error of one line with a documented code, or success, or the kill that was asked for.
pub fn ended(output: &Output, kind: &str, what: &str) {
    let told = stderr(output);
    if kind == "kill" {
        assert!(
            output.status.success() || output.status.signal() == Some(9),
            "{what}: {} {told}",
            output.status
        );
        return;
    }
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
    if output.status.success() {
        assert!(errors.is_empty(), "{what}: {told}");
        return;
    }
    assert_ne!(kind, "eintr", "{what}: {told}");
    assert_eq!(output.status.code(), Some(3), "{what}: {told}");
    let cause = match kind {
        // A folder that cannot be looked at is no folder to the standard library, and making it again fails so.
        "eio" if told.contains("File exists") => "File exists",
        "eio" => "Input/output error",
        "readonly" => "Read-only file system",
        _ => "No space left on device",
    };
    assert!(errors.len() == 1 && errors[0].contains(cause), "{what}: {told}");
    assert!(told.trim_end().ends_with(errors[0]), "{what}: the error is not last: {told}");
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
