//! Tokenizer files and token caches under mutation: refused, or used; never worse.

mod common;

use std::fs;
use std::path::Path;

use common::*;
use data::{Batch, Dataset, Options, Silent, TokenizerSpec, open};
use fuzz::{Campaign, Counting};
use tempfile::TempDir;

#[global_allocator]
static MEMORY: Counting = Counting;

fn folder() -> TempDir {
    tempfile::tempdir_in(fuzz::folder()).unwrap()
}

/// Reads every row of a data set.
fn read(dataset: &Dataset) {
    let mut batch = Batch::default();
    for split in [dataset.train(), dataset.validation()] {
        split.fill(&(0..split.len()).collect::<Vec<_>>(), &mut batch);
        assert!(batch.inputs.iter().all(|&token| token >= 0 && (token as usize) < dataset.vocab_size()));
    }
}

#[test]
fn fuzz_tokenizer() {
    let folder = folder();
    let text = folder.path().join("a.jsonl");
    write_jsonl(&text, &documents(60));
    let tokenizer = folder.path().join("tokenizer.json");
    let options = Options {
        tokenizer: TokenizerSpec::File(tokenizer.clone()),
        ..truncated(options(&text, &folder, 8))
    };
    let seeds: Vec<Vec<u8>> = [WORDS, BPE, UNIGRAM].iter().map(|text| text.as_bytes().to_vec()).collect();
    for seed in &seeds {
        fs::write(&tokenizer, seed).unwrap();
        read(&open(&options, &Silent).unwrap());
    }
    let words = [
        "type",
        "WordLevel",
        "WordPiece",
        "BPE",
        "Unigram",
        "Split",
        "Regex",
        "pattern",
        "Whitespace",
        "WhitespaceSplit",
        "ByteLevel",
        "Metaspace",
        "NFC",
        "NFKC",
        "Lowercase",
        "Prepend",
        "Strip",
        "Replace",
        "Sequence",
        "Precompiled",
        "Digits",
        "vocab",
        "merges",
        "unk_token",
        "unk_id",
        "byte_fallback",
        "<|endoftext|>",
        "added_tokens",
        "normalizer",
        "pre_tokenizer",
        "id",
        "Punctuation",
        "BertPreTokenizer",
        "TemplateProcessing",
        "max_input_chars_per_word",
        "continuing_subword_prefix",
        "(a*)*$",
    ];
    let campaign = Campaign { name: "tokenizer", seeds: &seeds, words: &words, cases: 400, memory: 64 << 20 };
    campaign.run(|input| {
        fs::write(&tokenizer, input).unwrap();
        let opened = open(&options, &Silent);
        // Every tokenizer has a cache of its own.
        fs::remove_dir_all(cache_dir(&folder)).or_else(|_| fs::create_dir_all(cache_dir(&folder))).unwrap();
        match opened {
            Err(error) => Some(error.to_string()),
            Ok(dataset) => {
                read(&dataset);
                None
            }
        }
    });
}

#[test]
fn fuzz_cache() {
    let folder = folder();
    let text = folder.path().join("a.jsonl");
    write_jsonl(&text, &documents(100));
    let options = options(&text, &folder, 8);
    read(&open(&options, &Silent).unwrap());
    let cache = fs::read_dir(cache_dir(&folder)).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&cache).unwrap();
    let line = whole.iter().position(|&byte| byte == b'}').unwrap() + 1;
    let seeds = [whole[..line].to_vec()];
    let words = [
        "format",
        "muon tokens",
        "version",
        "key",
        "token_bytes",
        "tokens",
        "documents",
        "checksum",
        "4",
        "2",
    ];
    let campaign = Campaign { name: "cache", seeds: &seeds, words: &words, cases: 2000, memory: 32 << 20 };
    campaign.run(|input| {
        let mut head =
            if input.len().is_multiple_of(2) { sealed(input, &whole[4096..]) } else { input.to_vec() };
        head.resize(head.len().max(4096), b' ');
        fs::write(&cache, [&head[..], &whole[4096..]].concat()).unwrap();
        match open(&options, &Silent) {
            Err(error) => Some(error.to_string()),
            Ok(dataset) => {
                read(&dataset);
                None
            }
        }
    });
    body(&options, &cache, &whole);
}

/// The bytes behind the head, flipped and cut.
fn body(options: &Options, cache: &Path, whole: &[u8]) {
    let campaign =
        Campaign { name: "cache body", seeds: &[whole.to_vec()], words: &[], cases: 500, memory: 32 << 20 };
    campaign.run(|input| {
        fs::write(cache, input).unwrap();
        let refused = open(options, &Silent).err();
        assert!(refused.is_some() || input == whole, "a damaged cache was used");
        refused.map(|error| error.to_string())
    });
}

/// The same head with the checksum that belongs to it, where it has one.
fn sealed(head: &[u8], sections: &[u8]) -> Vec<u8> {
    let Ok(mut header) = serde_json::from_slice::<serde_json::Value>(head) else { return head.to_vec() };
    let Some(checksum) = header.get_mut("checksum") else { return head.to_vec() };
    *checksum = "".into();
    let mut hasher = blake3::Hasher::new();
    hasher.update(sections);
    hasher.update(header.to_string().as_bytes());
    header["checksum"] = hasher.finalize().to_hex().as_str().into();
    header.to_string().into_bytes()
}

/// Words by white space.
const WORDS: &str = r#"{"version": "1.0", "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
"padding": null, "post_processor": null, "decoder": null,
"added_tokens": [
{"id": 4, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
{"id": 9, "content": "<|pad|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}],
"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"String": "says"}, "content": "x"}]},
"pre_tokenizer": {"type": "WhitespaceSplit"},
"model": {"type": "WordLevel", "vocab": {"document": 0, "bla": 1, "c": 2, "?": 3}, "unk_token": "?"}}"#;

/// Pairs of bytes, after a split by a pattern.
const BPE: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
"added_tokens": [{"id": 0, "content": "<|end_of_text|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
{"type": "Split", "pattern": {"Regex": "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false},
{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
"post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
"model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
"byte_fallback": false, "ignore_merges": false,
"vocab": {"<|end_of_text|>": 0, "b": 1, "l": 2, "a": 3, "bl": 4, "bla": 5, "Ġ": 6, "1": 7, "Ġbla": 8}, "merges": [["b", "l"], ["bl", "a"], ["Ġ", "bla"]]}}"#;

/// Pieces with scores.
const UNIGRAM: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "decoder": null, "post_processor": null,
"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "Prepend", "prepend": "▁"}]},
"added_tokens": [{"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
"model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
"vocab": [["<unk>", 0.0], ["</s>", 0.0], ["▁", -2.5], ["bla", -3.25], ["b", -5.0], ["l", -5.0], ["a", -5.0], ["document", -4.5]]}}"#;
