//! From text to token ids: bytes, or any `tokenizer.json`.
//!
//! Text is encoded without adding special tokens, and text that merely spells one stays text: before encoding, every
//! added token that the file marks special, every one spelled `<|...|>`, and the end-of-text and pad tokens are
//! excluded from matching, so that `<|end_of_text|>` inside a document becomes the tokens of its letters. Other
//! added tokens (runs of spaces, say) belong to the vocabulary and are matched as the file says. Truncation and
//! padding that the file may ask for are switched off.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::Tokenizer as Inner;

use crate::error::{Error, Result, io};
use crate::guard::guarded;
use crate::longest::Longest;

/// Which tokenizer to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerSpec {
    /// The 256 bytes, then end-of-text (256) and pad (257).
    Bytes,
    /// A `tokenizer.json`.
    File(PathBuf),
    /// The synthetic language's own symbols; fits that source only.
    Synthetic,
}

impl TokenizerSpec {
    /// `bytes`, `synthetic`, or else the path of a `tokenizer.json`.
    pub fn parse(text: &str) -> Self {
        match text {
            "bytes" => Self::Bytes,
            "synthetic" => Self::Synthetic,
            path => Self::File(path.into()),
        }
    }
}

impl std::fmt::Display for TokenizerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes => f.write_str("bytes"),
            Self::Synthetic => f.write_str("synthetic"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Names under which published tokenizers keep their end-of-text token, the first found wins.
pub const END_OF_TEXT_NAMES: [&str; 5] = ["<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>", "<|eot_id|>"];

/// Name of the pad token; where it is missing, end-of-text pads.
pub const PAD_NAME: &str = "<|pad|>";

/// No token and no pattern is longer: the library takes them apart by recursion, and a stack that overflows ends the process.
const LONGEST: usize = 4096;

/// Ids in batches have 31 bits; no vocabulary comes near.
const LARGEST_ID: u32 = 1 << 30;

/// A tokenizer ready to encode documents.
pub struct Tokenizer {
    kind: Encoder,
    /// One above the largest token id.
    pub vocab_size: usize,
    /// The token that ends a document.
    pub end_of_text: u32,
    /// The token that fills a short row.
    pub pad: u32,
    /// Changes whenever the tokenizer does: blake3 of the file, or the name of a built-in one.
    pub fingerprint: String,
}

enum Encoder {
    Bytes,
    File {
        inner: Box<Inner>,
        /// Ids of added tokens where the library's numbering differs from the file's, with the file's.
        renumber: HashMap<u32, u32>,
    },
}

/// The part of a tokenizer.json that is read here besides the library.
#[derive(Deserialize)]
struct AddedTokens {
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

impl Tokenizer {
    /// The built-in byte tokenizer.
    pub fn bytes() -> Self {
        Self {
            kind: Encoder::Bytes,
            vocab_size: 258,
            end_of_text: 256,
            pad: 257,
            fingerprint: "bytes".to_owned(),
        }
    }

    /// Loads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file is missing, malformed, or names no end-of-text token ([`END_OF_TEXT_NAMES`]).
    pub fn from_file(path: &Path) -> Result<Self> {
        let unusable = |detail: String| Error::Tokenizer { path: path.to_owned(), detail };
        let content = fs::read(path).map_err(io(path))?;
        let AddedTokens { added_tokens: added } =
            serde_json::from_slice(&content).map_err(|e| unusable(e.to_string()))?;
        match serde_json::from_slice(&content) {
            Ok(Longest(bytes)) if bytes > LONGEST => {
                return Err(unusable(format!("it has a string of {bytes} bytes; at most {LONGEST} may be")));
            }
            other => other.map(|_| ()).map_err(|e| unusable(e.to_string()))?,
        }
        let inner = guarded(|| Inner::from_bytes(&content)).map_err(unusable)?;
        let mut inner = inner.map_err(|e| unusable(e.to_string()))?;
        let find = |name: &str| added.iter().find(|token| token.content == name).map(|token| token.id);
        let end_of_text = END_OF_TEXT_NAMES
            .iter()
            .find_map(|name| find(name))
            .ok_or_else(|| Error::EndOfText { path: path.to_owned(), known: END_OF_TEXT_NAMES.join(", ") })?;
        let pad = find(PAD_NAME).unwrap_or(end_of_text);
        let largest = inner.get_vocab(false).into_values().chain(added.iter().map(|token| token.id)).max();
        if let Some(id) = largest.filter(|&id| id > LARGEST_ID) {
            return Err(unusable(format!(
                "token id {id} is above {LARGEST_ID}, the largest that there may be"
            )));
        }

        // The library numbers added tokens without gaps, whatever ids the file gives them.
        let renumber = added.iter().filter_map(|token| {
            let given = inner.token_to_id(&token.content)?;
            (given != token.id).then_some((given, token.id))
        });
        let renumber = renumber.collect();

        let control = |text: &str| {
            let spelled = text.starts_with("<|") && text.ends_with("|>");
            spelled || [Some(end_of_text), Some(pad)].contains(&find(text))
        };
        let marked: Vec<_> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .map(|(_, token)| token)
            .filter(|token| control(&token.content))
            .map(|token| token.special(true))
            .collect();
        let added = guarded(|| inner.add_tokens(marked)).map_err(unusable)?;
        added.map_err(|e| unusable(e.to_string()))?;
        inner.set_encode_special_tokens(true);
        inner.with_truncation(None).map_err(|e| unusable(e.to_string()))?;
        inner.with_padding(None);
        Ok(Self {
            kind: Encoder::File { inner: Box::new(inner), renumber },
            vocab_size: largest.unwrap_or(end_of_text) as usize + 1,
            end_of_text,
            pad,
            fingerprint: blake3::hash(&content).to_hex().to_string(),
        })
    }

    /// The token ids of one document, without end-of-text.
    pub(crate) fn encode(&self, text: &str) -> std::result::Result<Vec<u32>, tokenizers::Error> {
        match &self.kind {
            Encoder::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Encoder::File { inner, renumber } => {
                let mut ids = guarded(|| inner.encode_fast(text, false))??.get_ids().to_vec();
                if !renumber.is_empty() {
                    for id in &mut ids {
                        *id = renumber.get(id).copied().unwrap_or(*id);
                    }
                }
                Ok(ids)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A word-level tokenizer.json: words by white space, `<|endoftext|>` = 4, a control token not marked special.
    pub(crate) const WORDS: &str = r#"{
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "normalizer": null, "post_processor": null, "decoder": null,
        "added_tokens": [
            {"id": 4, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 5, "content": "<|fim|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false},
            {"id": 9, "content": "@@", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "?": 3}, "unk_token": "?"}
    }"#;

    pub(crate) fn words() -> (tempfile::NamedTempFile, Tokenizer) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), WORDS).unwrap();
        let tokenizer = Tokenizer::from_file(file.path()).unwrap();
        (file, tokenizer)
    }

    #[test]
    fn text_never_becomes_a_control_token() {
        let (_file, tokenizer) = words();
        assert_eq!((tokenizer.end_of_text, tokenizer.pad, tokenizer.vocab_size), (4, 4, 10));
        assert_eq!(tokenizer.encode("a <|endoftext|> b <|fim|> c @@").unwrap(), [0, 3, 1, 3, 2, 9]);
    }

    #[test]
    fn bytes_are_themselves() {
        assert_eq!(Tokenizer::bytes().encode("aé").unwrap(), [97, 0xC3, 0xA9]);
    }

    #[test]
    fn a_tokenizer_without_end_of_text_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), WORDS.replace("<|endoftext|>", "<|stop|>")).unwrap();
        let message = Tokenizer::from_file(file.path()).err().unwrap().to_string();
        assert!(message.contains("no end-of-text token") && message.contains("<|end_of_text|>"), "{message}");
        // Its own library panics on this one.
        let broken = WORDS.replace("\"normalizer\": null", r#""normalizer": {"type": "Precompiled"}"#);
        for (text, why) in [
            (broken, "the tokenizer library cannot handle it"),
            (WORDS.replace("\"c\": 2", "\"c\": 4294967295"), "token id 4294967295"),
            (WORDS.replace("\"c\": 2", &format!("\"{}\": 2", "[".repeat(20_000))), "a string of 20000 bytes"),
        ] {
            fs::write(file.path(), text).unwrap();
            let message = Tokenizer::from_file(file.path()).err().unwrap().to_string();
            assert!(message.contains(why), "{message}");
        }
        fs::write(file.path(), "{").unwrap();
        assert!(matches!(Tokenizer::from_file(file.path()), Err(Error::Tokenizer { .. })));
    }
}
