//! What differs from the last commit, and what of it is not committed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::error::BadFile;

/// Endings of files that hold weights or data.
const HEAVY: [&str; 11] =
    ["safetensors", "bin", "pt", "pth", "ckpt", "gguf", "onnx", "npz", "npy", "parquet", "cubin"];
/// Files beyond so many bytes are left out.
pub const LARGEST: u64 = 10 << 20;

/// A path that differs from the last commit.
#[derive(Debug)]
pub struct Change {
    /// The two letters of `git status --short`: of the index, and of the folder.
    pub status: String,
    /// Relative to the root of the repository.
    pub path: PathBuf,
}

/// What git would store of a path.
pub struct Content(pub Vec<u8>);

impl Change {
    /// The changes in what `git status --porcelain=v1 -z --no-renames` prints.
    pub fn parse(output: &[u8]) -> Vec<Self> {
        let entries = output.split(|&byte| byte == 0).filter(|entry| entry.len() > 3);
        let change = |entry: &[u8]| Change {
            status: String::from_utf8_lossy(&entry[..2]).into_owned(),
            path: OsStr::from_bytes(&entry[3..]).into(),
        };
        entries.map(change).collect()
    }

    /// Whether it is tracked or staged.
    pub fn is_known(&self) -> bool {
        self.status != "??"
    }

    /// Whether a merge left it in conflict.
    pub fn is_unmerged(&self) -> bool {
        self.status.contains('U') || self.status == "AA" || self.status == "DD"
    }

    /// Whether the folder has it otherwise than the index.
    pub fn is_unstaged(&self) -> bool {
        !self.status.ends_with(' ')
    }

    /// Whether the commit takes it away.
    fn is_removal(&self) -> bool {
        self.status.ends_with('D') || self.status == "D "
    }

    /// Why it is not committed.
    pub fn refused(&self, root: &Path) -> Option<&'static str> {
        if self.is_removal() {
            return None;
        }
        if self.path.as_os_str().as_bytes().ends_with(b"/") {
            return Some("a repository of its own");
        }
        let bytes = fs::symlink_metadata(root.join(&self.path)).map_or(0, |file| file.len());
        refused(&self.path, bytes)
    }
}

/// Why a file of that path and size is not committed.
pub fn refused(path: &Path, bytes: u64) -> Option<&'static str> {
    let lower = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().to_lowercase();
    let (name, ending) = (lower(path.file_name()), lower(path.extension()));
    if path.components().any(|part| part.as_os_str().eq_ignore_ascii_case("secrets"))
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
    (bytes > LARGEST).then_some("larger than 10 MiB")
}

impl Content {
    /// Of a changed path in the folder: a link's is where it leads; what is gone, or a repository of its own, has none.
    pub fn in_folder(root: &Path, change: &Change) -> Result<Self, BadFile> {
        let path = root.join(&change.path);
        let read = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => fs::read_link(&path).map(|to| to.into_os_string().into_vec()),
            Ok(found) if found.is_file() => fs::read(&path),
            _ => Ok(Vec::new()),
        };
        read.map(Content).map_err(|error| BadFile {
            path: change.path.clone(),
            reason: format!("cannot read it: {error}"),
        })
    }
}
