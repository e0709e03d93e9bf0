//! The same step in PyTorch, for comparison: transformers' own model of the family, eager and compiled, by the
//! `python3` on the path.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::Context;
use models::Config;
use tensor::Device;

const SCRIPT: &str = include_str!("peer.py");

/// Runs the script and gives back what it prints; says so where there is no PyTorch.
pub(super) fn run(config: &Config, batch: u32, seq: u32, device: &Device) -> anyhow::Result<String> {
    let (batch, seq) = (batch.to_string(), seq.to_string());
    let place = if device.is_cuda() { "cuda" } else { "cpu" };
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
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Ok(format!("PyTorch: python3 stopped: {last}"))
}
