//! Tables that are not wider than the terminal: columns go in a stated order, then the first one is cut in its middle.

use comfy_table::Table;

use crate::tables::{Charset, align_right, plain, table};

/// What is left of the first column at least.
const LEAST: usize = 12;

/// A table of text with a header.
pub(crate) struct Sheet<'a, const N: usize> {
    /// The names of the columns.
    pub header: [&'a str; N],
    pub rows: Vec<[String; N]>,
    /// Columns with numbers begin here.
    pub numbers: usize,
    /// The columns that go, in this order, where the table is too wide.
    pub goes: &'a [&'a str],
}

impl<const N: usize> Sheet<'_, N> {
    /// The table in at most `width` characters, if that can be. A column that no row has a value for is left out.
    pub(crate) fn text(&self, charset: Charset, width: Option<usize>) -> String {
        let mut shown: Vec<usize> =
            (0..N).filter(|&at| self.rows.iter().any(|row| !row[at].is_empty())).collect();
        let width = width.unwrap_or(usize::MAX);
        for name in self.goes {
            if self.width(&shown) > width {
                shown.retain(|&at| self.header[at] != *name);
            }
        }
        let over = self.width(&shown).saturating_sub(width);
        let first = self.column(0).saturating_sub(over).max(LEAST);
        let mut list: Table = table(charset);
        list.set_header(shown.iter().map(|&at| self.header[at]));
        for row in &self.rows {
            let cell = |at: usize| if at == 0 { shortened(&row[at], first) } else { row[at].clone() };
            list.add_row(shown.iter().map(|&at| cell(at)));
        }
        align_right(&mut list, shown.iter().filter(|&&at| at < self.numbers).count());
        plain(format!("{list}\n"), charset)
    }

    /// Characters across: each column has a blank on either side, and there is a line before, between and after them.
    fn width(&self, shown: &[usize]) -> usize {
        shown.iter().map(|&at| self.column(at) + 3).sum::<usize>() + 1
    }

    fn column(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].chars().count());
        cells.chain([self.header[at].chars().count()]).max().unwrap_or(0)
    }
}

/// The text in at most `most` characters: what is between its beginning and its end becomes `..`.
pub fn shortened(text: &str, most: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= most {
        return text.to_owned();
    }
    let kept = most.saturating_sub(2);
    let head = kept.div_ceil(2);
    let tail = chars.len() - (kept - head);
    chars[..head].iter().chain(&['.', '.']).chain(&chars[tail..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_stay() {
        assert_eq!(shortened("muon-granite-nano-20261122-1436-silver-whale", 16), "muon-gr..r-whale");
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("abcdef", 1).chars().count(), 2);
    }

    #[test]
    fn columns_go_in_order_and_then_the_first_is_cut() {
        let rows = vec![["a-rather-long-name".to_owned(), "1".into(), "22".into(), String::new()]];
        let sheet = Sheet { header: ["run", "one", "two", "three"], rows, numbers: 1, goes: &["two", "one"] };
        let wide = sheet.text(Charset::Ascii, None);
        let line = |text: &str, at: usize| text.lines().nth(at).unwrap().to_owned();
        assert_eq!(line(&wide, 1), "| run                | one | two |", "no one has a third");
        assert_eq!(wide.lines().next().unwrap().len(), sheet.width(&[0, 1, 2]));
        let goes = |width: usize| line(&sheet.text(Charset::Ascii, Some(width)), 3);
        assert_eq!(goes(34), "| a-rather-long-name |   1 |  22 |");
        assert_eq!(goes(33), "| a-rather-long-name |   1 |");
        assert_eq!(goes(27), "| a-rather-long-name |");
        assert_eq!(goes(20), "| a-rathe..ng-name |");
        assert_eq!(goes(3), "| a-rat..-name |", "not less than can be told apart");
    }
}
