//! Builds a cache file: documents are read in chunks, encoded in parallel, and appended to temporary files.
//!
//! Memory is bounded whatever the corpus: one chunk of text, its tokens, and the tokenizer's working memory for one
//! document per thread.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use rayon::prelude::*;
use tempfile::NamedTempFile;

use super::{FORMAT, HEAD, Header, VERSION};
use crate::error::{Error, Result, io};
use crate::hash;
use crate::progress::Progress;
use crate::source::{self, File as SourceFile};
use crate::split::is_validation;
use crate::tokenizer::Tokenizer;

/// Bytes of text encoded at a time.
const CHUNK: usize = 16 << 20;

/// What a cache is built from.
pub(crate) struct Recipe<'a> {
    pub(crate) files: &'a [SourceFile],
    pub(crate) column: &'a str,
    pub(crate) tokenizer: &'a Tokenizer,
    /// At most so many documents, in order.
    pub(crate) examples: Option<usize>,
    pub(crate) key: &'a str,
}

/// Tokenises the corpus into the cache file `path`, which appears only when complete.
pub(crate) fn build(recipe: &Recipe, path: &Path, progress: &dyn Progress) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(io(folder))?;
    progress.begin("tokenising", Some(recipe.files.iter().map(|file| file.bytes).sum()));
    let mut writer = Writer::new(folder, recipe.tokenizer)?;
    let mut left = recipe.examples.unwrap_or(usize::MAX);
    let (mut chunk, mut text_bytes, mut file_bytes) = (Vec::new(), 0, 0);
    'files: for file in recipe.files {
        for document in source::documents(file, recipe.column)? {
            if left == 0 {
                break 'files;
            }
            let document = document?;
            file_bytes += document.bytes;
            if !document.text.is_empty() {
                text_bytes += document.text.len();
                chunk.push(document.text);
                left -= 1;
            }
            if text_bytes >= CHUNK {
                writer.append(&chunk, recipe.tokenizer)?;
                progress.advance(file_bytes);
                chunk.clear();
                (text_bytes, file_bytes) = (0, 0);
            }
        }
    }
    writer.append(&chunk, recipe.tokenizer)?;
    progress.advance(file_bytes);
    writer.finish(recipe.key, path)?;
    progress.end();
    Ok(())
}

/// One split on its way to disk: its token stream and the ends of its documents.
struct Stream<W: Write> {
    tokens: BufWriter<W>,
    ends: BufWriter<File>,
    token_count: u64,
    document_count: u64,
}

impl<W: Write> Stream<W> {
    fn new(tokens: W, ends: File) -> Self {
        Self { tokens: BufWriter::new(tokens), ends: BufWriter::new(ends), token_count: 0, document_count: 0 }
    }

    fn push(&mut self, tokens: &[u8], count: u64) -> std::io::Result<()> {
        self.tokens.write_all(tokens)?;
        self.token_count += count;
        self.document_count += 1;
        self.ends.write_all(&self.token_count.to_le_bytes())
    }
}

/// Writes the sections: training tokens straight into the new file, the others into nameless files appended at the end.
struct Writer<'a> {
    folder: &'a Path,
    width: usize,
    training: Stream<NamedTempFile>,
    validation: Stream<File>,
}

impl<'a> Writer<'a> {
    fn new(folder: &'a Path, tokenizer: &Tokenizer) -> Result<Self> {
        let nameless = || tempfile::tempfile_in(folder).map_err(io(folder));
        let mut file = tempfile::Builder::new().prefix(".tokens-").tempfile_in(folder).map_err(io(folder))?;
        file.write_all(&[b' '; HEAD]).map_err(io(folder))?;
        Ok(Self {
            folder,
            width: if tokenizer.vocab_size <= 1 << 16 { 2 } else { 4 },
            training: Stream::new(file, nameless()?),
            validation: Stream::new(nameless()?, nameless()?),
        })
    }

    /// Encodes the texts in parallel and appends them in order.
    fn append(&mut self, texts: &[String], tokenizer: &Tokenizer) -> Result<()> {
        let first = self.training.document_count + self.validation.document_count;
        let width = self.width;
        let encoded: Vec<_> = texts
            .par_iter()
            .enumerate()
            .with_max_len(1)
            .map(|(i, text)| {
                let mut ids = tokenizer
                    .encode(text)
                    .map_err(|e| Error::Encode { document: first + i as u64, detail: e.to_string() })?;
                if ids.is_empty() {
                    return Ok((false, Vec::new(), 0));
                }
                ids.push(tokenizer.end_of_text);
                let bytes: Vec<u8> = match width {
                    2 => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
                    _ => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
                };
                Ok((is_validation(text), bytes, ids.len() as u64))
            })
            .collect::<Result<_>>()?;
        // A normaliser may leave nothing of a text; such a document is skipped like an empty one.
        for (held_out, bytes, count) in encoded.into_iter().filter(|(_, _, count)| *count > 0) {
            let pushed = if held_out {
                self.validation.push(&bytes, count)
            } else {
                self.training.push(&bytes, count)
            };
            pushed.map_err(io(self.folder))?;
        }
        Ok(())
    }

    /// Joins the sections, writes the head, and renames the file to `path`.
    fn finish(self, key: &str, path: &Path) -> Result<()> {
        let mut header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            key: key.to_owned(),
            token_bytes: self.width,
            tokens: [self.training.token_count, self.validation.token_count],
            documents: [self.training.document_count, self.validation.document_count],
            checksum: String::new(),
        };
        let join = || -> std::io::Result<NamedTempFile> {
            let mut file = self.training.tokens.into_inner()?;
            let others = [
                self.validation.tokens.into_inner()?,
                self.training.ends.into_inner()?,
                self.validation.ends.into_inner()?,
            ];
            for mut section in others {
                section.seek(SeekFrom::Start(0))?;
                std::io::copy(&mut section, &mut file)?;
            }
            file.seek(SeekFrom::Start(HEAD as u64))?;
            header.checksum = header.seal(hash::rest(file.as_file_mut(), |_| {})?);
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header.text())?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = join().map_err(io(self.folder))?;
        file.persist(path).map_err(|e| Error::Io { path: path.to_owned(), source: e.error })?;
        Ok(())
    }
}
