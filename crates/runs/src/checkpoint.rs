//! Checkpoints of a run: `checkpoints/step-N/`, each there whole or not at all.
//!
//! A checkpoint is drafted in a hidden folder beside its place. [`Draft::commit`] syncs every file, writes `manifest.json`
//! with the size and the BLAKE3 of each, syncs folder and metrics, renames the folder to its name and syncs the folder
//! above. A kill at any moment leaves the old checkpoints or the new one as well, and at most a hidden folder, which the
//! next writer removes. The newest one whose files all agree with its manifest is the truth.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use blake3::Hasher;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, atomic, drive, metrics};

/// The version of the manifest's layout.
const FORMAT: u32 = 1;
const FOLDER: &str = "checkpoints";
const MANIFEST: &str = "manifest.json";
const PREFIX: &str = "step-";
/// No manifest is larger; a larger file is not read.
const MANIFEST_MAX: u64 = 1 << 20;

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    run: PathBuf,
    dir: PathBuf,
}

/// A checkpoint that is there as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub dir: PathBuf,
    /// What its manifest says.
    pub manifest: Manifest,
}

/// What a checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this layout.
    pub format: u32,
    /// The step after which it was taken.
    pub step: u64,
    /// The validation loss after that step, where there is one.
    pub val_loss: Option<f64>,
    /// Its files but the manifest itself, by name.
    pub files: Vec<FileEntry>,
    /// BLAKE3 of this manifest with an empty text here, in hexadecimal.
    pub blake3: String,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name, without folders.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its content, in hexadecimal.
    pub blake3: String,
}

/// The newest checkpoint that can be trusted, and why newer ones cannot.
#[derive(Debug)]
pub struct Newest {
    /// The checkpoint, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// What is wrong with each newer one, the newest first; for the caller to show.
    pub refused: Vec<Error>,
}

/// How many checkpoints stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest.
    pub last: usize,
    /// And so many with the least validation loss.
    pub best: usize,
}

/// What every version of the manifest has.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// A checkpoint that is being written; removed unless committed.
#[derive(Debug)]
pub struct Draft {
    of: Checkpoints,
    dir: PathBuf,
    step: u64,
}

impl Checkpoints {
    /// Those of the run in the folder `run`. Nothing is touched.
    pub(crate) fn of(run: &Path) -> Self {
        Self { run: run.to_owned(), dir: run.join(FOLDER) }
    }

    /// Begins the checkpoint after `step` in a hidden folder.
    pub fn draft(&self, step: u64) -> Result<Draft> {
        let dir = drive::folder(&self.run, FOLDER)?.join(format!(".{PREFIX}{step}"));
        remove(&dir)?;
        fs::create_dir_all(&dir).map_err(Error::io(&dir, "create the folder"))?;
        Ok(Draft { of: self.clone(), dir, step })
    }

    /// The newest checkpoint whose files all agree with its manifest; every byte is read.
    pub fn newest(&self) -> Result<Newest> {
        self.newest_telling(&|_| ())
    }

    /// The same, telling of bytes as they are read.
    pub fn newest_telling(&self, read: &dyn Fn(u64)) -> Result<Newest> {
        let mut refused = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match self.read(step).and_then(|checkpoint| checkpoint.verify(read).map(|()| checkpoint)) {
                Ok(checkpoint) => return Ok(Newest { checkpoint: Some(checkpoint), refused }),
                Err(error) => refused.push(error),
            }
        }
        Ok(Newest { checkpoint: None, refused })
    }

    /// Removes all but those to keep. Damaged ones do not count and stay.
    pub fn prune(&self, keep: Keep) -> Result<()> {
        let steps = self.steps()?;
        let whole: Vec<Manifest> =
            steps.into_iter().filter_map(|step| Some(self.read(step).ok()?.manifest)).collect();
        let mut rated: Vec<(f64, u64)> =
            whole.iter().filter_map(|of| Some((of.val_loss?, of.step))).collect();
        // Of equal losses the earlier one is the best, as in the metadata.
        rated.sort_by(|a, b| a.0.total_cmp(&b.0));
        let best = &rated[..rated.len().min(keep.best)];
        let old = &whole[..whole.len().saturating_sub(keep.last)];
        let spare = old.iter().map(|of| of.step).filter(|step| best.iter().all(|(_, kept)| kept != step));
        spare.into_iter().try_for_each(|step| self.remove(step))
    }

    /// Removes what killed writers left.
    pub(crate) fn sweep(&self) -> Result<()> {
        for name in self.names()?.iter().filter(|name| name.starts_with('.')) {
            remove(&self.dir.join(name))?;
        }
        Ok(())
    }

    pub(crate) fn at(&self, step: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{step}"))
    }

    /// The steps that have a folder, ascending.
    pub(crate) fn steps(&self) -> Result<Vec<u64>> {
        let names = self.names()?;
        let step = |name: &String| name.strip_prefix(PREFIX)?.parse().ok();
        let mut steps: Vec<u64> = names.iter().filter_map(step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::io(&self.dir, "list it"))?,
        };
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        entries.map(name).collect::<io::Result<_>>().map_err(Error::io(&self.dir, "list it"))
    }

    /// A checkpoint whose manifest is sound and whose files have their lengths.
    fn read(&self, step: u64) -> Result<Checkpoint> {
        let dir = self.at(step);
        let manifest = Manifest::read(&dir.join(MANIFEST), step)?;
        for file in &manifest.files {
            let path = dir.join(&file.name);
            let have = fs::metadata(&path).map_err(Error::io(&path, "read it"))?.len();
            if have != file.bytes {
                return Err(damaged(&path, format!("{have} bytes instead of {}", file.bytes)));
            }
        }
        Ok(Checkpoint { dir, manifest })
    }

    /// Takes a checkpoint away: first its name, so that no half of it is ever taken for one.
    fn remove(&self, step: u64) -> Result<()> {
        let hidden = self.dir.join(format!(".old-{PREFIX}{step}"));
        remove(&hidden)?;
        match fs::rename(self.at(step), &hidden) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io(&self.at(step), "remove it")(error)),
            Ok(()) => remove(&hidden),
        }
    }
}

