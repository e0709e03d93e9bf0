//! The run store: the only room that writes under `results/`.
//!
//! A run is one folder:
//!
//! | file | content |
//! |---|---|
//! | `recipe.toml` | the resolved recipe, frozen: written once, with the folder |
//! | `metadata.json` | [`Metadata`]: what ran, on what, how it went; small, for version control |
//! | `metrics.csv` | one [`Row`] a step, flushed row by row, floats exact |
//! | `model/` | the trained model, in the Hugging Face layout |
//! | `checkpoints/step-N/` | what the run continues from: [`Checkpoints`] |
//! | `log.txt` | what the run said, each line with its time: [`Log`] |
//! | `lock` | who writes the run; empty when no one does |
//!
//! Where the store has a drive ([`Store::plan_attach`]), `model/` and `checkpoints/` are links to folders on it.
//!
//! The cast: [`Store`] is `results/`; [`Store::create`] makes a [`Run`], the handle that writes, and
//! [`Store::resume`] opens one again, a single process at a time; [`RunInfo`] is what readers get.
//! [`Store::find`] takes what a user types for a run, and [`Store::remove`] is the only way in which one goes.
//! A run folder appears with its recipe and its metadata at once or not at all, and every file but
//! `metrics.csv` and `log.txt`, which grow, is replaced as a whole, so no reader ever sees half of one. No function here reads the
//! clock: the caller passes the time in.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let results = folder.path().join("results");
//! use runs::{Metadata, NewRun, Row, Setup, State, Store, Timestamp};
//!
//! let setup = Setup { model: "granite-nano".into(), optimizer: "muon".into(), steps: 1, ..Setup::default() };
//! let metadata = Metadata::new(vec!["muon".into(), "baseline".into()], setup, Timestamp::now());
//! let store = Store::new(results);
//! let mut run = store.create(NewRun { name: "first", prefix: "", recipe: "steps = 1\n", metadata })?;
//!
//! let mut metrics = run.metrics(&[])?;
//! let row = Row { step: 1, tokens: 2048, loss: 6.9, lr: 1e-4, ..Row::default() };
//! metrics.append(&row)?;
//! run.metadata.record(&row);
//! run.metadata.finish(State::Finished, Timestamp::now());
//! run.write_metadata()?;
//!
//! let info = store.open("first")?;
//! assert_eq!(info.metadata.train_loss.last, Some(6.9));
//! assert_eq!(info.metrics()?.rows, [row]);
//! # Ok(())
//! # }
//! ```

mod aside;
mod atomic;
mod checkpoint;
mod drive;
mod error;
mod files;
mod find;
mod git;
mod lock;
mod log;
mod metadata;
mod metrics;
mod name;
mod run;
mod store;
mod writer;

pub use checkpoint::{Checkpoint, Checkpoints, Draft, FileEntry, Keep, Manifest, Newest};
pub use drive::Moves;
pub use error::{Error, Result};
pub use files::{RunFile, total_bytes};
pub use git::Git;
pub use jiff::Timestamp;
pub use lock::Holder;
pub use log::{Log, LogTail};
pub use metadata::{LossSummary, Metadata, SCHEMA, SPIKES_KEPT, Saves, Setup, Spike, State};
pub use metrics::{COLUMNS, Metrics, MetricsTail, MetricsWriter, Row, Torn};
pub use run::{Record, Run};
pub use store::{Listing, NewRun, RunInfo, Store};
pub use writer::Writer;
