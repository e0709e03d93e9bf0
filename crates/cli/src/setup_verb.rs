//! `muon setup`: a file for secrets that no one else can read, and what is large of the runs in a synced folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use data::Progress as _;
use report::format;
use runs::Moves;
use serde_json::{Value, json};

use crate::error::BadFile;
use crate::output::{columns, json, print};
use crate::progress::{Reading, note};
use crate::secrets;
use crate::store_args::StoreArgs;

/// What the file for secrets begins as.
const TEMPLATE: &str = "\
# Secrets of this project, one NAME=VALUE a line. A variable of the environment goes before the line of its name.
# muon masks these values in all it prints, refuses commands and recipes that contain one, and commits no file that does
# (values of 8 bytes or more). Keep this file to yourself: chmod 600.
#
# HF_TOKEN=
# WANDB_API_KEY=
";

/// Flags of `setup`.
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// Keep the models and checkpoints of all runs in this folder, which must be there, and copies of their small files
    #[arg(long, value_name = "DIR")]
    drive_path: Option<PathBuf>,
    /// Bring everything back from the drive, and forget it; the file for secrets stays
    #[arg(long, conflicts_with = "drive_path")]
    undo: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What became of one part.
struct Part {
    what: &'static str,
    place: PathBuf,
    state: &'static str,
    told: String,
    rest: Vec<(&'static str, Value)>,
}

/// Does each part that is not done yet.
pub fn run(args: &SetupArgs) -> anyhow::Result<()> {
    let mut parts = Vec::new();
    if !args.undo {
        parts.push(keep_secrets(args)?);
    }
    parts.extend(drive(args)?);
    if json() {
        let entry = |part: &Part| {
            let mut value = json!({ "path": part.place, "state": part.state });
            part.rest.iter().for_each(|(key, rest)| value[key] = rest.clone());
            (part.what.to_owned(), value)
        };
        let all: serde_json::Map<String, Value> = parts.iter().map(entry).collect();
        return Ok(print(&serde_json::to_string_pretty(&all)?)?);
    }
    let row = |part: &Part| [part.what.to_owned(), part.place.display().to_string(), part.told.clone()];
    Ok(print(&columns(&parts.iter().map(row).collect::<Vec<_>>()))?)
}

/// Makes the file for secrets, if there is none, and has git ignore it.
fn keep_secrets(args: &SetupArgs) -> anyhow::Result<Part> {
    let path = secrets::project().join(secrets::FILE);
    let part = |state, told: &str| Part {
        what: "secrets",
        place: path.clone(),
        state,
        told: told.to_owned(),
        rest: Vec::new(),
    };
    if path.symlink_metadata().is_ok() {
        warn_if_known(&path);
        return Ok(part("there", "there already"));
    }
    if args.dry_run {
        return Ok(part("missing", "would be made"));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    // The folder ignores itself, whatever the repository around it ignores.
    let ignored = made.and_then(|()| new(&folder.join(".gitignore"), 0o644, "*\n"));
    let written = ignored.and_then(|()| new(&path, 0o600, TEMPLATE));
    written.map_err(|error| BadFile { path: path.clone(), reason: format!("cannot make it: {error}") })?;
    warn_if_known(&path);
    Ok(part("made", "made, for your eyes only; git ignores it"))
}

/// Writes a file that is not there; one that is stays.
fn new(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let file: std::io::Result<File> = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    match file {
        Ok(mut file) => file.write_all(text.as_bytes()).and_then(|()| file.sync_all()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Warns where git tracks the file: ignoring does not help then.
fn warn_if_known(path: &Path) {
    let known = Command::new("git")
        .args(["ls-files", "--error-unmatch", secrets::FILE])
        .current_dir(secrets::project())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if known.is_ok_and(|status| status.success()) {
        note(&format!(
            "warning: git knows {}: `git rm --cached` it, and change the secrets in it",
            path.display()
        ));
    }
}

/// Moves runs to the drive or back; nothing to tell where no drive is asked for and there is none.
fn drive(args: &SetupArgs) -> anyhow::Result<Option<Part>> {
    let store = args.store.store();
    let Some(path) = &args.drive_path else {
        if !args.undo {
            return Ok(store.drive()?.map(|drive| nothing(&drive, "on", "there already")));
        }
        return match store.plan_detach()? {
            Some(moves) => moved(args, &moves, ["off", "would be brought back", "brought back"]).map(Some),
            None => Ok(Some(nothing(store.root(), "off", "there is no drive"))),
        };
    };
    let moves = store.plan_attach(path)?;
    if moves.linked()? && moves.runs().next().is_none() {
        return Ok(Some(nothing(moves.drive(), "on", "there already")));
    }
    moved(args, &moves, ["on", "would be moved", "moved"]).map(Some)
}

fn nothing(drive: &Path, state: &'static str, told: &str) -> Part {
    let rest = vec![("runs", json!([])), ("bytes", json!(0))];
    Part { what: "drive", place: drive.to_owned(), state, told: told.to_owned(), rest }
}

/// Carries a plan out, and tells it.
fn moved(args: &SetupArgs, moves: &Moves, [state, would, done]: [&'static str; 3]) -> anyhow::Result<Part> {
    for left in &moves.left {
        note(&format!("warning: left where it is: {left}"));
    }
    let names: Vec<&str> = moves.runs().map(|(name, _)| name).collect();
    if !args.dry_run {
        let bar = Reading::default();
        bar.begin("moving the runs", Some(moves.bytes()));
        moves.execute(&mut |bytes| bar.advance(bytes))?;
        bar.end();
        // What is no copy of a run's file stays there.
        for kept in
            names.iter().map(|name| moves.drive().join(name)).filter(|kept| args.undo && kept.exists())
        {
            note(&format!(
                "warning: {} has files that the run has not, or otherwise: they stay",
                kept.display()
            ));
        }
    }
    let verb = if args.dry_run { would } else { done };
    let runs = if names.len() == 1 { "run" } else { "runs" };
    Ok(Part {
        what: "drive",
        place: moves.drive().to_owned(),
        state: if args.dry_run { would } else { state },
        told: format!("{} {runs} {verb}, {}", names.len(), format::bytes(moves.bytes())),
        rest: vec![
            ("runs", moves.runs().map(|(name, bytes)| json!({ "name": name, "bytes": bytes })).collect()),
            ("bytes", json!(moves.bytes())),
        ],
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_new_file_is_its_owners_alone_and_an_old_one_stays() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        new(&path, 0o600, "first").expect("a file");
        new(&path, 0o644, "second").expect("nothing to do");
        assert_eq!(fs::read_to_string(&path).expect("text"), "first");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }
}
