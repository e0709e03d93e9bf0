//! Following a `metrics.csv` that grows.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::{FILE, Row, read};
use crate::{Error, Result, RunInfo};

/// Reads the rows that came since it read last.
#[derive(Debug)]
pub struct MetricsTail {
    path: PathBuf,
    /// Bytes read, whole lines only.
    offset: u64,
    /// Lines read.
    line: usize,
    /// The names of the diagnostics, from the header.
    names: Vec<String>,
}

impl RunInfo {
    /// The metrics to follow, from the first row on.
    pub fn tail(&self) -> MetricsTail {
        MetricsTail { path: self.dir.join(FILE), offset: 0, line: 0, names: Vec::new() }
    }
}

impl MetricsTail {
    /// The whole rows since the last call; none while there is no file. A file that became shorter was cut back by a run that
    /// goes on from an earlier step: following goes on from its new end.
    pub fn rows(&mut self) -> Result<Vec<Row>> {
        let fail = |doing| Error::io(&self.path, doing);
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(fail("read it"))?,
        };
        let cut = file.metadata().map_err(fail("read it"))?.len() < self.offset;
        if cut {
            (self.offset, self.line) = (0, 0);
        }
        let mut bytes = Vec::new();
        let sought = file.seek(SeekFrom::Start(self.offset));
        sought.and_then(|_| file.read_to_end(&mut bytes)).map_err(fail("read it"))?;
        let mut rows = Vec::new();
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if !line.ends_with(b"\n") {
                break;
            }
            self.line += 1;
            self.offset += line.len() as u64;
            let wrong = |what| Error::Metrics { path: self.path.clone(), line: self.line, what };
            let text = std::str::from_utf8(line).map_err(|_| wrong("it is not text".into()))?;
            let text = text.trim_end_matches(['\n', '\r']);
            if self.line == 1 {
                self.names = read::header(text).map_err(wrong)?;
            } else {
                rows.push(read::row(text, &self.names).map_err(wrong)?);
            }
        }
        if cut {
            rows.clear();
        }
        Ok(rows)
    }
}
