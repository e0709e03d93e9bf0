//! Reading rows back.

use std::fmt;
use std::path::Path;

use super::{COLUMNS, Row};
use crate::{Error, Result};

/// The content of a `metrics.csv`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The names of the diagnostics, in column order.
    pub diagnostics: Vec<String>,
    /// The rows, in order. A row's diagnostics are those with a value.
    pub rows: Vec<Row>,
    /// What was left out at the end, if the last line was cut short. For the caller to show.
    pub torn: Option<Torn>,
}

/// A last line without its end, as a killed run or a full disk leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The line, counted from 1.
    pub line: usize,
    /// What there is of it.
    pub text: String,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start: String = self.text.chars().take(40).collect();
        write!(f, "line {} is cut short (`{}`) and was left out", self.line, start.escape_debug())
    }
}

impl Metrics {
    /// Reads a file written by [`MetricsWriter`](super::MetricsWriter). An empty file has no rows. A last line without its
    /// newline is left out and told in [`Metrics::torn`], even where it would parse: its last number may be cut. Any other
    /// line that is wrong is an error.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&std::fs::read(path).map_err(Error::io(path, "read it"))?, path)
    }

    /// The same from the bytes of the file at `path`.
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (lines, rest) = bytes.split_at(whole);
        let wrong = |line: usize, what: String| Error::Metrics { path: path.to_owned(), line, what };

        let mut metrics = Self::default();
        let mut count = 0;
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            count += 1;
            let line = std::str::from_utf8(line).map_err(|_| wrong(count, "it is not text".into()))?;
            let line = line.trim_end_matches(['\n', '\r']);
            if count == 1 {
                metrics.diagnostics = header(line).map_err(|what| wrong(count, what))?;
            } else {
                let row = row(line, &metrics.diagnostics).map_err(|what| wrong(count, what))?;
                if let Some(last) = metrics.rows.last().filter(|last| row.step <= last.step) {
                    return Err(wrong(count, format!("step {} follows step {}", row.step, last.step)));
                }
                metrics.rows.push(row);
            }
        }
        if !rest.is_empty() {
            metrics.torn = Some(Torn { line: count + 1, text: String::from_utf8_lossy(rest).into_owned() });
        }
        Ok(metrics)
    }
}

/// The diagnostics named by a header line.
pub(super) fn header(line: &str) -> std::result::Result<Vec<String>, String> {
    let mut cells = line.split(',');
    if COLUMNS.iter().all(|&column| cells.next() == Some(column)) {
        Ok(cells.map(str::to_owned).collect())
    } else {
        Err(format!("the header is not `{},...`", COLUMNS.join(",")))
    }
}

/// The row of a line.
pub(super) fn row(line: &str, diagnostics: &[String]) -> std::result::Result<Row, String> {
    let cells: Vec<&str> = line.split(',').collect();
    let want = COLUMNS.len() + diagnostics.len();
    if cells.len() != want {
        return Err(format!("{} cells instead of {want}", cells.len()));
    }
    let whole = |at: usize| cells[at].parse().map_err(|_| not_a_number(COLUMNS[at], cells[at]));
    let real = |at: usize| -> std::result::Result<f64, String> {
        cells[at].parse().map_err(|_| {
            let column = COLUMNS.get(at).copied().unwrap_or_else(|| &diagnostics[at - COLUMNS.len()]);
            not_a_number(column, cells[at])
        })
    };
    let optional = |at: usize| {
        if cells[at].is_empty() { Ok(None) } else { real(at).map(Some) }
    };

    let mut row = Row {
        step: whole(0)?,
        tokens: whole(1)?,
        loss: real(2)?,
        lr: real(3)?,
        grad_norm: real(4)?,
        step_ms: real(5)?,
        tokens_per_s: real(6)?,
        val_loss: optional(7)?,
        diagnostics: Vec::new(),
    };
    for (at, name) in diagnostics.iter().enumerate() {
        if let Some(value) = optional(COLUMNS.len() + at)? {
            row.diagnostics.push((name.clone(), value));
        }
    }
    Ok(row)
}

fn not_a_number(column: &str, cell: &str) -> String {
    format!("column {column}: `{}` is not a number", cell.escape_debug())
}