impl Checkpoint {
    /// The content of one of its files.
    pub fn file(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(name);
        fs::read(&path).map_err(Error::io(&path, "read it"))
    }

    /// The bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.manifest.files.iter().map(|file| file.bytes).sum()
    }

    fn verify(&self, read: &dyn Fn(u64)) -> Result<()> {
        for file in &self.manifest.files {
            let path = self.dir.join(&file.name);
            let open = File::open(&path).map_err(Error::io(&path, "read it"))?;
            if hash(&open, read).map_err(Error::io(&path, "read it"))? != file.blake3 {
                return Err(damaged(&path, "its content is not what was written".into()));
            }
        }
        Ok(())
    }
}

impl Manifest {
    /// The text of the file.
    fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest is JSON");
        text.push(b'\n');
        text
    }

    fn sealed(mut self) -> Self {
        self.blake3 = String::new();
        self.blake3 = blake3::hash(&self.text()).to_hex().to_string();
        self
    }

    fn read(path: &Path, step: u64) -> Result<Self> {
        let length = fs::metadata(path).map_err(Error::io(path, "read it"))?.len();
        if length > MANIFEST_MAX {
            return Err(damaged(path, format!("{length} bytes are too many for a manifest")));
        }
        let text = fs::read(path).map_err(Error::io(path, "read it"))?;
        let wrong = |error: serde_json::Error| damaged(path, error.to_string());
        let head: Head = serde_json::from_slice(&text).map_err(wrong)?;
        if head.format != FORMAT {
            let what = format!("format {}, but this program reads format {FORMAT}", head.format);
            return Err(damaged(path, what));
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(wrong)?;
        if manifest.clone().sealed() != manifest || manifest.text() != text {
            return Err(damaged(path, "its content is not what was written".into()));
        }
        if manifest.step != step {
            return Err(damaged(path, format!("it is that of step {}", manifest.step)));
        }
        let plain = |name: &str| {
            let mut parts = Path::new(name).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        };
        match manifest.files.iter().find(|file| !plain(&file.name)) {
            Some(file) => Err(damaged(path, format!("`{}` is no file name", file.name.escape_debug()))),
            None => Ok(manifest),
        }
    }
}

impl Draft {
    /// The hidden folder, to write files into; folders in it are not allowed.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a file.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, bytes).map_err(Error::io(&path, "write it"))
    }

    /// Makes the checkpoint of what is in the folder; one of the same step, which can only be damaged, gives way.
    pub fn commit(self, val_loss: Option<f64>) -> Result<Checkpoint> {
        let (parent, place) = (&self.of.dir, self.of.at(self.step));
        let mut files = self.files()?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let val_loss = val_loss.filter(|loss| loss.is_finite());
        let manifest = Manifest { format: FORMAT, step: self.step, val_loss, files, blake3: String::new() };
        let manifest = manifest.sealed();
        atomic::write(&self.dir, MANIFEST, &manifest.text())?;
        sync(&self.dir)?;
        // The rows up to this step are part of what is continued.
        sync(&self.of.run.join(metrics::FILE))?;
        self.of.remove(self.step)?;
        fs::rename(&self.dir, &place).map_err(Error::io(&place, "put it in its place"))?;
        sync(parent)?;
        sync(&self.of.run)?;
        Ok(Checkpoint { dir: place, manifest })
    }

    /// Syncs and hashes what is in the folder.
    fn files(&self) -> Result<Vec<FileEntry>> {
        let doing = "read it back";
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(Error::io(&self.dir, "list it"))? {
            let path = entry.map_err(Error::io(&self.dir, "list it"))?.path();
            let file = File::open(&path).map_err(Error::io(&path, doing))?;
            file.sync_all().map_err(Error::io(&path, "write it to the disk"))?;
            let bytes = file.metadata().map_err(Error::io(&path, doing))?.len();
            let blake3 = hash(&file, &|_| ()).map_err(Error::io(&path, doing))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push(FileEntry { name, bytes, blake3 });
        }
        Ok(files)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a commit nothing is left under this name; what a failure leaves, the next writer removes.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn hash(file: &File, read: &dyn Fn(u64)) -> io::Result<String> {
    let mut hasher = Hasher::new();
    hasher.update_reader(Telling { file, read })?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// A file that tells of the bytes that are read from it.
struct Telling<'a> {
    file: &'a File,
    read: &'a dyn Fn(u64),
}

impl io::Read for Telling<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(bytes)?;
        (self.read)(count as u64);
        Ok(count)
    }
}

/// Has a file or folder reach the disk.
fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io(path, "write it to the disk"))
}

/// Removes a folder if it is there.
fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io(dir, "remove it")),
    }
}

fn damaged(path: &Path, what: String) -> Error {
    Error::Checkpoint { path: path.to_owned(), what }
}
