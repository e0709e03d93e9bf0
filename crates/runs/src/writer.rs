//! Whether a process writes a run: asked of the file `lock`, which a writer keeps locked while it lives.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::lock;
use crate::{Error, Result, RunInfo, State};

/// Who writes a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A process that lives.
    Alive,
    /// No one: it ended, or died.
    Gone,
    /// It cannot be known: the run has no lock, or a process of another host left its name in it.
    Unknown,
}

impl RunInfo {
    /// Who writes the run now.
    pub fn writer(&self) -> Result<Writer> {
        let path = self.dir.join(lock::FILE);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Writer::Unknown),
            other => other.map_err(Error::io(&path, "open it"))?,
        };
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Writer::Alive),
            Err(TryLockError::Error(error)) => return Err(Error::io(&path, "ask who has it locked")(error)),
        }
        let holder = lock::holder(&file).map_err(Error::io(&path, "read it"))?;
        let elsewhere = holder.is_some_and(|holder| holder.host != lock::host());
        Ok(if elsewhere { Writer::Unknown } else { Writer::Gone })
    }

    /// The process that writes the run now, where it can be told: it runs on this host and has the lock open, so it is no other
    /// one that was given its number since.
    pub fn process(&self) -> Result<Option<u32>> {
        let path = self.dir.join(lock::FILE);
        if self.writer()? != Writer::Alive {
            return Ok(None);
        }
        let holder =
            File::open(&path).and_then(|file| lock::holder(&file)).map_err(Error::io(&path, "read it"))?;
        let here = holder.filter(|holder| holder.host == lock::host() && has_open(holder.pid, &path));
        Ok(here.map(|holder| holder.pid))
    }

    /// Whether the record says that the run goes on though its process is known to be gone.
    pub fn died(&self) -> Result<bool> {
        Ok(self.metadata.state == State::Running && self.writer()? == Writer::Gone)
    }
}

/// Whether the process has the file open, as far as the system tells; where it tells nothing of any process, the lock
/// has to do.
fn has_open(pid: u32, path: &Path) -> bool {
    let open = |pid: &str| fs::read_dir(format!("/proc/{pid}/fd"));
    if open("self").is_err() {
        return true;
    }
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let Ok(file) = fs::metadata(path) else { return false };
    open(&pid.to_string()).is_ok_and(|files| {
        files.flatten().any(|open| fs::metadata(open.path()).is_ok_and(|open| same(&open, &file)))
    })
}
