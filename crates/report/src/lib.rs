//! Tables and plots of runs, as text. Nothing here touches a file or a terminal: functions take what [`runs`] read and give
//! back a `String`.
//!
//! - [`closing_table`] is what a run prints at its end, [`runs_table`] the list of all runs;
//! - [`remarks`] says what should be known of a step while it runs;
//! - [`loss_curve`] is a run's loss as an SVG, [`loss_svg`] any series of losses;
//! - [`mod@format`] writes durations, sizes and counts the same way everywhere.

mod diagnostics;
pub mod format;
mod plot;
mod tables;

pub use diagnostics::remarks;
pub use plot::{Floor, Kind, PlotOptions, Series, loss_curve, loss_svg};
pub use tables::{Charset, bits_per_token, closing_table, perplexity, runs_table};
