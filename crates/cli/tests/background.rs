//! Training in the background from the outside: --detach, status, logs, stop.

mod common;

use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Muon, stderr};
use serde_json::Value;

/// A run that would go on for long. The limit of hours ends what a failed test leaves.
const LONG: [&str; 18] = [
    "train",
    "--optimizer",
    "adamw",
    "--batch-size",
    "2",
    "--seq-len",
    "48",
    "--device",
    "cpu",
    "--set",
    "train.eval_batches=1",
    "--max-hours",
    "0.05",
    "--steps",
    "100000",
    "--detach",
    "--name",
    "bg",
];

fn json(muon: &Muon, args: &[&str]) -> Value {
    let shown = muon.shows(&[args, &["--json"]].concat());
    serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{args:?}: {error}: {shown}"))
}

/// The steps of the run in the background, once there are `least`.
fn steps(muon: &Muon, least: u64) -> u64 {
    let began = Instant::now();
    loop {
        let done = json(muon, &["status", "bg"])["runs"][0]["steps_done"].as_u64().expect("a count");
        if done >= least {
            return done;
        }
        assert!(began.elapsed() < Duration::from_mins(2), "it stays at step {done}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_run_goes_into_the_background_is_looked_at_and_stopped() {
    let muon = Muon::new();
    let shown = muon.shows(&LONG);
    assert!(shown.starts_with("bg: runs in the background as process "), "{shown}");
    assert!(shown.contains("muon logs --follow bg") && shown.contains("muon stop bg"), "{shown}");
    let before = steps(&muon, 2);
    let status = json(&muon, &["status"]);
    let run = &status["runs"][0];
    assert_eq!((&run["name"], &run["standing"]), (&"bg".into(), &"running".into()), "{status}");
    assert!(run["pid"].is_u64() && run["left_s"].as_f64() > Some(0.0), "{status}");
    assert_eq!(status["gpus"], Value::Null);
    let text = muon.shows(&["status"]);
    assert!(text.contains("| bg  | running | ") && text.contains("/100000 | "), "{text}");

    let told = muon.fails(&LONG, 2);
    assert!(told.contains("results/bg: this run exists already"), "{told}");
    let told = muon.fails(&["resume", "bg"], 2);
    assert!(told.contains(&format!("process {}", run["pid"])), "{told}");

    let stopped = json(&muon, &["stop"]);
    assert_eq!(stopped["standing"], "stopped", "{stopped}");
    let saved = stopped["checkpoint_step"].as_u64().expect("a step");
    assert!(saved >= before && stopped["steps_done"] == saved, "{stopped}");
    assert_eq!(muon.shows(&["status"]), "nothing runs in results\n");
    let told = muon.fails(&["stop", "bg"], 2);
    assert!(told.contains(&format!("it does not run; stopped at step {saved} of 100000")), "{told}");
    assert!(muon.fails(&["stop"], 2).contains("nothing runs in results"));

    let log = muon.shows(&["logs", "bg", "--tail", "1000"]);
    for part in ["granite-nano (", " step 1/100000: loss ", "told to stop", "error: stopped after step"] {
        assert!(log.contains(part), "no {part} in {log}");
    }
    assert!(log.lines().all(|line| line.starts_with("20") && line.as_bytes()[19] == b'Z'), "{log}");
    assert!(!log.contains(char::is_control) || log.chars().filter(|c| c.is_control()).all(|c| c == '\n'));

    // It goes on in the background too, and is killed there.
    let shown = muon.shows(&["resume", "bg", "--detach"]);
    assert!(shown.contains("runs in the background"), "{shown}");
    steps(&muon, saved + 1);
    let told = muon.shows(&["stop", "bg", "--now"]);
    assert!(told.contains("ended at once") && told.contains(&format!("that of step {saved} ")), "{told}");
    assert!(muon.shows(&["runs"]).contains("| died "));
}

#[test]
fn what_fails_before_it_runs_fails_in_the_foreground() {
    let muon = Muon::new();
    let told = muon.fails(&[&LONG[..], &["--data", "none.txt"]].concat(), 3);
    assert!(told.contains("none.txt"), "{told}");
    muon.fails(&[&LONG[..], &["--lr", "fast"]].concat(), 2);
    muon.fails(&[&LONG[..], &["--dry-run"]].concat(), 2);
    assert_eq!(muon.files(), [""; 0]);
}

#[test]
fn every_run_keeps_a_log_and_programs_get_events() {
    let muon = Muon::new();
    let short: Vec<&str> = LONG
        .iter()
        .map(|arg| if *arg == "100000" { "3" } else { arg })
        .filter(|arg| *arg != "--detach")
        .collect();
    let output = muon.run(&[&short[..], &["--json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(names[..4], ["started", "step", "step", "step"], "{text}");
    assert_eq!(names[names.len() - 2..], ["saved", "finished"], "{text}");
    assert_eq!((&events[3]["step"], &events[names.len() - 1]["standing"]), (&3.into(), &"finished".into()));
    let log = muon.shows(&["logs", "bg", "--tail", "100"]);
    assert!(log.contains("step 3/3: loss ") && log.contains("bg: finished"), "the table too: {log}");
    let lines = muon.shows(&["logs", "bg", "--tail", "1", "--json"]);
    let line: Value = serde_json::from_str(&lines).expect("JSON");
    assert!(line["time"].is_string() && line["text"].as_str().expect("text").contains("folder"), "{line}");
    assert_eq!(muon.shows(&["logs", "bg", "--steps"]).lines().count(), 3);
    assert_eq!(json(&muon, &["logs", "bg", "--steps", "--tail", "1"])["step"], 3);
}

#[test]
fn a_missing_nvml_is_told_after_the_runs() {
    let muon = Muon::new();
    muon.write("results/.keep", "");
    let output = muon.run(&["status", "--gpu"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.starts_with("nothing runs in results\n"), "{shown}");
    match output.status.code() {
        // There is a driver here.
        Some(0) => assert!(shown.contains("GPU"), "{shown}"),
        code => {
            assert_eq!(code, Some(5));
            let told = stderr(&output);
            assert!(told.starts_with("error: NVML: ") && told.lines().count() == 1, "{told}");
        }
    }
}
