//! Exact entropies of an automaton, from its tables alone.
//!
//! By the chain rule the tokens of a word carry together the entropy of the choice it was drawn from, and by
//! unifilarity nothing else is uncertain. With `v(s)` the expected visits of node `s` in a document, `H(s)` the entropy
//! of its choice and `l(s)` the mean length of its words, the renewal-reward theorem gives the rate per token
//! `sum v(s) H(s) / sum v(s) l(s)`. For a row of finite length the probability of every node at every position is carried forward.

use std::collections::{BTreeMap, HashMap};

use super::automaton::{Automaton, Choice};

/// Longest spelling.
pub(super) const LONGEST: usize = 4;

/// Visits are followed until less than this probability of a document remains.
const REST: f64 = 1e-15;

/// Expected nats and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Expected {
    pub(super) nats: f64,
    pub(super) tokens: f64,
}

/// A choice reduced to lengths and entropies.
struct Profile {
    /// Entropy that the token at each position of the word adds, words already ended adding none.
    nats: [f64; LONGEST],
    /// Probability that the word has a token at each position.
    alive: [f64; LONGEST],
    /// For each group, the probability of it with a word of each length (index: length - 1).
    groups: Vec<[f64; LONGEST]>,
}

impl Profile {
    fn of(choice: &Choice) -> Self {
        let mut profile =
            Self { nats: [0.0; LONGEST], alive: [0.0; LONGEST], groups: vec![[0.0; LONGEST]; choice.groups] };
        for (word, &p) in choice.words.iter().zip(&choice.p) {
            profile.alive[..word.len()].iter_mut().for_each(|alive| *alive += p);
        }
        for ((word, &p), &group) in choice.words.iter().zip(&choice.p).zip(&choice.group) {
            profile.groups[group as usize][word.len() - 1] += p;
        }
        profile.descend(choice, 0..choice.p.len(), 0);
        profile
    }

    fn descend(&mut self, choice: &Choice, range: std::ops::Range<usize>, depth: usize) {
        let total: f64 = choice.p[range.clone()].iter().sum();
        for (_, words) in choice.branches(range, depth) {
            let part: f64 = choice.p[words.clone()].iter().sum();
            self.nats[depth] += part * (total / part).ln();
            if choice.words[words.start].len() > depth + 1 {
                self.descend(choice, words, depth + 1);
            }
        }
    }

    /// Everything that two choices must share to be alike here.
    fn signature(&self) -> Vec<u64> {
        let flat = self.nats.iter().chain(&self.alive).chain(self.groups.iter().flatten());
        flat.map(|value| value.to_bits()).collect()
    }
}

/// An automaton with nodes merged that no count of tokens or nats can tell apart (nouns of one kind and length, say).
pub(super) struct Chain {
    profiles: Vec<Profile>,
    /// Profile and successors of each block; block 0 is the start of a document.
    blocks: Vec<(usize, Vec<usize>)>,
}

impl Chain {
    pub(super) fn new(automaton: &Automaton) -> Self {
        let profiles: Vec<Profile> = automaton.choices.iter().map(Profile::of).collect();
        let mut signatures = HashMap::new();
        let signature: Vec<usize> = profiles
            .iter()
            .map(|profile| {
                let fresh = signatures.len();
                *signatures.entry(profile.signature()).or_insert(fresh)
            })
            .collect();
        // Partition refinement (Moore 1956): split blocks until all members have successors in the same blocks.
        let choice_of = |node: usize| automaton.nodes[node].choice as usize;
        let nodes = 0..automaton.nodes.len();
        let mut block: Vec<usize> = nodes.clone().map(|node| signature[choice_of(node)]).collect();
        let mut count = 0;
        loop {
            let mut keys = HashMap::new();
            let refined: Vec<usize> = nodes
                .clone()
                .map(|node| {
                    let successors = automaton.successors(node).iter().map(|&next| block[next as usize]);
                    let key: Vec<usize> = std::iter::once(block[node]).chain(successors).collect();
                    let fresh = keys.len();
                    *keys.entry(key).or_insert(fresh)
                })
                .collect();
            block = refined;
            if keys.len() == count {
                break;
            }
            count = keys.len();
        }
        let mut blocks = vec![(usize::MAX, Vec::new()); count];
        for node in nodes {
            if blocks[block[node]].0 == usize::MAX {
                let successors =
                    automaton.successors(node).iter().map(|&next| block[next as usize]).collect();
                blocks[block[node]] = (choice_of(node), successors);
            }
        }
        Self { profiles, blocks }
    }

