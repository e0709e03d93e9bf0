//! Loss curves as SVG: self-contained (no script, no font, no link), the same bytes for the same input.

mod draw;
mod scale;
mod thin;

use runs::{Metadata, Metrics};

use crate::format;

pub use draw::loss_svg;

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

/// The loss curve of one run: training loss, validation loss, entropy floor.
pub fn loss_curve(metadata: &Metadata, metrics: &Metrics) -> String {
    let setup = &metadata.setup;
    let named = |name: &str, last: Option<f64>| match last {
        Some(last) => format!("{name}, final {}", format::loss(last)),
        None => name.to_owned(),
    };
    let rows = &metrics.rows;
    let mut series = vec![Series {
        label: named("train", rows.last().map(|row| row.loss)),
        kind: Kind::Curve,
        points: rows.iter().map(|row| (row.step as f64, row.loss)).collect(),
    }];
    let validation: Vec<(f64, f64)> =
        rows.iter().filter_map(|row| Some((row.step as f64, row.val_loss?))).collect();
    if let Some(&(_, last)) = validation.last() {
        series.push(Series {
            label: named("validation", Some(last)),
            kind: Kind::Points,
            points: validation,
        });
    }
    let facts = [
        setup.optimizer.clone(),
        format!("{} ({} parameters)", setup.model, format::short(setup.parameters as f64)),
        setup.data.clone(),
        setup.device.clone(),
        setup.precision.clone(),
    ];
    let options = PlotOptions {
        title: metadata.name.clone(),
        subtitle: facts.into_iter().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(" \u{b7} "),
        floor: setup.entropy_floor.map(|value| Floor { label: "entropy floor".to_owned(), value }),
        ..PlotOptions::default()
    };
    loss_svg(&series, &options)
}
