//! Bad input: one line that names the thing and the remedy, and nothing left behind.

mod common;

use std::fs;
use std::path::Path;

use common::*;
use data::{Error, Options, Silent, TokenizerSpec, inspect, open};
use parquet::basic::Compression;
use tempfile::TempDir;

/// Opens `path`, expects an error whose message holds all of `parts`, and that the cache folder has no file.
fn fails(options: &Options, parts: &[&str]) -> Error {
    let error = open(options, &Silent).err().expect("an error");
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(!message.contains('\n'), "{message}");
    let left: Vec<_> = fs::read_dir(&options.cache_dir).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    error
}

/// As [`fails`], and `inspect` says the same.
fn both_fail(options: &Options, parts: &[&str]) {
    let error = fails(options, parts);
    assert_eq!(inspect(options).err().unwrap().to_string(), error.to_string());
}

fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

fn parquet(folder: &TempDir) -> std::path::PathBuf {
    let path = folder.path().join("a.parquet");
    let texts = documents(2000);
    let column: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
    write_parquet(&path, &column, Column::Utf8, Compression::UNCOMPRESSED);
    path
}

#[test]
fn missing_unknown_and_empty() {
    let folder = TempDir::new().unwrap();
    let open = |path: &Path| options(path, &folder, 8);
    both_fail(&open(&folder.path().join("no.parquet")), &["no.parquet: no such file or folder", "--data"]);
    both_fail(&open(&write(&folder, "a.csv", "x")), &["a.csv", ".parquet, .jsonl or .txt"]);
    both_fail(&open(&write(&folder, "e.txt", "")), &["e.txt: the file is empty"]);
    fs::create_dir(folder.path().join("sub")).unwrap();
    both_fail(&open(&folder.path().join("sub")), &["sub: the folder holds no"]);
    write(&folder, "sub/a.txt", "x");
    write(&folder, "sub/b.jsonl", "{}");
    both_fail(&open(&folder.path().join("sub")), &["sub: the folder mixes .txt and .jsonl"]);
}

#[test]
fn columns() {
    let folder = TempDir::new().unwrap();
    let with =
        |path: &Path, column: &str| Options { text_column: column.to_owned(), ..options(path, &folder, 8) };
    let path = parquet(&folder);
    both_fail(
        &with(&path, "body"),
        &["a.parquet: no column `body`; it has: id, text (choose one with --text-column)"],
    );
    both_fail(&with(&path, "id"), &["a.parquet: column `id` holds Int64, not text"]);
    let path = write(&folder, "a.jsonl", "{\"text\": \"a\"}\n\n{\"id\": 1, \"url\": null}\n");
    fails(&with(&path, "text"), &["a.jsonl, line 3: no column `text`; it has: id, url"]);
    let path = write(&folder, "b.jsonl", "{\"text\": 7}\n");
    fails(&with(&path, "text"), &["b.jsonl, line 1: column `text` holds a number"]);
}

#[test]
fn damaged_files() {
    let folder = TempDir::new().unwrap();
    let open = |path: &Path| options(path, &folder, 8);
    let whole = fs::read(parquet(&folder)).unwrap();
    for keep in [3, 100, whole.len() / 2, whole.len() - 1] {
        both_fail(
            &open(&write(&folder, "cut.parquet", &whole[..keep])),
            &["cut.parquet", "truncated, fetch it again"],
        );
    }
    let mut torn = whole.clone();
    let at = torn.windows(12).position(|bytes| bytes == b"document 777").unwrap();
    torn[at] = 0xFF;
    fails(
        &open(&write(&folder, "torn.parquet", &torn)),
        &["torn.parquet: cannot be read as parquet", "after row"],
    );
    fails(&open(&write(&folder, "a.txt", b"good\n\nb\xFFd\n")), &["a.txt, line 3, byte 7: not UTF-8"]);
    fails(
        &open(&write(&folder, "a.jsonl", "{\"text\": \"a\"}\n{\"text\": ")),
        &["a.jsonl, line 2: not a JSON object"],
    );
    fails(&open(&write(&folder, "b.jsonl", "[1]\n")), &["b.jsonl, line 1: not a JSON object"]);
}

#[test]
fn too_little_text() {
    let folder = TempDir::new().unwrap();
    let refuse = |options: &Options| open(options, &Silent).err().unwrap().to_string();
    let blank = write(&folder, "blank.txt", "\n \n\n");
    assert!(refuse(&options(&blank, &folder, 8)).contains("blank.txt: no document with text"));
    let path = folder.path().join("a.jsonl");
    write_jsonl(&path, &documents(200));
    let message = refuse(&options(&path, &folder, 100_000));
    assert!(
        message.contains("a.jsonl: the training split holds") && message.contains("--seq-len"),
        "{message}"
    );
    write_jsonl(&path, &[documents(1), vec!["one".to_owned()]].concat());
    let message = refuse(&options(&path, &folder, 8));
    assert!(message.contains("the validation split holds 0 documents with 0 tokens"), "{message}");
}

#[test]
fn options_that_do_not_fit() {
    let folder = TempDir::new().unwrap();
    let path = parquet(&folder);
    let base = options(&path, &folder, 8);
    both_fail(&Options { seq_len: 0, ..base.clone() }, &["--seq-len = 0"]);
    both_fail(&Options { examples: Some(0), ..base.clone() }, &["--examples = 0"]);
    both_fail(
        &Options { tokenizer: TokenizerSpec::Synthetic, ..base.clone() },
        &["`synthetic`", "choose `bytes`"],
    );
    both_fail(
        &Options { tokenizer: TokenizerSpec::Bytes, ..Options::default() },
        &["synthetic language", "--data"],
    );
    let missing = TokenizerSpec::File(folder.path().join("none.json"));
    both_fail(&Options { tokenizer: missing, ..base }, &["none.json"]);
}
