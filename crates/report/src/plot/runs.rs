//! What of runs goes into a plot: of one run its losses and floor, of several one loss each.

use runs::{Metadata, Metrics};

use super::{Floor, Kind, PlotOptions, Series, loss_svg};
use crate::format;

/// Which loss of several runs is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// On the training batches.
    Train,
    /// On the validation split.
    Validation,
}

/// The loss curve of one run: training loss, validation loss, entropy floor.
pub fn loss_curve(metadata: &Metadata, metrics: &Metrics) -> String {
    let (series, options) = of_one(metadata, metrics);
    loss_svg(&series, &options)
}

/// The series of one run: training loss, validation loss; the options have the entropy floor.
pub fn of_one(metadata: &Metadata, metrics: &Metrics) -> (Vec<Series>, PlotOptions) {
    let setup = &metadata.setup;
    let all = [("train", Loss::Train), ("validation", Loss::Validation)];
    let series = all.into_iter().map(|(name, loss)| series(name, metrics, loss));
    let series = series.filter(|one| one.kind == Kind::Curve || !one.points.is_empty()).collect();
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
    (series, options)
}

/// One series for each run, under its name. The floor is shown where all runs have the same.
pub fn of_several(runs: &[(Metadata, Metrics)], loss: Loss) -> (Vec<Series>, PlotOptions) {
    let series = runs.iter().map(|(metadata, metrics)| series(&metadata.name, metrics, loss)).collect();
    let mut floors = runs.iter().map(|(metadata, _)| metadata.setup.entropy_floor);
    let first = floors.next().flatten();
    let floor = first.filter(|_| floors.all(|floor| floor == first));
    let title = match loss {
        Loss::Train => "training loss",
        Loss::Validation => "validation loss",
    };
    let whose = match runs {
        [(metadata, _)] => metadata.name.clone(),
        _ => format!("{} runs", runs.len()),
    };
    let options = PlotOptions {
        title: format!("{title} of {whose}"),
        floor: floor.map(|value| Floor { label: "entropy floor".to_owned(), value }),
        ..PlotOptions::default()
    };
    (series, options)
}

/// One loss of a run, its last value in the label.
fn series(name: &str, metrics: &Metrics, loss: Loss) -> Series {
    let rows = &metrics.rows;
    let (kind, points): (Kind, Vec<(f64, f64)>) = match loss {
        Loss::Train => (Kind::Curve, rows.iter().map(|row| (row.step as f64, row.loss)).collect()),
        Loss::Validation => {
            (Kind::Points, rows.iter().filter_map(|row| Some((row.step as f64, row.val_loss?))).collect())
        }
    };
    let label = match points.last() {
        Some((_, last)) => format!("{name}, final {}", format::loss(*last)),
        None => name.to_owned(),
    };
    Series { label, kind, points }
}
