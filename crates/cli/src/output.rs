//! Writing to standard output. A reader that has gone away (`muon ... | head`) is an error like any other here;
//! `main` ends quietly on it.

use std::io::{self, IsTerminal, Write};

use report::Charset;

/// No message is longer.
const LONGEST: usize = 4000;

/// Writes `text` and a newline to standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.trim_end().as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Box-drawing characters for a terminal that can show them, ASCII for files and pipes.
pub fn charset() -> Charset {
    if io::stdout().is_terminal() { Charset::Unicode } else { Charset::Ascii }
}

/// One line of at most [`LONGEST`] characters that no terminal takes for a command: messages name what is in files, and
/// that may be anything.
pub fn plain(text: &str) -> String {
    let mut line = String::new();
    let words = text.split_whitespace().flat_map(|word| [" ", word]).skip(1);
    for (at, c) in words.flat_map(str::chars).enumerate() {
        match c {
            _ if at == LONGEST => return line + " ...",
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
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
    use super::{LONGEST, columns, plain};

    #[test]
    fn whatever_is_told_is_one_plain_line() {
        assert_eq!(plain(" a\nb\r\n  c\u{1b}[31m\u{7}\u{9b}d "), "a b c\\u{1b}[31m\\u{7}\\u{9b}d");
        assert_eq!(plain(&"x".repeat(1 << 20)).len(), LONGEST + 4);
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bcd", "e"], ["abc", "", "f"], ["x", "y", ""]];
        let rows = rows.map(|row| row.map(String::from));
        assert_eq!(columns(&rows), "a    bcd  e\nabc       f\nx    y");
    }
}
