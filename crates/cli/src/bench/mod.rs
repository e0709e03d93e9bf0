//! `muon bench`: how fast the parts of training are on this machine.

mod banks;
mod breakdown;
mod optim;
mod peer;
mod step;
mod stopwatch;
mod zoo;

use std::path::Path;

use clap::Subcommand;
use models::{Config, presets};

use crate::error::EXIT_CODES;

/// The parts that can be timed.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Forward, backward and optimizer step on random tokens
    #[command(after_help = EXIT_CODES)]
    Step(step::StepArgs),
    /// Every orthogonaliser on all matrices of a model, and whole optimizer steps with it
    #[command(after_help = EXIT_CODES)]
    Optim(optim::OptimArgs),
}

impl Bench {
    /// Runs the benchmark.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Bench::Step(args) => step::run(args),
            Bench::Optim(args) => optim::run(args),
        }
    }
}

/// The configuration that `--model` names: a preset, or a folder with config.json.
fn config(model: &str) -> anyhow::Result<Config> {
    let path = Path::new(model);
    Ok(if path.is_dir() { Config::load(path)? } else { presets::find(model)?.config() })
}

/// The middle of sorted times.
fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// From the first to the last of sorted times, in milliseconds.
fn range_ms(sorted: &[f64]) -> String {
    format!("{:.2} to {:.2}", 1e3 * sorted[0], 1e3 * sorted[sorted.len() - 1])
}
