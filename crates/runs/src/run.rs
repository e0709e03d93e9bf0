//! The handle that writes one run's folder.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::{Error, Metadata, MetricsWriter, Result, RunInfo, atomic, metadata, metrics};

pub(crate) const RECIPE: &str = "recipe.toml";
const MODEL: &str = "model";

/// One run, made by [`Store::create`](crate::Store::create).
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    /// The run's metadata; [`write_metadata`](Self::write_metadata) puts it on disk.
    pub metadata: Metadata,
}

impl Run {
    pub(crate) fn new(dir: PathBuf, metadata: Metadata) -> Self {
        Self { dir, metadata }
    }

    /// The run's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The run as a reader sees it.
    pub fn info(&self) -> RunInfo {
        RunInfo { dir: self.dir.clone(), metadata: self.metadata.clone() }
    }

    /// Replaces `metadata.json` by [`Run::metadata`].
    pub fn write_metadata(&self) -> Result<()> {
        self.metadata.write(&self.dir)
    }

    /// Begins `metrics.csv` with columns for these diagnostics; refused if the run has one.
    pub fn metrics(&self, diagnostics: &[&str]) -> Result<MetricsWriter> {
        MetricsWriter::create(&self.dir, diagnostics)
    }

    /// Writes the file `rel`, a path relative to the run's folder, whole or not at all; folders on the way are made.
    /// The files that the store keeps itself are refused.
    pub fn write_file(&self, rel: &str, bytes: &[u8]) -> Result<()> {
        let refused = || Error::Path(rel.to_owned());
        let path = Path::new(rel);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(refused)?;
        if !plain || [RECIPE, metadata::FILE, metrics::FILE].iter().any(|own| path == Path::new(own)) {
            return Err(refused());
        }
        let folder = self.dir.join(path.parent().unwrap_or(Path::new("")));
        fs::create_dir_all(&folder).map_err(Error::io(&folder, "create the folder"))?;
        atomic::write(&folder, name, bytes)
    }

    /// The folder for the trained model, made if it is not there.
    pub fn model_dir(&self) -> Result<PathBuf> {
        let path = self.dir.join(MODEL);
        fs::create_dir_all(&path).map_err(Error::io(&path, "create the folder"))?;
        Ok(path)
    }
}
