//! From the libraries' errors to one line on standard error and a documented exit code.

use std::error::Error;
use std::io;

use train::recipe::{self, Origin};

use crate::output::plain;
use crate::progress::note;

/// The one list of exit codes: a constant each, and the text that `--help` shows. The README has the same list.
macro_rules! exit_codes {
    ($($name:ident = $code:literal: $meaning:literal;)+) => {
        $(pub const $name: u8 = $code;)+
        /// The exit codes, as `--help` shows them.
        pub const EXIT_CODES: &str = concat!("Exit codes:", $("\n  ", $code, "  ", $meaning),+);
    };
}

exit_codes! {
    SUCCESS = 0: "all went well";
    INTERNAL = 1: "internal error, or what was asked for did not come about";
    USAGE = 2: "the command line makes no sense";
    INPUT = 3: "bad input data or file";
    FIT = 4: "the model or the recipe does not fit";
    DEVICE = 5: "a device or library is missing, or out of memory";
    DIVERGED = 6: "the training diverged";
    LIMIT = 7: "stopped at a limit of the recipe (train.max_hours, train.max_cost); muon resume goes on with a higher one";
    INTERRUPTED = 130: "stopped by SIGINT (Ctrl-C), saved unless it came twice";
    TERMINATED = 143: "stopped by SIGTERM, the same";
}

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

/// What went wrong was told already; the exit code is left.
#[derive(Debug)]
pub struct Told(pub u8);

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl Error for Told {}

/// Prints the error as one line and gives its exit code.
pub fn report(error: &anyhow::Error) -> u8 {
    if error.chain().any(reader_is_gone) {
        return SUCCESS;
    }
    if let Some(Told(code)) = error.downcast_ref() {
        return *code;
    }
    note(&format!("error: {}", line(error)));
    error.chain().find_map(code).unwrap_or(INTERNAL)
}

/// Prints what clap found wrong as one line, with its tip as a hint; help and version go to standard output.
pub fn report_usage(error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return SUCCESS;
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
    note(&format!("error: {}", line.trim_start_matches("error: ")));
    for tip in tips {
        note(&format!("  hint: {}", tip.trim_start_matches("tip: ")));
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
    if error.is::<crate::gpus::Failed>() {
        return Some(DEVICE);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_same_exit_codes() {
        let readme = include_str!("../../../README.md");
        let table = readme.split("## Exit codes").nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows = table.expect("the section").lines().filter_map(|line| line.strip_prefix("| "));
        let told: Vec<(&str, &str)> =
            rows.filter_map(|row| row.trim_end_matches(" |").split_once(" | ")).skip(1).collect();
        let known: Vec<(&str, &str)> =
            EXIT_CODES.lines().skip(1).filter_map(|line| line.trim().split_once("  ")).collect();
        let plain: Vec<(&str, String)> =
            told.iter().map(|(code, text)| (*code, text.replace('`', ""))).collect();
        assert_eq!(plain.iter().map(|(code, text)| (*code, text.as_str())).collect::<Vec<_>>(), known);
    }

    #[test]
    fn a_signal_ends_as_a_process_does_that_it_ends() {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use train::Why;
        let code = |signal| crate::resume_verb::stopped(Why::Signal(signal));
        assert_eq!((code(SIGINT), code(SIGTERM)), (INTERRUPTED, TERMINATED));
        assert_eq!(crate::resume_verb::stopped(Why::Hours(1.0)), LIMIT);
    }
}
