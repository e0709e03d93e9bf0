//! `bench step` from the outside, on the CPU: what it prints, and what it refuses.

mod common;

use common::Muon;

/// A step small enough for a test.
const SMALL: [&str; 10] = ["bench", "step", "--device", "cpu", "--batch", "1", "--seq", "16", "--steps", "2"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], more].concat()
}

/// The cells of the row that begins so.
fn cells<'a>(shown: &'a str, row: &str) -> Vec<&'a str> {
    let line = shown.lines().find_map(|line| line.strip_prefix(row));
    let line = line.unwrap_or_else(|| panic!("no row `{row}` in {shown}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn a_step_is_timed_and_told() {
    let muon = Muon::new();
    let args = with(&["--set", "optimizer.momentum=0.9", "--compare"]);
    // No python3 is on the path.
    let output = muon.command(&args).env("PATH", muon.dir()).output().expect("muon runs");
    assert!(output.status.success(), "{}", common::stderr(&output));
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    let head = shown.lines().next().expect("a line");
    assert!(head.starts_with("granite-nano 1 x 16 f32 on ") && head.contains(" (cpu), 1,"), "{head}");
    assert!(head.ends_with(" parameters, optimizer muon optimizer.momentum=0.9, 2 steps"), "{head}");
    let columns = ["median", "range, ms", "tokens/s", "model TFLOP/s", "of the ceiling"];
    let table = shown.lines().nth(1).expect("a table");
    assert_eq!(cells(table, ""), columns);
    let median = |row: &str| -> f64 {
        let cells = cells(&shown, row);
        assert_eq!(cells.len(), columns.len(), "{cells:?}");
        let [low, high] =
            [0, 1].map(|i| cells[1].split(" to ").nth(i).expect("a range").parse::<f64>().expect("ms"));
        let median = cells[0].strip_suffix(" ms").expect("a unit").parse::<f64>().expect("ms");
        assert!(low <= median && median <= high && median > 0.0, "{cells:?}");
        assert!(cells[4].ends_with(" %"), "{cells:?}");
        median
    };
    assert!(median("forward + backward") < median("whole step"), "{shown}");
    assert!(shown.contains("one large product in f32; peak memory "), "{shown}");
    assert!(shown.contains("PyTorch: there is no python3 to ask"), "{shown}");
    assert!(!shown.contains("piece by piece") && !shown.contains("plain kernels"), "no GPU: {shown}");
    assert_eq!(muon.files(), [""; 0]);
}

#[test]
fn layers_can_be_computed_again() {
    let shown = Muon::new().shows(&with(&["--optimizer", "adamw", "--set", "train.recompute=layers"]));
    assert!(shown.contains("optimizer adamw train.recompute=layers, 2 steps"), "{shown}");
    assert_eq!(cells(&shown, "whole step").len(), 5);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let muon = Muon::new();
    for (more, told) in [
        (&["--set", "train.kernel=plain"][..], "did you mean `train.kernels`?"),
        (&["--set", "train.kernels=slow"], "one of fast, plain"),
        (&["--set", "train.kernels"], "expected KEY=VALUE"),
        (&["--set", "train.batch_size=4"], "give it once"),
        (&["--model", "gpt-2"], "granite-nano"),
        (&["--optimizer", "lion"], "there are: muon"),
        (&["--steps", "0"], "--steps"),
    ] {
        let more = if more[0] == "--steps" { [&SMALL[..8], more].concat() } else { with(more) };
        let told_really = muon.fails(&more, 2);
        assert!(told_really.contains(told), "{told_really}");
    }
}
