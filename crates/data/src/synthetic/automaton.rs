//! A probabilistic automaton over words, each word spelled with tokens, whose state is a function of what it emitted.
//!
//! A node draws one word from its choice; the word belongs to a group, and the node's successor for that group
//! follows. The spellings in a choice are prefix-free and differ pairwise, so the tokens seen determine the words and
//! with them the node: the source is unifilar, and the probability of the next token given all earlier ones is
//! that given the node and the part of the current word already spelled.

use std::collections::HashMap;
use std::hash::Hash;

use crate::random::Random;

/// A distribution over words.
pub(super) struct Choice {
    /// Spellings, sorted, prefix-free.
    pub(super) words: Vec<Vec<u16>>,
    /// Probability of each word; they sum to one.
    pub(super) p: Vec<f64>,
    /// Running sums of `p`.
    cdf: Vec<f64>,
    /// Group of each word, `0..groups`.
    pub(super) group: Vec<u32>,
    pub(super) groups: usize,
}

impl Choice {
    /// A choice of (spelling, weight, group); weights need not be normalised.
    pub(super) fn new(mut outcomes: Vec<(Vec<u16>, f64, u32)>) -> Self {
        outcomes.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(outcomes.windows(2).all(|w| !w[1].0.starts_with(&w[0].0)), "spellings are prefix-free");
        let total: f64 = outcomes.iter().map(|outcome| outcome.1).sum();
        let p: Vec<f64> = outcomes.iter().map(|outcome| outcome.1 / total).collect();
        let cdf = p
            .iter()
            .scan(0.0, |sum, p| {
                *sum += p;
                Some(*sum)
            })
            .collect();
        let group: Vec<u32> = outcomes.iter().map(|outcome| outcome.2).collect();
        let groups = group.iter().max().map_or(0, |&last| last as usize + 1);
        Self { words: outcomes.into_iter().map(|outcome| outcome.0).collect(), p, cdf, group, groups }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let u = random.unit();
        self.cdf.partition_point(|&c| c <= u).min(self.p.len() - 1)
    }

    /// Words `range` split by their token at `depth`: (token, words). All of them are longer than `depth`.
    pub(super) fn branches(
        &self,
        range: std::ops::Range<usize>,
        depth: usize,
    ) -> Vec<(u16, std::ops::Range<usize>)> {
        let mut branches: Vec<(u16, std::ops::Range<usize>)> = Vec::new();
        for word in range {
            let token = self.words[word][depth];
            match branches.last_mut() {
                Some((last, words)) if *last == token => words.end = word + 1,
                _ => branches.push((token, word..word + 1)),
            }
        }
        branches
    }
}

/// A node: which choice it draws from, and where its successors lie, one for each group of the choice.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) choice: u32,
    successors: u32,
}

/// The automaton; node 0 is the start of a document and the only node that end-of-text leads to.
pub(super) struct Automaton {
    pub(super) choices: Vec<Choice>,
    pub(super) nodes: Vec<Node>,
    successors: Vec<u32>,
}

/// One part of a choice in a description: a set of words named by a key, its weight, and what follows.
pub(super) struct Part<L, S> {
    pub(super) lexicon: L,
    pub(super) weight: f64,
    pub(super) next: Next<S>,
}

/// What follows the words of a [`Part`].
pub(super) enum Next<S> {
    /// The same state after each.
    One(S),
    /// A state of its own after each word, in the lexicon's order.
    Each(Vec<S>),
}

impl Automaton {
    /// Builds the automaton of all states reachable from `start`. `expand` describes a state by its parts, `words` gives the
    /// words of a lexicon with their probabilities in it.
    pub(super) fn build<S: Copy + Eq + Hash, L: Copy + Eq + Hash>(
        start: S,
        expand: impl Fn(S) -> Vec<Part<L, S>>,
        words: impl Fn(L) -> Vec<(Vec<u16>, f64)>,
    ) -> Self {
        let mut automaton = Self { choices: Vec::new(), nodes: Vec::new(), successors: Vec::new() };
        let mut choices: HashMap<Vec<(L, u64, bool)>, u32> = HashMap::new();
        let (mut ids, mut states) = (HashMap::from([(start, 0u32)]), vec![start]);
        let mut done = 0;
        while done < states.len() {
            let parts = expand(states[done]);
            let key = parts
                .iter()
                .map(|part| (part.lexicon, part.weight.to_bits(), matches!(part.next, Next::Each(_))))
                .collect();
            let choice = *choices.entry(key).or_insert_with(|| {
                automaton.choices.push(join(&parts, &words));
                automaton.choices.len() as u32 - 1
            });
            automaton.nodes.push(Node { choice, successors: automaton.successors.len() as u32 });
            for part in parts {
                let next = match part.next {
                    Next::One(state) => vec![state],
                    Next::Each(states) => states,
                };
                for state in next {
                    let id = *ids.entry(state).or_insert_with(|| {
                        states.push(state);
                        states.len() as u32 - 1
                    });
                    automaton.successors.push(id);
                }
            }
            done += 1;
        }
        automaton
    }

    /// The successors of a node, one for each group of its choice.
    pub(super) fn successors(&self, node: usize) -> &[u32] {
        let Node { choice, successors } = self.nodes[node];
        &self.successors[successors as usize..][..self.choices[choice as usize].groups]
    }

    /// Draws a word at `node`: its spelling and the next node.
    pub(super) fn step(&self, node: usize, random: &mut Random) -> (&[u16], usize) {
        let choice = &self.choices[self.nodes[node].choice as usize];
        let word = choice.draw(random);
        (&choice.words[word], self.successors(node)[choice.group[word] as usize] as usize)
    }

    /// `-ln p` of each token given all before it, from the start of a document; `None` where the language excludes it.
    pub(super) fn surprisals(&self, tokens: impl IntoIterator<Item = u16>) -> Option<Vec<f64>> {
        let (mut node, mut depth) = (0, 0);
        let mut range = 0..self.choices[self.nodes[node].choice as usize].p.len();
        let mut nats = Vec::new();
        for token in tokens {
            let choice = &self.choices[self.nodes[node].choice as usize];
            let before: f64 = choice.p[range.clone()].iter().sum();
            range = choice.branches(range, depth).into_iter().find(|branch| branch.0 == token)?.1;
            nats.push((before / choice.p[range.clone()].iter().sum::<f64>()).ln());
            depth += 1;
            if choice.words[range.start].len() == depth {
                node = self.successors(node)[choice.group[range.start] as usize] as usize;
                range = 0..self.choices[self.nodes[node].choice as usize].p.len();
                depth = 0;
            }
        }
        Some(nats)
    }
}

/// The choice made of all parts' words, groups numbered in the order of the successors.
fn join<S, L: Copy>(parts: &[Part<L, S>], words: impl Fn(L) -> Vec<(Vec<u16>, f64)>) -> Choice {
    let (mut outcomes, mut group) = (Vec::new(), 0);
    for part in parts {
        let each = match &part.next {
            Next::One(_) => 0,
            Next::Each(_) => 1,
        };
        let words = words(part.lexicon);
        let groups = if each == 0 { 1 } else { words.len() as u32 };
        for (i, (spelling, p)) in words.into_iter().enumerate() {
            outcomes.push((spelling, part.weight * p, group + each * i as u32));
        }
        group += groups;
    }
    Choice::new(outcomes)
}
