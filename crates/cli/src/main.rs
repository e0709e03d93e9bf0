//! The `muon` command: one file per verb, one line per error, documented exit codes.

mod args;
mod bench;
mod doctor;
mod dry_run;
mod error;
mod lab;
mod machine;
mod output;
mod progress;
mod train_verb;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::args::RecipeArgs;

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
    Train {
        /// Name of the optimizer; unset, the recipe's, or muon
        #[arg(long, value_name = "NAME", help_heading = "Recipe")]
        optimizer: Option<String>,
        #[command(flatten)]
        recipe: RecipeArgs,
    },
    /// Take apart: forward passes and kernels held against other frameworks and plain loops
    #[command(subcommand)]
    Lab(lab::Lab),
    /// Time the parts of training
    #[command(subcommand)]
    Bench(Bench),
    /// Show what this machine has for training, and how to get what is missing
    #[command(after_help = error::EXIT_CODES)]
    Doctor,
}

#[derive(Subcommand)]
enum Bench {
    /// Forward, backward and optimizer step on random tokens
    #[command(after_help = error::EXIT_CODES)]
    Step(bench::StepArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(error::report_usage(&error)),
    };
    let done = match &cli.verb {
        Verb::Baseline(recipe) => train_verb::run(recipe, Some(("muon", "baseline"))),
        Verb::Train { optimizer, recipe } => {
            train_verb::run(recipe, optimizer.as_deref().map(|name| (name, "--optimizer")))
        }
        Verb::Lab(verb) => verb.run(),
        Verb::Bench(Bench::Step(args)) => bench::step(args),
        Verb::Doctor => doctor::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error::report(&error)),
    }
}
