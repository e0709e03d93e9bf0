//! Appending rows.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{COLUMNS, FILE, Metrics, Row};
use crate::{Error, Result};

/// Appends rows to `metrics.csv`, each in one write that reaches the system before [`append`](Self::append) returns,
/// so that a killed run keeps its rows.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
    line: String,
    /// The diagnostics, in the order of their columns.
    names: Vec<String>,
    /// The step of the last row.
    last: Option<u64>,
    /// Bytes written so far.
    bytes: u64,
}

impl MetricsWriter {
    /// Makes the file and writes its header; a file that exists is refused, and so are names of diagnostics that stand
    /// twice or are made of other than letters, digits and `_ - . /`.
    pub(crate) fn create(folder: &Path, diagnostics: &[&str]) -> Result<Self> {
        let path = folder.join(FILE);
        let mut seen: HashSet<&str> = COLUMNS.into_iter().collect();
        for name in diagnostics {
            let what = if !is_column_name(name) {
                format!("diagnostic `{}` cannot be a column (use another name)", name.escape_debug())
            } else if !seen.insert(name) {
                format!("column `{name}` stands twice (name it once)")
            } else {
                continue;
            };
            return Err(Error::Row { path, step: 0, what });
        }
        let mut line = COLUMNS.iter().chain(diagnostics).copied().collect::<Vec<_>>().join(",");
        line.push('\n');
        let mut file = File::create_new(&path).map_err(Error::io(&path, "create it"))?;
        file.write_all(line.as_bytes()).map_err(Error::io(&path, "write its header"))?;
        let names = diagnostics.iter().map(|&name| name.to_owned()).collect();
        let bytes = line.len() as u64;
        Ok(Self { path, file, line, names, last: None, bytes })
    }

    /// Opens the file of a run that goes on after the row of `step`, where it had `bytes`, and cuts off what follows. Gives
    /// the rows that stay. Refused, with nothing cut, where they do not end with that step or have other diagnostics.
    pub(crate) fn reopen(
        folder: &Path,
        diagnostics: &[&str],
        step: u64,
        bytes: u64,
    ) -> Result<(Self, Vec<Row>)> {
        let path = folder.join(FILE);
        let content = std::fs::read(&path).map_err(Error::io(&path, "read it"))?;
        let wrong = |what: String| Error::Row { path: path.clone(), step, what };
        let kept = usize::try_from(bytes).ok().and_then(|bytes| content.get(..bytes)).ok_or_else(|| {
            wrong(format!("the checkpoint has {bytes} bytes of it, and {} are left", content.len()))
        })?;
        let metrics = Metrics::parse(kept, &path)?;
        if metrics.torn.is_some() || metrics.rows.last().map_or(0, |row| row.step) != step {
            return Err(wrong(format!("its first {bytes} bytes do not end with this step")));
        }
        if metrics.diagnostics != diagnostics {
            let (have, want) = (metrics.diagnostics.join(","), diagnostics.join(","));
            return Err(wrong(format!("it has the diagnostics `{have}` and not `{want}`")));
        }
        let file = File::options().append(true).open(&path).map_err(Error::io(&path, "open it"))?;
        file.set_len(bytes).map_err(Error::io(&path, "cut it back"))?;
        let (names, last) = (metrics.diagnostics, metrics.rows.last().map(|row| row.step));
        Ok((Self { path, file, line: String::new(), names, last, bytes }, metrics.rows))
    }

    /// Bytes of the file so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends one row.
    ///
    /// Refused, with nothing written: a step that is not greater than the last, a diagnostic that has no column or is
    /// given twice.
    pub fn append(&mut self, row: &Row) -> Result<()> {
        let wrong = |what: String| Err(Error::Row { path: self.path.clone(), step: row.step, what });
        if let Some(last) = self.last.filter(|last| row.step <= *last) {
            return wrong(format!("the last row is of step {last} (steps must grow)"));
        }
        let mut seen = HashSet::new();
        for (name, _) in &row.diagnostics {
            if !self.names.contains(name) {
                return wrong(format!(
                    "diagnostic `{name}` is not in the header (name it when the file begins)"
                ));
            }
            if !seen.insert(name) {
                return wrong(format!("diagnostic `{name}` is given twice (give it once)"));
            }
        }
        self.line.clear();
        let _ = write!(self.line, "{},{}", row.step, row.tokens);
        for value in [row.loss, row.lr, row.grad_norm, row.step_ms, row.tokens_per_s] {
            push(&mut self.line, Some(value));
        }
        push(&mut self.line, row.val_loss);
        for name in &self.names {
            let value = row.diagnostics.iter().find(|(given, _)| given == name);
            push(&mut self.line, value.map(|(_, value)| *value));
        }
        self.line.push('\n');

        self.file.write_all(self.line.as_bytes()).map_err(Error::io(&self.path, "append to it"))?;
        self.last = Some(row.step);
        self.bytes += self.line.len() as u64;
        Ok(())
    }
}

/// A comma and a cell. `Debug` of a float is its shortest form that reads back exactly, with an exponent where that is shorter.
fn push(line: &mut String, value: Option<f64>) {
    line.push(',');
    if let Some(value) = value {
        let _ = write!(line, "{value:?}");
    }
}

fn is_column_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
}
