//! What can go wrong with a configuration or a weight file; every message names the thing and the remedy.

use std::path::PathBuf;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of configurations, presets, weight files and forward passes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said, and the remedy where there is one.
        reason: String,
    },
    /// A `config.json` that is not JSON, names an unknown architecture, or describes an impossible model.
    #[error("{file}: {reason}")]
    Config {
        /// The file, or what the text came from.
        file: String,
        /// The field, its value, and what would do.
        reason: String,
    },
    /// A weight file that is damaged or does not fit the configuration.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file or folder.
        path: PathBuf,
        /// The tensor and what is wrong with it.
        reason: String,
    },
    /// No preset of this name.
    #[error("unknown model `{name}`; the presets are {known} (or give a folder that holds a config.json)")]
    UnknownPreset {
        /// The name asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A device operation failed.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
}

impl Error {
    /// An [`Error::Io`] from what the system said.
    pub(crate) fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Error::Io { path: path.into(), reason: error.to_string() }
    }

    /// An [`Error::Weights`] from parts.
    pub(crate) fn weights(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Error::Weights { path: path.into(), reason: reason.into() }
    }
}
