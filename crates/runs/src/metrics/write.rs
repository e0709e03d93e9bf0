//! Appending rows.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{COLUMNS, FILE, Row};
use crate::{Error, Result};

/// Appends rows to `metrics.csv`, each in one write that reaches the system before [`append`](Self::append) returns,
/// so that a killed run keeps its rows.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
    line: String,
    /// The step of the last row and the names of the diagnostics, from the first row on.
    begun: Option<(u64, Vec<String>)>,
}

impl MetricsWriter {
    /// Makes the file; one that exists is refused.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let file = File::create_new(&path).map_err(Error::io(&path, "create it"))?;
        Ok(Self { path, file, line: String::new(), begun: None })
    }

    /// Appends one row; the first also writes the header.
    ///
    /// Refused, with nothing written: a step that is not greater than the last, a diagnostic that is not in the header,
    /// is named twice, or has a name other than letters, digits and `_ - . /`.
    pub fn append(&mut self, row: &Row) -> Result<()> {
        let wrong = |what: String| Err(Error::Row { path: self.path.clone(), step: row.step, what });
        self.line.clear();
        let names = match &self.begun {
            Some((last, _)) if row.step <= *last => {
                return wrong(format!("the last row is of step {last} (steps must grow)"));
            }
            Some((_, names)) => names,
            None => &row.diagnostics.iter().map(|(name, _)| name.clone()).collect(),
        };
        let mut seen = HashSet::new();
        for (name, _) in &row.diagnostics {
            if !names.contains(name) {
                return wrong(format!("diagnostic `{name}` is not in the header (name it in the first row)"));
            }
            if !seen.insert(name) {
                return wrong(format!("diagnostic `{name}` is given twice (give it once)"));
            }
            if !is_column_name(name) || COLUMNS.contains(&name.as_str()) {
                return wrong(format!("diagnostic `{name}` cannot be a column (use another name)"));
            }
        }

        if self.begun.is_none() {
            self.line.push_str(&COLUMNS.join(","));
            for name in names {
                self.line.push(',');
                self.line.push_str(name);
            }
            self.line.push('\n');
        }
        let _ = write!(self.line, "{},{}", row.step, row.tokens);
        for value in [row.loss, row.lr, row.grad_norm, row.step_ms, row.tokens_per_s] {
            push(&mut self.line, Some(value));
        }
        push(&mut self.line, row.val_loss);
        for name in names {
            let value = row.diagnostics.iter().find(|(given, _)| given == name);
            push(&mut self.line, value.map(|(_, value)| *value));
        }
        self.line.push('\n');

        self.file.write_all(self.line.as_bytes()).map_err(Error::io(&self.path, "append to it"))?;
        self.begun = Some((row.step, names.clone()));
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
