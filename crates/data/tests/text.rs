//! From files to rows: the same documents come out of every kind of file, once each, on the side their content says.

mod common;

use std::fs;

use common::*;
use data::{Batch, MASKED, Options, Silent, open};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use tempfile::TempDir;

fn expected(texts: &[String]) -> [Vec<String>; 2] {
    let mut texts = texts.to_vec();
    texts.sort();
    let (held, rest) = texts.into_iter().partition(|text| data::split::is_validation(text));
    [rest, held]
}

#[test]
fn every_kind_gives_the_same_splits() {
    let folder = TempDir::new().unwrap();
    let texts = documents(400);
    let borrowed: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
    let compressions = [
        Compression::SNAPPY,
        Compression::ZSTD(ZstdLevel::default()),
        Compression::GZIP(GzipLevel::default()),
    ];
    let mut paths = Vec::new();
    for (i, column) in [Column::Utf8, Column::LargeUtf8, Column::Utf8View].into_iter().enumerate() {
        let path = folder.path().join(format!("{i}.parquet"));
        write_parquet(&path, &borrowed, column, compressions[i]);
        paths.push(path);
    }
    paths.push(folder.path().join("a.jsonl"));
    write_jsonl(&paths[3], &texts);
    paths.push(folder.path().join("a.txt"));
    write_text(&paths[4], &texts);
    for path in paths {
        let recorder = Recorder::default();
        let dataset = open(&options(&path, &folder, 1), &recorder).unwrap();
        assert_eq!(sorted_splits(&dataset), expected(&texts), "{}", path.display());
        assert_eq!(dataset.documents(), Some(400));
        let bytes: usize = texts.iter().map(|text| text.len() + 1).sum();
        assert_eq!(dataset.tokens(), Some(bytes as u64));
        for (what, done, total) in recorder.0.into_inner().unwrap() {
            assert_eq!((done, total), (total, fs::metadata(&path).unwrap().len()), "{what}");
        }
    }
}

#[test]
fn shards_and_their_order_do_not_move_documents() {
    let folder = TempDir::new().unwrap();
    let mut texts = documents(300);
    texts.extend_from_within(..100);
    let whole = folder.path().join("whole.jsonl");
    write_jsonl(&whole, &texts);
    let shards = folder.path().join("shards");
    fs::create_dir(&shards).unwrap();
    let reversed: Vec<String> = texts.iter().rev().cloned().collect();
    write_jsonl(&shards.join("1.jsonl"), &reversed[..150]);
    write_jsonl(&shards.join("0.jsonl"), &reversed[150..]);
    fs::write(shards.join("README.md"), "left out").unwrap();
    let one = open(&options(&whole, &folder, 1), &Silent).unwrap();
    let many = open(&options(&shards, &folder, 1), &Silent).unwrap();
    assert_eq!(sorted_splits(&one), sorted_splits(&many));
    assert_ne!(one.fingerprint(), many.fingerprint());
    let [train, held] = sorted_splits(&one);
    assert!(held.iter().all(|text| !train.contains(text)), "no duplicate straddles the split");
    assert_eq!(read_back(many.train(), 256)[0], *reversed[150..].iter().find(|t| train.contains(t)).unwrap());
}

#[test]
fn packed_rows_predict_every_token_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.txt");
    write_text(&path, &documents(200));
    let whole = open(&options(&path, &folder, 1), &Silent).unwrap();
    let long = open(&options(&path, &folder, 64), &Silent).unwrap();
    let stream = |split: &data::Split| {
        let mut batch = Batch::default();
        split.fill(&(0..split.len()).collect::<Vec<_>>(), &mut batch);
        assert_eq!((batch.rows, batch.inputs.len()), (split.len(), split.len() * split.seq_len()));
        for (row, targets) in batch.inputs.chunks(split.seq_len()).zip(batch.targets.chunks(split.seq_len()))
        {
            let next = row[1..].iter().zip(targets).filter(|(_, target)| **target != MASKED);
            assert!(next.into_iter().all(|(input, target)| input == target || *input == 257));
        }
        batch.targets
    };
    let (ones, rows) = (stream(whole.train()), stream(long.train()));
    assert_eq!(rows, ones[..rows.len()]);
    assert!(ones.len() - rows.len() < 64, "only an incomplete row is left out");
    let (ones, rows) = (stream(whole.validation()), stream(long.validation()));
    assert_eq!(rows[..ones.len()], ones, "validation keeps its last row");
    assert!(rows[ones.len()..].iter().all(|&target| target == MASKED));
}

#[test]
fn truncated_rows_hold_one_document() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.jsonl");
    let mut texts = documents(300);
    texts[0] = "ab".to_owned();
    assert!(!data::split::is_validation(&texts[0]));
    write_jsonl(&path, &texts);
    let dataset = open(&truncated(options(&path, &folder, 8)), &Silent).unwrap();
    let rows = dataset.train().len() + dataset.validation().len();
    assert_eq!(rows, 300);
    let mut batch = Batch::default();
    dataset.train().fill(&[1, 0], &mut batch);
    assert_eq!(batch.inputs[..8], "document".bytes().map(i32::from).collect::<Vec<_>>());
    assert_eq!(batch.targets[..8], "ocument ".bytes().map(i32::from).collect::<Vec<_>>());
    assert_eq!(batch.inputs[8..], [97, 98, 257, 257, 257, 257, 257, 257]);
    assert_eq!(batch.targets[8..], [98, 256, MASKED, MASKED, MASKED, MASKED, MASKED, MASKED]);
}

#[test]
fn examples_take_the_first_documents_and_skip_empty_ones() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    let texts = documents(300);
    let mut column: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
    column.insert(0, None);
    column.insert(1, Some(""));
    write_parquet(&path, &column, Column::Utf8, Compression::SNAPPY);
    let options = Options { examples: Some(250), ..options(&path, &folder, 1) };
    assert_eq!(data::inspect(&options).unwrap().documents, Some(250));
    let dataset = open(&options, &Silent).unwrap();
    assert_eq!(sorted_splits(&dataset), expected(&texts[..250]));
}

#[test]
fn plain_text_without_blank_lines_is_cut() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.txt");
    let lines: Vec<String> = (0..500_000).map(|i| format!("{i:099}")).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let plan = data::inspect(&options(&path, &folder, 1)).unwrap();
    assert_eq!((plan.bytes, plan.documents, plan.vocab_size), (49_999_999, None, 258));
    // 10,486 lines pass 1 MiB: 47 pieces of that and a shorter one.
    let dataset = open(&options(&path, &folder, 512), &Silent).unwrap();
    assert_eq!(dataset.documents(), Some(48));
    assert!(read_back(dataset.train(), 256).iter().all(|text| text.len() <= 1_048_600));
}
