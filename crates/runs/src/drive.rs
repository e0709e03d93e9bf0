//! The drive: a synced folder that holds what is large of the runs.
//!
//! `results/` itself stays a real folder, because git tracks `metadata.json` in it and follows no link. `results/.drive`
//! links to the drive; of each run the folders [`LARGE`] are links into the drive's folder of the same name as the run,
//! where copies of its small files lie beside them, brought up to date whenever the metadata are written: the drive has
//! the run as a whole. [`attach`] and [`detach`] move runs there and back.

mod attach;
mod detach;
mod transfer;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::lock::{self, Holder};
use crate::{Error, Metadata, Result, RunInfo, State, Store, Writer, atomic, store};

/// The link in the results folder.
const LINK: &str = ".drive";
/// The folders of a run that are large.
const LARGE: [&str; 2] = ["checkpoints", "model"];
/// What a folder is called while it is copied.
const COPY: &str = ".moving-";

/// What is to be done to move runs to the drive or back. Nothing is touched before [`Moves::execute`].
#[derive(Debug)]
pub struct Moves {
    store: Store,
    drive: PathBuf,
    /// Whether from the drive and not to it.
    back: bool,
    runs: Vec<Move>,
    /// Folders that stay where they are, each with the reason; for the caller to show.
    pub left: Vec<String>,
}

/// What is to be done with one run.
#[derive(Debug)]
struct Move {
    run: PathBuf,
    name: String,
    bytes: u64,
    folders: Vec<(&'static str, Step)>,
}

/// What is to be done with one large folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is to be moved.
    Move,
    /// It was copied by an interrupted move, and is to be removed where it was.
    Drop,
    /// It is on the drive, and an interrupted move left it without its link.
    Link,
}

impl Store {
    /// The drive of this store, where it has one and it is there.
    pub fn drive(&self) -> Result<Option<PathBuf>> {
        let Some(drive) = target(&self.root().join(LINK))? else { return Ok(None) };
        there(&drive).map(|()| Some(drive))
    }
}

impl RunInfo {
    /// The run's folder on the drive, where it is on one; an error where the drive is not there.
    pub fn drive_folder(&self) -> Result<Option<PathBuf>> {
        home(&self.dir)
    }
}

impl Moves {
    /// The runs that are to be moved, with their bytes.
    pub fn runs(&self) -> impl Iterator<Item = (&str, u64)> {
        self.runs.iter().map(|one| (one.name.as_str(), one.bytes))
    }

    /// The drive.
    pub fn drive(&self) -> &Path {
        &self.drive
    }

    /// All bytes that are to be moved.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|one| one.bytes).sum()
    }

    /// Whether the store has this drive already.
    pub fn linked(&self) -> Result<bool> {
        Ok(target(&self.store.root().join(LINK))?.is_some())
    }

    /// Does it, run by run, each under its lock; `moved` is told bytes as they get there. Interrupted at any moment, nothing
    /// is lost, and a new plan goes on.
    pub fn execute(&self, moved: &mut dyn FnMut(u64)) -> Result<()> {
        if self.back { self.detach(moved) } else { self.attach(moved) }
    }
}

/// Makes the large folder `name` of a run if it is not there: on the drive, where the store has one.
pub(crate) fn folder(run: &Path, name: &str) -> Result<PathBuf> {
    let path = run.join(name);
    let made = |error| Error::io(&path, "create the folder")(error);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_symlink() => return there(&path).map(|()| path),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        _ => return fs::create_dir_all(&path).map(|()| path.clone()).map_err(made),
    }
    let drive = run.parent().map(Store::new).map_or(Ok(None), |store| store.drive())?;
    let Some(drive) = drive else {
        return fs::create_dir_all(&path).map(|()| path.clone()).map_err(made);
    };
    let home = drive.join(self::name(run));
    if home.exists() {
        same(&store::read(run.to_owned())?, &home)?;
    }
    // The copies first: they say whose folder it is, should this process end here.
    fs::create_dir_all(&home).map_err(Error::io(&home, "create the folder"))?;
    copies(run, &home)?;
    let real = home.join(name);
    fs::create_dir_all(&real).map_err(Error::io(&real, "create the folder"))?;
    symlink(&real, &path).map_err(made)?;
    Ok(path)
}

