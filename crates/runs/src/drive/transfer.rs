//! Moving one folder, also from one file system to another.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use blake3::{Hash, Hasher};

use super::{COPY, refused};
use crate::{Error, Result};

/// Bytes copied at once.
const BLOCK: usize = 1 << 20;

/// Moves the folder `from` to `to`, where at most a link is. Across file systems it is copied under a hidden name, read
/// back and compared, synced, put in its place, and only then removed where it was.
pub(super) fn over(from: &Path, to: &Path, moved: &mut dyn FnMut(u64)) -> Result<()> {
    let parent = to.parent().unwrap_or(Path::new(""));
    if device(from)? == device(parent)? {
        let bytes = bytes(from)?;
        unlink(to)?;
        match fs::rename(from, to) {
            Ok(()) => {
                moved(bytes);
                return sync(parent);
            }
            // Two mounts of one device.
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {}
            Err(error) => return Err(Error::io(from, "move it")(error)),
        }
    }
    let copy = parent.join(hidden(to));
    if let Err(error) = copied(from, &copy, moved) {
        // What cannot be removed now, the next move removes.
        let _ = fs::remove_dir_all(&copy);
        return Err(error);
    }
    unlink(to)?;
    fs::rename(&copy, to).map_err(Error::io(to, "put it in its place"))?;
    sync(parent)?;
    remove(from)
}

/// Removes a folder that is somewhere else too: first its name, so that no half of it is ever taken for the whole.
pub(super) fn remove(folder: &Path) -> Result<()> {
    let aside = folder.with_file_name(hidden(folder));
    fs::rename(folder, &aside).map_err(Error::io(folder, "remove it"))?;
    fs::remove_dir_all(&aside).map_err(Error::io(&aside, "remove it"))
}

/// Removes what an interrupted move left in a folder.
pub(super) fn sweep(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "list it"))? {
        let entry = entry.map_err(Error::io(folder, "list it"))?;
        if entry.file_name().to_string_lossy().starts_with(COPY) {
            fs::remove_dir_all(entry.path()).map_err(Error::io(&entry.path(), "remove it"))?;
        }
    }
    Ok(())
}

/// The bytes of all files below a folder.
pub(super) fn bytes(folder: &Path) -> Result<u64> {
    Ok(files(folder)?.iter().map(|(_, bytes)| bytes).sum())
}

/// Whether two folders have the same files with the same content.
pub(super) fn equal(a: &Path, b: &Path) -> Result<bool> {
    let names = files(a)?;
    if names != files(b)? {
        return Ok(false);
    }
    for (name, _) in names {
        if hash(&a.join(&name))? != hash(&b.join(&name))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Has a file or folder reach the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io(path, "write it to the disk"))
}

/// Copies a folder, every file read back.
fn copied(from: &Path, to: &Path, moved: &mut dyn FnMut(u64)) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::io(to, "create the folder"))?;
    for (name, _) in files(from)? {
        let (old, new) = (from.join(&name), to.join(&name));
        let folder = new.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(Error::io(folder, "create the folder"))?;
        let written = copied_file(&old, &new, moved)?;
        if hash(&new)? != written {
            return Err(refused(&new, "it reads back otherwise than it was written (check that disk)"));
        }
        sync(folder)?;
    }
    sync(to)
}

/// Copies a file and gives the hash of what was read.
fn copied_file(from: &Path, to: &Path, moved: &mut dyn FnMut(u64)) -> Result<Hash> {
    let mut source = File::open(from).map_err(Error::io(from, "read it"))?;
    let mut target = File::create_new(to).map_err(Error::io(to, "create it"))?;
    let (mut hasher, mut block) = (Hasher::new(), vec![0; BLOCK]);
    loop {
        let count = match source.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io(from, "read it")(error)),
        };
        hasher.update(&block[..count]);
        target.write_all(&block[..count]).map_err(Error::io(to, "write it"))?;
        moved(count as u64);
    }
    target.sync_all().map_err(Error::io(to, "write it to the disk"))?;
    Ok(hasher.finalize())
}

fn hash(path: &Path) -> Result<Hash> {
    let mut hasher = Hasher::new();
    let read = File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    read.map_err(Error::io(path, "read it")).map(|()| hasher.finalize())
}

/// All files below a folder with their sizes, by path; what is neither file nor folder is refused.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let (mut all, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = folders.pop() {
        let at = folder.join(&below);
        for entry in fs::read_dir(&at).map_err(Error::io(&at, "list it"))? {
            let entry = entry.map_err(Error::io(&at, "list it"))?;
            let found = entry.metadata().map_err(Error::io(&entry.path(), "read its size"))?;
            let path = below.join(entry.file_name());
            if found.is_dir() {
                folders.push(path);
            } else if found.is_file() {
                all.push((path, found.len()));
            } else {
                return Err(refused(&entry.path(), "neither file nor folder (remove it)"));
            }
        }
    }
    all.sort();
    Ok(all)
}

/// Removes the link `path`, if there is one.
fn unlink(path: &Path) -> Result<()> {
    if path.is_symlink() { fs::remove_file(path).map_err(Error::io(path, "remove the link")) } else { Ok(()) }
}

/// The device that holds a file or folder.
fn device(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).map(|found| found.dev()).map_err(Error::io(path, "read it"))
}

/// The name of a folder while it is copied or removed.
fn hidden(folder: &Path) -> String {
    format!("{COPY}{}", super::name(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/large"), vec![7; 3 * BLOCK / 2]).unwrap();
        fs::write(from.join("a/empty"), "").unwrap();
        (folder, from, to)
    }

    #[test]
    fn a_copy_is_told_block_by_block_and_is_equal() {
        let (_folder, from, to) = tree();
        let mut moved = Vec::new();
        copied(&from, &to, &mut |bytes| moved.push(bytes)).unwrap();
        assert_eq!(moved, [BLOCK as u64, BLOCK as u64 / 2]);
        assert!(equal(&from, &to).unwrap());
        fs::write(to.join("a/empty"), "x").unwrap();
        assert!(!equal(&from, &to).unwrap());
    }

    #[test]
    fn a_copy_that_reads_back_otherwise_is_refused() {
        let (_folder, from, to) = tree();
        let mut damage = |_| fs::write(to.join("a/b/large"), vec![7; 3 * BLOCK / 2 - 1]).unwrap();
        let error = copied(&from, &to, &mut damage).unwrap_err().to_string();
        assert!(error.contains("a/b/large") && error.contains("reads back otherwise"), "{error}");
    }

    #[test]
    fn links_are_refused_before_anything_is_copied() {
        let (folder, from, _) = tree();
        std::os::unix::fs::symlink("nowhere", from.join("link")).unwrap();
        assert!(bytes(&from).unwrap_err().to_string().contains("neither file nor folder"));
        drop(folder);
    }
}