    /// Nats and tokens of one document, end-of-text included.
    pub(super) fn document(&self) -> Expected {
        let visits = visits(self.blocks.len(), |block, follow| {
            let (choice, successors) = &self.blocks[block];
            for (lengths, &next) in self.profiles[*choice].groups.iter().zip(successors) {
                follow(next, lengths.iter().sum());
            }
        });
        let mut sum = Expected::default();
        for (v, (choice, _)) in visits.iter().zip(&self.blocks) {
            let profile = &self.profiles[*choice];
            sum.nats += v * profile.nats.iter().sum::<f64>();
            sum.tokens += v * profile.alive.iter().sum::<f64>();
        }
        sum
    }

    /// Nats and tokens at the first `length` positions after an end-of-text. With `restart` the next document follows a
    /// document's end, else nothing does.
    pub(super) fn row(&self, length: usize, restart: bool) -> Expected {
        let mut sum = Expected::default();
        // Probability of a word starting in each block, at the current position and the LONGEST after it.
        let mut ahead = vec![vec![0.0; self.blocks.len()]; LONGEST + 1];
        ahead[0][0] = 1.0;
        for position in 0..length {
            let mass = std::mem::replace(&mut ahead[0], vec![0.0; self.blocks.len()]);
            ahead.rotate_left(1);
            for (m, (choice, successors)) in mass.iter().zip(&self.blocks).filter(|(m, _)| **m > 0.0) {
                let profile = &self.profiles[*choice];
                for k in 0..LONGEST.min(length - position) {
                    sum.nats += m * profile.nats[k];
                    sum.tokens += m * profile.alive[k];
                }
                for (lengths, &next) in profile.groups.iter().zip(successors) {
                    if next != 0 || restart {
                        for (start, p) in ahead.iter_mut().zip(lengths) {
                            start[next] += m * p;
                        }
                    }
                }
            }
        }
        sum
    }
}

/// Expected visits of each node in a document that starts at node 0 and ends when it is reached again. `edges` gives a node's
/// successors and their probabilities. Sweeps in place: nodes are numbered outwards from the start, so that one sweep carries most
/// of the probability through a whole sentence.
fn visits(nodes: usize, edges: impl Fn(usize, &mut dyn FnMut(usize, f64))) -> Vec<f64> {
    let (mut visits, mut waiting) = (vec![0.0; nodes], vec![0.0; nodes]);
    waiting[0] = 1.0;
    while waiting.iter().sum::<f64>() > REST {
        for node in 0..nodes {
            let mass = std::mem::take(&mut waiting[node]);
            if mass > 0.0 {
                visits[node] += mass;
                edges(node, &mut |next, p| {
                    if next != 0 {
                        waiting[next] += mass * p;
                    }
                });
            }
        }
    }
    visits
}

/// Entropy of a token on its own, and given the one before it, both in the stationary stream of documents.
pub(super) fn short_contexts(automaton: &Automaton, vocab_size: usize) -> (f64, f64) {
    let group_p = |choice: &Choice| {
        let mut p = vec![0.0; choice.groups];
        choice.group.iter().zip(&choice.p).for_each(|(&group, word)| p[group as usize] += word);
        p
    };
    let group_p: Vec<Vec<f64>> = automaton.choices.iter().map(group_p).collect();
    let visits = visits(automaton.nodes.len(), |node, follow| {
        let probabilities = &group_p[automaton.nodes[node].choice as usize];
        for (p, &next) in probabilities.iter().zip(automaton.successors(node)) {
            follow(next as usize, *p);
        }
    });
    // Expected visits of each (choice, group, choice after it) in a document.
    let mut moves: BTreeMap<(u32, u32, u32), f64> = BTreeMap::new();
    for (node, v) in visits.iter().enumerate() {
        let choice = automaton.nodes[node].choice;
        for (group, &next) in automaton.successors(node).iter().enumerate() {
            *moves.entry((choice, group as u32, automaton.nodes[next as usize].choice)).or_default() += v;
        }
    }
    let mut pairs = vec![0.0; vocab_size * vocab_size];
    let mut add = |first: u16, second: u16, p: f64| pairs[first as usize * vocab_size + second as usize] += p;
    for ((choice, group, after), v) in moves {
        let (choice, after) = (&automaton.choices[choice as usize], &automaton.choices[after as usize]);
        let members = (0..choice.p.len()).filter(|&word| choice.group[word] == group);
        for word in members {
            let (spelling, p) = (&choice.words[word], v * choice.p[word]);
            spelling.windows(2).for_each(|pair| add(pair[0], pair[1], p));
            let last = spelling[spelling.len() - 1];
            for (next, q) in after.words.iter().zip(&after.p) {
                add(last, next[0], p * q);
            }
        }
    }
    let tokens: f64 = pairs.iter().sum();
    let entropy = |values: &mut dyn Iterator<Item = f64>| -> f64 {
        values.map(|v| v / tokens).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
    };
    let joint = entropy(&mut pairs.iter().copied());
    let single = entropy(&mut pairs.chunks_exact(vocab_size).map(|row| row.iter().sum()));
    (single, joint - single)
}
