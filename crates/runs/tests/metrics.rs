//! `metrics.csv` from the outside: exact, flushed, tolerant of a torn end and of nothing else.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use runs::{Error, Metadata, Metrics, MetricsWriter, NewRun, Row, Setup, Store, Timestamp};

fn writer(diagnostics: &[&str]) -> (tempfile::TempDir, PathBuf, MetricsWriter) {
    let folder = tempfile::tempdir().unwrap();
    let metadata = Metadata::new(vec![], Setup::default(), Timestamp::UNIX_EPOCH);
    let new = NewRun { name: "one", prefix: "", recipe: "", metadata };
    let run = Store::new(folder.path()).create(new).unwrap();
    let path = run.dir().join("metrics.csv");
    for names in [&["a,b"][..], &["loss"], &["x", "x"], &[""], &["a\nb"]] {
        assert!(matches!(run.metrics(names), Err(Error::Row { .. })), "{names:?}");
    }
    assert!(!path.exists());
    let writer = run.metrics(diagnostics).unwrap();
    assert!(matches!(run.metrics(&[]), Err(Error::Io { .. })), "a second writer");
    (folder, path, writer)
}

fn row(step: u64) -> Row {
    Row {
        step,
        tokens: step * 10,
        loss: 2.5,
        lr: 1e-4,
        grad_norm: 1.0,
        step_ms: 12.5,
        tokens_per_s: 800.0,
        ..Row::default()
    }
}

#[test]
fn the_file_is_plain_csv_and_every_row_is_there_at_once() {
    let (_folder, path, mut writer) = writer(&["muon/rms", "cos"]);
    let begun = Metrics::read(&path).unwrap();
    assert_eq!((begun.rows.len(), begun.diagnostics), (0, vec!["muon/rms".into(), "cos".into()]));
    writer
        .append(&Row { diagnostics: vec![("muon/rms".into(), 0.2), ("cos".into(), -1.0)], ..row(1) })
        .unwrap();
    writer
        .append(&Row { diagnostics: vec![("cos".into(), f64::NAN)], val_loss: Some(3.0), ..row(2) })
        .unwrap();
    let text = "step,tokens,loss,lr,grad_norm,step_ms,tokens_per_s,val_loss,muon/rms,cos\n\
                1,10,2.5,0.0001,1.0,12.5,800.0,,0.2,-1.0\n\
                2,20,2.5,0.0001,1.0,12.5,800.0,3.0,,NaN\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let metrics = Metrics::read(&path).unwrap();
    assert_eq!(metrics.diagnostics, ["muon/rms", "cos"]);
    assert_eq!(metrics.rows[1].val_loss, Some(3.0));
    assert_eq!(metrics.rows[1].diagnostics.len(), 1);
    assert_eq!(metrics.torn, None);
}

#[test]
fn rows_that_do_not_fit_are_refused_and_leave_no_trace() {
    let (_folder, path, mut writer) = writer(&["x"]);
    let with = |names: &[&str], row: Row| Row {
        diagnostics: names.iter().map(|&name| (name.to_owned(), 1.0)).collect(),
        ..row
    };
    writer.append(&with(&["x"], row(5))).unwrap();
    let before = fs::read(&path).unwrap();
    for bad in [with(&["y"], row(6)), with(&["x", "x"], row(6)), row(5), row(4)] {
        assert!(matches!(writer.append(&bad), Err(Error::Row { .. })), "{bad:?}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    writer.append(&row(6)).unwrap();
    assert_eq!(Metrics::read(&path).unwrap().rows.len(), 2);
}

#[test]
fn a_file_cut_anywhere_keeps_its_whole_rows_and_says_so() {
    let (_folder, path, mut writer) = writer(&[]);
    for step in 1..=3 {
        writer.append(&row(step)).unwrap();
    }
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let metrics = Metrics::read(&path).unwrap();
        let ends = whole[..length].split(|&byte| byte == b'\n').count() - 1;
        assert_eq!(metrics.rows.len(), ends.saturating_sub(1), "cut at {length}");
        let at_an_end = length == 0 || whole[length - 1] == b'\n';
        assert_eq!(metrics.torn.as_ref().map(|torn| torn.line), (!at_an_end).then_some(ends + 1));
    }
    fs::write(&path, [&whole[..], b"4,40\xff\0\0"].concat()).unwrap();
    let torn = Metrics::read(&path).unwrap().torn.unwrap().to_string();
    assert!(torn.starts_with("line 5 is cut short (`4,40") && !torn.contains('\0'), "{torn}");
}

#[test]
fn a_wrong_line_is_named() {
    let header = "step,tokens,loss,lr,grad_norm,step_ms,tokens_per_s,val_loss,cos\n";
    let good = "1,10,2.5,0.1,1.0,1.0,1.0,,0.5\n";
    for (text, told) in [
        ("a,b\n".to_owned(), "line 1: the header is not"),
        (format!("{header}{good}2,20\n"), "line 3: 2 cells instead of 9"),
        (format!("{header}1,10,x,0.1,1.0,1.0,1.0,,\n"), "line 2: column loss: `x`"),
        (format!("{header}1,10,,0.1,1.0,1.0,1.0,,\n"), "line 2: column loss: ``"),
        (format!("{header}-1,10,1,0.1,1.0,1.0,1.0,,\n"), "line 2: column step: `-1`"),
        (format!("{header}1,10,1,0.1,1.0,1.0,1.0,,?\n"), "line 2: column cos: `?`"),
        (format!("{header}{good}{good}"), "line 3: step 1 follows step 1"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        fs::write(&path, text).unwrap();
        let error = Metrics::read(&path).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_float_reads_back_to_the_same_bits(bits in prop::collection::vec(any::<u64>(), 7), narrow: f32) {
        let value = |at: usize| {
            let value = f64::from_bits(bits[at]);
            if value.is_nan() { f64::NAN } else { value }
        };
        let (_folder, path, mut writer) = writer(&["x", "subnormal", "zero"]);
        let written = Row {
            step: bits[0],
            tokens: bits[1],
            loss: value(2),
            lr: f64::from(narrow),
            grad_norm: value(3),
            step_ms: value(4),
            tokens_per_s: value(5),
            val_loss: Some(value(6)),
            diagnostics: vec![("x".into(), value(0)), ("subnormal".into(), 5e-324), ("zero".into(), -0.0)],
        };
        writer.append(&written).unwrap();
        let read = Metrics::read(&path).unwrap().rows.remove(0);
        let bits_of = |row: &Row| {
            let fixed = [row.loss, row.lr, row.grad_norm, row.step_ms, row.tokens_per_s, row.val_loss.unwrap()];
            let all: Vec<u64> =
                fixed.into_iter().chain(row.diagnostics.iter().map(|(_, value)| *value)).map(f64::to_bits).collect();
            (row.step, row.tokens, all)
        };
        prop_assert_eq!(bits_of(&written), bits_of(&read));
    }
}
