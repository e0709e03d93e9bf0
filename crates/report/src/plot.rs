//! Loss curves as SVG, as PNG and in characters: the same bytes for the same input.

mod draw;
mod png;
mod runs;
mod scale;
mod scene;
mod svg;
mod text;
mod thin;

pub use draw::{loss_png, loss_svg};
pub use runs::{Loss, loss_curve, of_one, of_several};
pub use text::{TextPlot, loss_text};

/// One series of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub label: String,
    /// How it is drawn.
    pub kind: Kind,
    /// (x, y), x ascending. What is not finite is a gap.
    pub points: Vec<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A thin pale line through the values, and its smoothed line where there are enough of them.
    Curve,
    /// A marker at each value, joined by a line.
    Points,
}

/// Title, axes and size of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct PlotOptions {
    /// The first line, bold.
    pub title: String,
    /// The line below it.
    pub subtitle: String,
    /// The name of the horizontal axis.
    pub x_label: String,
    /// The name of the vertical axis.
    pub y_label: String,
    /// A dashed horizontal line.
    pub floor: Option<Floor>,
    /// Whether the vertical axis is logarithmic; values of 0 and less are then gaps.
    pub log_y: bool,
    /// Pixels across; at least 320.
    pub width: u32,
    /// Pixels down; at least 240.
    pub height: u32,
}

/// A labelled level.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    /// Its name, written beside the line.
    pub label: String,
    /// Where it lies on the vertical axis.
    pub value: f64,
}

impl Default for PlotOptions {
    fn default() -> Self {
        Self {
            title: String::new(),
            subtitle: String::new(),
            x_label: "step".to_owned(),
            y_label: "loss [nats per token]".to_owned(),
            floor: None,
            log_y: false,
            width: 900,
            height: 520,
        }
    }
}
