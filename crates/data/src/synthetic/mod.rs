//! The built-in corpus: a seeded artificial language whose entropy is known exactly.
//!
//! # Why
//! A model's loss on real text says little by itself: nobody knows the least loss possible. Here it is known, so that a
//! run can state its distance to perfection. The language is hierarchical (spelling, agreement, topic, echo: see
//! `grammar.rs`), so that a larger or better trained model comes closer.
//!
//! # The floor
//! A predictor's expected loss is the cross-entropy to the source, and is least, by Gibbs' inequality, where it predicts with the
//! source's own conditional probabilities; that least value is the source's conditional entropy. The source is *unifilar*:
//! its state is a function of the tokens emitted since the document's start. So the conditional entropy at a position is the sum over
//! states of the state's probability there times the entropy of what it emits, both of which follow from the tables without sampling.
//!
//! Every row starts with an end-of-text token and a fresh document. A model with the row as its context therefore sees
//! all that the source's state depends on, and the floor of a row of T targets,
//! `(1/T) sum over t <= T, s of P_t(s) H(s)`, is exact for that T: there is no term for a finite context. It differs slightly from the
//! asymptotic rate because a row always holds a document's costly first tokens and its last document is cut. With
//! [`Packing::Truncate`] a row is one document (end-of-text, document, end-of-text, pads) and the floor is the expected nats over the expected number
//! of targets, cut at T. A measured mean over finitely many rows scatters around its expectation, so a perfect model may come out
//! slightly below the floor.
//!
//! The default language has 256 symbols. With seed 0, in nats per token: uniform 5.55, unigram 4.99, bigram 2.37, and
//! 1.37 for the source itself; a document has 164 tokens on average. The best of the interpolated n-gram models fitted to 400,000 tokens (the
//! trigram) reaches 2.11: what lies below needs agreement, topic and echo.
//!
//! # No repetition
//! Row `i` is a function of (seed, i), generated when asked for. Training rows are numbered from 0, validation rows from 2^63.

mod automaton;
mod entropy;
mod grammar;

use automaton::Automaton;
use entropy::{Chain, Expected};
use grammar::{END_OF_TEXT, Grammar, PAD, Shape};

use crate::batch::Packing;
use crate::random::Random;

/// A language: its words, its grammar and its exact statistics.
pub struct Language {
    automaton: Automaton,
    chain: Chain,
    vocab_size: usize,
    seed: u64,
}

/// The least expected loss that any model can have on a synthetic corpus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// Expected nats per target for rows of the length and packing in use; the number to compare a loss with.
    pub nats_per_token: f64,
    /// The entropy rate of the endless stream of documents, nats per token.
    pub rate: f64,
    /// Mean length of a document with its end-of-text.
    pub tokens_per_document: f64,
}

impl Language {
    /// The default language with its words and documents drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self::of(grammar::DEFAULT, seed)
    }

    fn of(shape: Shape, seed: u64) -> Self {
        let grammar = Grammar::new(shape, seed);
        let automaton = grammar.automaton();
        let chain = Chain::new(&automaton);
        Self { automaton, chain, vocab_size: grammar.vocab_size(), seed }
    }

    /// Number of symbols, end-of-text and pad included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The symbol that ends a document.
    pub fn end_of_text(&self) -> u32 {
        END_OF_TEXT.into()
    }

    /// The symbol that fills a short row; the language never emits it.
    pub fn pad(&self) -> u32 {
        PAD.into()
    }

    /// The endless tokens of stream `index`: end-of-text, a document, end-of-text, a document, and so on.
    pub fn stream(&self, index: u64) -> impl Iterator<Item = u32> + '_ {
        let mut random = Random::new(self.seed ^ DOCUMENTS, index);
        let (mut node, mut word): (usize, &[u16]) = (0, &[END_OF_TEXT]);
        std::iter::from_fn(move || {
            if word.is_empty() {
                (word, node) = self.automaton.step(node, &mut random);
            }
            let token = word[0];
            word = &word[1..];
            Some(token.into())
        })
    }

    /// `-ln p` in nats of each token after an end-of-text, given all tokens before it; `None` if the language cannot
    /// emit them. Pads must be left out.
    pub fn surprisals(&self, tokens: &[u32]) -> Option<Vec<f64>> {
        let narrow: Option<Vec<u16>> = tokens.iter().map(|&token| token.try_into().ok()).collect();
        self.automaton.surprisals(narrow?)
    }

    /// The floor for rows of `seq_len` targets.
    pub fn floor(&self, seq_len: usize, packing: Packing) -> Floor {
        let document = self.chain.document();
        let row = self.chain.row(seq_len, packing == Packing::Pack);
        let per_token = |Expected { nats, tokens }| nats / tokens;
        Floor {
            nats_per_token: per_token(row),
            rate: per_token(document),
            tokens_per_document: document.tokens,
        }
    }

    /// Entropy of a token for a model without context, and given the one token before: the losses of the best unigram and
    /// bigram models, in nats. Exact; takes about a second.
    pub fn short_context_entropies(&self) -> (f64, f64) {
        entropy::short_contexts(&self.automaton, self.vocab_size)
    }
}

/// Keeps the documents' random numbers apart from those that made the grammar.
const DOCUMENTS: u64 = 0x646F_6375_6D65_6E74;

#[cfg(test)]
mod tests;
