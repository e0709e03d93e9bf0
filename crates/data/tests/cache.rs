//! The token cache: found again, rebuilt when anything it depends on changes, and never trusted when damaged.

mod common;

use std::fs;
use std::path::PathBuf;

use common::*;
use data::{Options, Silent, TokenizerSpec, open};
use tempfile::TempDir;

fn corpus(folder: &TempDir) -> Options {
    let path = folder.path().join("a.jsonl");
    write_jsonl(&path, &documents(400));
    options(&path, folder, 8)
}

fn cache_files(folder: &TempDir) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(cache_dir(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_second_run_tokenises_nothing() {
    let folder = TempDir::new().unwrap();
    let options = corpus(&folder);
    let (first, second) = (Recorder::default(), Recorder::default());
    let one = open(&options, &first).unwrap();
    let two = open(&options, &second).unwrap();
    assert_eq!(first.names(), ["fingerprinting", "tokenising"]);
    assert_eq!(second.names(), ["fingerprinting"]);
    assert_eq!(one.fingerprint(), two.fingerprint());
    assert_eq!(sorted_rows(&one), sorted_rows(&two));
    assert_eq!(cache_files(&folder).len(), 1, "no temporary file is left");
    // Row length and packing change the rows, not the tokens.
    let longer = open(&truncated(Options { seq_len: 16, ..options }), &Silent).unwrap();
    assert_eq!(cache_files(&folder).len(), 1);
    assert_ne!(longer.fingerprint(), one.fingerprint());
}

fn sorted_rows(dataset: &data::Dataset) -> Vec<i32> {
    let mut batch = data::Batch::default();
    dataset.train().fill(&(0..dataset.train().len()).collect::<Vec<_>>(), &mut batch);
    batch.targets
}

#[test]
fn whatever_tokens_depend_on_is_in_the_key() {
    let folder = TempDir::new().unwrap();
    let options = corpus(&folder);
    let data::Source::Path(path) = options.source.clone() else { unreachable!() };
    let tokenizer = folder.path().join("tokenizer.json");
    fs::write(&tokenizer, WORDS).unwrap();
    let words = Options { tokenizer: TokenizerSpec::File(tokenizer.clone()), ..options.clone() };
    let fewer = Options { examples: Some(390), ..options.clone() };
    let more = "{\"text\": \"y\"}\n";
    for (i, options) in [&options, &words, &fewer].into_iter().enumerate() {
        open(options, &Silent).unwrap();
        assert_eq!(cache_files(&folder).len(), i + 1);
    }
    fs::write(&tokenizer, WORDS.replace("\"bla\": 1", "\"Bla\": 1")).unwrap();
    open(&words, &Silent).unwrap();
    assert_eq!(cache_files(&folder).len(), 4, "another tokenizer under the same name");
    fs::write(&path, fs::read_to_string(&path).unwrap() + more).unwrap();
    let dataset = open(&options, &Silent).unwrap();
    assert_eq!((cache_files(&folder).len(), dataset.documents()), (5, Some(401)));
}

#[test]
fn a_damaged_cache_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let options = corpus(&folder);
    open(&options, &Silent).unwrap();
    let path = cache_files(&folder).remove(0);
    let good = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], why: &str| {
        fs::write(&path, bytes).unwrap();
        let message = open(&options, &Silent).err().expect("refused").to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            message.contains(name) && message.contains(why) && message.contains("delete it"),
            "{message}"
        );
    };
    for at in [4096, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        refused(&bad, "checksum");
    }
    let mut padded = good.clone();
    padded[4000] = b'\n';
    refused(&padded, "head");
    refused(&good[..good.len() - 8], "length");
    refused(&good[..100], "shorter than its head");
    refused(&[b"{}".as_slice(), &[b' '; 5000]].concat(), "head");
    let text = String::from_utf8_lossy(&good[..4096]).replace("\"version\":1", "\"version\":9");
    refused(&[text.as_bytes(), &good[4096..]].concat(), "version");
    let key = text.split("\"key\":\"").nth(1).unwrap()[..64].to_owned();
    let other = String::from_utf8_lossy(&good[..4096]).replace(&key, &key.chars().rev().collect::<String>());
    refused(&[other.as_bytes(), &good[4096..]].concat(), "another corpus");
    fs::remove_file(&path).unwrap();
    open(&options, &Silent).unwrap();
    assert_eq!(fs::read(&path).unwrap(), good, "rebuilt to the same bytes");
}

/// Word-level, with a vocabulary above 2^16 so that tokens take four bytes.
const WORDS: &str = r#"{
    "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null, "decoder": null,
    "added_tokens": [{"id": 70000, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "model": {"type": "WordLevel", "vocab": {"document": 0, "bla": 1, "?": 2}, "unk_token": "?"}
}"#;

#[test]
fn wide_tokens_and_the_files_own_ids() {
    let folder = TempDir::new().unwrap();
    let base = corpus(&folder);
    let tokenizer = folder.path().join("tokenizer.json");
    fs::write(&tokenizer, WORDS).unwrap();
    let options = truncated(Options { tokenizer: TokenizerSpec::File(tokenizer), ..base });
    let dataset = open(&options, &Silent).unwrap();
    assert_eq!((dataset.vocab_size(), dataset.end_of_text(), dataset.pad()), (70_001, 70_000, 70_000));
    let mut batch = data::Batch::default();
    dataset.train().fill(&[0], &mut batch);
    let row = &batch.targets;
    let words = row.iter().position(|&target| target == 70_000).expect("ends in end-of-text");
    assert_eq!(row[..2], [2, 2]);
    assert!(row[2..words].iter().all(|&token| token == 1));
    assert!(row[words + 1..].iter().all(|&token| token == data::MASKED));
}
