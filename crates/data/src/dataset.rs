//! Opening a corpus: from options to two splits of rows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{Batch, Packing};
use crate::cache::{self, Cache, Part};
use crate::error::{Error, Result, io};
use crate::hash;
use crate::progress::Progress;
use crate::source::{self, File, Kind};
use crate::synthetic::{Floor, Language};
use crate::tokenizer::{Tokenizer, TokenizerSpec};

/// Where the text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The built-in language, generated on the fly.
    Synthetic,
    /// A .parquet, .jsonl or .txt file, or a folder of shards of one of these kinds.
    Path(PathBuf),
}

/// What to read and how to make rows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the text comes from.
    pub source: Source,
    /// The column (parquet) or field (JSON lines) that holds the text.
    pub text_column: String,
    /// How text becomes tokens.
    pub tokenizer: TokenizerSpec,
    /// At most so many documents, in order, before the split. For the synthetic language: so many training rows,
    /// repeated each epoch; without it rows never repeat.
    pub examples: Option<usize>,
    /// Tokens a row.
    pub seq_len: usize,
    /// How documents become rows.
    pub packing: Packing,
    /// Where token caches are kept; made when needed.
    pub cache_dir: PathBuf,
    /// Seed of the synthetic language and its documents. Text ignores it: keep it fixed across runs that are compared.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            source: Source::Synthetic,
            text_column: "text".to_owned(),
            tokenizer: TokenizerSpec::Synthetic,
            examples: None,
            seq_len: 256,
            packing: Packing::Pack,
            cache_dir: PathBuf::from(".cache/tokens"),
            seed: 0,
        }
    }
}

/// A corpus ready to train on.
pub struct Dataset {
    train: Split,
    validation: Split,
    vocab_size: usize,
    end_of_text: u32,
    pad: u32,
    fingerprint: String,
    documents: Option<u64>,
    tokens: Option<u64>,
    floor: Option<Floor>,
}

impl Dataset {
    /// The rows to train on.
    pub fn train(&self) -> &Split {
        &self.train
    }

    /// The rows held out.
    pub fn validation(&self) -> &Split {
        &self.validation
    }

    /// One above the largest token id; a model's vocabulary must be at least as large.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a document.
    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// The token that fills short rows.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// blake3 of everything the rows depend on: content, tokenizer, column, examples, row length, packing.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Documents in both splits; `None` where they are generated on the fly.
    pub fn documents(&self) -> Option<u64> {
        self.documents
    }

    /// Tokens in both splits, end-of-text included; `None` where they are generated on the fly.
    pub fn tokens(&self) -> Option<u64> {
        self.tokens
    }

    /// The least possible expected loss, where it is known (synthetic language).
    pub fn floor(&self) -> Option<Floor> {
        self.floor
    }
}

/// The rows of one split.
pub struct Split {
    rows: Rows,
    len: usize,
    seq_len: usize,
    packing: Packing,
    pad: u32,
}

enum Rows {
    /// Row `i` is stream `first + i` of the language.
    Generated { language: Arc<Language>, first: u64 },
    /// Rows cut from a part of the cache.
    Cached { cache: Arc<Cache>, part: Part },
}

impl Split {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row; [`open`] never returns such a split.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens a row, T.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// Fills `out` with the rows `ids`, reusing its memory. Neighbouring packed rows overlap by one token, so that each
    /// token of the stream is a target once.
    ///
    /// # Panics
    /// When an id is not below [`Split::len`].
    pub fn fill(&self, ids: &[usize], out: &mut Batch) {
        out.reset(ids.len(), self.seq_len, self.pad);
        let most = self.seq_len + 1;
        for (row, &id) in ids.iter().enumerate() {
            assert!(id < self.len, "row {id} of a split of {}", self.len);
            match &self.rows {
                Rows::Generated { language, first } => {
                    let stream = language.stream(first + id as u64).take(most);
                    match self.packing {
                        Packing::Pack => out.put(row, stream),
                        Packing::Truncate => out.put(row, one_document(stream, language.end_of_text())),
                    }
                }
                Rows::Cached { cache, part } => {
                    let (start, end) = match self.packing {
                        Packing::Pack => ((id * self.seq_len) as u64, cache.tokens(*part)),
                        Packing::Truncate => cache.document(*part, id as u64),
                    };
                    out.put(row, cache.range(*part, start, end.min(start + most as u64)));
                }
            }
        }
    }
}

