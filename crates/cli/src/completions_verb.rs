//! `muon completions`: what makes a shell complete verbs and flags.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::output::{json, print};
use crate::store_args::usage;

/// Flags of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script for the shell.
pub fn run(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    if json() {
        return Err(usage("completions prints a script, which has no JSON"));
    }
    // Into memory first: clap_complete panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "muon", &mut script);
    Ok(print(&String::from_utf8(script)?)?)
}
