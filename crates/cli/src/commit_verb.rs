//! `muon commit`: code and the records of runs into git, never weights, data or secrets. Git itself does the work, so its
//! hooks run.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;

use crate::error::{BadFile, Usage};
use crate::output::print;

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

/// Endings of files that hold weights or data.
const HEAVY: [&str; 11] =
    ["safetensors", "bin", "pt", "pth", "ckpt", "gguf", "onnx", "npz", "npy", "parquet", "cubin"];
/// Files beyond so many bytes are left out.
const LARGEST: u64 = 10 << 20;
/// Values of `secrets/.env` shorter than this are looked for nowhere: they are in every text.
const SECRET: usize = 8;

/// Shows the changes, stages them and commits.
pub fn run(args: &CommitArgs) -> anyhow::Result<()> {
    if args.message.trim().is_empty() {
        return Err(Usage("the message is empty".into()).into());
    }
    let root = root()?;
    let (mut add, mut left_out) = (Vec::new(), Vec::new());
    for change in changes(&root)? {
        match refused(&root, &change.path) {
            None => add.push(change),
            Some(why) if change.known => {
                let reason = format!("{why}, and git knows it already: `git rm --cached` it, or unstage it");
                return Err(BadFile { path: change.path, reason }.into());
            }
            Some(why) => left_out.push(format!("left out: {} ({why})", change.path.display())),
        }
    }
    let secrets = secrets(&root)?;
    for change in &add {
        // What is gone, or no file, holds nothing.
        let text = fs::read(root.join(&change.path)).unwrap_or_default();
        let found = secrets.iter().find(|(_, value)| contains(&text, value.as_bytes()));
        if let Some((name, _)) = found {
            let reason = format!("it contains the value of {name} of secrets/.env");
            return Err(BadFile { path: change.path.clone(), reason }.into());
        }
    }
    let taken = add.iter().map(|change| format!("{} {}", change.status, change.path.display()));
    for line in taken.chain(left_out) {
        print(&line)?;
    }
    if args.dry_run {
        return Ok(());
    }
    if add.is_empty() {
        print("nothing to commit")?;
    } else {
        stage(&root, &add)?;
        git(&root, &["commit", "-m", &args.message])?;
    }
    if args.push { git(&root, &["push"]) } else { Ok(()) }
}

/// A path that differs from the last commit.
struct Change {
    /// The two letters of `git status --short`.
    status: String,
    path: PathBuf,
    /// Whether it is tracked or staged.
    known: bool,
}

/// Why a path is not committed.
fn refused(root: &Path, path: &Path) -> Option<&'static str> {
    let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let ending = path.extension().map_or(String::new(), |ending| ending.to_string_lossy().to_lowercase());
    if path.components().any(|part| part.as_os_str() == "secrets")
        || name == ".env"
        || name.starts_with(".env.")
    {
        return Some("a secret");
    }
    if HEAVY.contains(&ending.as_str()) {
        return Some("weights or data");
    }
    if path.starts_with("results") && name != "metadata.json" {
        return Some("of a run only metadata.json is kept");
    }
    let bytes = fs::symlink_metadata(root.join(path)).map_or(0, |file| file.len());
    (bytes > LARGEST).then_some("larger than 10 MiB")
}

/// Names and values of `secrets/.env`, where there is one.
fn secrets(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let path = root.join("secrets/.env");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(BadFile { path, reason: error.to_string() }.into()),
    };
    let pair = |line: &str| {
        let (name, value) = line.trim().trim_start_matches("export ").split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        (!name.starts_with('#') && value.len() >= SECRET).then(|| (name.trim().to_owned(), value.to_owned()))
    };
    Ok(text.lines().filter_map(pair).collect())
}

fn contains(text: &[u8], value: &[u8]) -> bool {
    text.windows(value.len()).any(|part| part == value)
}

/// The folder of the repository that holds this one.
fn root() -> anyhow::Result<PathBuf> {
    let output = Command::new("git")
        .args(["rev-parse", "--show-toplevel"])
        .output()
        .context("git does not run; is it installed?")?;
    if !output.status.success() {
        return Err(Usage("this folder is in no git repository; `git init` makes one".into()).into());
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n')))
}

fn changes(root: &Path) -> anyhow::Result<Vec<Change>> {
    let output = Command::new("git")
        .args(["status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames"])
        .current_dir(root)
        .output()
        .context("git does not run")?;
    if !output.status.success() {
        bail!("git status failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).context("a changed file has a name that is not UTF-8")?;
    let change = |line: &str| {
        let (status, path) = line.split_at(2);
        Change { status: status.into(), path: path[1..].into(), known: status != "??" }
    };
    Ok(text.split('\0').filter(|line| line.len() > 3).map(change).collect())
}

/// Stages exactly these paths.
fn stage(root: &Path, add: &[Change]) -> anyhow::Result<()> {
    let mut child = Command::new("git")
        .args(["add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul"])
        .env("GIT_LITERAL_PATHSPECS", "1")
        .current_dir(root)
        .stdin(Stdio::piped())
        .spawn()
        .context("git does not run")?;
    let paths: Vec<String> = add.iter().map(|change| change.path.display().to_string()).collect();
    child.stdin.take().expect("it is piped").write_all(paths.join("\0").as_bytes())?;
    if !child.wait()?.success() {
        bail!("git add failed, see above; nothing was committed");
    }
    Ok(())
}

/// Runs git with the terminal's input and output.
fn git(root: &Path, args: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("git").args(args).current_dir(root).status().context("git does not run")?;
    if status.success() { Ok(()) } else { bail!("git {} failed, see above", args[0]) }
}
