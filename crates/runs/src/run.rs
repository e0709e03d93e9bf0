//! The handle that writes one run's folder.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::lock::{self, Lock};
use crate::{
    Checkpoints, Error, Metadata, MetricsWriter, Result, Row, RunInfo, atomic, drive, log, metadata, metrics,
};

pub(crate) const RECIPE: &str = "recipe.toml";
const MODEL: &str = "model";

/// One run, made by [`Store::create`](crate::Store::create) or opened by [`Store::resume`](crate::Store::resume); no other
/// process writes it meanwhile.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    /// The run's metadata; [`write_metadata`](Self::write_metadata) puts it on disk.
    pub metadata: Metadata,
    _lock: Lock,
}

/// The metadata of one moment of a [`Run`] that goes on.
#[derive(Debug)]
pub struct Record(RunInfo);

impl Record {
    /// Replaces `metadata.json` by them, and the drive's copies of the run's small files where there is one. They must be
    /// written before newer ones are.
    pub fn write(&self) -> Result<()> {
        self.0.metadata.write(&self.0.dir)?;
        drive::mirror(&self.0.dir)
    }
}

impl Run {
    pub(crate) fn new(dir: PathBuf, metadata: Metadata, lock: Lock) -> Self {
        Self { dir, metadata, _lock: lock }
    }

    /// The run's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The run as a reader sees it.
    pub fn info(&self) -> RunInfo {
        RunInfo { dir: self.dir.clone(), metadata: self.metadata.clone() }
    }

    /// Replaces `metadata.json` by [`Run::metadata`], and the drive's copies of the run's small files where there is one.
    pub fn write_metadata(&self) -> Result<()> {
        self.metadata.write(&self.dir)?;
        drive::mirror(&self.dir)
    }

    /// The metadata of this moment, for another thread to put on disk.
    pub fn record(&self) -> Record {
        Record(self.info())
    }

    /// Begins `metrics.csv` with columns for these diagnostics; refused if the run has one.
    pub fn metrics(&self, diagnostics: &[&str]) -> Result<MetricsWriter> {
        MetricsWriter::create(&self.dir, diagnostics)
    }

    /// Goes on with `metrics.csv` after the row of `step`, where the file had `bytes`: the rows that follow are cut off. The
    /// rows that stay are given back; the metadata are made to tell of them alone.
    pub fn rewind(
        &mut self,
        diagnostics: &[&str],
        step: u64,
        bytes: u64,
    ) -> Result<(MetricsWriter, Vec<Row>)> {
        let (writer, rows) = MetricsWriter::reopen(&self.dir, diagnostics, step, bytes)?;
        self.metadata.rewind(&rows);
        Ok((writer, rows))
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of(&self.dir)
    }

    /// Replaces the frozen recipe, for a run that is made longer.
    pub fn replace_recipe(&mut self, recipe: &str) -> Result<()> {
        atomic::write(&self.dir, RECIPE, recipe.as_bytes())?;
        self.metadata.recipe_hash = blake3::hash(recipe.as_bytes()).to_hex().to_string();
        self.write_metadata()
    }

    /// Removes what a killed process left half-written.
    pub(crate) fn sweep(&self) -> Result<()> {
        self.checkpoints().sweep()?;
        for folder in [self.dir.clone(), self.dir.join(MODEL)] {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry.map_err(Error::io(&folder, "list it"))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with('.') && name.ends_with(".tmp") {
                    fs::remove_file(&path).map_err(Error::io(&path, "remove it"))?;
                }
            }
        }
        Ok(())
    }

    /// Writes the file `rel`, a path relative to the run's folder, whole or not at all; folders on the way are made.
    /// The files that the store keeps itself are refused.
    pub fn write_file(&self, rel: &str, bytes: &[u8]) -> Result<()> {
        let refused = || Error::Path(rel.to_owned());
        let path = Path::new(rel);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(refused)?;
        if !plain
            || [RECIPE, metadata::FILE, metrics::FILE, log::FILE, lock::FILE]
                .iter()
                .any(|own| path == Path::new(own))
        {
            return Err(refused());
        }
        let folder = self.dir.join(path.parent().unwrap_or(Path::new("")));
        fs::create_dir_all(&folder).map_err(Error::io(&folder, "create the folder"))?;
        atomic::write(&folder, name, bytes)?;
        drive::mirror(&self.dir)
    }

    /// The folder for the trained model, made if it is not there.
    pub fn model_dir(&self) -> Result<PathBuf> {
        drive::folder(&self.dir, MODEL)
    }
}
