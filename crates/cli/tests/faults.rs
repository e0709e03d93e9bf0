//! File operations that fail one by one, full disks, damaged checkpoints: with real processes, from the outside.
//!
//! A library loaded into the process (crate `faults`) fails or kills it at its n-th operation under the results folder. The
//! process must end with one clear error, or go on, and what it leaves must come to the bits of an undisturbed run.
//! `MUON_FAULTS=all` takes every operation; else a few of each kind, chosen by a seed, are taken.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use common::{Muon, stderr};
use runs::Store;

mod common;

/// Operations of each kind in a run of the test suite.
const FEW: usize = 7;
/// Steps of the runs.
const STEPS: u64 = 4;
const CONFIG: &str = r#"{"model_type": "granitemoehybrid", "vocab_size": 258, "hidden_size": 16, "num_hidden_layers": 2,
    "layer_types": ["mamba", "attention"], "num_attention_heads": 2, "num_key_value_heads": 1, "shared_intermediate_size": 16,
    "num_local_experts": 0, "mamba_n_heads": 2, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}"#;

/// Calls that may fail in a way: all for the two last, the others as the system has it.
fn concerned(kind: &str, call: &str) -> bool {
    let space =
        ["write", "fsync", "create", "mkdir", "rename", "ftruncate", "copy_file_range"].contains(&call);
    let interruptible = ["open", "create", "read", "write", "fsync", "ftruncate"].contains(&call);
    match kind {
        "enospc" | "full" => space,
        "eintr" => interruptible,
        "short" => call == "write",
        _ => true,
    }
}

/// A folder with a small model and a small corpus.
fn muon() -> Muon {
    let muon = Muon::new();
    muon.write("model/config.json", CONFIG);
    let lines: Vec<String> =
        (0..400).map(|i| format!("{{\"text\": \"document {i} says bla bla\"}}")).collect();
    muon.write("a.jsonl", &lines.join("\n"));
    muon
}

