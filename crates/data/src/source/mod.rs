//! Where documents come from: listing the files of a corpus, and one stream of documents over all of them.
//!
//! | file | documents |
//! |---|---|
//! | `.parquet` | one a row: the text column, of type `Utf8`, `LargeUtf8` or `Utf8View` |
//! | `.jsonl` | one a line: the text field of a JSON object |
//! | `.txt` | paragraphs: runs of lines between blank lines, cut at a line end after 1 MiB |
//!
//! A folder is a corpus in shards: its files of one kind, in the order of their names. Files with other extensions
//! and hidden files in it are left out, sub-folders are not entered. Empty texts and nulls are skipped.

mod jsonl;
mod lines;
mod parquet;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io};

/// The kinds of file that hold a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Apache Parquet, a document a row.
    Parquet,
    /// JSON lines, a document a line.
    Jsonl,
    /// Plain text, a document a paragraph.
    Text,
}

impl Kind {
    /// The file extension, with its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => ".parquet",
            Self::Jsonl => ".jsonl",
            Self::Text => ".txt",
        }
    }

    fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        [Self::Parquet, Self::Jsonl, Self::Text].into_iter().find(|kind| kind.extension()[1..] == *extension)
    }
}

/// One file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: PathBuf,
    /// Its kind; all files of a corpus share one.
    pub kind: Kind,
    /// Its size on disk.
    pub bytes: u64,
    /// Its rows, where the file says so (parquet).
    pub rows: Option<u64>,
}

/// A document and the number of file bytes it stands for in a progress bar.
pub(crate) struct Document {
    pub(crate) text: String,
    pub(crate) bytes: u64,
}

/// A stream of documents; after an error it ends.
pub(crate) type Documents = Box<dyn Iterator<Item = Result<Document>>>;

/// Lists the files of the corpus at `path` and checks what can be checked without reading them: that they exist,
/// are of one kind, are not empty, and (parquet) that the footer is sound and has the text column.
pub(crate) fn list(path: &Path, column: &str) -> Result<Vec<File>> {
    let metadata = match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Missing(path.to_owned()));
        }
        other => other.map_err(io(path))?,
    };
    let paths = if metadata.is_dir() { shards(path)? } else { vec![path.to_owned()] };
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let kind = Kind::of(&path).ok_or_else(|| Error::UnknownKind(path.clone()))?;
        let bytes = fs::metadata(&path).map_err(io(&path))?.len();
        if bytes == 0 {
            return Err(Error::EmptyFile(path));
        }
        let rows = match kind {
            Kind::Parquet => Some(parquet::rows(&path, column)?),
            Kind::Jsonl | Kind::Text => None,
        };
        files.push(File { path, kind, bytes, rows });
    }
    Ok(files)
}

/// The documents of one file, in order.
pub(crate) fn documents(file: &File, column: &str) -> Result<Documents> {
    Ok(match file.kind {
        Kind::Parquet => Box::new(parquet::Rows::open(file, column)?),
        Kind::Jsonl => Box::new(jsonl::Lines::open(&file.path, column)?),
        Kind::Text => Box::new(text::Paragraphs::open(&file.path)?),
    })
}

/// The data files of a folder, sorted by name, all of one kind.
fn shards(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && Kind::of(&path).is_some() && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let mut kinds = paths.iter().filter_map(|path| Kind::of(path));
    let first = kinds.next().ok_or_else(|| Error::EmptyFolder(folder.to_owned()))?;
    match kinds.find(|kind| *kind != first) {
        Some(other) => Err(Error::MixedKinds {
            folder: folder.to_owned(),
            first: first.extension(),
            second: other.extension(),
        }),
        None => Ok(paths),
    }
}
