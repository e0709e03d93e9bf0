//! What is asked of git.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::bad;
use super::changes::{self, Change, Content};
use crate::error::Usage;

/// The repository around this folder.
pub struct Git {
    root: PathBuf,
}

impl Git {
    /// Finds it.
    pub fn here() -> anyhow::Result<Self> {
        let output = Command::new("git")
            .args(["rev-parse", "--show-toplevel"])
            .output()
            .context("git does not run; is it installed?")?;
        if !output.status.success() {
            return Err(Usage("this folder is in no git repository; `git init` makes one".into()).into());
        }
        let mut root = output.stdout;
        root.pop_if(|last| *last == b'\n');
        Ok(Git { root: std::ffi::OsString::from_vec(root).into() })
    }

    /// The folder of the repository.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All that differs from the last commit. Of a submodule, another commit counts, and what lies about in it does not.
    pub fn changes(&self) -> anyhow::Result<Vec<Change>> {
        let untracked = "--untracked-files=all";
        let submodules = "--ignore-submodules=dirty";
        let output = self.ask(&["status", "--porcelain=v1", "-z", untracked, "--no-renames", submodules])?;
        Ok(Change::parse(&output))
    }

    /// Stages these paths, and no others.
    pub fn stage(&self, add: &[Change]) -> anyhow::Result<()> {
        let mut child = self
            .command(&["add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul"])
            .env("GIT_LITERAL_PATHSPECS", "1")
            .stdin(Stdio::piped())
            .spawn()
            .context("git does not run")?;
        let mut paths = Vec::new();
        for change in add.iter().filter(|change| change.is_unstaged()) {
            paths.extend_from_slice(change.path.as_os_str().as_bytes());
            paths.push(0);
        }
        child.stdin.take().expect("it is piped").write_all(&paths)?;
        if !child.wait()?.success() {
            bail!("git add failed, see above; nothing was committed");
        }
        Ok(())
    }

    /// The content of all that the next commit changes, as git has it; what must not be committed is refused.
    pub fn staged(&self) -> anyhow::Result<Vec<(PathBuf, Content)>> {
        let output = self.ask(&["diff", "--cached", "--raw", "-z", "--no-renames", "--no-abbrev"])?;
        let mut parts = output.split(|&byte| byte == 0);
        let mut blobs = Vec::new();
        while let (Some(head), Some(path)) = (parts.next(), parts.next()) {
            // :old-mode new-mode old-id new-id status
            let head = String::from_utf8_lossy(head).into_owned();
            let fields: Vec<&str> = head.split(' ').collect();
            let &[_, mode, _, id, status] = fields.as_slice() else { bail!("git diff says `{head}`") };
            // A removal has no content, and a submodule none of its own.
            if status != "D" && mode != "160000" {
                blobs.push((PathBuf::from(OsStr::from_bytes(path)), id.to_owned()));
            }
        }
        self.contents(blobs)
    }

    /// The content of these blobs.
    fn contents(&self, blobs: Vec<(PathBuf, String)>) -> anyhow::Result<Vec<(PathBuf, Content)>> {
        let mut child = self
            .command(&["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("git does not run")?;
        let mut ids = child.stdin.take().expect("it is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut contents = Vec::new();
        for (path, id) in blobs {
            writeln!(ids, "{id}")?;
            let mut head = String::new();
            answers.read_line(&mut head)?;
            let size = head.split_whitespace().nth(2).and_then(|size| size.parse::<u64>().ok());
            let size = size.with_context(|| format!("git cat-file says `{}`", head.trim()))?;
            if let Some(why) = changes::refused(&path, size) {
                drop(ids);
                let reason = format!("{why}, and it is staged: nothing was committed (unstage it)");
                return Err(bad(&path, &reason).into());
            }
            let mut content = vec![0; size as usize + 1];
            answers.read_exact(&mut content)?;
            content.pop();
            contents.push((path, Content(content)));
        }
        drop(ids);
        child.wait()?;
        Ok(contents)
    }

    /// Commits what is staged; its hooks run.
    pub fn commit(&self, message: &str, quiet: bool) -> anyhow::Result<()> {
        let quiet: &[&str] = if quiet { &["--quiet"] } else { &[] };
        self.run(&[&["commit", "-m", message], quiet].concat())
    }

    /// Pushes this branch.
    pub fn push(&self) -> anyhow::Result<()> {
        self.run(&["push"])
    }

    /// The last commit.
    pub fn revision(&self) -> anyhow::Result<Option<String>> {
        Ok(Some(String::from_utf8_lossy(&self.ask(&["rev-parse", "HEAD"])?).trim().to_owned()))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.args(args).current_dir(&self.root);
        command
    }

    /// What git prints.
    fn ask(&self, args: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = self.command(args).output().context("git does not run")?;
        if !output.status.success() {
            bail!("git {} failed: {}", args[0], String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }

    /// Runs git with the terminal's input and output.
    fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        let status = self.command(args).status().context("git does not run")?;
        if status.success() { Ok(()) } else { bail!("git {} failed, see above", args[0]) }
    }
}
