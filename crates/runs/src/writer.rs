//! Whether a process writes a run: asked of the file `lock`, which a writer keeps locked while it lives.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;

use crate::{Error, Result, RunInfo, State, lock};

/// Who writes a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A process that lives.
    Alive,
    /// No one: it ended, or died.
    Gone,
    /// It cannot be known: the run has no lock.
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
            Ok(()) => Ok(Writer::Gone),
            Err(TryLockError::WouldBlock) => Ok(Writer::Alive),
            Err(TryLockError::Error(error)) => Err(Error::io(&path, "ask who has it locked")(error)),
        }
    }

    /// Whether the record says that the run goes on though its process is known to be gone.
    pub fn died(&self) -> Result<bool> {
        Ok(self.metadata.state == State::Running && self.writer()? == Writer::Gone)
    }
}
