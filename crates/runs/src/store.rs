//! The results folder: making runs and finding them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::aside::{self, Aside, Use};
use crate::lock::{Holder, Lock};
use crate::{Error, Metadata, Metrics, Result, Run, atomic, drive, metrics, name, run};

/// How many automatic names are tried before giving up.
const ATTEMPTS: u32 = 100;

/// The results folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What a run begins with.
#[derive(Clone, Debug)]
pub struct NewRun<'a> {
    /// The run's name, or `auto` for one such as `muon-granite-nano-20261122-0544-quiet-otter`.
    pub name: &'a str,
    /// What an automatic name begins with.
    pub prefix: &'a str,
    /// The resolved recipe, TOML.
    pub recipe: &'a str,
    /// The metadata; its name and recipe hash are filled in, its start names an automatic run.
    pub metadata: Metadata,
}

/// One run as a reader sees it.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// The run's folder.
    pub dir: PathBuf,
    /// What its `metadata.json` says.
    pub metadata: Metadata,
}

/// The runs of a store.
#[derive(Debug)]
pub struct Listing {
    /// The runs, the oldest first.
    pub runs: Vec<RunInfo>,
    /// Why other folders could not be read; for the caller to show.
    pub unreadable: Vec<Error>,
}

impl Store {
    /// The store at `root`. Nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The results folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a run's folder, with recipe and metadata in it, in one step: it is there whole or not at all. The results folder
    /// itself is made if need be, the folders above it are not. A name that is taken is refused; `auto` finds a free one.
    pub fn create(&self, new: NewRun) -> Result<Run> {
        let NewRun { name, prefix, recipe, mut metadata } = new;
        let automatic = name == "auto";
        if !automatic {
            name::check(name)?;
        }
        self.make_root()?;
        aside::sweep(&self.root);
        metadata.recipe_hash = blake3::hash(recipe.as_bytes()).to_hex().to_string();
        let mut attempt = 0;
        loop {
            metadata.name =
                if automatic { name::auto(prefix, metadata.started, attempt) } else { name.to_owned() };
            attempt += 1;
            match self.place(recipe, &metadata) {
                Err(Error::Taken(_)) if automatic && attempt < ATTEMPTS => {}
                placed => return placed.map(|(dir, lock)| Run::new(dir, metadata, lock)),
            }
        }
    }

    /// Refuses what [`Store::create`] would refuse of a run of that name: a name that cannot be or is taken, a folder that
    /// cannot be written. For before the work; nothing stays behind.
    pub fn check_new(&self, name: &str) -> Result<()> {
        if name != "auto" {
            name::check(name)?;
            self.free(name)?;
        }
        let parent = self.root.parent().filter(|parent| !parent.as_os_str().is_empty());
        let there = fs::symlink_metadata(&self.root).is_ok();
        let place = if there { self.root.as_path() } else { parent.unwrap_or(Path::new(".")) };
        let doing = if there { "write in the results folder" } else { "make the results folder" };
        Aside::make(place, Use::New).map(drop).map_err(Error::io(&self.root, doing))
    }

    /// Refuses a name that is taken, here or on the drive.
    fn free(&self, name: &str) -> Result<()> {
        let here = self.root.join(name);
        if fs::symlink_metadata(&here).is_ok() {
            return Err(Error::Taken(here));
        }
        drive::has(self, name)?.map_or(Ok(()), |there| Err(Error::Taken(there)))
    }

    /// Makes the results folder if need be, not the folders above it.
    pub(crate) fn make_root(&self) -> Result<()> {
        match fs::create_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let found = fs::metadata(&self.root).map_err(Error::io(&self.root, "look at it"))?;
                let made = if found.is_dir() { Ok(()) } else { Err(error) };
                made.map_err(Error::io(&self.root, "make the results folder"))
            }
            made => made.map_err(Error::io(&self.root, "make the results folder")),
        }
    }

    /// All runs. Hidden folders and plain files are not runs; a folder that should be one and cannot be read is told apart.
    pub fn list(&self) -> Result<Listing> {
        let mut listing = Listing { runs: Vec::new(), unreadable: Vec::new() };
        for name in self.names()? {
            match read(self.root.join(name)) {
                Ok(run) => listing.runs.push(run),
                Err(error) => listing.unreadable.push(error),
            }
        }
        listing.runs.sort_by(|a, b| {
            let key = |run: &RunInfo| (run.metadata.started, run.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        Ok(listing)
    }

    /// The run of that name.
    pub fn open(&self, name: &str) -> Result<RunInfo> {
        name::check(name)?;
        let have = self.names()?;
        if have.iter().any(|known| known == name) {
            read(self.root.join(name))
        } else {
            Err(Error::NoRun { store: self.root.clone(), name: name.to_owned(), have })
        }
    }

    /// Opens a run, named as for [`Store::find`], to go on with it, for this process alone, and removes what a killed one left half-written. The holder
    /// given back was killed while it wrote; for the caller to show.
    pub fn resume(&self, name: &str) -> Result<(Run, Option<Holder>)> {
        let dir = self.find(name)?.dir;
        drive::home(&dir)?;
        let (lock, killed) = Lock::take(&dir)?;
        // As the last holder left it.
        let metadata = read(dir.clone())?.metadata;
        let run = Run::new(dir, metadata, lock);
        run.sweep()?;
        aside::sweep(&self.root);
        Ok((run, killed))
    }

    /// Builds the folder under a hidden name and renames it to `metadata.name`. A rename never replaces a folder with
    /// content, and a run's folder always has some: of two that race for a name, one wins.
    fn place(&self, recipe: &str, metadata: &Metadata) -> Result<(PathBuf, Lock)> {
        let dir = self.root.join(&metadata.name);
        self.free(&metadata.name)?;
        let doing = "make the run folder";
        let hidden = Aside::make(&self.root, Use::New).map_err(Error::io(&dir, doing))?;
        let draft = hidden.path().join(&metadata.name);
        fs::create_dir(&draft).map_err(Error::io(&dir, doing))?;
        atomic::write(&draft, run::RECIPE, recipe.as_bytes())?;
        metadata.write(&draft)?;
        let (lock, _) = Lock::take(&draft)?;
        match fs::rename(&draft, &dir) {
            Ok(()) => Ok((dir, lock)),
            Err(_) if fs::symlink_metadata(&dir).is_ok() => Err(Error::Taken(dir)),
            Err(error) => Err(Error::io(&dir, doing)(error)),
        }
    }

    /// The names of the folders that should be runs, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::NoStore(self.root.clone()));
            }
            other => other.map_err(Error::io(&self.root, "list it"))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io(&self.root, "list it"))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What cannot be looked at may be a run; reading it tells why not.
            let folder = match fs::metadata(entry.path()) {
                Ok(found) => found.is_dir(),
                Err(error) => error.kind() != ErrorKind::NotFound,
            };
            if folder && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

impl RunInfo {
    /// The run's metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::read(&self.dir.join(metrics::FILE))
    }

    /// The run's frozen recipe, TOML.
    pub fn recipe(&self) -> Result<String> {
        let path = self.dir.join(run::RECIPE);
        fs::read_to_string(&path).map_err(Error::io(&path, "read it"))
    }
}

pub(crate) fn read(dir: PathBuf) -> Result<RunInfo> {
    let metadata = Metadata::read(Path::new(&dir))?;
    Ok(RunInfo { dir, metadata })
}
