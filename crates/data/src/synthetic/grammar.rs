//! The grammar of the synthetic language: its words, and which may follow which.
//!
//! ```text
//! document  = topic style sentence+ end-of-text
//! sentence  = subject verb ending [object] phrase* cue echo stop
//! subject   = determiner adjective{0..2} noun [plural-mark]  |  pronoun
//! object    = determiner adjective{0..2} noun [plural-mark]
//! phrase    = preposition determiner adjective{0..2} noun [plural-mark]
//! ```
//!
//! What depends on what, from near to far:
//! - a word's later tokens on its earlier ones (spelling, shared by all topics);
//! - the plural mark on the determiner, over up to two adjectives;
//! - the verb on the subject noun's kind (one of four orders of frequency);
//! - the ending on the subject's number and on the topic;
//! - the echo repeats the subject noun over the whole sentence; a pronoun keeps the previous sentence's subject;
//! - nouns and adjectives on the topic, sentence shape and stop on the style, both announced once at the document's start.

use std::collections::HashSet;

use super::automaton::{Automaton, Next, Part};
use crate::random::Random;

/// The size of a language and the probabilities of its shapes.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) topics: u16,
    pub(super) nouns: u16,
    pub(super) verbs: u16,
    pub(super) adjectives: u16,
    pub(super) prepositions: u16,
    /// Determiners of each number.
    pub(super) determiners: u16,
    /// Tokens that are words by themselves; then that start, continue and end a longer word.
    pub(super) syllables: [u16; 4],
    /// Of every hundred words, how many have one, two and three tokens; the others have four.
    pub(super) lengths: [usize; 3],
    /// Probability that a document ends after a sentence.
    pub(super) stop: f64,
    /// Exponent of the Zipf-Mandelbrot law of word frequencies.
    pub(super) zipf: f64,
}

/// The default language's shape: 256 symbols, 224 open-class words.
pub(super) const DEFAULT: Shape = Shape {
    topics: 8,
    nouns: 96,
    verbs: 64,
    adjectives: 64,
    prepositions: 8,
    determiners: 4,
    syllables: [38, 64, 48, 64],
    lengths: [15, 45, 30],
    stop: 0.2,
    zipf: 1.0,
};

const STYLES: u16 = 2;
const KINDS: u16 = 4;
/// Topics share endings: topic modulo this.
const ENDINGS: u16 = 4;
const MOST_ADJECTIVES: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Subject {
    noun: u16,
    plural: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Subject,
    Object,
    Phrase,
}

/// The place in the grammar.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Slot {
    Topic,
    Style,
    Sentence,
    /// Inside a noun phrase: after its determiner and so many adjectives.
    Noun {
        role: Role,
        plural: bool,
        adjectives: u8,
    },
    Mark(Role),
    Verb,
    Ending,
    Clause,
    Determiner,
    After(Role),
    Echo,
    Stop,
}

/// All that matters of a document so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    slot: Slot,
    topic: u16,
    style: u16,
    /// The subject of this sentence, or of the last one before this one has its own.
    subject: Option<Subject>,
}

/// A set of words with their frequencies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Lexicon {
    EndOfText,
    Topics,
    Styles,
    Pronoun { plural: bool },
    Determiners { plural: bool, style: u16 },
    Adjectives { topic: u16 },
    Nouns { topic: u16 },
    Verbs { kind: u16 },
    Prepositions,
    Mark,
    Ending { class: u16, plural: bool },
    Cue,
    Echo { noun: u16 },
    Stop { style: u16 },
}

/// A grammar with its words spelled and its frequencies drawn.
pub(super) struct Grammar {
    shape: Shape,
    /// Spellings of the nouns, verbs and adjectives.
    nouns: Vec<Vec<u16>>,
    verbs: Vec<Vec<u16>>,
    adjectives: Vec<Vec<u16>>,
    /// Rank of each word, by topic or kind.
    noun_ranks: Vec<Vec<usize>>,
    verb_ranks: Vec<Vec<usize>>,
    adjective_ranks: Vec<Vec<usize>>,
    symbols: Symbols,
}

/// First ids of the closed-class symbols; the syllables follow.
struct Symbols {
    topic: u16,
    style: u16,
    pronoun: u16,
    determiner: u16,
    preposition: u16,
    mark: u16,
    ending: u16,
    cue: u16,
    stop: u16,
    syllables: [u16; 4],
    end: u16,
}

/// End-of-text and pad come first.
pub(super) const END_OF_TEXT: u16 = 0;
pub(super) const PAD: u16 = 1;

impl Symbols {
    fn new(shape: &Shape) -> Self {
        let mut end = PAD + 1;
        let mut take = |count: u16| {
            end += count;
            end - count
        };
        Self {
            topic: take(shape.topics),
            style: take(STYLES),
            pronoun: take(2),
            determiner: take(2 * shape.determiners),
            preposition: take(shape.prepositions),
            mark: take(1),
            ending: take(2 * ENDINGS),
            cue: take(1),
            stop: take(STYLES),
            syllables: shape.syllables.map(&mut take),
            end,
        }
    }
}

