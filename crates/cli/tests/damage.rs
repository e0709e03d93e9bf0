//! Damaged checkpoints, full disks and read-only folders, from the outside: refused by name, told in one line, and what was
//! there before stays.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use common::disturbed::{STEPS, Whole, disturbed, ended, muon, results, train};
use common::stderr;
use runs::Store;

mod common;

/// The checkpoints of a stopped run, and a run folder to damage.
fn checkpoints(muon: &common::Muon, name: &str) -> (runs::Checkpoints, Vec<PathBuf>) {
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
fn on_a_small_disk(muon: &common::Muon, kibibytes: u32, script: &str) -> Option<Output> {
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
