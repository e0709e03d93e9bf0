//! Putting a plot together.

use super::scale::Scale;
use super::scene::{Anchor, Colour, Item, Scene, Stroke, Text};
use super::{Kind, PlotOptions, Series, png, svg, thin};
use crate::format;

/// Colours of the series, in order: told apart in print and by eyes that see few colours.
const COLOURS: [Colour; 8] = [
    Colour(0x1f_5fd0),
    Colour(0xd9_480f),
    Colour(0x0b_8a5f),
    Colour(0x7b_3fc4),
    Colour(0xa6_7c00),
    Colour(0x0e_7490),
    Colour(0xbe_185d),
    Colour(0x4b_5563),
];
const TITLE: Colour = Colour(0x1b_1f24);
const SUBTITLE: Colour = Colour(0x5b_6470);
const LABEL: Colour = Colour(0x40_4852);
const AXIS: Colour = Colour(0x8a_929c);
const GRID: Colour = Colour(0xe7_eaee);
const FLOOR: Colour = Colour(0x4a_525c);
const NOTE: Colour = Colour(0x7a_828c);
const WARNING: Colour = Colour(0xb4_2318);

/// Width of a character of the 12 px text, on the generous side: whoever shows an SVG chooses the font.
const CHAR: f64 = 6.8;
/// The most markers a series of points gets; above, its line stands alone.
const MARKERS: usize = 100;

/// What of a series is drawn: its unbroken lines, and the smoothed ones.
struct Drawn<'a> {
    series: &'a Series,
    colour: Colour,
    lines: Vec<Vec<(f64, f64)>>,
    smooth: Vec<Vec<(f64, f64)>>,
}

/// An SVG document with all `series` in one plot.
///
/// The axes span everything that can be drawn and the floor. Values that cannot be drawn (not finite, beyond 1e30, not positive on a
/// logarithmic axis) are gaps, and their number is written above the plot. A long series is thinned to about 2,000 points; every spike stays.
pub fn loss_svg(series: &[Series], options: &PlotOptions) -> String {
    svg::document(&scene(series, options))
}

/// The same plot as a PNG file of twice as many pixels each way.
pub fn loss_png(series: &[Series], options: &PlotOptions) -> Vec<u8> {
    png::file(&scene(series, options))
}

fn scene(series: &[Series], options: &PlotOptions) -> Scene {
    let drawn: Vec<Drawn> = series
        .iter()
        .zip(COLOURS.into_iter().cycle())
        .map(|(series, colour)| Drawn {
            series,
            colour,
            lines: thin::lines(&series.points, options.log_y),
            smooth: match series.kind {
                Kind::Curve => thin::smooth(&series.points, options.log_y),
                Kind::Points => Vec::new(),
            },
        })
        .collect();
    let floor = options.floor.as_ref().filter(|floor| thin::drawable((0.0, floor.value), options.log_y));

    let (width, height) = (f64::from(options.width.max(320)), f64::from(options.height.max(240)));
    let floor_room = floor.map_or(0.0, |floor| (floor.label.chars().count().max(6) as f64) * CHAR);
    let (left, right) = (72.0, width - 24.0 - floor_room);
    let mut items = Items(Vec::new());
    let mut y = 12.0;
    for (text, size, colour, bold) in
        [(&options.title, 17.0, TITLE, true), (&options.subtitle, 12.0, SUBTITLE, false)]
    {
        if !text.is_empty() {
            y += size + 6.0;
            items.text(Text { size, bold, ..Text::new(text, (left, y), colour) });
        }
    }
    let mut notes = Vec::new();
    if drawn.iter().any(|one| !one.smooth.is_empty()) {
        notes.push(("thin: each value, bold: smoothed".to_owned(), NOTE));
    }
    let lost =
        |one: &Series| one.points.iter().filter(|&&point| !thin::drawable(point, options.log_y)).count();
    let lost: usize = series.iter().map(lost).sum();
    if lost > 0 {
        let why =
            if options.log_y { "not finite, too large or not positive" } else { "not finite or too large" };
        let values = if lost == 1 { "value" } else { "values" };
        notes.push((format!("{} {values} not drawn: {why}", format::count(lost as u64)), WARNING));
    }
    let top = items.legend(&drawn, &notes, (left, width - 24.0), y + 24.0) + 18.0;
    let bottom = height - 54.0;

    let all = || drawn.iter().flat_map(|one| one.lines.iter().chain(&one.smooth).flatten());
    let x_axis = Scale::new(all().map(|point| point.0), 0.015, false, (left, right));
    let values = all().map(|point| point.1).chain(floor.map(|floor| floor.value));
    let y_axis = Scale::new(values, 0.05, options.log_y, (bottom, top));
    let whole = series.iter().all(Series::counts_steps);
    let wanted = (((right - left) / 90.0) as usize).max(2);
    let x_ticks = if whole { x_axis.whole_ticks(wanted) } else { x_axis.ticks(wanted) };

    for (value, label) in y_axis.ticks((((bottom - top) / 50.0) as usize).max(2)) {
        let y = y_axis.pixel(value);
        items.line(vec![(left, y), (right, y)], Stroke::new(GRID, 1.0));
        items.text(Text::new(label, (left - 10.0, y + 4.0), LABEL).anchored(Anchor::End));
    }
    for (value, label) in x_ticks {
        let x = x_axis.pixel(value);
        items.line(vec![(x, bottom), (x, bottom + 5.0)], Stroke::new(AXIS, 1.0));
        items.text(Text::new(label, (x, bottom + 20.0), LABEL).anchored(Anchor::Middle));
    }
    items.line(vec![(left, bottom), (right, bottom)], Stroke::new(AXIS, 1.0));
    let (middle, half) = (f64::midpoint(left, right), f64::midpoint(top, bottom));
    items.text(Text::new(&options.x_label, (middle, height - 14.0), LABEL).anchored(Anchor::Middle));
    let y_label = Text::new(&options.y_label, (20.0, half), LABEL).anchored(Anchor::Middle);
    items.text(Text { upwards: true, ..y_label });

    if let Some(floor) = floor {
        let (y, x) = (y_axis.pixel(floor.value), right + 8.0);
        let stroke = Stroke { dash: Some((6.0, 4.0)), ..Stroke::new(FLOOR, 1.3) };
        items.line(vec![(left, y), (right, y)], stroke);
        items.text(Text::new(&floor.label, (x, y - 3.0), FLOOR));
        items.text(Text::new(format::loss(floor.value), (x, y + 12.0), FLOOR));
    }
    for one in &drawn {
        items.series(one, &x_axis, &y_axis);
    }
    if all().next().is_none() {
        let nothing = Text { size: 15.0, ..Text::new("nothing to draw", (middle, half), AXIS) };
        items.text(nothing.anchored(Anchor::Middle));
    }
    Scene { width, height, title: options.title.clone(), items: items.0 }
}

