//! Lines of a UTF-8 file, of bounded length, with their numbers and byte counts.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io};

/// The longest line read; a longer one is an error rather than an unbounded allocation.
const LIMIT: u64 = 64 << 20;

/// Reads a file line by line.
pub(crate) struct LineReader {
    path: PathBuf,
    reader: BufReader<File>,
    buffer: Vec<u8>,
    number: u64,
    offset: u64,
}

impl LineReader {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io(path))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::with_capacity(1 << 18, file),
            buffer: Vec::new(),
            number: 0,
            offset: 0,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the line last read, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next line with its end-of-line bytes, or `None` at the end of the file.
    pub(crate) fn next_line(&mut self) -> Result<Option<&str>> {
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        let mut limited = (&mut self.reader).take(LIMIT + 1);
        let read = limited.read_until(b'\n', &mut self.buffer).map_err(io(&self.path))? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if read > LIMIT {
            return Err(Error::LongLine { path: self.path.clone(), line: self.number, limit: LIMIT });
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(line) => Ok(Some(line)),
            Err(e) => Err(Error::Utf8 {
                path: self.path.clone(),
                line: self.number,
                offset: self.offset + e.valid_up_to() as u64,
            }),
        }
    }
}
