//! The built-in corpus from the outside: rows, splits, floor.

use data::{Batch, Language, MASKED, Options, Packing, Silent, inspect, open};

#[test]
fn rows_start_fresh_and_never_repeat() {
    let dataset = open(&Options::default(), &Silent).unwrap();
    assert_eq!((dataset.documents(), dataset.tokens()), (None, None));
    assert!(dataset.train().len() > 1 << 32);
    let (mut train, mut held) = (Batch::default(), Batch::default());
    dataset.train().fill(&(0..64).collect::<Vec<_>>(), &mut train);
    dataset.validation().fill(&(0..64).collect::<Vec<_>>(), &mut held);
    let mut rows: Vec<&[i32]> = train.inputs.chunks(256).chain(held.inputs.chunks(256)).collect();
    assert!(rows.iter().all(|row| row[0] == dataset.end_of_text() as i32));
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len(), 128);
    assert!(train.targets.iter().all(|&target| target >= 0 && (target as usize) < dataset.vocab_size()));
    assert_eq!(train.inputs[1..256], train.targets[..255]);
}

#[test]
fn examples_bound_the_training_rows() {
    let options = Options { examples: Some(100), ..Options::default() };
    assert_eq!(open(&options, &Silent).unwrap().train().len(), 100);
    let plan = inspect(&options).unwrap();
    assert_eq!((plan.files.len(), plan.documents, plan.vocab_size), (0, Some(100), 256));
}

#[test]
fn seeds_make_different_corpora() {
    let fingerprint = |seed, seq_len| {
        let options = Options { seed, seq_len, ..Options::default() };
        open(&options, &Silent).unwrap().fingerprint().to_owned()
    };
    assert_ne!(fingerprint(0, 64), fingerprint(1, 64));
    assert_ne!(fingerprint(0, 64), fingerprint(0, 65));
    assert_eq!(fingerprint(0, 64), fingerprint(0, 64));
}

/// What a model is measured against: the surprisal of the unmasked targets, given the row before them.
#[test]
fn the_floor_is_what_the_source_itself_scores() {
    let language = Language::new(0);
    for packing in [Packing::Pack, Packing::Truncate] {
        let dataset = open(&Options { packing, seq_len: 96, ..Options::default() }, &Silent).unwrap();
        let mut batch = Batch::default();
        dataset.train().fill(&(0..3000).collect::<Vec<_>>(), &mut batch);
        let rows: Vec<(f64, f64)> = batch
            .targets
            .chunks(96)
            .map(|targets| {
                let tokens: Vec<u32> = targets.iter().filter(|&&t| t != MASKED).map(|&t| t as u32).collect();
                (language.surprisals(&tokens).unwrap().iter().sum(), tokens.len() as f64)
            })
            .collect();
        let (nats, tokens) = rows.iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
        let ratio = nats / tokens;
        // Standard error of a ratio of means.
        let spread: f64 = rows.iter().map(|row| (row.0 - ratio * row.1).powi(2)).sum();
        let error = spread.sqrt() / tokens;
        let floor = dataset.floor().unwrap().nats_per_token;
        assert!((ratio - floor).abs() < 4.0 * error, "{packing:?}: {ratio} +- {error} against {floor}");
    }
}
