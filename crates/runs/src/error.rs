//! What can go wrong in the store. Each message is one line: the thing, what is wrong, the remedy.

use std::io;
use std::path::{Path, PathBuf};

use crate::Holder;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the run store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {doing}: {cause}{}", path.display(), remedy(cause))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as in "cannot ...".
        doing: &'static str,
        /// The reason given by the system.
        cause: io::Error,
    },
    /// There is no results folder to read.
    #[error("{}: no such results folder (the first run makes it; or name another one)", .0.display())]
    NoStore(PathBuf),
    /// A run name that cannot be a folder name.
    #[error("run name `{name}`: {why} (use letters, digits, `-`, `_` and `.`, or `auto`)")]
    Name {
        /// The name as given.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A run of that name exists.
    #[error("{}: this run exists already (choose another name, or `auto`)", .0.display())]
    Taken(PathBuf),
    /// No run of that name exists.
    #[error("{}: no run `{name}`; {}", store.display(), known(have))]
    NoRun {
        /// The results folder.
        store: PathBuf,
        /// The name asked for.
        name: String,
        /// The names it has.
        have: Vec<String>,
    },
    /// The beginning of more than one name.
    #[error("{}: `{name}` begins {} names: {} (write more of it)", store.display(), have.len(), some(have))]
    Ambiguous {
        /// The results folder.
        store: PathBuf,
        /// What was asked for.
        name: String,
        /// The names that begin so.
        have: Vec<String>,
    },
    /// A folder under results that is no run.
    #[error("{}: a run folder without metadata.json (remove it, or restore the file)", .0.display())]
    NoMetadata(PathBuf),
    /// A metadata file that does not parse.
    #[error("{}: not valid run metadata: {cause} (restore the file, or remove the run)", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        cause: serde_json::Error,
    },
    /// Metadata of a schema this program does not know.
    #[error("{}: schema {found}, but this program reads schema {known} (use a newer muon)", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// The schema number in it.
        found: u32,
        /// The schema number known here.
        known: u32,
    },
    /// A metrics file with a line that is wrong, and is not merely the torn end of a killed run.
    #[error("{}: line {line}: {what} (correct the line, or remove the file)", path.display())]
    Metrics {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A row that does not fit the metrics written so far.
    #[error("{}: step {step}: {what}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The step of the row refused.
        step: u64,
        /// What is wrong with it, and the remedy.
        what: String,
    },
    /// Another process writes this run.
    #[error("{}: {} writes this run already (wait for it, or stop it)", run.display(), held(holder.as_ref()))]
    Busy {
        /// The run's folder.
        run: PathBuf,
        /// Who, where it says so.
        holder: Option<Holder>,
    },
    /// A process on another host held this run and has not given it up.
    #[error("{}: held by {holder} (if that is gone, remove this file)", lock.display())]
    Foreign {
        /// The lock file.
        lock: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// A checkpoint that is not what was written.
    #[error("{}: damaged checkpoint: {what} (remove its folder)", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The drive is not there, or has what must not be written over.
    #[error("{}: {what}", path.display())]
    Drive {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        what: String,
    },
    /// A path that is not a plain file name below the run folder, or that the store writes itself.
    #[error(
        "`{0}`: not a file a run may write (give a relative path without `..` that the store does not keep itself)"
    )]
    Path(String),
}

impl Error {
    /// An adapter for `map_err`.
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { path, doing, cause }
    }
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (make the results folder writable, or choose another one)"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => " (free some disk space)",
        io::ErrorKind::NotFound => " (make the folder above it, or choose another results folder)",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            " (a file stands where a folder is needed: move it, or choose another results folder)"
        }
        _ => " (choose another results folder)",
    }
}

/// "a, b, ..." with at most the first four names.
fn some(have: &[String]) -> String {
    const SHOWN: usize = 4;
    let more = if have.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", have[..have.len().min(SHOWN)].join(", "))
}

fn held(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another process".to_owned(), Holder::to_string)
}

/// "it has: a, b" with at most the last eight names.
fn known(have: &[String]) -> String {
    const SHOWN: usize = 8;
    if have.is_empty() {
        return "it has no runs yet".to_owned();
    }
    let skipped = have.len().saturating_sub(SHOWN);
    let names = have[skipped..].join(", ");
    if skipped == 0 { format!("it has: {names}") } else { format!("it has {skipped} others and: {names}") }
}