/// The drive's folder of a run, where one of its large folders is a link to there; an error where that leads nowhere.
pub(crate) fn home(run: &Path) -> Result<Option<PathBuf>> {
    let drive = run.parent().map_or(Ok(None), |root| target(&root.join(LINK)))?;
    let Some(home) = drive.map(|drive| drive.join(name(run))) else { return Ok(None) };
    for large in LARGE {
        if target(&run.join(large))?.is_some_and(|to| to == home.join(large)) {
            return there(&home).map(|()| Some(home));
        }
    }
    Ok(None)
}

/// Whether a file of a run is a large folder on the drive.
pub(crate) fn is_link_to_folder(run: &Path, name: &Path) -> bool {
    LARGE.iter().any(|large| name == Path::new(large)) && run.join(name).is_dir()
}

/// Brings the drive's copies of a run's small files up to date, where the run is on the drive.
pub(crate) fn mirror(run: &Path) -> Result<()> {
    home(run)?.map_or(Ok(()), |home| copies(run, &home))
}

/// Whether the drive has something of that name.
pub(crate) fn has(store: &Store, name: &str) -> Result<Option<PathBuf>> {
    let place = store.drive()?.map(|drive| drive.join(name));
    Ok(place.filter(|place| fs::symlink_metadata(place).is_ok()))
}

/// Copies the small files of `run` to `home`, `metadata.json` first: it says whose folder that is.
fn copies(run: &Path, home: &Path) -> Result<()> {
    let mut names = small(run)?;
    names.sort_by_key(|name| name != crate::metadata::FILE);
    for name in names {
        let path = run.join(&name);
        let bytes = fs::read(&path).map_err(Error::io(&path, "read it"))?;
        atomic::write(home, &name, &bytes)?;
    }
    Ok(())
}

/// The names of the plain files in a folder but its lock and what is hidden.
fn small(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "list it"))? {
        let entry = entry.map_err(Error::io(folder, "list it"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
        if plain && !name.starts_with('.') && name != lock::FILE {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A folder's own name.
fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Where a link leads; none if there is no link.
fn target(link: &Path) -> Result<Option<PathBuf>> {
    match fs::read_link(link) {
        Ok(target) => Ok(Some(target)),
        // EINVAL: there is something, and it is no link.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => Ok(None),
        Err(error) => Err(Error::io(link, "read where it leads")(error)),
    }
}

/// Refuses a folder on the drive that is not there.
fn there(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    Err(refused(folder, "this folder of the drive is not there (mount or sync the drive, then try again)"))
}

fn refused(path: &Path, what: &str) -> Error {
    Error::Drive { path: path.to_owned(), what: what.to_owned() }
}

/// Refuses a run that a process writes, or may write.
fn idle(run: &RunInfo) -> Result<()> {
    let path = run.dir.join(lock::FILE);
    match run.writer()? {
        Writer::Alive => {
            let holder = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Holder>(&text).ok());
            Err(Error::Busy { run: run.dir.clone(), holder })
        }
        Writer::Unknown if run.metadata.state == State::Running && path.exists() => Err(refused(
            &path,
            "a process of another host may still write this run (if that is gone, remove this file)",
        )),
        Writer::Gone | Writer::Unknown => Ok(()),
    }
}

/// Whether the folder `home` is the drive's folder of this run. Refused if it is that of another one, or if the drive's
/// copy went on elsewhere.
fn same(run: &RunInfo, home: &Path) -> Result<bool> {
    let theirs = match Metadata::read(home) {
        Err(Error::NoMetadata(_)) => {
            let mut entries = fs::read_dir(home).map_err(Error::io(home, "list it"))?;
            let hidden = |entry: std::io::Result<fs::DirEntry>| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with('.'))
            };
            // Made by a move that was interrupted at once.
            if entries.all(hidden) {
                return Ok(false);
            }
            return Err(refused(home, "something else has this name on the drive (move or rename it)"));
        }
        other => other?,
    };
    let mine = &run.metadata;
    if (&theirs.name, theirs.started) != (&mine.name, mine.started) {
        return Err(refused(home, "another run has this name on the drive (move or rename it)"));
    }
    if theirs.steps_done > mine.steps_done {
        let what = format!(
            "the drive's copy of this run is at step {}, and {} at step {} (move the one aside that is not wanted)",
            theirs.steps_done,
            run.dir.display(),
            mine.steps_done
        );
        return Err(refused(home, &what));
    }
    Ok(true)
}
