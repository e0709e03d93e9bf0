//! The `muon` command: one file per verb, one line per error, documented exit codes.

mod args;
mod bench;
mod commit_verb;
mod completions_verb;
mod detach;
mod doctor;
mod dry_run;
mod error;
mod gpus;
mod journal;
mod lab;
mod logs_verb;
mod machine;
mod man_verb;
mod optimizers_verb;
mod output;
mod plot_verb;
mod progress;
mod resume_verb;
mod rm_verb;
mod runs_verb;
mod secrets;
mod setup_verb;
mod show_verb;
mod signals;
mod status_verb;
mod stop_verb;
mod store_args;
mod train_verb;
mod verbs;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::args::{Choice, RecipeArgs};
use crate::verbs::{NolahArgs, PretrainArgs, TrainArgs};

/// Trains language models with Muon and its relatives.
#[derive(Parser)]
#[command(name = "muon", version, after_help = error::EXIT_CODES, max_term_width = 110)]
struct Cli {
    /// Print results as JSON: one document; of training and logs, one object a line
    #[arg(long, global = true)]
    json: bool,
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
    /// Go on with a run from its newest checkpoint, bit for bit
    #[command(after_help = error::EXIT_CODES)]
    Resume(resume_verb::ResumeArgs),
    /// List the optimizers, or the keys of one
    #[command(after_help = error::EXIT_CODES)]
    Optimizers(optimizers_verb::OptimizersArgs),
    /// List the runs: state, step, losses, speed, age
    #[command(after_help = error::EXIT_CODES)]
    Runs(runs_verb::RunsArgs),
    /// Show one run: its closing table, where it came from, its files
    #[command(after_help = error::EXIT_CODES)]
    Show(show_verb::ShowArgs),
    /// Show what runs here: step, time left, loss, speed; with --gpu what the GPUs do
    #[command(after_help = error::EXIT_CODES)]
    Status(status_verb::StatusArgs),
    /// Draw a run as it goes: losses, learning rate, speed, diagnostics, GPUs
    #[command(after_help = error::EXIT_CODES)]
    Watch(watch::WatchArgs),
    /// Tell a run to save and stop, and wait until it has
    #[command(after_help = error::EXIT_CODES)]
    Stop(stop_verb::StopArgs),
    /// Show the last lines that a run said, or its steps, and with --follow those to come
    #[command(after_help = error::EXIT_CODES)]
    Logs(logs_verb::LogsArgs),
    /// Draw the losses of one run or several, in the terminal, as SVG or as PNG
    #[command(after_help = error::EXIT_CODES)]
    Plot(plot_verb::PlotArgs),
    /// Remove runs with all their files
    #[command(after_help = error::EXIT_CODES)]
    Rm(rm_verb::RmArgs),
    /// Take apart: forward passes and kernels held against other frameworks and plain loops
    #[command(subcommand)]
    Lab(lab::Lab),
    /// Time the parts of training
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Prepare this project: a file for secrets, and with --drive-path a synced folder for what is large
    #[command(after_help = error::EXIT_CODES)]
    Setup(setup_verb::SetupArgs),
    /// Commit code and the records of runs to git, never weights, data or secrets
    #[command(after_help = error::EXIT_CODES)]
    Commit(commit_verb::CommitArgs),
    /// Show what this machine has for training, and how to get what is missing
    #[command(after_help = error::EXIT_CODES)]
    Doctor,
    /// Print what makes a shell complete verbs and flags
    #[command(after_help = error::EXIT_CODES)]
    Completions(completions_verb::CompletionsArgs),
    /// Write the manual pages
    #[command(after_help = error::EXIT_CODES)]
    Man(man_verb::ManArgs),
}

fn main() -> ExitCode {
    secrets::start();
    // This thread is one of the pool's, so that an operation on the CPU need not wake another to begin.
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().expect("no pool was built before");
    let arguments = args::hyphens(std::env::args_os());
    if let Err(error) = args::without_secrets(&arguments) {
        return ExitCode::from(error::report(&error.into()));
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(error::report_usage(&error)),
    };
    output::choose(cli.json);
    // What cannot read them whole cannot mask them either; these verbs meet none.
    let meets_none = matches!(cli.verb, Verb::Doctor | Verb::Completions(_) | Verb::Man(_));
    if let Some(error) = secrets::wrong().filter(|_| !meets_none) {
        return ExitCode::from(error::report(&error.into()));
    }
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
        Verb::Resume(args) => resume_verb::run(args),
        Verb::Optimizers(args) => optimizers_verb::run(args),
        Verb::Runs(args) => runs_verb::run(args),
        Verb::Show(args) => show_verb::run(args),
        Verb::Status(args) => status_verb::run(args),
        Verb::Watch(args) => watch::run(args),
        Verb::Stop(args) => stop_verb::run(args),
        Verb::Logs(args) => logs_verb::run(args),
        Verb::Plot(args) => plot_verb::run(args),
        Verb::Rm(args) => rm_verb::run(args),
        Verb::Lab(verb) => verb.run(),
        Verb::Bench(verb) => verb.run(),
        Verb::Setup(args) => setup_verb::run(args),
        Verb::Commit(args) => commit_verb::run(args),
        Verb::Doctor => doctor::run(),
        Verb::Completions(args) => completions_verb::run(args, Cli::command()),
        Verb::Man(args) => man_verb::run(args, Cli::command()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error::report(&error)),
    }
}
