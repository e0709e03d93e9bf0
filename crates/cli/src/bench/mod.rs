//! `muon bench`: how fast the parts of training are on this machine.

mod banks;
mod optim;
mod step;
mod zoo;

use clap::Subcommand;

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