/// A stream up to the second end-of-text: the first opens the row, the second closes its document.
fn one_document(stream: impl Iterator<Item = u32>, end_of_text: u32) -> impl Iterator<Item = u32> {
    let mut ends = 0;
    stream.take_while(move |&token| {
        let more = ends < 2;
        ends += u32::from(token == end_of_text);
        more
    })
}

/// What [`open`] would read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The files in reading order; none for the synthetic language.
    pub files: Vec<File>,
    /// Their size on disk.
    pub bytes: u64,
    /// Documents that would be read, where the files' footers or `examples` bound them.
    pub documents: Option<u64>,
    /// The tokenizer, as [`TokenizerSpec`] displays it.
    pub tokenizer: String,
    /// One above the largest token id.
    pub vocab_size: usize,
}

/// Says what [`open`] would read, from metadata alone. Fails as `open` would on whatever that shows.
pub fn inspect(options: &Options) -> Result<Plan> {
    let (files, vocab_size) = match check(options)? {
        None => (Vec::new(), Language::new(options.seed).vocab_size()),
        Some((path, tokenizer)) => (source::list(path, &options.text_column)?, tokenizer.vocab_size),
    };
    let rows = files.iter().map(|file| file.rows).sum::<Option<u64>>().filter(|_| !files.is_empty());
    let examples = options.examples.map(|examples| examples as u64);
    Ok(Plan {
        bytes: files.iter().map(|file| file.bytes).sum(),
        documents: rows.map(|rows| rows.min(examples.unwrap_or(rows))).or(examples),
        files,
        tokenizer: options.tokenizer.to_string(),
        vocab_size,
    })
}

/// Opens a corpus. Text is tokenised into the cache folder unless it already lies there.
pub fn open(options: &Options, progress: &dyn Progress) -> Result<Dataset> {
    match check(options)? {
        None => Ok(synthetic(options)),
        Some((path, tokenizer)) => text(options, path, &tokenizer, progress),
    }
}

/// Checks the options; for text returns its path and the loaded tokenizer.
fn check(options: &Options) -> Result<Option<(&Path, Tokenizer)>> {
    for (name, value) in [("--seq-len", options.seq_len), ("--examples", options.examples.unwrap_or(1))] {
        if value == 0 {
            return Err(Error::Zero { name, value });
        }
    }
    let mismatch = |source_name, remedy| Error::Mismatch {
        source_name,
        tokenizer: options.tokenizer.to_string(),
        remedy,
    };
    match (&options.source, &options.tokenizer) {
        (Source::Synthetic, TokenizerSpec::Synthetic) => Ok(None),
        (Source::Synthetic, _) => {
            Err(mismatch("synthetic language", "`synthetic`, or text with --data PATH"))
        }
        (Source::Path(_), TokenizerSpec::Synthetic) => {
            Err(mismatch("text of --data", "`bytes` or the path of a tokenizer.json"))
        }
        (Source::Path(path), TokenizerSpec::Bytes) => Ok(Some((path, Tokenizer::bytes()))),
        (Source::Path(path), TokenizerSpec::File(file)) => Ok(Some((path, Tokenizer::from_file(file)?))),
    }
}

/// Rows of the training split when nothing bounds them.
const ENDLESS: usize = 1 << 40;
/// Rows of the synthetic validation split, and the number of its first.
const HELD_OUT: usize = 512;
const HELD_OUT_FIRST: u64 = 1 << 63;

fn synthetic(options: &Options) -> Dataset {
    let language = Arc::new(Language::new(options.seed));
    let Options { seq_len, packing, .. } = *options;
    let split = |first, len| {
        let rows = Rows::Generated { language: Arc::clone(&language), first };
        Split { rows, len, seq_len, packing, pad: language.pad() }
    };
    Dataset {
        train: split(0, options.examples.unwrap_or(ENDLESS)),
        validation: split(HELD_OUT_FIRST, HELD_OUT),
        vocab_size: language.vocab_size(),
        end_of_text: language.end_of_text(),
        pad: language.pad(),
        fingerprint: fingerprint(options, &format!("{} {}", synthetic_key(options), language.vocab_size())),
        documents: None,
        tokens: None,
        floor: Some(language.floor(seq_len, packing)),
    }
}

