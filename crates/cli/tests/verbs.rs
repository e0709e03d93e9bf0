//! What holds for every verb: no escapes in a pipe, JSON where there is a result.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Muon, stderr};
use serde_json::Value;

/// What `--json` gives.
#[derive(Clone, Copy, PartialEq)]
enum Json {
    /// One document.
    One,
    /// An object a line.
    Lines,
    /// The verb has no result for programs and says so.
    No,
}

use Json::{Lines, No, One};

const TINY: [&str; 11] = [
    "--steps",
    "2",
    "--batch-size",
    "2",
    "--seq-len",
    "32",
    "--device",
    "cpu",
    "--set",
    "train.eval_batches=1",
    "--name",
];

/// Every verb, once or more: what it is called with (a run's name follows where it ends in `--name`), and what `--json` gives. A run
/// `one` is there.
fn calls(oracles: &str) -> Vec<(Vec<String>, Json)> {
    let text = |args: &[&str]| args.iter().map(|arg| arg.replace("ORACLES", oracles)).collect();
    let train = |verb: &str| -> Vec<String> { text(&[&[verb][..], &TINY].concat()) };
    vec![
        (train("baseline"), Lines),
        (train("train"), Lines),
        (train("nolah"), Lines),
        (train("pretrain"), Lines),
        (text(&["train", "--dry-run"]), One),
        (text(&["resume", "one", "--extend-steps", "1"]), Lines),
        (text(&["optimizers"]), One),
        (text(&["optimizers", "muon"]), One),
        (text(&["runs"]), One),
        (text(&["show", "one"]), One),
        (text(&["logs", "one"]), Lines),
        (text(&["logs", "one", "--steps"]), Lines),
        (text(&["status"]), One),
        (text(&["status", "one"]), One),
        (text(&["watch", "one"]), No),
        (text(&["stop", "one"]), No),
        (text(&["plot", "one"]), One),
        (text(&["rm", "--yes", "--name"]), One),
        (
            text(&[
                "lab",
                "forward",
                "--model",
                "ORACLES/qwen2-tied",
                "--tokens",
                "ORACLES/qwen2-tied/golden.safetensors",
                "--out",
                "f.safetensors",
            ]),
            One,
        ),
        (text(&["lab", "kernels", "--device", "cpu", "--op", "rms_norm"]), One),
        (
            text(&[
                "lab",
                "orthogonalize",
                "--in",
                "ORACLES/qwen2-tied/model.safetensors",
                "--method",
                "polar",
                "--out",
                "o.safetensors",
            ]),
            One,
        ),
        (
            text(&[
                "lab",
                "replay",
                "--optimizer",
                "adamw",
                "--in",
                "ORACLES/optimizers/adamw.safetensors",
                "--out",
                "r.safetensors",
            ]),
            One,
        ),
        (text(&["bench", "step", "--device", "cpu", "--batch", "1", "--seq", "16", "--steps", "1"]), One),
        (text(&["bench", "optim", "--device", "cpu", "--repeats", "1", "--only", "gram", "--no-steps"]), One),
        (text(&["setup", "--dry-run"]), One),
        (text(&["commit", "a message", "--dry-run"]), One),
        (text(&["doctor"]), One),
        (text(&["completions", "bash"]), No),
        (text(&["man", "--out", "pages"]), One),
    ]
}

/// The verbs that the help lists, with those below `lab` and `bench`.
fn verbs(muon: &Muon) -> Vec<String> {
    let listed = |args: &[&str]| -> Vec<String> {
        let help = muon.shows(args);
        let commands =
            help.split("Commands:\n").nth(1).expect("a list").split("\n\n").next().expect("its end");
        let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        names
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
            .map(String::from)
            .collect()
    };
    let mut all = Vec::new();
    for verb in listed(&["--help"]) {
        if ["lab", "bench"].contains(&verb.as_str()) {
            all.extend(listed(&[&verb, "--help"]).into_iter().map(|name| format!("{verb} {name}")));
        } else {
            all.push(verb);
        }
    }
    all
}

fn plain(args: &[String], output: &Output) {
    for (stream, bytes) in [("output", &output.stdout), ("error", &output.stderr)] {
        let escape = bytes.iter().position(|byte| matches!(byte, 0x1b | b'\r' | 0x08));
        assert_eq!(escape, None, "{args:?} standard {stream}: {}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn no_verb_writes_escapes_to_a_pipe_and_every_result_is_there_as_json() {
    let muon = Muon::new();
    let made = Command::new("git").args(["init", "-q"]).current_dir(muon.dir()).status().expect("git runs");
    assert!(made.success());
    let oracles =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../oracles").canonicalize().expect("oracles");
    let calls = calls(oracles.to_str().expect("UTF-8"));
    muon.shows(&[&["train"], &TINY[..], &["one"]].concat());
    let verbs = verbs(&muon);
    assert!(verbs.len() > 20, "{verbs:?}");
    for verb in &verbs {
        let called = calls.iter().any(|(args, _)| args.join(" ").starts_with(verb.as_str()));
        assert!(called, "{verb} is called with nothing: add it");
    }
    for (at, (args, kind)) in calls.iter().enumerate() {
        if !verbs.iter().any(|verb| args.join(" ").starts_with(verb.as_str())) {
            continue;
        }
        let named = |name: String| {
            let mut args = args.clone();
            if args.last().is_some_and(|last| last == "--name") {
                if args[0] == "rm" {
                    args.pop();
                    muon.shows(&[&["train"], &TINY[..], &[&name]].concat());
                }
                args.push(name);
            }
            args
        };
        let run = |args: &[String], json: bool| {
            let args: Vec<&str> = args.iter().map(String::as_str).chain(json.then_some("--json")).collect();
            muon.command(&args).env("NO_COLOR", "1").env("TERM", "xterm").output().expect("muon runs")
        };
        let plainly = named(format!("p{at}"));
        let output = run(&plainly, false);
        plain(&plainly, &output);
        let refused = matches!(args[0].as_str(), "watch" | "stop");
        let code = if refused { 2 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{plainly:?}: {}", stderr(&output));

        let program = named(format!("j{at}"));
        let output = run(&program, true);
        plain(&program, &output);
        let code = if *kind == No { 2 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{program:?} --json: {}", stderr(&output));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let parse = |text: &str| {
            let parsed: Result<Value, _> = serde_json::from_str(text);
            parsed.unwrap_or_else(|error| panic!("{program:?} --json: {error}: {text}"))
        };
        match kind {
            One => drop(parse(&text)),
            Lines => {
                assert!(
                    !text.is_empty() && text.lines().map(parse).all(|value| value.is_object()),
                    "{program:?}"
                );
            }
            No => assert!(text.is_empty(), "{program:?}: {text}"),
        }
    }
}
