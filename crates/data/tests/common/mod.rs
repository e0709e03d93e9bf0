//! Corpora for the tests: the same documents as parquet, JSON lines and plain text.

// Each test program uses its own part of this module.
#![allow(dead_code)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray};
use data::{Batch, Dataset, Options, Packing, Progress, Source, Split, TokenizerSpec};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

/// `count` different documents of 20 to 40 bytes.
pub fn documents(count: usize) -> Vec<String> {
    (0..count)
        .map(|i| format!("document {i} says {}", "bla ".repeat(i % 6)))
        .map(|d| d.trim_end().to_owned())
        .collect()
}

/// A string type of Arrow.
#[derive(Clone, Copy)]
pub enum Column {
    Utf8,
    LargeUtf8,
    Utf8View,
}

pub fn write_parquet(path: &Path, texts: &[Option<&str>], column: Column, compression: Compression) {
    let text: ArrayRef = match column {
        Column::Utf8 => Arc::new(StringArray::from(texts.to_vec())),
        Column::LargeUtf8 => Arc::new(LargeStringArray::from(texts.to_vec())),
        Column::Utf8View => Arc::new(StringViewArray::from(texts.to_vec())),
    };
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..texts.len() as i64));
    let batch = RecordBatch::try_from_iter_with_nullable([("id", id, false), ("text", text, true)]).unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

pub fn write_jsonl(path: &Path, texts: &[String]) {
    let line =
        |text: &String| serde_json::json!({"id": 1, "text": text, "meta": {"text": "no"}}).to_string() + "\n";
    fs::write(path, texts.iter().map(line).collect::<String>()).unwrap();
}

pub fn write_text(path: &Path, texts: &[String]) {
    fs::write(path, texts.join("\n\n")).unwrap();
}

/// Options for `path` with the byte tokenizer, its cache in `folder`.
pub fn options(path: &Path, folder: &TempDir, seq_len: usize) -> Options {
    Options {
        source: Source::Path(path.to_owned()),
        tokenizer: TokenizerSpec::Bytes,
        cache_dir: cache_dir(folder),
        seq_len,
        ..Options::default()
    }
}

pub fn cache_dir(folder: &TempDir) -> PathBuf {
    folder.path().join("cache")
}

/// The documents of a split, read back from its packed rows.
pub fn read_back(split: &Split, end_of_text: i32) -> Vec<String> {
    let mut batch = Batch::default();
    split.fill(&(0..split.len()).collect::<Vec<_>>(), &mut batch);
    let mut stream = vec![batch.inputs[0]];
    stream.extend(batch.targets.iter().filter(|&&token| token != data::MASKED));
    stream
        .split(|&token| token == end_of_text)
        .map(|bytes| String::from_utf8(bytes.iter().map(|&b| b as u8).collect()).unwrap())
        .filter(|text| !text.is_empty())
        .collect()
}

/// Both splits of a data set of one-token rows, sorted.
pub fn sorted_splits(dataset: &Dataset) -> [Vec<String>; 2] {
    [dataset.train(), dataset.validation()].map(|split| {
        let mut texts = read_back(split, 256);
        texts.sort();
        texts
    })
}

/// Remembers the names of the work it was told of, and the bytes of each against the total.
#[derive(Default)]
pub struct Recorder(pub Mutex<Vec<(String, u64, u64)>>);

impl Progress for Recorder {
    fn begin(&self, what: &str, total_bytes: Option<u64>) {
        self.0.lock().unwrap().push((what.to_owned(), 0, total_bytes.unwrap_or(0)));
    }

    fn advance(&self, bytes: u64) {
        self.0.lock().unwrap().last_mut().unwrap().1 += bytes;
    }

    fn end(&self) {}
}

impl Recorder {
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|work| work.0.clone()).collect()
    }
}

pub fn truncated(options: Options) -> Options {
    Options { packing: Packing::Truncate, ..options }
}
