//! Replacing a file as a whole: a temporary file in the same folder, synced, then renamed over the old one.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use tempfile::Builder;

use crate::{Error, Result};

/// Writes `bytes` to `folder/name`. A reader sees the old content or the new, never a part; on error the old one stays.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    // `File::create_new` and not tempfile's own opener: the result is for everyone the umask allows, not for its owner alone.
    let mut temporary = Builder::new()
        .prefix(".")
        .suffix(".tmp")
        .make_in(folder, |at| File::create_new(at))
        .map_err(Error::io(&path, "write it"))?;
    let file = temporary.as_file_mut();
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io(&path, "write it"))?;
    temporary.persist(&path).map_err(|error| Error::io(&path, "replace it")(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", b"long old content").unwrap();
        write(folder.path(), "a", b"new").unwrap();
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        let error = write(folder.path(), "a", b"new").unwrap_err().to_string();
        assert!(error.contains("cannot replace it"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
