//! `muon commit`: code and the records of runs into git, never weights, data or secrets. Git itself does the work, so its
//! hooks run.

mod changes;
mod git;

use std::path::Path;

use clap::Args;
use serde_json::json;

use self::changes::{Change, Content};
use self::git::Git;
use crate::error::{BadFile, Usage};
use crate::output::{json, print};
use crate::progress::note;
use crate::secrets;

/// Flags of `commit`.
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// The message
    message: String,
    /// Push to the remote of this branch afterwards
    #[arg(long)]
    push: bool,
    /// Show what would be committed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Shows the changes, stages them, looks at what is staged and commits it.
pub fn run(args: &CommitArgs) -> anyhow::Result<()> {
    if args.message.trim().is_empty() {
        return Err(Usage("the message is empty".into()).into());
    }
    let git = Git::here()?;
    let results = Path::new("results");
    if git.root().join(results).is_symlink() {
        let reason = "this is a link, and git follows none: the records in it would be committed as removed (make it a \
                      folder; `muon setup --drive-path` keeps what is large elsewhere)";
        return Err(bad(results, reason).into());
    }
    let (mut add, mut left_out) = (Vec::new(), Vec::new());
    for change in git.changes()? {
        if change.is_unmerged() {
            return Err(bad(&change.path, "a merge left it in conflict: resolve that first").into());
        }
        match change.refused(git.root()) {
            None => add.push(change),
            Some(why) if change.is_known() => {
                let reason = format!("{why}, and git knows it already: `git rm --cached` it, or unstage it");
                return Err(bad(&change.path, &reason).into());
            }
            Some(why) => left_out.push((change, why)),
        }
    }
    for change in &add {
        without_secrets(&change.path, &Content::in_folder(git.root(), change)?)?;
    }
    let done = !args.dry_run && !add.is_empty();
    if !json() {
        tell(&add, &left_out)?;
    }
    if done {
        git.stage(&add)?;
        for (path, content) in git.staged()? {
            // A filter, or someone meanwhile, may have put there what was not in the file.
            without_secrets(&path, &content)?;
        }
        git.commit(&args.message, json())?;
    }
    if json() {
        let path = |change: &Change| change.path.to_string_lossy().into_owned();
        let files: Vec<_> = add.iter().map(|of| json!({ "status": of.status, "path": path(of) })).collect();
        let left: Vec<_> = left_out.iter().map(|(of, why)| json!({ "path": path(of), "why": why })).collect();
        let revision = if done { git.revision()? } else { None };
        let all = json!({ "files": files, "left_out": left, "revision": revision });
        print(&serde_json::to_string_pretty(&all)?)?;
    }
    if args.push && !args.dry_run { git.push() } else { Ok(()) }
}

/// Lists what is committed and what is not.
fn tell(add: &[Change], left_out: &[(Change, &str)]) -> anyhow::Result<()> {
    for change in add {
        print(&format!("{} {}", change.status, shown(&change.path)))?;
    }
    for (change, why) in left_out {
        print(&format!("left out: {} ({why})", shown(&change.path)))?;
    }
    if add.is_empty() {
        note("nothing to commit");
    }
    Ok(())
}

/// Refuses a file with a secret in its content or its name.
fn without_secrets(path: &Path, content: &Content) -> Result<(), BadFile> {
    let name = path.as_os_str().as_encoded_bytes();
    match secrets::in_bytes(&content.0).or_else(|| secrets::in_bytes(name)) {
        Some(secret) => Err(bad(path, &format!("it contains the value of {secret}: nothing was committed"))),
        None => Ok(()),
    }
}

fn bad(path: &Path, reason: &str) -> BadFile {
    BadFile { path: shown(path).into(), reason: reason.to_owned() }
}

/// A path in one line.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}
