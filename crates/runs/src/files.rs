//! The files of a run folder, and its end.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::aside::{self, Aside, Use};
use crate::{Checkpoints, Error, Metrics, Result, RunInfo, Store, drive};

/// One file of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFile {
    /// Its path, relative to the run's folder.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// The bytes of all `files`.
pub fn total_bytes(files: &[RunFile]) -> u64 {
    files.iter().map(|file| file.bytes).sum()
}

impl RunInfo {
    /// All files of the run, by path, those on the drive too. Other links are not followed; what disappears meanwhile is left
    /// out.
    pub fn files(&self) -> Result<Vec<RunFile>> {
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let at = self.dir.join(&folder);
            let entries = match fs::read_dir(&at) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(Error::io(&at, "list it"))?,
            };
            for entry in entries {
                let entry = entry.map_err(Error::io(&at, "list it"))?;
                let path = folder.join(entry.file_name());
                match entry.metadata() {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::io(&entry.path(), "read its size")(error)),
                    Ok(found) if found.is_dir() => folders.push(path),
                    Ok(_) if drive::is_link_to_folder(&self.dir, &path) => folders.push(path),
                    Ok(found) => files.push(RunFile { path, bytes: found.len() }),
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// The step of the newest checkpoint, by its folder's name; whether its files are whole is not asked.
    pub fn checkpoint_step(&self) -> Result<Option<u64>> {
        Ok(Checkpoints::of(&self.dir).steps()?.pop())
    }

    /// The bytes of the newest checkpoint.
    pub fn checkpoint_bytes(&self) -> Result<Option<u64>> {
        let Some(step) = self.checkpoint_step()? else { return Ok(None) };
        let dir = Checkpoints::of(&self.dir).at(step);
        let inside = |file: &RunFile| self.dir.join(&file.path).starts_with(&dir);
        Ok(Some(self.files()?.iter().filter(|file| inside(file)).map(|file| file.bytes).sum()))
    }

    /// The run's metrics; none where it has no such file yet, or no more: version control keeps `metadata.json` alone.
    pub fn metrics_so_far(&self) -> Result<Metrics> {
        match self.metrics() {
            Err(Error::Io { cause, .. }) if cause.kind() == ErrorKind::NotFound => Ok(Metrics::default()),
            other => other,
        }
    }
}

impl Store {
    /// Removes a run with all its files. The folder gets a hidden name first: no reader ever sees half a run. If that cannot
    /// be removed, the error names it. What the drive has of it goes too.
    ///
    /// Whether a process still writes the run is for the caller to ask: [`RunInfo::writer`].
    pub fn remove(&self, run: &RunInfo) -> Result<()> {
        let home = drive::home(&run.dir)?;
        aside::sweep(self.root());
        let hidden = Aside::make(self.root(), Use::Removed).map_err(Error::io(&run.dir, "remove it"))?;
        let place = hidden.path().join(run.dir.file_name().unwrap_or_default());
        fs::rename(&run.dir, &place).map_err(Error::io(&run.dir, "remove it"))?;
        if let Some(home) = home {
            fs::remove_dir_all(&home).map_err(Error::io(&home, "remove what the drive has of the run"))?;
        }
        let path = hidden.path().to_owned();
        hidden.close().map_err(Error::io(&path, "remove what is left of the run"))
    }
}
