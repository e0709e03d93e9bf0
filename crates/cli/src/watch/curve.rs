//! Series of a run made drawable: thinned to what a terminal can show, with an axis.

use ratatui::symbols::Marker;
use ratatui::text::Span;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType};
use report::format;

use super::view::Look;

/// What marks the curves where there is nothing but ASCII, by colour.
const ASCII: [char; 4] = ['*', 'o', '-', '*'];

/// Points that go into one panel, and how.
pub struct Curve {
    pub points: Vec<(f64, f64)>,
    pub kind: GraphType,
    /// Which of the colours.
    pub colour: usize,
}

/// One panel: curves over the steps.
pub struct Panel {
    pub title: String,
    pub curves: Vec<Curve>,
    /// Of the loss only: a logarithmic axis.
    pub log: bool,
    /// How a value is written at the axis.
    pub label: fn(f64) -> String,
}

/// At most `most` points: the means of runs of points that lie beside each other. What is not finite is left out.
pub fn thin(points: impl Iterator<Item = (f64, f64)>, most: usize) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.filter(|(_, y)| y.is_finite()).collect();
    let size = points.len().div_ceil(most.max(1)).max(1);
    let mean = |part: &[(f64, f64)]| {
        let count = part.len() as f64;
        let (x, y) = part.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        (x / count, y / count)
    };
    points.chunks(size).map(mean).collect()
}

impl Panel {
    /// Takes the logarithm, where the axis is one, of what has one.
    fn scaled(&self) -> Vec<Vec<(f64, f64)>> {
        let scale = |&(x, y): &(f64, f64)| match self.log {
            true if y > 0.0 => Some((x, y.log10())),
            true => None,
            false => Some((x, y)),
        };
        self.curves.iter().map(|curve| curve.points.iter().filter_map(scale).collect()).collect()
    }

    /// Draws into a block of `height` lines.
    pub fn draw(&self, frame: &mut ratatui::Frame, area: ratatui::layout::Rect, block: Block, look: Look) {
        let scaled = self.scaled();
        let all = || scaled.iter().flatten();
        let bounds = |values: &mut dyn Iterator<Item = f64>, margin: f64| {
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
            let free = (margin * (high - low)).max(1e-9 * high.abs()).max(f64::MIN_POSITIVE);
            if low > high { (0.0, 1.0) } else { (low - free, high + free) }
        };
        let (left, right) = bounds(&mut all().map(|point| point.0), 0.0);
        let (low, high) = bounds(&mut all().map(|point| point.1), 0.05);
        let written = |value: f64| (self.label)(if self.log { 10f64.powf(value) } else { value });
        let marks = if area.height > 10 { 3 } else { 2 };
        let y_labels: Vec<String> =
            (0..marks).map(|at| written(low + (high - low) * f64::from(at) / f64::from(marks - 1))).collect();
        let x_labels = [left, right].map(|step| format::count(step.round().max(0.0) as u64));
        let datasets = self.curves.iter().zip(&scaled).map(|(curve, points)| {
            let marker = match curve.kind {
                _ if look.ascii => Marker::Custom(ASCII[curve.colour % ASCII.len()]),
                GraphType::Scatter => Marker::Dot,
                _ => Marker::Braille,
            };
            let set = Dataset::default().marker(marker).graph_type(curve.kind).data(points);
            set.style(look.colour(curve.colour))
        });
        let spans = |labels: Vec<String>| labels.into_iter().map(Span::raw).collect::<Vec<_>>();
        let chart = Chart::new(datasets.collect())
            .block(block.title(self.title.clone()))
            .x_axis(Axis::default().bounds([left, right]).labels(spans(x_labels.into())))
            .y_axis(Axis::default().bounds([low, high]).labels(spans(y_labels)))
            .legend_position(None);
        frame.render_widget(chart, area);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_series_are_thinned_by_means_and_gaps_are_left_out() {
        let points = (0..1000).map(|x| (f64::from(x), if x == 7 { f64::NAN } else { 2.0 }));
        let thinned = thin(points, 100);
        assert!(
            thinned.len() <= 100 && thinned.iter().all(|point| (point.1 - 2.0).abs() < 1e-12),
            "{thinned:?}"
        );
        assert!(thin([(1.0, 3.0)].into_iter(), 0) == [(1.0, 3.0)]);
    }
}