impl Grammar {
    /// Spells the words and draws their frequencies from `seed`.
    pub(super) fn new(shape: Shape, seed: u64) -> Self {
        let symbols = Symbols::new(&shape);
        let mut random = Random::new(seed, 0);
        let count = [shape.nouns, shape.verbs, shape.adjectives].map(usize::from);
        let mut words = spell(&shape, &symbols, count.iter().sum(), &mut random);
        let adjectives = words.split_off(count[0] + count[1]);
        let verbs = words.split_off(count[0]);
        let mut ranks = |sets: u16, words: usize| -> Vec<Vec<usize>> {
            let mut shuffled = || {
                let mut ranks: Vec<usize> = (0..words).collect();
                random.shuffle(&mut ranks);
                ranks
            };
            (0..sets).map(|_| shuffled()).collect()
        };
        Self {
            noun_ranks: ranks(shape.topics, count[0]),
            verb_ranks: ranks(KINDS, count[1]),
            adjective_ranks: ranks(shape.topics, count[2]),
            nouns: words,
            verbs,
            adjectives,
            symbols,
            shape,
        }
    }

    pub(super) fn vocab_size(&self) -> usize {
        usize::from(self.symbols.end)
    }

    /// The automaton of this grammar, from the start of a document.
    pub(super) fn automaton(&self) -> Automaton {
        let start = State { slot: Slot::Topic, topic: 0, style: 0, subject: None };
        Automaton::build(start, |state| self.expand(state), |lexicon| self.words(lexicon))
    }

    /// The words of a lexicon and their probabilities, up to a factor.
    fn words(&self, lexicon: Lexicon) -> Vec<(Vec<u16>, f64)> {
        let s = &self.symbols;
        let one = |id: u16| vec![(vec![id], 1.0)];
        // Symbols in a row, frequencies falling by the factor `ratio`.
        let row = |first: u16, count: u16, ratio: f64| {
            (0..count).map(|i| (vec![first + i], ratio.powi(i32::from(i)))).collect::<Vec<_>>()
        };
        match lexicon {
            Lexicon::EndOfText => one(END_OF_TEXT),
            Lexicon::Topics => row(s.topic, self.shape.topics, 0.85),
            Lexicon::Styles => row(s.style, STYLES, 0.7),
            Lexicon::Pronoun { plural } => one(s.pronoun + u16::from(plural)),
            Lexicon::Determiners { plural, style } => {
                let first = s.determiner + u16::from(plural) * self.shape.determiners;
                row(first, self.shape.determiners, if style == 0 { 0.4 } else { 0.7 })
            }
            Lexicon::Adjectives { topic } => {
                self.zipf(&self.adjectives, &self.adjective_ranks[topic as usize])
            }
            Lexicon::Nouns { topic } => self.zipf(&self.nouns, &self.noun_ranks[topic as usize]),
            Lexicon::Verbs { kind } => self.zipf(&self.verbs, &self.verb_ranks[kind as usize]),
            Lexicon::Prepositions => row(s.preposition, self.shape.prepositions, 0.7),
            Lexicon::Mark => one(s.mark),
            Lexicon::Ending { class, plural } => one(s.ending + 2 * class + u16::from(plural)),
            Lexicon::Cue => one(s.cue),
            Lexicon::Echo { noun } => vec![(self.nouns[noun as usize].clone(), 1.0)],
            Lexicon::Stop { style } => one(s.stop + style),
        }
    }

    /// Words with p proportional to (rank + 2)^-zipf, normalised.
    fn zipf(&self, words: &[Vec<u16>], ranks: &[usize]) -> Vec<(Vec<u16>, f64)> {
        let weight = |rank: usize| (rank as f64 + 2.0).powf(-self.shape.zipf);
        let total: f64 = (0..words.len()).map(weight).sum();
        words.iter().zip(ranks).map(|(word, &rank)| (word.clone(), weight(rank) / total)).collect()
    }