/// A run of so many steps with a checkpoint after each and an optimizer that has state and draws random numbers.
fn train<'a>(name: &'a str, steps: &'a str) -> Vec<&'a str> {
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

fn results(muon: &Muon) -> PathBuf {
    muon.dir().join("results")
}

/// The command with the library before it; `at` is the operation that fails, none is where it is 0.
fn disturbed(muon: &Muon, args: &[&str], kind: &str, at: usize, log: &Path) -> Command {
    let library =
        Path::new(assert_cmd::cargo::cargo_bin!("muon")).with_file_name("deps").join("libfaults.so");
    assert!(library.is_file(), "{}: the crate `faults` was not built", library.display());
    let mut command = muon.command(args);
    command.env("LD_PRELOAD", library).env("FAULTS_UNDER", results(muon)).env("FAULTS_LOG", log);
    command.env("FAULTS_KIND", kind).env("FAULTS_AT", at.to_string());
    command
}

/// The calls of an undisturbed process, in order.
fn calls(muon: &Muon, args: &[&str]) -> Vec<String> {
    let log = muon.dir().join("log");
    let output = disturbed(muon, args, "eio", 0, &log).output().expect("muon runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let log = fs::read_to_string(log).expect("a record of the operations");
    let call = |line: &str| line.split(' ').nth(1).expect("number, name, path").to_owned();
    log.lines().map(call).collect()
}

/// The operations to fail: all, or a few by a seed.
fn chosen(kind: &str, calls: &[String]) -> Vec<usize> {
    let all: Vec<usize> = (1..=calls.len()).filter(|at| concerned(kind, &calls[at - 1])).collect();
    if std::env::var("MUON_FAULTS").is_ok_and(|what| what == "all") {
        return all;
    }
    // The golden ratio spreads them over the whole run.
    let start = kind.len() as f64 * 0.37;
    (0..FEW).map(|i| all[((start + 0.618_034 * i as f64).fract() * all.len() as f64) as usize]).collect()
}

/// The files of a run that its recipe decides, by their paths; of the metrics what is no time.
fn content(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let told = ["lock", "metadata.json", "state.json", "manifest.json", "loss.svg"];
    let mut files = BTreeMap::new();
    let mut folders = vec![run.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let mut bytes = match path.is_dir() {
                true => {
                    folders.push(path);
                    continue;
                }
                false => fs::read(&path).expect("a file"),
            };
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
struct Whole {
    run: BTreeMap<String, Vec<u8>>,
    every: BTreeMap<String, Vec<u8>>,
}

impl Whole {
    fn new(muon: &Muon) -> Self {
        let steps = STEPS.to_string();
        muon.shows(&train("whole", &steps));
        muon.shows(&[&train("every", &steps)[..], &["--set", "train.keep_last=99"]].concat());
        let [run, every] = ["whole", "every"].map(|name| content(&results(muon).join(name)));
        Whole { run, every }
    }

    /// Every checkpoint under its name is that of its step, whole.
    fn holds(&self, run: &Path, what: &str) -> usize {
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
            let files = fs::read_dir(step).expect("a checkpoint").count();
            assert_eq!(files, 6, "{what}: {} is not whole", step.display());
        }
        steps.len()
    }

    /// The run came to the same end; older checkpoints of it may be there still.
    fn same(&self, run: &Path, what: &str) {
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
fn ended(output: &Output, kind: &str, what: &str) {
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

/// A process to disturb, and how to go on after it.
struct Case<'a> {
    victim: &'a [&'a str],
    /// Makes what the process works on, under this path.
    prepare: &'a dyn Fn(&Path),
    /// What goes on after it: the next one where the run is finished short of its steps.
    again: &'a [&'a [&'a str]],
}

impl Case<'_> {
    /// Disturbs the process at one operation. Gives whether that ended it, and whether it was gone on from a checkpoint.
    fn disturb(&self, muon: &Muon, whole: &Whole, kind: &str, at: usize, what: &str) -> (bool, bool) {
        let (run, log) = (results(muon).join("r"), muon.dir().join("log"));
        let _ = fs::remove_dir_all(&run);
        (self.prepare)(&run);
        let output = disturbed(muon, self.victim, kind, at, &log).output().expect("muon runs");
        ended(&output, kind, what);
        let failed = !output.status.success();
        if whole.holds(&run, what) > 0 {
            for args in self.again {
                let output = muon.run(args);
                let told = stderr(&output);
                if output.status.success() || told.contains(&format!("finished at step {STEPS} ")) {
                    break;
                }
                let shorter = output.status.code() == Some(2) && told.contains("finished at step");
                assert!(shorter, "{what}: {args:?}: {told}");
            }
            whole.same(&run, what);
            return (failed, true);
        }
        // Nothing to go on from, and that is what it says; without a folder the name is free.
        let exists = run.exists();
        let output = muon.run(&["resume", "r"]);
        let told = stderr(&output);
        let (code, why) = if exists { (3, "no checkpoint") } else { (2, "no run `r`") };
        assert!(output.status.code() == Some(code) && told.contains(why), "{what}: {told}");
        if !exists {
            muon.shows(self.victim);
            whole.same(&run, what);
        }
        (failed, false)
    }

    fn sweep(&self, kinds: &[&str]) {
        let muon = muon();
        let whole = Whole::new(&muon);
        (self.prepare)(&results(&muon).join("r"));
        let calls = calls(&muon, self.victim);
        let mut wrong = 0;
        for kind in kinds {
            let (begin, operations) = (Instant::now(), chosen(kind, &calls));
            let (mut failed, mut went_on) = (0, 0);
            for &at in &operations {
                let what = format!("{} {kind} at {at} ({})", self.victim[0], calls[at - 1]);
                let done = catch_unwind(AssertUnwindSafe(|| self.disturb(&muon, &whole, kind, at, &what)));
                wrong += usize::from(done.is_err());
                let (ended, continued) = done.unwrap_or_default();
                (failed, went_on) = (failed + usize::from(ended), went_on + usize::from(continued));
            }
            eprintln!(
                "{} {kind}: {} of {} operations, {failed} ended the process, {went_on} gone on from a checkpoint, {:.0} s",
                self.victim[0],
                operations.len(),
                calls.len(),
                begin.elapsed().as_secs_f64()
            );
        }
        assert_eq!(wrong, 0, "operations whose failure does harm");
    }
}

const KINDS: [&str; 6] = ["eio", "enospc", "full", "eintr", "short", "kill"];

#[test]
fn whatever_operation_of_a_run_fails_it_comes_to_the_same_end() {
    let steps = STEPS.to_string();
    Case { victim: &train("r", &steps), prepare: &|_| (), again: &[&["resume", "r"]] }.sweep(&KINDS);
}

#[test]
fn whatever_operation_of_a_continuation_fails_it_comes_to_the_same_end() {
    let begun = muon();
    begun.shows(&train("r", "2"));
    let begun = results(&begun).join("r");
    let prepare = |run: &Path| copy(&begun, run);
    let extend = ["resume", "r", "--extend-steps", "2"];
    // Where it was not made longer yet, it is told so once more.
    Case { victim: &extend, prepare: &prepare, again: &[&["resume", "r"], &extend] }.sweep(&KINDS);
}

/// A copy of a folder with all below it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let place = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), place).expect("a copy");
        }
    }
}

/// The checkpoints of a stopped run, and a run folder to damage.
fn checkpoints(muon: &Muon, name: &str) -> (runs::Checkpoints, Vec<PathBuf>) {
    let (run, _) = Store::new(results(muon)).resume(name).expect("no one writes it");
    let newest = run.checkpoints().newest().expect("readable").checkpoint.expect("there is one").dir;
    let files = fs::read_dir(newest).expect("a checkpoint").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    (run.checkpoints(), files)
}

/// Where the parts of a file meet: its lines, or the header and the tensors of a safetensors file.
fn boundaries(path: &Path, bytes: &[u8]) -> Vec<usize> {
    let mut cuts = vec![0, 1, bytes.len() - 1];
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        let (header, tensors) = safetensors::SafeTensors::read_metadata(bytes).expect("it is one");
        cuts.extend([4, 8, 8 + header]);
        let ends = tensors.tensors().into_values().map(|tensor| 8 + header + tensor.data_offsets.1);
        cuts.extend(ends.filter(|&end| end < bytes.len()));
    } else {
        cuts.extend((1..bytes.len()).filter(|&at| bytes[at - 1] == b'\n'));
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

#[test]
fn a_thousand_flips_and_every_cut_of_a_checkpoint_are_refused() {
    let muon = muon();
    let model: &[&str] = match std::env::var("MUON_FAULTS") {
        Ok(what) if what == "all" => &["--model", "granite-nano"],
        _ => &[],
    };
    let args: Vec<&str> = train("r", "4")
        .into_iter()
        .filter(|arg| model.is_empty() || !["--model", "model"].contains(arg))
        .collect();
    muon.shows(&[&args[..], model].concat());
    let (checkpoints, files) = checkpoints(&muon, "r");
    let begin = Instant::now();
    let (mut seed, mut cuts, mut bytes_read) = (11_u64, 0, 0);
    let mut below = |end: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % end
    };
    let refused = |path: &Path, what: &str| {
        let newest = checkpoints.newest().expect("the folder is readable");
        assert_eq!(newest.checkpoint.map(|found| found.manifest.step), Some(STEPS - 1), "{what}");
        assert_eq!(newest.refused.len(), 1, "{what}");
        let told = newest.refused[0].to_string();
        // A flip in the manifest may name another file of the checkpoint, but never passes.
        let name = if path.ends_with("manifest.json") { path.parent() } else { Some(path) };
        assert!(told.contains(&name.expect("a folder").display().to_string()), "{what}: {told}");
    };
    let contents: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).expect("a file")).collect();
    let total: usize = contents.iter().map(Vec::len).sum();
    for flip in 0..1000 {
        // Each file as often as it is long, and each small one at times.
        let file = if flip % 4 == 0 {
            below(files.len())
        } else {
            let mut at = below(total);
            contents
                .iter()
                .position(|bytes| {
                    let here = at < bytes.len();
                    at = at.saturating_sub(bytes.len());
                    here
                })
                .expect("in one")
        };
        let (path, bytes) = (&files[file], &contents[file]);
        let (at, bit) = (below(bytes.len()), below(8));
        write_at(path, at, bytes[at] ^ (1 << bit));
        refused(path, &format!("bit {bit} of byte {at} of {}", path.display()));
        write_at(path, at, bytes[at]);
        bytes_read += total;
    }
    for (path, bytes) in files.iter().zip(&contents) {
        for cut in boundaries(path, bytes) {
            fs::write(path, &bytes[..cut]).expect("written");
            refused(path, &format!("{} cut to {cut} bytes", path.display()));
            cuts += 1;
        }
        fs::write(path, bytes).expect("written");
    }
    assert!(checkpoints.newest().expect("readable").refused.is_empty(), "all is as it was");
    eprintln!(
        "1000 flips and {cuts} cuts of a checkpoint of {total} bytes in {:.0} s, {} MiB read",
        begin.elapsed().as_secs_f64(),
        bytes_read >> 20
    );
}

