//! The run's log as the command sees it: what is said before there is a run is kept, and goes to the log when one begins.

use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

use runs::{Log, Timestamp};

use crate::secrets::mask;

static JOURNAL: Mutex<Journal> = Mutex::new(Journal { kept: Vec::new(), log: None, alone: false });

struct Journal {
    /// What was said before there was a log.
    kept: Vec<(Timestamp, String)>,
    log: Option<Log>,
    /// Whether the log is all there is: standard error is no one's.
    alone: bool,
}

/// Writes a line, its secrets masked, to the log, and says whether that was all there is to write to.
pub fn record(line: &str) -> bool {
    // A panic may be that of the journal itself.
    if thread::panicking() && matches!(JOURNAL.try_lock(), Err(TryLockError::WouldBlock)) {
        return false;
    }
    journal().record(&mask(line))
}

/// From now on all that is said goes to this log as well; with `alone`, nowhere else.
pub fn open(log: Log, alone: bool) {
    let mut journal = journal();
    journal.log = Some(log);
    journal.alone = alone;
    for (time, line) in std::mem::take(&mut journal.kept) {
        journal.write(time, &line);
    }
}

fn journal() -> MutexGuard<'static, Journal> {
    JOURNAL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    fn record(&mut self, line: &str) -> bool {
        let now = Timestamp::now();
        if self.log.is_some() {
            self.write(now, line);
        } else {
            self.kept.push((now, line.to_owned()));
        }
        self.alone
    }

    /// A log that cannot be written to is told of once; the run goes on.
    fn write(&mut self, time: Timestamp, line: &str) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.say(time, line) {
            let _ = writeln!(io::stderr(), "{}", mask(&format!("WARNING: the log ends here: {error}")));
            self.log = None;
        }
    }
}
