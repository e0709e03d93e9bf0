//! `muon lab`: single parts of the program, taken apart and held against references.

mod forward;
mod kernels;
mod orthogonalize;
mod replay;
mod tensors;

use clap::Subcommand;

use crate::error::EXIT_CODES;

/// The verbs of the lab.
#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Logits, loss and gradients of a model folder for given tokens
    #[command(after_help = EXIT_CODES)]
    Forward(forward::ForwardArgs),
    /// Every operation against its reference, or whether all CUDA sources compile
    #[command(after_help = EXIT_CODES)]
    Kernels(kernels::KernelsArgs),
    /// Polar factors of the matrices in a file, by any method
    #[command(after_help = orthogonalize::after_help())]
    Orthogonalize(orthogonalize::OrthogonalizeArgs),
    /// An optimizer over the gradients of a recorded trace, written down step by step
    #[command(after_help = EXIT_CODES)]
    Replay(replay::ReplayArgs),
}

impl Lab {
    /// Runs the verb.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Lab::Forward(args) => forward::run(args),
            Lab::Kernels(args) => kernels::run(args),
            Lab::Orthogonalize(args) => orthogonalize::run(args),
            Lab::Replay(args) => replay::run(args),
        }
    }
}
