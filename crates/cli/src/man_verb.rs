//! `muon man`: the manual pages.

use std::path::PathBuf;

use clap::{Args, Command};
use serde_json::json;

use crate::error::BadFile;
use crate::output::show;

/// Flags of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder for the pages, such as ~/.local/share/man/man1; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes a page for `muon` and one for each verb.
pub fn run(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    // The verb `help` of every level says nothing of its own.
    let command = command.disable_help_subcommand(true);
    let written =
        std::fs::create_dir_all(&args.out).and_then(|()| clap_mangen::generate_to(command, &args.out));
    written.map_err(|error| BadFile {
        path: args.out.clone(),
        reason: format!("cannot write the pages there: {error} (choose a writable folder)"),
    })?;
    let folder = args.out.display();
    show(|| json!({ "written": args.out }), || format!("wrote muon.1 and a page for each verb to {folder}"))
}
