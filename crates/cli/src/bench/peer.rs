//! The same step in PyTorch, for comparison: transformers' own model of the family, eager and compiled, by the
//! `python3` on the path.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::Context;
use models::Config;

const SCRIPT: &str = include_str!("peer.py");

/// Runs the script and gives back what it prints; says so where there is no PyTorch.
///
/// `place` is `cpu` or `cuda:N`.
pub(super) fn run(config: &Config, batch: u32, seq: u32, place: &str) -> anyhow::Result<String> {
    let (batch, seq) = (batch.to_string(), seq.to_string());
    let started = Command::new("python3")
        .args(["-", &batch, &seq, place, &config.to_json().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = started else {
        return Ok("PyTorch: there is no python3 to ask".into());
    };
    let written = child.stdin.take().expect("it is piped").write_all(SCRIPT.as_bytes());
    let output = child.wait_with_output().context("waiting for python3")?;
    written.context("handing the script to python3")?;
    let told = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if output.status.success() {
        return Ok(told);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Ok(format!("{told}\nPyTorch: python3 stopped: {last}").trim_start().to_owned())
}