impl Series {
    /// Whether all x are whole numbers.
    fn counts_steps(&self) -> bool {
        self.points.iter().all(|point| point.0.fract() == 0.0)
    }
}

/// A drawing as it grows.
struct Items(Vec<Item>);

impl Items {
    fn line(&mut self, points: Vec<(f64, f64)>, stroke: Stroke) {
        self.0.push(Item::Line(points, stroke));
    }

    fn text(&mut self, text: Text) {
        self.0.push(Item::Text(text));
    }

    /// The series and notes (text, colour) between two x, the first line at `y`; gives the y of the last line.
    fn legend(
        &mut self,
        drawn: &[Drawn],
        notes: &[(String, Colour)],
        (left, right): (f64, f64),
        y: f64,
    ) -> f64 {
        let (mut x, mut y) = (left, y);
        let entries = drawn.iter().map(|one| (Some(one), one.series.label.as_str(), TITLE));
        let notes = notes.iter().map(|(note, colour)| (None, note.as_str(), *colour));
        for (one, label, colour) in entries.chain(notes) {
            let swatch = if one.is_some() { 30.0 } else { 0.0 };
            let long = swatch + label.chars().count() as f64 * CHAR;
            if x > left && x + long > right {
                (x, y) = (left, y + 18.0);
            }
            if let Some(Drawn { series, colour, .. }) = one {
                let middle = y - 4.0;
                self.line(vec![(x, middle), (x + 22.0, middle)], Stroke::new(*colour, 2.4));
                if series.kind == Kind::Points {
                    self.0.push(Item::Marker((x + 11.0, middle), *colour));
                }
            }
            self.text(Text::new(label, (x + swatch, y), colour));
            x += long + 22.0;
        }
        y
    }

    fn series(&mut self, one: &Drawn, x_axis: &Scale, y_axis: &Scale) {
        let colour = one.colour;
        let at = |&(x, y): &(f64, f64)| (x_axis.pixel(x), y_axis.pixel(y));
        let (width, opacity) = match (one.series.kind, one.smooth.is_empty()) {
            (Kind::Curve, false) => (1.0, 0.38),
            (Kind::Curve, true) => (1.8, 1.0),
            (Kind::Points, _) => (1.4, 0.7),
        };
        for line in one.lines.iter().filter(|line| line.len() > 1) {
            self.line(line.iter().map(at).collect(), Stroke { opacity, ..Stroke::new(colour, width) });
        }
        for smooth in &one.smooth {
            self.line(smooth.iter().map(at).collect(), Stroke::new(colour, 2.4));
        }
        // A point with no neighbour has no line: it gets a marker in any case.
        let total: usize = one.lines.iter().map(Vec::len).sum();
        let marked = one.series.kind == Kind::Points && total <= MARKERS;
        for line in one.lines.iter().filter(|line| marked || line.len() == 1) {
            self.0.extend(line.iter().map(|point| Item::Marker(at(point), colour)));
        }
    }
}
