//! `log.txt`: what a run said, line by line with the time of each. It only grows, also where the run goes on from an
//! earlier step.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::{Error, Result, Run, RunInfo};

pub(crate) const FILE: &str = "log.txt";

/// Appends lines to a run's log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

/// Reads the lines that came since it read last.
#[derive(Debug)]
pub struct LogTail {
    path: PathBuf,
    /// Bytes read, whole lines only.
    offset: u64,
}

impl Run {
    /// The run's log, to go on with; begun if it is not there.
    pub fn log(&self) -> Result<Log> {
        Log::open(self.dir())
    }
}

impl RunInfo {
    /// The run's log to follow, from its first line on.
    pub fn log(&self) -> LogTail {
        LogTail { path: self.dir.join(FILE), offset: 0 }
    }
}

impl Log {
    fn open(run: &Path) -> Result<Self> {
        let path = run.join(FILE);
        let options = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut file = options.map_err(Error::io(&path, "open it"))?;
        end_the_line(&mut file).map_err(Error::io(&path, "write it"))?;
        Ok(Self { path, file })
    }

    /// Appends `text`, each line of it after the time `now` (UTC, RFC 3339 to the second), in one write. Control characters
    /// are written as escapes.
    pub fn say(&mut self, now: Timestamp, text: &str) -> Result<()> {
        let time = now.strftime("%Y-%m-%dT%H:%M:%SZ");
        let mut lines = String::new();
        for line in text.lines() {
            let _ = writeln!(lines, "{time} {}", plain(line));
        }
        self.file.write_all(lines.as_bytes()).map_err(Error::io(&self.path, "append to it"))
    }

    /// The open file, for a process without a terminal: what it writes there comes between the lines.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl LogTail {
    /// The whole lines since the last call; `None` while there is no log.
    pub fn lines(&mut self) -> Result<Option<Vec<String>>> {
        let fail = |doing| Error::io(&self.path, doing);
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(fail("read it"))?,
        };
        let mut bytes = Vec::new();
        let sought = file.seek(SeekFrom::Start(self.offset));
        sought.and_then(|_| file.read_to_end(&mut bytes)).map_err(fail("read it"))?;
        bytes.truncate(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
        self.offset += bytes.len() as u64;
        Ok(Some(String::from_utf8_lossy(&bytes).lines().map(plain).collect()))
    }
}

/// A killed process may have left the beginning of a line.
fn end_the_line(file: &mut File) -> std::io::Result<()> {
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last == [b'\n'] { Ok(()) } else { file.write_all(b"\n") }
}

/// The line without what would move a terminal's cursor or colour it.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for c in line.chars() {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_times_and_no_control_characters_and_a_torn_one_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut tail = LogTail { path: path.clone(), offset: 0 };
        assert_eq!(tail.lines().unwrap(), None);
        let now: Timestamp = "2026-11-22T05:44:00.7Z".parse().unwrap();
        Log::open(folder.path()).unwrap().say(now, "one\n\u{1b}[31mtwo\r\tx").unwrap();
        let said = ["2026-11-22T05:44:00Z one", "2026-11-22T05:44:00Z \\u{1b}[31mtwo\\r\\tx"];
        assert_eq!(tail.lines().unwrap().unwrap(), said);
        std::fs::write(&path, format!("{}\n{}\ntorn", said[0], said[1])).unwrap();
        assert_eq!(tail.lines().unwrap().unwrap(), [""; 0], "it may still grow");
        Log::open(folder.path()).unwrap().say(now, "three").unwrap();
        assert_eq!(tail.lines().unwrap().unwrap(), ["torn", "2026-11-22T05:44:00Z three"]);
    }
}
