//! The floor, proved three ways: tables against brute force, and tables against samples.

use std::collections::HashMap;

use super::*;

/// Every token string of `length` that can follow an end-of-text, with its probability: by walking all words.
fn enumerate(automaton: &Automaton, length: usize) -> HashMap<Vec<u16>, f64> {
    let mut strings = HashMap::new();
    let mut stack = vec![(0usize, Vec::new(), 1.0)];
    while let Some((node, prefix, p)) = stack.pop() {
        let choice = &automaton.choices[automaton.nodes[node].choice as usize];
        for ((word, q), &group) in choice.words.iter().zip(&choice.p).zip(&choice.group) {
            let mut string: Vec<u16> = prefix.clone();
            string.extend(word);
            if string.len() >= length {
                string.truncate(length);
                *strings.entry(string).or_insert(0.0) += p * q;
            } else {
                stack.push((automaton.successors(node)[group as usize] as usize, string, p * q));
            }
        }
    }
    strings
}

#[test]
fn row_entropy_is_that_of_brute_force() {
    for seed in 0..3 {
        let language = Language::of(grammar::TINY, seed);
        for length in [1, 2, 5, 9, 13] {
            let strings = enumerate(&language.automaton, length);
            let total: f64 = strings.values().sum();
            assert!((total - 1.0).abs() < 1e-12, "{total}");
            let entropy: f64 = strings.values().map(|p| -p * p.ln()).sum();
            let row = language.chain.row(length, true);
            assert!((row.nats - entropy).abs() < 1e-10, "length {length}: {} against {entropy}", row.nats);
            assert!((row.tokens - length as f64).abs() < 1e-10);
            // The scorer agrees with the enumerated probabilities, string by string.
            for (string, p) in strings.iter().take(50) {
                let nats: f64 = language.automaton.surprisals(string.iter().copied()).unwrap().iter().sum();
                assert!((nats + p.ln()).abs() < 1e-9);
            }
        }
    }
}

#[test]
fn rows_approach_the_rate() {
    let language = Language::new(0);
    let rate = language.floor(1, Packing::Pack).rate;
    let (short, long) = (language.chain.row(2000, true), language.chain.row(4000, true));
    let marginal = (long.nats - short.nats) / 2000.0;
    assert!((marginal - rate).abs() < 1e-6 * rate, "{marginal} against {rate}");
    // Whole documents one by one are the same stream.
    let (one, document) = (language.chain.row(8_000, false), language.chain.document());
    assert!((one.nats - document.nats).abs() < 1e-6, "{one:?} {document:?}");
    assert!((one.tokens - document.tokens).abs() < 1e-6, "{one:?} {document:?}");
}

#[test]
fn floor_is_the_mean_surprisal_of_samples() {
    let language = Language::new(1);
    let (rows, length) = (4000u64, 128);
    let floor = language.floor(length, Packing::Pack).nats_per_token;
    let means: Vec<f64> = (0..rows)
        .map(|row| {
            let tokens: Vec<u32> = language.stream(row).skip(1).take(length).collect();
            language.surprisals(&tokens).unwrap().iter().sum::<f64>() / length as f64
        })
        .collect();
    let mean = means.iter().sum::<f64>() / rows as f64;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (rows - 1) as f64;
    let error = (variance / rows as f64).sqrt();
    assert!((mean - floor).abs() < 4.0 * error, "{mean} +- {error} against {floor}");
    assert!(error < 0.005 * floor, "the test is sharp");
}

#[test]
fn short_contexts_match_counts() {
    let language = Language::new(2);
    let n = language.vocab_size();
    let (mut pairs, mut total) = (vec![0u32; n * n], 0u32);
    let tokens: Vec<u32> = language.stream(0).take(400_001).collect();
    for pair in tokens.windows(2) {
        pairs[pair[0] as usize * n + pair[1] as usize] += 1;
        total += 1;
    }
    let entropy = |counts: &mut dyn Iterator<Item = u32>| -> f64 {
        counts.map(|c| f64::from(c) / f64::from(total)).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
    };
    let joint = entropy(&mut pairs.iter().copied());
    let single = entropy(&mut pairs.chunks(n).map(|row| row.iter().sum()));
    // Plug-in estimates are low by about (cells - 1) / (2 n): below 0.03 nats here.
    let (unigram, bigram) = language.short_context_entropies();
    assert!((unigram - single).abs() < 0.01, "{unigram} against {single}");
    assert!((bigram - (joint - single)).abs() < 0.03, "{bigram} against {}", joint - single);
}

#[test]
fn contexts_are_worth_something() {
    let language = Language::new(3);
    let floor = language.floor(256, Packing::Pack);
    let (unigram, bigram) = language.short_context_entropies();
    assert!(unigram < (language.vocab_size() as f64).ln());
    assert!(unigram > bigram + 2.0 && bigram > floor.rate + 0.7, "{unigram} {bigram} {floor:?}");
}

#[test]
fn streams_are_reproducible_and_distinct() {
    let language = Language::new(0);
    let take = |language: &Language, index| language.stream(index).take(300).collect::<Vec<_>>();
    assert_eq!(take(&language, 5), take(&Language::new(0), 5));
    assert_ne!(take(&language, 5), take(&language, 6));
    assert_ne!(take(&language, 5), take(&Language::new(1), 5));
    assert!(take(&language, 7).iter().all(|&t| t != language.pad() && (t as usize) < language.vocab_size()));
    assert_eq!(language.surprisals(&[language.pad()]), None);
}

#[test]
fn truncated_rows_count_their_targets_only() {
    let language = Language::new(0);
    let floor = |length| language.floor(length, Packing::Truncate).nats_per_token;
    let rate = language.floor(1, Packing::Pack).rate;
    assert!((floor(8_000) - rate).abs() < 1e-6, "whole documents have the rate itself");
    assert!(floor(16) > rate, "openings cost more");
}