fn synthetic_key(options: &Options) -> String {
    format!("synthetic {} {:?} {:?}", cache::VERSION, options.seed, options.examples)
}

fn text(options: &Options, path: &Path, tokenizer: &Tokenizer, progress: &dyn Progress) -> Result<Dataset> {
    let files = source::list(path, &options.text_column)?;
    let key = key(options, &files, tokenizer, progress)?;
    let cache_path = cache::path(&options.cache_dir, &key);
    let cache = if let Some(cache) = Cache::open(&cache_path, &key)? {
        cache
    } else {
        let recipe = cache::Recipe {
            files: &files,
            column: &options.text_column,
            tokenizer,
            examples: options.examples,
            key: &key,
        };
        cache::build(&recipe, &cache_path, progress)?;
        Cache::open(&cache_path, &key)?
            .ok_or_else(|| Error::Cache { path: cache_path, detail: "it vanished".to_owned() })?
    };
    let cache = Arc::new(cache);
    let total =
        |count: fn(&Cache, Part) -> u64| count(&cache, Part::Training) + count(&cache, Part::Validation);
    let (documents, tokens) = (total(Cache::documents), total(Cache::tokens));
    if documents == 0 {
        return Err(Error::NoDocuments(path.to_owned()));
    }
    let split = |part| -> Result<Split> {
        let len = rows(&cache, part, options);
        if len == 0 {
            return Err(Error::TooSmall {
                path: path.to_owned(),
                split: if part == Part::Training { "training" } else { "validation" },
                documents: cache.documents(part),
                tokens: cache.tokens(part),
                need: match (options.packing, part) {
                    (Packing::Pack, Part::Training) => {
                        format!("one row of {} tokens and its target", options.seq_len)
                    }
                    _ => "one row (it takes 5 % of the documents, by content)".to_owned(),
                },
            });
        }
        let rows = Rows::Cached { cache: Arc::clone(&cache), part };
        Ok(Split { rows, len, seq_len: options.seq_len, packing: options.packing, pad: tokenizer.pad })
    };
    Ok(Dataset {
        train: split(Part::Training)?,
        validation: split(Part::Validation)?,
        vocab_size: tokenizer.vocab_size,
        end_of_text: tokenizer.end_of_text,
        pad: tokenizer.pad,
        fingerprint: fingerprint(options, &key),
        documents: Some(documents),
        tokens: Some(tokens),
        floor: None,
    })
}

/// Rows in a part: packed, the training split leaves out its last, incomplete row; the validation split keeps it, padded.
fn rows(cache: &Cache, part: Part, options: &Options) -> usize {
    let targets = cache.tokens(part).saturating_sub(1);
    let count = match (options.packing, part) {
        (Packing::Truncate, _) => cache.documents(part),
        (Packing::Pack, Part::Training) => targets / options.seq_len as u64,
        (Packing::Pack, Part::Validation) => targets.div_ceil(options.seq_len as u64),
    };
    count as usize
}

/// Key of the token cache: blake3 of all that its tokens depend on, the content of every file included.
fn key(options: &Options, files: &[File], tokenizer: &Tokenizer, progress: &dyn Progress) -> Result<String> {
    progress.begin("fingerprinting", Some(files.iter().map(|file| file.bytes).sum()));
    let column = match files.first().map(|file| file.kind) {
        Some(Kind::Text) | None => "",
        Some(Kind::Parquet | Kind::Jsonl) => &options.text_column,
    };
    let kinds: Vec<&str> = files.iter().map(|file| file.kind.extension()).collect();
    let parts = (cache::VERSION, kinds, column, &tokenizer.fingerprint, options.examples);
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{parts:?}").as_bytes());
    for file in files {
        let mut reader = fs::File::open(&file.path).map_err(io(&file.path))?;
        let content = hash::rest(&mut reader, |bytes| progress.advance(bytes)).map_err(io(&file.path))?;
        hasher.update(content.finalize().as_bytes());
    }
    progress.end();
    Ok(hasher.finalize().to_hex().to_string())
}

/// Fingerprint of the rows: the content's key, with what shapes them.
fn fingerprint(options: &Options, key: &str) -> String {
    let text = format!("{key} {} {}", options.seq_len, options.packing.name());
    blake3::hash(text.as_bytes()).to_hex().to_string()
}
