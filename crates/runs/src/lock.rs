//! One writer a run: the file `lock` in its folder, locked by the system for as long as the process lives.
//!
//! The file tells who holds it (pid and host), and is emptied when the holder is done. A killed holder leaves its text behind
//! but not the lock: on its own host the next one takes over and says so. On another host, where the system's lock may not
//! reach (folders kept in step by a service), the text alone counts and the run is refused.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

pub(crate) const FILE: &str = "lock";
/// How often, and after what pauses, a lock is tried for.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);
/// No holder's text is longer; what follows is not read.
const LONGEST: u64 = 4096;

/// Who holds a run, or held it when it was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// The host that the process runs on.
    pub host: String,
}

/// The lock of one run, given back when dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock of the run folder `run`, or tells who has it. The holder given back was killed without giving it up.
    pub(crate) fn take(run: &Path) -> Result<(Self, Option<Holder>)> {
        let path = run.join(FILE);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(Error::io(&path, "open it"))?;
        let free = locked(&file).map_err(Error::io(&path, "lock it"))?;
        let holder = holder(&file).map_err(Error::io(&path, "read it"))?;
        let me = Holder { pid: process::id(), host: host() };
        match holder {
            _ if !free => Err(Error::Busy { run: run.to_owned(), holder }),
            Some(other) if other.host != me.host => Err(Error::Foreign { lock: path, holder: other }),
            stale => {
                write(&mut file, &me).map_err(Error::io(&path, "write it"))?;
                Ok((Self(file), stale))
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Emptied and not removed: a lock on a file that has lost its name would be no lock. If it cannot be emptied, the
        // next one takes it over as from a killed process.
        let _ = self.0.set_len(0);
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// Whether the lock was free. A reader that asks who writes the run holds it for a moment, which is waited for.
fn locked(file: &File) -> std::io::Result<bool> {
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

/// Who the file tells of. What another host's service left half-way, or anything else, names no one.
pub(crate) fn holder(file: &File) -> std::io::Result<Option<Holder>> {
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).ok())
}

fn write(file: &mut File, me: &Holder) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(serde_json::to_string(me)?.as_bytes())
}

/// The name of this host.
pub(crate) fn host() -> String {
    let kernel = PathBuf::from("/proc/sys/kernel/hostname");
    let told = fs::read_to_string(kernel).ok().or_else(|| {
        let output = Command::new("uname").arg("-n").output().ok()?;
        String::from_utf8(output.stdout).ok()
    });
    told.map_or_else(|| "this host".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_a_killed_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, before) = Lock::take(folder.path()).unwrap();
        assert_eq!(before, None);
        let busy = Lock::take(folder.path()).unwrap_err().to_string();
        assert!(busy.contains(&format!("process {}", process::id())), "{busy}");
        drop(lock);
        let killed = Holder { pid: 4_000_000, host: host() };
        fs::write(folder.path().join(FILE), serde_json::to_string(&killed).unwrap()).unwrap();
        let (lock, before) = Lock::take(folder.path()).unwrap();
        assert_eq!(before, Some(killed));
        drop(lock);
        assert_eq!(Lock::take(folder.path()).unwrap().1, None);
    }

    #[test]
    fn the_lock_of_another_host_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"pid": 1, "host": "elsewhere.invalid"}"#;
        fs::write(folder.path().join(FILE), text).unwrap();
        assert!(matches!(Lock::take(folder.path()), Err(Error::Foreign { .. })));
        assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), text);
    }
}