fn write_at(path: &Path, at: usize, byte: u8) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::options().write(true).open(path).expect("a file");
    file.write_all_at(&[byte], at as u64).expect("written");
}

/// A small file system of its own for the results, without rights of the machine's: a shell in new namespaces does what
/// `script` says there.
fn on_a_small_disk(muon: &Muon, kibibytes: u32, script: &str) -> Option<Output> {
    let mount = format!(
        "mkdir results && mount -t tmpfs -o size={kibibytes}k tmpfs results && echo mounted && {{ {script}\n}}"
    );
    let bin = assert_cmd::cargo::cargo_bin!("muon");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount])
        .current_dir(muon.dir())
        .env("MUON", bin)
        .output()
        .ok()?;
    output.stdout.starts_with(b"mounted").then_some(output)
}

#[test]
fn on_a_full_disk_the_last_checkpoint_stays_and_the_run_goes_on_when_there_is_space() {
    let muon = muon();
    let whole = Whole::new(&muon);
    fs::rename(results(&muon), muon.dir().join("undisturbed")).expect("renamed");
    let steps = STEPS.to_string();
    // From none to all but the last save.
    let mut ended_after = Vec::new();
    for free in (16..=656).step_by(if std::env::var("MUON_FAULTS").is_ok() { 16 } else { 160 }) {
        let script = format!(
            "head -c {}k /dev/zero > results/.ballast
            \"$MUON\" {} 2> told; echo $? > code; cp -r results full
            rm results/.ballast; \"$MUON\" resume r 2> again; echo $? >> code; cp -r results after",
            4096 - free,
            train("r", &steps).join(" ")
        );
        let Some(output) = on_a_small_disk(&muon, 4096, &script) else {
            eprintln!("SKIPPED: this system lets no one mount a small disk");
            return;
        };
        let what = format!("{free} KiB free: {}", stderr(&output));
        let read = |name: &str| fs::read_to_string(muon.dir().join(name)).expect("written by the script");
        let (told, again, codes) = (read("told"), read("again"), read("code"));
        let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
        let checkpoints = whole.holds(&muon.dir().join("full/r"), &what);
        if codes.starts_with('0') {
            assert!(free > 400, "{what}: {told}");
        } else {
            assert!(codes.starts_with('3') && errors.len() == 1, "{what}: {codes} {told}");
            assert!(
                errors[0].contains("No space left") && errors[0].contains("free some disk space"),
                "{what}: {told}"
            );
        }
        if checkpoints > 0 && !codes.starts_with('0') {
            assert!(codes.ends_with("\n0\n"), "{what}: {codes} {again}");
            whole.same(&muon.dir().join("after/r"), &what);
        }
        ended_after.push(checkpoints);
        for name in ["results", "full", "after"] {
            fs::remove_dir_all(muon.dir().join(name)).expect("removed");
        }
    }
    eprintln!("full disks: checkpoints that were there when the run ended: {ended_after:?}");
    assert!(ended_after.contains(&0) && ended_after.iter().any(|&n| n > 0), "{ended_after:?}");
}

