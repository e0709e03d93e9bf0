//! Which state of the sources a run came from.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// A state of a git working tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Git {
    /// The full hash of the commit checked out.
    pub revision: String,
    /// Whether a tracked file differs from that commit.
    pub dirty: bool,
}

impl Git {
    /// The state of the working tree that holds `folder`; `None` without git, repository or commit.
    #[must_use]
    pub fn at(folder: &Path) -> Option<Self> {
        let revision = git(folder, &["rev-parse", "--verify", "HEAD"])?.trim().to_owned();
        let dirty = !git(folder, &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        Some(Self { revision, dirty })
    }
}

/// What git prints, or `None` where it cannot run or fails. Inside a git hook the environment points at another
/// repository's index: it is taken out, the folder alone counts. No lock is taken.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: [&str; 6] =
        ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];

    #[test]
    fn revision_and_dirtiness() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        assert_eq!(Git::at(at), None, "no repository");
        git(at, &["init", "-q"]).expect("these tests need git");
        assert_eq!(Git::at(at), None, "no commit");
        std::fs::write(at.join("a"), "1").unwrap();
        git(at, &["add", "a"]).unwrap();
        git(at, &[&WHO[..], &["-c", "core.hooksPath=/nonexistent", "commit", "-qm", "a"]].concat()).unwrap();
        let clean = Git::at(at).unwrap();
        assert_eq!((clean.revision.len(), clean.dirty), (40, false));
        std::fs::write(at.join("untracked"), "").unwrap();
        assert_eq!(Git::at(at).unwrap(), clean, "untracked files do not count");
        std::fs::write(at.join("a"), "22").unwrap();
        assert!(Git::at(at).unwrap().dirty);
    }
}
