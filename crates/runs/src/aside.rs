//! Hidden folders beside the runs: where one is put together before it appears, and where one goes to be removed.
//!
//! A process keeps its folder locked by the system for as long as it works in it, and names its host in it. What a killed
//! process left is not locked any more, and the next writer on that host removes it ([`sweep`]). Where the system has no
//! locks nothing is swept.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tempfile::{Builder, TempDir};

use crate::{lock, name};

/// What a folder is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Use {
    /// A run is put together in it.
    New,
    /// A run is removed in it.
    Removed,
}

/// A hidden folder of this process, removed with all in it when dropped.
#[derive(Debug)]
pub(crate) struct Aside {
    // Goes before its lock.
    dir: TempDir,
    _lock: File,
}

impl Aside {
    /// Makes one in `root`.
    pub(crate) fn make(root: &Path, what: Use) -> io::Result<Self> {
        loop {
            let dir = Builder::new().prefix(&prefix(what)).tempdir_in(root)?;
            // A sweeper may have come between: then the folder is gone, or goes while the lock is waited for.
            let lock = match File::open(dir.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            // Where the system has no locks there is no sweeper either.
            let _ = lock.lock();
            if fs::metadata(dir.path())
                .is_ok_and(|here| lock.metadata().is_ok_and(|own| own.ino() == here.ino()))
            {
                return Ok(Self { dir, _lock: lock });
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Removes it with all in it, and tells if that fails.
    pub(crate) fn close(self) -> io::Result<()> {
        self.dir.close()
    }
}

/// Removes what killed processes of this host left in `root`. What cannot be removed stays for the next one.
pub(crate) fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    let prefixes = [Use::New, Use::Removed].map(prefix);
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else { continue };
        if folder.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn prefix(what: Use) -> String {
    let what = match what {
        Use::New => "new",
        Use::Removed => "removed",
    };
    format!(".{what}-{}-", name::cleaned(&lock::host()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let names = fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn what_is_left_is_swept_and_what_is_in_use_or_of_another_host_is_not() {
        let root = tempfile::tempdir().unwrap();
        for what in [Use::New, Use::Removed] {
            let left = root.path().join(format!("{}left", prefix(what)));
            fs::create_dir_all(left.join("run")).unwrap();
            fs::write(left.join("run/file"), "content").unwrap();
            let used = Aside::make(root.path(), what).unwrap();
            fs::write(used.path().join("file"), "content").unwrap();
            let other = root.path().join(".new-elsewhere.invalid-abc");
            fs::create_dir_all(&other).unwrap();
            fs::create_dir_all(root.path().join("a-run")).unwrap();
            sweep(root.path());
            assert!(used.path().join("file").exists() && other.exists() && !left.exists());
            let path = used.path().to_owned();
            used.close().unwrap();
            assert!(!path.exists());
        }
        assert_eq!(names(root.path()).len(), 2);
    }

    /// Makers and sweepers at the same time: no maker ever loses its folder.
    #[test]
    fn a_folder_in_the_making_is_never_swept_away() {
        let root = tempfile::tempdir().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    sweep(root.path());
                }
            });
            for _ in 0..300 {
                let made = Aside::make(root.path(), Use::New).unwrap();
                fs::write(made.path().join("file"), "content").unwrap();
                made.close().unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            sweeper.join().unwrap();
        });
        assert!(names(root.path()).is_empty());
    }
}
