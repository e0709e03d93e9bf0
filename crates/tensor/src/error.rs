//! What can go wrong on a device or with a shape; every message names the thing and the remedy.

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of devices, kernels, shapes and linear algebra.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable GPU: no driver, no device, or an ordinal that does not exist.
    #[error("{0}")]
    NoGpu(String),
    /// A CUDA library could not be loaded.
    #[error("{library} was not found: {remedy}")]
    NoLibrary {
        /// The library's name, such as `NVRTC`.
        library: String,
        /// How to get it.
        remedy: String,
    },
    /// A CUDA call returned an error.
    #[error("{call} failed: {reason}")]
    Cuda {
        /// The call.
        call: String,
        /// What the library said.
        reason: String,
    },
    /// The device's memory is full.
    #[error(
        "out of memory on {device}: {} MiB more wanted, {} of {} MiB in use; use a smaller --batch-size or --seq-len, --set train.recompute=layers, or --set train.graphs=false, which leaves evaluation the memory of a step",
        wanted >> 20, in_use >> 20, total >> 20
    )]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes asked for.
        wanted: usize,
        /// Bytes in use.
        in_use: usize,
        /// Bytes there are.
        total: usize,
    },
    /// NVRTC rejected a kernel.
    #[error("kernel {file} does not compile: {log}")]
    KernelCompile {
        /// The source file.
        file: String,
        /// NVRTC's log.
        log: String,
    },
    /// Shapes, devices or element types that do not fit together.
    #[error("{op}: {reason}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// A token id outside the vocabulary.
    #[error(
        "token id {id} at position {position} is outside the vocabulary of {vocab}; the tokenizer and the model do not belong together"
    )]
    Token {
        /// The id.
        id: i32,
        /// Its flat position in the batch.
        position: usize,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// A decomposition did not converge, or its input is not finite.
    #[error("{what}: {reason}")]
    Linalg {
        /// The decomposition.
        what: &'static str,
        /// Why it gave up.
        reason: String,
    },
}

impl Error {
    /// A [`Error::Shape`] from parts.
    pub(crate) fn shape(op: &'static str, reason: impl Into<String>) -> Self {
        Error::Shape { op, reason: reason.into() }
    }
}
