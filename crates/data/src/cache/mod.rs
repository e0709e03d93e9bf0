//! The token cache: a corpus tokenised once, memory-mapped ever after.
//!
//! One file, `<key>.tokens`, where the key is the blake3 hash of everything the tokens depend on. Layout: a head of
//! 4,096 bytes (a line of JSON, [`Header`], padded with spaces), then four sections without gaps: training tokens,
//! validation tokens (little-endian, 2 bytes each where the vocabulary fits, else 4; every document ends with
//! end-of-text), then for each split the ends of its documents (u64, in tokens from the start of the split).
//! The checksum covers the whole file; a file that fails any check is refused by name, never used.

mod build;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

pub(crate) use build::{Recipe, build};

use crate::error::{Error, Result, io};

/// Version of the layout and of how text becomes tokens; part of the key.
pub(crate) const VERSION: u32 = 1;

/// Bytes before the first section.
const HEAD: usize = 4096;

/// The head of a cache file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) format: String,
    pub(crate) version: u32,
    /// The key that the file was built for.
    pub(crate) key: String,
    pub(crate) token_bytes: usize,
    /// Tokens of the training and validation splits, end-of-text included.
    pub(crate) tokens: [u64; 2],
    /// Documents of the training and validation splits.
    pub(crate) documents: [u64; 2],
    /// blake3 of the sections, then of this header with an empty checksum.
    pub(crate) checksum: String,
}

/// Name in [`Header::format`].
const FORMAT: &str = "muon tokens";

impl Header {
    /// Bytes of the four sections.
    fn body(&self) -> Option<u64> {
        let tokens = self.tokens[0].checked_add(self.tokens[1])?.checked_mul(self.token_bytes as u64)?;
        let ends = self.documents[0].checked_add(self.documents[1])?.checked_mul(8)?;
        tokens.checked_add(ends)
    }

    /// Finishes a hash over the sections with the header itself.
    fn seal(&self, mut sections: blake3::Hasher) -> String {
        let blank = Self { checksum: String::new(), ..self.clone() };
        sections.update(&blank.text()).finalize().to_hex().to_string()
    }

    /// The line of JSON.
    fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a header of numbers and strings serialises")
    }
}

/// Where the cache of `key` lies.
pub(crate) fn path(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{}.tokens", &key[..32]))
}

/// The two splits of a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Training = 0,
    Validation = 1,
}

/// A verified cache file, mapped into memory.
pub(crate) struct Cache {
    map: Mmap,
    header: Header,
}

impl Cache {
    /// Maps the cache file at `path` and verifies all of it, or returns `None` where there is none.
    pub(crate) fn open(path: &Path, key: &str) -> Result<Option<Self>> {
        let mut file = match File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io(path))?,
        };
        let broken = |detail: &str| Error::Cache { path: path.to_owned(), detail: detail.to_owned() };
        let mut head = vec![0; HEAD];
        file.read_exact(&mut head).map_err(|_| broken("shorter than its head"))?;
        let header: Header = serde_json::from_slice(&head).map_err(|e| broken(&format!("head: {e}")))?;
        let mut text = header.text();
        text.resize(HEAD, b' ');
        if text != head {
            return Err(broken("its head is not as it is written"));
        }
        if header.format != FORMAT || header.version != VERSION || !matches!(header.token_bytes, 2 | 4) {
            return Err(broken("unknown format or version"));
        }
        if header.key != key {
            return Err(broken("built for another corpus or tokenizer"));
        }
        // SAFETY: cache files are written under another name, renamed when complete and never changed in place, so
        // the mapped bytes stay as they are while mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(io(path))?;
        if header.body().and_then(|body| body.checked_add(HEAD as u64)) != Some(map.len() as u64) {
            return Err(broken("its length does not match its head"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_rayon(&map[HEAD..]);
        if header.seal(hasher) != header.checksum {
            return Err(broken("its checksum does not match"));
        }
        Ok(Some(Self { map, header }))
    }

    /// Tokens in a split, end-of-text included.
    pub(crate) fn tokens(&self, part: Part) -> u64 {
        self.header.tokens[part as usize]
    }

    /// Documents in a split.
    pub(crate) fn documents(&self, part: Part) -> u64 {
        self.header.documents[part as usize]
    }

    /// The tokens `from..to` of a split.
    pub(crate) fn range(&self, part: Part, from: u64, to: u64) -> impl Iterator<Item = u32> + '_ {
        let width = self.header.token_bytes;
        let base = match part {
            Part::Training => 0,
            Part::Validation => self.header.tokens[0],
        };
        let at = |token: u64| HEAD + (base + token) as usize * width;
        self.map[at(from)..at(to)].chunks_exact(width).map(|bytes| match *bytes {
            [a, b] => u32::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("token_bytes is 2 or 4"),
        })
    }

    /// Where document `index` of a split starts and ends, in tokens, its end-of-text included.
    pub(crate) fn document(&self, part: Part, index: u64) -> (u64, u64) {
        let start = if index == 0 { 0 } else { self.end(part, index - 1) };
        (start, self.end(part, index))
    }

    fn end(&self, part: Part, index: u64) -> u64 {
        let tokens = self.header.tokens[0] + self.header.tokens[1];
        let documents = match part {
            Part::Training => 0,
            Part::Validation => self.header.documents[0],
        };
        let at = HEAD + tokens as usize * self.header.token_bytes + (documents + index) as usize * 8;
        let bytes: [u8; 8] = self.map[at..at + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    }
}
