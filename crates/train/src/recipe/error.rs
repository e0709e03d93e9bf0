//! What can be wrong with a recipe; every message names where the value came from and the remedy.

use std::path::PathBuf;

use super::Origin;

/// Result of reading and resolving recipes.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of reading and resolving recipes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A frozen recipe that is not one.
    #[error("the recipe of the checkpoint is not TOML: {reason}")]
    Frozen {
        /// What the parser says.
        reason: String,
    },
    /// The recipe file cannot be read.
    #[error("{}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The recipe file is not TOML.
    #[error("{}:{line}:{column}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser said.
        reason: String,
    },
    /// A key that no recipe has.
    #[error("{from}: unknown key `{key}`; {remedy}")]
    UnknownKey {
        /// Where it stands.
        from: Origin,
        /// The key, dotted.
        key: String,
        /// The nearest known key, or all of them.
        remedy: String,
    },
    /// A value that its key does not take, or that does not fit the others.
    #[error("{from}: `{key}` {reason}")]
    Value {
        /// Where it stands.
        from: Origin,
        /// The key, dotted.
        key: String,
        /// What it takes.
        reason: String,
    },
    /// A precision that the CPU does not compute in.
    #[error(
        "{from}: `train.precision` is mixed, but this runs on the CPU, which does not compute in it: give --precision f32 or bf16, or --device cuda"
    )]
    Precision {
        /// Where it stands.
        from: Origin,
    },
    /// The data has tokens that the model's vocabulary lacks.
    #[error(
        "{tokenizer}: {tokens} tokens, but the vocabulary of {model} is {room}; use the tokenizer that belongs to the model"
    )]
    Vocabulary {
        /// The tokenizer, as the recipe spells it.
        tokenizer: String,
        /// One above its largest token id.
        tokens: usize,
        /// The model.
        model: String,
        /// Size of its vocabulary.
        room: usize,
    },
    /// The model's own files are wrong.
    #[error(transparent)]
    Model(#[from] models::Error),
}

impl Error {
    /// A [`Error::Value`] from parts.
    pub(super) fn value(from: &Origin, key: &str, reason: impl Into<String>) -> Self {
        Error::Value { from: from.clone(), key: key.to_string(), reason: reason.into() }
    }

    /// Where the offending value came from, if from one place.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Error::UnknownKey { from, .. } | Error::Value { from, .. } | Error::Precision { from } => {
                Some(from)
            }
            _ => None,
        }
    }
}
