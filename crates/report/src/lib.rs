//! Tables and plots of runs, as text. Nothing here touches a file or a terminal: functions take what [`runs`] read and give
//! back a `String`, or the bytes of a PNG file.
//!
//! - [`closing_table`] is what a run prints at its end, [`runs_table`] the list of all runs, [`details`] what else there is
//!   to say of one;
//! - [`status_table`] and [`gpu_table`] say what runs now, [`seconds_left`] how long yet;
//! - [`log_line`] is a step in one line, [`remarks`] says what should be known of a step while it runs;
//! - [`loss_curve`] is a run's loss as an SVG, [`loss_svg`] any series of losses, [`loss_png`] and [`loss_text`] the same as
//!   PNG and in characters;
//!   [`of_one`] and [`of_several`] take the series from runs;
//! - [`mod@format`] writes durations, sizes and counts the same way everywhere.

mod details;
mod diagnostics;
mod fit;
pub mod format;
mod list;
mod log;
mod plot;
mod status;
mod tables;

pub use details::details;
pub use diagnostics::remarks;
pub use fit::shortened;
pub use list::{Listed, runs_table, state};
pub use log::log_line;
pub use plot::{
    Floor, Kind, Loss, PlotOptions, Series, TextPlot, loss_curve, loss_png, loss_svg, loss_text, of_one,
    of_several,
};
pub use status::{Gpu, Standing, gpu_figures, gpu_table, seconds_left, status_table};
pub use tables::{Charset, bits_per_token, closing_table, perplexity};
