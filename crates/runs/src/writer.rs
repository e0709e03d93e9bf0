//! Whether a process writes a run: asked of the file `lock`, which a writer keeps locked while it lives.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;

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

    /// Whether the record says that the run goes on though its process is known to be gone.
    pub fn died(&self) -> Result<bool> {
        Ok(self.metadata.state == State::Running && self.writer()? == Writer::Gone)
    }
}
