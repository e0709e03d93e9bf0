//! Moving runs to the drive.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{LARGE, LINK, Move, Moves, Step, copies, idle, name, refused, same, small, target, transfer};
use crate::lock::Lock;
use crate::{Error, Result, RunInfo, Store, metadata};

impl Store {
    /// What it takes to move what is large of all runs to the folder `drive`, which must be there, and to have the runs to
    /// come there too. Refused while a process writes a run, where another drive is linked, and where anything would be
    /// written over: nothing on the drive is replaced but copies of files of the same run.
    pub fn plan_attach(&self, drive: &Path) -> Result<Moves> {
        let root = self.root();
        let real = fs::canonicalize(drive).map_err(|error| {
            refused(drive, &format!("cannot find it: {error} (make the folder, or mount the drive)"))
        })?;
        if !real.is_dir() {
            return Err(refused(drive, "this is no folder (name the folder that is synced)"));
        }
        if root.is_symlink() {
            return Err(refused(root, "this is a link (make it a folder: git follows no link)"));
        }
        if let Some(linked) = target(&root.join(LINK))?.filter(|linked| *linked != real) {
            let linked = linked.display();
            let what = format!("the runs are on {linked} already (bring them back first: muon setup --undo)");
            return Err(refused(root, &what));
        }
        let mut moves =
            Moves { store: self.clone(), drive: real, back: false, runs: Vec::new(), left: Vec::new() };
        if !root.exists() {
            return Ok(moves);
        }
        let own = fs::canonicalize(root).map_err(Error::io(root, "find it"))?;
        if moves.drive.starts_with(&own) {
            return Err(refused(drive, "this is in the results folder (name the folder that is synced)"));
        }
        let listing = self.list()?;
        moves.left.extend(listing.unreadable.iter().map(ToString::to_string));
        for run in listing.runs {
            moves.runs.extend(plan(&run, &moves.drive.join(name(&run.dir)))?);
        }
        Ok(moves)
    }
}

impl Moves {
    pub(super) fn attach(&self, moved: &mut dyn FnMut(u64)) -> Result<()> {
        let root = self.store.root();
        self.store.make_root()?;
        // The link first: runs that begin from now on are on the drive.
        if !self.linked()? {
            let link = root.join(LINK);
            symlink(&self.drive, &link).map_err(Error::io(&link, "make the link"))?;
            transfer::sync(root)?;
        }
        for one in &self.runs {
            let (_lock, _) = Lock::take(&one.run)?;
            let home = self.drive.join(&one.name);
            fs::create_dir_all(&home).map_err(Error::io(&home, "create the folder"))?;
            transfer::sweep(&one.run)?;
            transfer::sweep(&home)?;
            copies(&one.run, &home)?;
            for (large, step) in &one.folders {
                let (here, there) = (one.run.join(large), home.join(large));
                match step {
                    Step::Move => transfer::over(&here, &there, moved)?,
                    Step::Drop => transfer::remove(&here)?,
                    Step::Link => {}
                }
                symlink(&there, &here).map_err(Error::io(&here, "make the link"))?;
                transfer::sync(&one.run)?;
            }
        }
        Ok(())
    }
}

/// What is to be done with a run; nothing where it is on the drive already, or where only its record is here.
fn plan(run: &RunInfo, home: &Path) -> Result<Option<Move>> {
    // What version control has of a run that was trained elsewhere.
    if small(&run.dir)? == [metadata::FILE] && LARGE.iter().all(|large| !run.dir.join(large).exists()) {
        return Ok(None);
    }
    if LARGE.iter().all(|large| run.dir.join(large).is_symlink()) {
        return Ok(None);
    }
    let mine = home.exists() && same(run, home)?;
    let (mut folders, mut bytes) = (Vec::new(), 0);
    for large in LARGE {
        let (here, there) = (run.dir.join(large), home.join(large));
        if here.is_symlink() {
            continue;
        }
        let step = match (here.exists(), mine && there.exists()) {
            (true, false) => Step::Move,
            (false, true) => Step::Link,
            (false, false) => continue,
            (true, true) if transfer::equal(&here, &there)? => Step::Drop,
            (true, true) => {
                let what = format!("it differs from {} (move one of them aside)", here.display());
                return Err(refused(&there, &what));
            }
        };
        if step == Step::Move {
            bytes += transfer::bytes(&here)?;
        }
        folders.push((large, step));
    }
    if folders.is_empty() {
        return Ok(None);
    }
    idle(run)?;
    Ok(Some(Move { run: run.dir.clone(), name: name(&run.dir), bytes, folders }))
}
