//! Text sources, tokenizers, token cache and sample order: from a path, or from nothing, to batches of tokens.
//!
//! # Cast
//! - [`Source`]: the built-in synthetic language, or a file or folder of shards (parquet, JSON lines, plain text).
//! - [`Tokenizer`]: bytes, or a `tokenizer.json`; the synthetic language has its own symbols.
//! - [`Dataset`]: what [`open`] returns. Two [`Split`]s of rows, 95 % of the documents for training, 5 % for validation.
//! - [`Batch`]: rows of inputs and their targets, filled by [`Split::fill`].
//! - [`order`]: which rows make the batch of a step, a pure function of (seed, step).
//!
//! # Example
//! ```
//! use data::{Batch, Options, Packing, Silent, Source, TokenizerSpec};
//!
//! let options = Options {
//!     source: Source::Synthetic,
//!     tokenizer: TokenizerSpec::Synthetic,
//!     seq_len: 128,
//!     ..Options::default()
//! };
//! let dataset = data::open(&options, &Silent)?;
//! let mut batch = Batch::default();
//! let rows = data::order::samples(1, 0, 8, dataset.train().len());
//! dataset.train().fill(&rows, &mut batch);
//! assert_eq!(batch.inputs.len(), 8 * 128);
//! # Ok::<(), data::Error>(())
//! ```

mod batch;
mod cache;
mod dataset;
mod error;
mod guard;
mod hash;
mod longest;
pub mod order;
mod progress;
mod random;
pub mod source;
pub mod split;
pub mod synthetic;
pub mod tokenizer;

pub use batch::{Batch, MASKED, Packing};
pub use dataset::{Dataset, Options, Plan, Source, Split, inspect, open};
pub use error::{Error, Result};
pub use progress::{Progress, Silent};
pub use synthetic::{Floor, Language};
pub use tokenizer::{Tokenizer, TokenizerSpec};
