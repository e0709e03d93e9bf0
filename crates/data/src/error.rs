//! The crate's one error type: each message names the thing and the remedy in one line.

use std::path::{Path, PathBuf};

/// What went wrong while reading, tokenising or caching a corpus.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file or folder.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Nothing exists at the given path.
    #[error("{path}: no such file or folder (check --data)", path = .0.display())]
    Missing(PathBuf),
    /// The file's name ends in no known extension.
    #[error("{path}: not a data file; its name must end in .parquet, .jsonl or .txt", path = .0.display())]
    UnknownKind(PathBuf),
    /// The folder holds no data file.
    #[error("{path}: the folder holds no .parquet, .jsonl or .txt file", path = .0.display())]
    EmptyFolder(PathBuf),
    /// The folder holds data files of more than one kind.
    #[error("{path}: the folder mixes {first} and {second} files; keep one kind", path = folder.display())]
    MixedKinds {
        /// The folder.
        folder: PathBuf,
        /// Extension of the first file by name.
        first: &'static str,
        /// Another extension found.
        second: &'static str,
    },
    /// The file has no bytes.
    #[error("{path}: the file is empty; remove it or fetch it again", path = .0.display())]
    EmptyFile(PathBuf),
    /// The text column does not exist.
    #[error("{place}: no column `{column}`; it has: {found} (choose one with --text-column)")]
    Column {
        /// File, and line where there is one.
        place: String,
        /// The column asked for.
        column: String,
        /// The columns there are, comma separated.
        found: String,
    },
    /// The text column holds something other than text.
    #[error("{place}: column `{column}` holds {found}, not text (choose another with --text-column)")]
    ColumnType {
        /// File, and line where there is one.
        place: String,
        /// The column asked for.
        column: String,
        /// What it holds.
        found: String,
    },
    /// The parquet file is damaged, incomplete or uses an unknown encoding.
    #[error("{path}: cannot be read as parquet: {detail}; it may be truncated, fetch it again", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's reason, and the row where known.
        detail: String,
    },
    /// A line of a .jsonl file is not a JSON object.
    #[error("{path}, line {line}: not a JSON object: {detail}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// The parser's reason.
        detail: String,
    },
    /// Text that is not UTF-8.
    #[error("{path}, line {line}, byte {offset}: not UTF-8; convert the file (for example with iconv)", path = path.display())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// Offset of the first invalid byte in the file, from 0.
        offset: u64,
    },
    /// A line longer than the reader accepts.
    #[error("{path}, line {line}: longer than {limit} bytes; split it into shorter lines", path = path.display())]
    LongLine {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The tokenizer file cannot be used.
    #[error("{path}: not a usable tokenizer.json: {detail}", path = path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The reason.
        detail: String,
    },
    /// The tokenizer has no end-of-text token under a known name.
    #[error("{path}: no end-of-text token among its added tokens; expected one of: {known}", path = path.display())]
    EndOfText {
        /// The tokenizer file.
        path: PathBuf,
        /// The names looked for, comma separated.
        known: String,
    },
    /// The tokenizer failed on a document.
    #[error("document {document} (from 0): the tokenizer failed: {detail}")]
    Encode {
        /// Index of the document in the corpus.
        document: u64,
        /// The tokenizer's reason.
        detail: String,
    },
    /// Text asked of the synthetic tokenizer, or the reverse.
    #[error("the {source_name} cannot be used with the tokenizer `{tokenizer}`; choose {remedy}")]
    Mismatch {
        /// The source.
        source_name: &'static str,
        /// The tokenizer asked for.
        tokenizer: String,
        /// What fits instead.
        remedy: &'static str,
    },
    /// An option outside its range.
    #[error("{name} = {value}: must be at least 1")]
    Zero {
        /// The option's flag.
        name: &'static str,
        /// Its value.
        value: usize,
    },
    /// The corpus has no document with text in it.
    #[error("{path}: no document with text in it", path = .0.display())]
    NoDocuments(PathBuf),
    /// Too little text for a single row.
    #[error("{path}: the {split} split holds {documents} documents with {tokens} tokens, too few for {need}; give more documents or a smaller --seq-len", path = path.display())]
    TooSmall {
        /// The corpus.
        path: PathBuf,
        /// `training` or `validation`.
        split: &'static str,
        /// Documents in that split.
        documents: u64,
        /// Tokens in that split.
        tokens: u64,
        /// What a row needs.
        need: String,
    },
    /// The token cache is damaged or was not written by this program.
    #[error("{path}: not a valid token cache ({detail}); delete it and run again", path = path.display())]
    Cache {
        /// The cache file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Attaches `path` to an I/O error.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    |source| Error::Io { path: path.to_owned(), source }
}
