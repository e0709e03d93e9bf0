//! Plain text: a document is a run of lines between blank lines.

use std::path::Path;

use super::Document;
use super::lines::LineReader;
use crate::error::Result;

/// A paragraph longer than this is cut at the next line end, so that a file without blank lines does not become
/// one document of its whole size.
const LONGEST: usize = 1 << 20;

/// The paragraphs of a .txt file, inner line ends kept, outer white space trimmed.
pub(crate) struct Paragraphs {
    lines: LineReader,
    done: bool,
}

impl Paragraphs {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { lines: LineReader::open(path)?, done: false })
    }

    /// The next run of lines; its text is empty where two blank lines follow each other.
    fn paragraph(&mut self) -> Result<Option<Document>> {
        let (mut text, mut bytes) = (String::new(), 0);
        while let Some(line) = self.lines.next_line()? {
            bytes += line.len() as u64;
            let blank = line.trim().is_empty();
            if !blank {
                text.push_str(line);
            }
            if blank || text.len() > LONGEST {
                break;
            }
        }
        text.truncate(text.trim_end().len());
        Ok((bytes > 0).then_some(Document { text, bytes }))
    }
}

impl Iterator for Paragraphs {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.paragraph().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}