#[test]
fn a_disk_that_takes_nothing_and_a_record_that_is_damaged_are_told_in_one_line() {
    let muon = muon();
    let log = muon.dir().join("log");
    for (kind, cause, remedy) in [
        ("full", "No space left on device", "free some disk space"),
        ("readonly", "Read-only file system", "make the results folder writable"),
    ] {
        let output = disturbed(&muon, &train("r", "2"), kind, 1, &log).output().expect("muon runs");
        ended(&output, kind, kind);
        let told = stderr(&output);
        assert!(told.contains(cause) && told.contains(remedy) && !results(&muon).exists(), "{told}");
    }
    muon.shows(&train("r", "2"));
    let path = results(&muon).join("r/metadata.json");
    let whole = fs::read_to_string(&path).expect("metadata");
    for (text, why) in [
        (&whole[..whole.len() / 2], "not valid run metadata: EOF"),
        ("", "not valid run metadata: EOF"),
        ("\u{1b}[31m{}", "not valid run metadata"),
        (&whole.replace("\"schema\": 1", "\"schema\": 99"), "schema 99"),
        (&whole.replace("finished", "fini\\u001b\\nshed"), "unknown variant `fini\\u{1b} shed`"),
    ] {
        fs::write(&path, text).expect("written");
        for verb in ["resume", "show", "logs", "plot"] {
            let told = muon.fails(&[verb, "r"], 3);
            assert!(told.contains("r/metadata.json") && told.contains(why), "{verb}: {told}");
            assert!(!told.trim_end().chars().any(char::is_control), "{told:?}");
        }
        let listed = muon.run(&["runs"]);
        assert!(listed.status.success() && stderr(&listed).contains(why), "{}", stderr(&listed));
    }
    fs::remove_file(&path).expect("removed");
    let told = muon.fails(&["resume", "r"], 3);
    assert!(told.contains("without metadata.json"), "{told}");
}
