//! Writing to standard output. A reader that has gone away (`muon ... | head`) is an error like any other here;
//! `main` ends quietly on it.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use report::Charset;
use serde_json::{Map, Value, json};

use crate::secrets::mask;

/// Whether the command line has `--json`.
static JSON: OnceLock<bool> = OnceLock::new();

/// Sets how results are shown; the first call counts.
pub fn choose(json: bool) {
    let _ = JSON.set(json);
}

/// Whether results go to a program.
pub fn json() -> bool {
    JSON.get().is_some_and(|&json| json)
}

/// Shows a result: as one JSON document with `--json`, else as text.
pub fn show(value: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    Ok(print(&if json() { serde_json::to_string_pretty(&value())? } else { text() })?)
}

/// No message is longer.
const LONGEST: usize = 4000;

/// Writes `text`, its secrets masked, and a newline to standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(mask(text.trim_end()).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// What a verb shows part by part: printed at once, or with `--json` gathered into one document.
#[derive(Default)]
pub struct Page(Map<String, Value>);

impl Page {
    /// Shows a text, whose content programs get as `value` under `key`.
    pub fn add(&mut self, key: &str, value: Value, text: &str) -> anyhow::Result<()> {
        if !text.is_empty() {
            say(text)?;
        }
        self.0.insert(key.to_owned(), value);
        Ok(())
    }

    /// Shows a table with a header, which programs get as objects under `key`.
    pub fn table<const N: usize>(&mut self, key: &str, rows: &[[String; N]]) -> anyhow::Result<()> {
        self.add(key, objects(rows), &columns(rows))
    }

    /// Ends the page: with `--json` the document is printed now.
    pub fn end(self) -> anyhow::Result<()> {
        if json() { Ok(print(&serde_json::to_string_pretty(&Value::Object(self.0))?)?) } else { Ok(()) }
    }
}

/// Shows a text that is for people alone.
pub fn say(text: &str) -> anyhow::Result<()> {
    if json() { Ok(()) } else { Ok(print(text)?) }
}

/// The rows of a table as objects, their keys from its header; a cell that is a number is one, an empty one `null`. A
/// column without a name is what the row is about, or the verdict on it.
pub fn objects<const N: usize>(rows: &[[String; N]]) -> Value {
    let Some((header, rows)) = rows.split_first() else { return json!([]) };
    let key = |at: usize| match header[at].as_str() {
        "" if at == 0 => "what".to_owned(),
        "" => "verdict".to_owned(),
        name => {
            let words: Vec<&str> =
                name.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
            words.join("_").to_lowercase()
        }
    };
    let value = |cell: &String| match cell.parse::<f64>() {
        _ if cell.is_empty() => Value::Null,
        // What is not finite has no number in JSON.
        Ok(number) if number.is_finite() => serde_json::from_str(cell).unwrap_or(json!(number)),
        _ => json!(cell),
    };
    let object = |row: &[String; N]| (0..N).map(|at| (key(at), value(&row[at]))).collect::<Map<_, _>>();
    rows.iter().map(|row| Value::Object(object(row))).collect()
}

/// Box-drawing characters for a terminal that can show them, ASCII for files and pipes.
pub fn charset() -> Charset {
    if io::stdout().is_terminal() { Charset::Unicode } else { Charset::Ascii }
}

/// Whether standard output takes colours: a terminal that is not dumb, unless the environment says no (no-color.org).
pub fn colour() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !no_color && !dumb
}

/// Characters across the terminal that standard output is; none where it is no terminal.
pub fn width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(io::stdout())?;
    io::stdout().is_terminal().then_some(width.0 as usize)
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
    use super::{LONGEST, columns, objects, plain};
    use serde_json::json;

    #[test]
    fn tables_are_objects_for_programs() {
        let rows = [["", "worst, of |x|", "ms", ""], ["a", "1.5e-3", "3", "ok"], ["b", "NaN", "", "ABOVE"]];
        let rows = rows.map(|row| row.map(String::from));
        let want = json!([
            { "what": "a", "worst_of_x": 1.5e-3, "ms": 3, "verdict": "ok" },
            { "what": "b", "worst_of_x": "NaN", "ms": null, "verdict": "ABOVE" },
        ]);
        assert_eq!(objects(&rows), want);
    }

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
