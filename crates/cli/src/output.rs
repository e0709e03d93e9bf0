//! Writing to standard output. A reader that has gone away (`muon ... | head`) is an error like any other here;
//! `main` ends quietly on it.

use std::io::{self, IsTerminal, Write};

use report::Charset;

use crate::secrets::mask;

/// Writes `text`, its secrets masked, and a newline to standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(mask(text.trim_end()).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Box-drawing characters for a terminal that can show them, ASCII for files and pipes.
pub fn charset() -> Charset {
    if io::stdout().is_terminal() { Charset::Unicode } else { Charset::Ascii }
}

/// Text in columns two spaces apart, without borders; the last column is not padded.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(|i| if i + 1 < N { width(i) } else { 0 });
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bcd", "e"], ["abc", "", "f"], ["x", "y", ""]];
        let rows = rows.map(|row| row.map(String::from));
        assert_eq!(columns(&rows), "a    bcd  e\nabc       f\nx    y");
    }
}
