//! File operations that fail one by one, with real processes, from the outside.
//!
//! A library loaded into the process (crate `faults`) fails or kills it at its n-th operation under the results folder. The
//! process must end with one clear error, or go on, and what it leaves must come to the bits of an undisturbed run.
//! `MUON_FAULTS=all` takes every operation; else a few of each kind, chosen by a seed, are taken.
#![cfg(target_os = "linux")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use common::disturbed::{STEPS, Whole, disturbed, ended, muon, names, results, train};
use common::{Muon, stderr};

mod common;

/// Operations of each kind in a run of the test suite.
const FEW: usize = 7;

/// Whether a call may fail in this way on a real system.
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
            swept(muon, what);
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
        swept(muon, what);
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

/// What a killed process left aside is gone when another one has begun.
fn swept(muon: &Muon, what: &str) {
    let left = names(&results(muon))
        .into_iter()
        .find(|name| name.starts_with(".new-") || name.starts_with(".removed-"));
    assert_eq!(left, None, "{what}");
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