    /// What may come at `state`.
    fn expand(&self, state: State) -> Vec<Part<Lexicon, State>> {
        let State { slot, topic, style, subject } = state;
        let at = |slot: Slot| State { slot, ..state };
        let to =
            |weight: f64, lexicon: Lexicon, slot: Slot| Part { lexicon, weight, next: Next::One(at(slot)) };
        let plain = style == 0;
        let determiners = |weight: f64, role: Role| {
            [(0.6, false), (0.4, true)].map(|(share, plural)| {
                let noun = Slot::Noun { role, plural, adjectives: 0 };
                to(weight * share, Lexicon::Determiners { plural, style }, noun)
            })
        };
        let preposition = |weight: f64| to(weight, Lexicon::Prepositions, Slot::Determiner);
        let close = |weight: f64| to(weight, Lexicon::Cue, Slot::Echo);
        match slot {
            Slot::Topic => {
                let each = (0..self.shape.topics).map(|topic| State { slot: Slot::Style, topic, ..state });
                vec![Part { lexicon: Lexicon::Topics, weight: 1.0, next: Next::Each(each.collect()) }]
            }
            Slot::Style => {
                let each = (0..STYLES).map(|style| State { slot: Slot::Sentence, style, ..state });
                vec![Part { lexicon: Lexicon::Styles, weight: 1.0, next: Next::Each(each.collect()) }]
            }
            Slot::Sentence => {
                let Some(Subject { plural, .. }) = subject else {
                    return determiners(1.0, Role::Subject).into();
                };
                let start = State { slot: Slot::Topic, topic: 0, style: 0, subject: None };
                let end =
                    Part { lexicon: Lexicon::EndOfText, weight: self.shape.stop, next: Next::One(start) };
                let pronoun = 0.3 * (1.0 - self.shape.stop);
                let fresh = 1.0 - self.shape.stop - pronoun;
                let mut parts = vec![end, to(pronoun, Lexicon::Pronoun { plural }, Slot::Verb)];
                // The old subject stays in the state only until the new one is named; forget it already here.
                parts.extend(determiners(fresh, Role::Subject).map(forget));
                parts
            }
            Slot::Noun { role, plural, adjectives } => {
                let p = match (adjectives, plain) {
                    (MOST_ADJECTIVES.., _) => 0.0,
                    (0, false) => 0.5,
                    _ => 0.25,
                };
                let after = if plural { Slot::Mark(role) } else { past(role) };
                let next = if role == Role::Subject {
                    let named = |noun| State { subject: Some(Subject { noun, plural }), ..at(after) };
                    Next::Each((0..self.shape.nouns).map(named).collect())
                } else {
                    Next::One(at(after))
                };
                let mut parts = vec![Part { lexicon: Lexicon::Nouns { topic }, weight: 1.0 - p, next }];
                if p > 0.0 {
                    let more = Slot::Noun { role, plural, adjectives: adjectives + 1 };
                    parts.push(to(p, Lexicon::Adjectives { topic }, more));
                }
                parts
            }
            Slot::Mark(role) => vec![to(1.0, Lexicon::Mark, past(role))],
            Slot::Verb => vec![to(1.0, Lexicon::Verbs { kind: named(subject).noun % KINDS }, Slot::Ending)],
            Slot::Ending => {
                let lexicon = Lexicon::Ending { class: topic % ENDINGS, plural: named(subject).plural };
                vec![to(1.0, lexicon, Slot::Clause)]
            }
            Slot::Clause => {
                let (object, phrase) = if plain { (0.6, 0.2) } else { (0.3, 0.5) };
                let mut parts = vec![close(1.0 - object - phrase), preposition(phrase)];
                parts.extend(determiners(object, Role::Object));
                parts
            }
            Slot::Determiner => determiners(1.0, Role::Phrase).into(),
            Slot::After(role) => {
                let phrase = if role == Role::Object { 0.35 } else { 0.15 };
                vec![close(1.0 - phrase), preposition(phrase)]
            }
            Slot::Echo => vec![to(1.0, Lexicon::Echo { noun: named(subject).noun }, Slot::Stop)],
            Slot::Stop => vec![to(1.0, Lexicon::Stop { style }, Slot::Sentence)],
        }
    }
}

/// What follows a noun phrase.
fn past(role: Role) -> Slot {
    match role {
        Role::Subject => Slot::Verb,
        Role::Object | Role::Phrase => Slot::After(role),
    }
}

fn named(subject: Option<Subject>) -> Subject {
    subject.expect("slots behind the subject have one")
}

/// Drops the subject from the state that follows.
fn forget<L>(part: Part<L, State>) -> Part<L, State> {
    match part.next {
        Next::One(state) => Part { next: Next::One(State { subject: None, ..state }), ..part },
        Next::Each(_) => part,
    }
}

/// Spells `count` different words: a token of its own, or a start, up to two continuations and an end.
fn spell(shape: &Shape, symbols: &Symbols, count: usize, random: &mut Random) -> Vec<Vec<u16>> {
    let mut deck: Vec<usize> = (0..count)
        .map(|i| {
            let percent = i * 100 / count;
            let mut edge = 0;
            1 + shape
                .lengths
                .iter()
                .filter(|&&share| {
                    edge += share;
                    percent >= edge
                })
                .count()
        })
        .collect();
    random.shuffle(&mut deck);
    let mut draw =
        |place: usize| symbols.syllables[place] + random.below(shape.syllables[place].into()) as u16;
    let mut seen = HashSet::new();
    deck.into_iter()
        .map(|length| {
            loop {
                let word: Vec<u16> = match length {
                    1 => vec![draw(0)],
                    _ => (0..length)
                        .map(|i| {
                            draw(match i {
                                0 => 1,
                                i if i + 1 == length => 3,
                                _ => 2,
                            })
                        })
                        .collect(),
                };
                if seen.insert(word.clone()) {
                    return word;
                }
            }
        })
        .collect()
}

/// A language small enough for brute force.
#[cfg(test)]
pub(super) const TINY: Shape = Shape {
    topics: 2,
    nouns: 3,
    verbs: 2,
    adjectives: 1,
    prepositions: 1,
    determiners: 1,
    syllables: [2, 2, 1, 2],
    lengths: [15, 45, 30],
    stop: 0.5,
    zipf: 1.0,
};
