//! Bringing runs back from the drive.

use std::fs;
use std::path::Path;

use super::{LARGE, LINK, Move, Moves, Step, idle, name, refused, same, small, target, there, transfer};
use crate::lock::Lock;
use crate::{Error, Result, RunInfo, Store, metadata};

impl Store {
    /// What it takes to bring everything back and to forget the drive; nothing where there is none. Refused while a process
    /// writes one of those runs.
    pub fn plan_detach(&self) -> Result<Option<Moves>> {
        let Some(drive) = target(&self.root().join(LINK))? else { return Ok(None) };
        there(&drive)?;
        let listing = self.list()?;
        let mut moves = Moves {
            store: self.clone(),
            drive,
            back: true,
            runs: Vec::new(),
            left: listing.unreadable.iter().map(ToString::to_string).collect(),
        };
        for run in listing.runs {
            moves.runs.extend(plan(&run, &moves.drive.join(name(&run.dir)))?);
        }
        Ok(Some(moves))
    }
}

impl Moves {
    pub(super) fn detach(&self, moved: &mut dyn FnMut(u64)) -> Result<()> {
        for one in &self.runs {
            let (_lock, _) = Lock::take(&one.run)?;
            let home = self.drive.join(&one.name);
            transfer::sweep(&one.run)?;
            transfer::sweep(&home)?;
            for (large, step) in &one.folders {
                let (here, there) = (one.run.join(large), home.join(large));
                match step {
                    Step::Drop => transfer::remove(&there)?,
                    Step::Move | Step::Link => transfer::over(&there, &here, moved)?,
                }
            }
            forget(&one.run, &home)?;
        }
        if self.store.plan_detach()?.is_some_and(|left| left.runs.iter().any(|one| !one.folders.is_empty())) {
            return Err(refused(self.store.root(), "a run began meanwhile (try again)"));
        }
        let link = self.store.root().join(LINK);
        fs::remove_file(&link).map_err(Error::io(&link, "remove the link"))?;
        transfer::sync(self.store.root())
    }
}

/// What is to be done with a run; nothing where it has nothing on the drive.
fn plan(run: &RunInfo, home: &Path) -> Result<Option<Move>> {
    let (mut folders, mut bytes) = (Vec::new(), 0);
    for large in LARGE {
        let (here, far) = (run.dir.join(large), home.join(large));
        let step = match target(&here)? {
            Some(to) if to == far => {
                there(&far)?;
                Step::Move
            }
            None if !far.exists() || !same(run, home)? => continue,
            None if !here.exists() => Step::Link,
            None if transfer::equal(&here, &far)? => Step::Drop,
            // A link that is not of ours, or a folder that is not the same.
            Some(_) | None => continue,
        };
        if step != Step::Drop {
            bytes += transfer::bytes(&far)?;
        }
        folders.push((large, step));
    }
    // Of a run that is back, an interrupted move may have left its copies there.
    if folders.is_empty() && (!home.exists() || same(run, home).is_err()) {
        return Ok(None);
    }
    idle(run)?;
    Ok(Some(Move { run: run.dir.clone(), name: name(&run.dir), bytes, folders }))
}

/// Removes the copies of a run's small files from the drive, and its folder there if nothing else is left in it. A file that
/// has what the run has not stays; metrics and log grow after they were copied.
fn forget(run: &Path, home: &Path) -> Result<()> {
    let mut names = small(home)?;
    // That which says whose folder it is goes last.
    names.sort_by_key(|name| name == metadata::FILE);
    for name in names {
        let (mine, copy) = (run.join(&name), home.join(&name));
        let read = |path: &Path| fs::read(path).map_err(Error::io(path, "read it"));
        if mine.is_file() && read(&mine)?.starts_with(&read(&copy)?) {
            fs::remove_file(&copy).map_err(Error::io(&copy, "remove it"))?;
        }
    }
    // Not empty: something stays.
    let _ = fs::remove_dir(home);
    Ok(())
}
