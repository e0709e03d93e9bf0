//! What can be wrong with an optimizer's settings or input.

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of optimizers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No row of [`crate::ALL`] has this name.
    #[error("unknown optimizer `{name}`; known: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// All names.
        known: String,
    },
    /// A key that the optimizer does not have, or a value that it does not take.
    #[error("optimizer {optimizer}: `{key}` {reason}")]
    Setting {
        /// The optimizer.
        optimizer: &'static str,
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A gradient with a NaN or an infinity, or with a norm beyond 1e36; nothing was changed.
    #[error(
        "the gradient of {weight} is not finite, or beyond 1e36; weights and optimizer state are untouched"
    )]
    NotFinite {
        /// Name of the first such weight.
        weight: String,
    },
    /// A state to continue from that is not this optimizer's.
    #[error("optimizer state: {0}")]
    State(String),
    /// A weight that is claimed by no rule, or by two.
    #[error("weight {weight} {reason}")]
    Routing {
        /// Name of the weight.
        weight: String,
        /// What is wrong.
        reason: String,
    },
    /// A device, a kernel or a decomposition failed.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
}
