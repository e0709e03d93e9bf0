//! The `muon` command: one file per verb, one line per error, documented exit codes.

mod args;
mod bench;
mod commit_verb;
mod doctor;
mod dry_run;
mod error;
mod lab;
mod machine;
mod optimizers_verb;
mod output;
mod progress;
mod train_verb;
mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::args::{Choice, RecipeArgs};
use crate::verbs::{NolahArgs, PretrainArgs, TrainArgs};

/// Trains language models with Muon and its relatives.
#[derive(Parser)]
#[command(name = "muon", version, after_help = error::EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Train with baseline Muon: short for `train --optimizer muon`
    #[command(after_help = error::EXIT_CODES)]
    Baseline(RecipeArgs),
    /// Train a model with any optimizer
    #[command(after_help = error::EXIT_CODES)]
    Train(TrainArgs),
    /// Train with NOLAH: short for `train --optimizer nolah`
    #[command(after_help = error::EXIT_CODES)]
    Nolah(NolahArgs),
    /// Train from scratch, with Muon or one of its noisy relatives
    #[command(after_help = error::EXIT_CODES)]
    Pretrain(PretrainArgs),
    /// List the optimizers, or the keys of one
    #[command(after_help = error::EXIT_CODES)]
    Optimizers(optimizers_verb::OptimizersArgs),
    /// Take apart: forward passes and kernels held against other frameworks and plain loops
    #[command(subcommand)]
    Lab(lab::Lab),
    /// Time the parts of training
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Commit code and the records of runs to git, never weights, data or secrets
    #[command(after_help = error::EXIT_CODES)]
    Commit(commit_verb::CommitArgs),
    /// Show what this machine has for training, and how to get what is missing
    #[command(after_help = error::EXIT_CODES)]
    Doctor,
}

fn main() -> ExitCode {
    // This thread is one of the pool's, so that an operation on the CPU need not wake another to begin.
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().expect("no pool was built before");
    let cli = match Cli::try_parse_from(args::hyphens(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(error::report_usage(&error)),
    };
    let done = match &cli.verb {
        Verb::Baseline(recipe) => {
            let choice = Choice { optimizer: Some(("muon", "baseline")), settings: Vec::new() };
            train_verb::run(recipe, &choice)
        }
        Verb::Train(args) => train_verb::run(&args.recipe, &args.choice()),
        Verb::Nolah(args) => train_verb::run(&args.recipe, &args.choice()),
        Verb::Pretrain(args) => match args.choice() {
            Ok(choice) => train_verb::run(&args.recipe, &choice),
            Err(error) => Err(error.into()),
        },
        Verb::Optimizers(args) => optimizers_verb::run(args),
        Verb::Lab(verb) => verb.run(),
        Verb::Bench(verb) => verb.run(),
        Verb::Commit(args) => commit_verb::run(args),
        Verb::Doctor => doctor::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error::report(&error)),
    }
}
