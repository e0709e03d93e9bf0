//! From the libraries' errors to one line on standard error and a documented exit code.

use std::error::Error;
use std::io::{self, Write};

use train::recipe::{self, Origin};

use crate::output::plain;

/// The exit codes, as `--help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  all went well
  1  internal error
  2  the command line makes no sense
  3  bad input data or file
  4  the model or the recipe does not fit
  5  a device or library is missing, or out of memory
  6  the training diverged
  7  stopped at a limit of the recipe (train.max_hours, train.max_cost); muon resume goes on with a higher one
130  stopped by SIGINT (Ctrl-C), saved unless it came twice
143  stopped by SIGTERM, the same";

const INTERNAL: u8 = 1;
const USAGE: u8 = 2;
const INPUT: u8 = 3;
const FIT: u8 = 4;
const DEVICE: u8 = 5;
const DIVERGED: u8 = 6;
/// A limit of the recipe stopped the run.
pub const LIMIT: u8 = 7;

/// A command line that makes no sense.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}

/// A file given on the command line that cannot be read or used.
#[derive(Debug)]
pub struct BadFile {
    /// The file.
    pub path: std::path::PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for BadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl Error for BadFile {}

/// Prints the error as one line and gives its exit code.
pub fn report(error: &anyhow::Error) -> u8 {
    if error.chain().any(reader_is_gone) {
        return 0;
    }
    let _ = writeln!(io::stderr(), "error: {}", line(error));
    error.chain().find_map(code).unwrap_or(INTERNAL)
}

/// Prints what clap found wrong as one line, with its tip as a hint; help and version go to standard output.
pub fn report_usage(error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    let text = error.to_string();
    let told =
        text.lines().map(str::trim).take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more"));
    let (tips, lines): (Vec<&str>, Vec<&str>) =
        told.filter(|line| !line.is_empty()).partition(|line| line.starts_with("tip:"));
    let line = lines.join(" ");
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return USAGE;
    }
    let _ = writeln!(io::stderr(), "error: {}", line.trim_start_matches("error: "));
    for tip in tips {
        let _ = writeln!(io::stderr(), "  hint: {}", tip.trim_start_matches("tip: "));
    }
    USAGE
}

/// The error and its causes in one line; a cause that the line already tells is left out.
fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = plain(&cause.to_string());
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    // What rooms and libraries pass on as the system said it.
    for (said, remedy) in [
        ("(os error 28)", "free some disk space"),
        ("(os error 122)", "your disk quota is used up: free some space"),
    ] {
        if cfg!(target_os = "linux") && line.contains(said) && !line.contains(remedy) {
            line = format!("{line} ({remedy})");
        }
    }
    line
}

fn reader_is_gone(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn code(error: &(dyn Error + 'static)) -> Option<u8> {
    if error.is::<Usage>() {
        return Some(USAGE);
    }
    if error.is::<BadFile>() {
        return Some(INPUT);
    }
    (error.downcast_ref().map(of_train))
        .or_else(|| error.downcast_ref().map(of_recipe))
        .or_else(|| error.downcast_ref().map(of_data))
        .or_else(|| error.downcast_ref().map(of_models))
        .or_else(|| error.downcast_ref().map(of_tensor))
        .or_else(|| error.downcast_ref().map(of_optim))
        .or_else(|| error.downcast_ref().map(of_runs))
}

fn of_train(error: &train::Error) -> u8 {
    match error {
        train::Error::Diverged { .. } => DIVERGED,
        train::Error::Stopped { why, .. } => crate::resume_verb::stopped(*why),
        train::Error::Spent { .. } => LIMIT,
        train::Error::Changed(_) | train::Error::Shorter { .. } => FIT,
        train::Error::TooFewRows { .. }
        | train::Error::NoCheckpoint { .. }
        | train::Error::Checkpoint { .. } => INPUT,
        train::Error::Memory { .. } => DEVICE,
        train::Error::Recipe(error) => of_recipe(error),
        train::Error::Data(error) => of_data(error),
        train::Error::Model(error) => of_models(error),
        train::Error::Optimizer(error) => of_optim(error),
        train::Error::Tensor(error) => of_tensor(error),
        train::Error::Runs(error) => of_runs(error),
    }
}

fn of_recipe(error: &recipe::Error) -> u8 {
    match error {
        recipe::Error::Read { .. } | recipe::Error::Frozen { .. } | recipe::Error::Syntax { .. } => INPUT,
        recipe::Error::Vocabulary { .. } | recipe::Error::Precision { .. } => FIT,
        recipe::Error::Model(error) => of_models(error),
        recipe::Error::UnknownKey { from, .. } | recipe::Error::Value { from, .. } => {
            if matches!(from, Origin::Flag(_)) { USAGE } else { FIT }
        }
    }
}

fn of_data(error: &data::Error) -> u8 {
    match error {
        data::Error::Mismatch { .. } | data::Error::Zero { .. } => FIT,
        _ => INPUT,
    }
}

fn of_models(error: &models::Error) -> u8 {
    match error {
        models::Error::Io { .. } | models::Error::Weights { .. } => INPUT,
        models::Error::Config { .. } | models::Error::UnknownPreset { .. } => FIT,
        models::Error::Tensor(error) => of_tensor(error),
    }
}

fn of_tensor(error: &tensor::Error) -> u8 {
    match error {
        tensor::Error::NoGpu(_)
        | tensor::Error::NoLibrary { .. }
        | tensor::Error::Cuda { .. }
        | tensor::Error::OutOfMemory { .. } => DEVICE,
        tensor::Error::Token { .. } => INPUT,
        tensor::Error::Linalg { .. } => DIVERGED,
        tensor::Error::KernelCompile { .. } | tensor::Error::Shape { .. } => INTERNAL,
    }
}

fn of_optim(error: &optim::Error) -> u8 {
    match error {
        optim::Error::Unknown { .. } | optim::Error::Setting { .. } | optim::Error::Routing { .. } => FIT,
        optim::Error::NotFinite { .. } => DIVERGED,
        optim::Error::State(_) => INPUT,
        optim::Error::Tensor(error) => of_tensor(error),
    }
}

fn of_runs(error: &runs::Error) -> u8 {
    match error {
        runs::Error::Name { .. }
        | runs::Error::Taken(_)
        | runs::Error::NoRun { .. }
        | runs::Error::Ambiguous { .. }
        | runs::Error::Busy { .. }
        | runs::Error::Foreign { .. } => USAGE,
        _ => INPUT,
    }
}
