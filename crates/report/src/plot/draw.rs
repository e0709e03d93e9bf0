//! Putting a plot together.

use std::fmt::{self, Write as _};

use super::scale::Scale;
use super::{Kind, PlotOptions, Series, thin};
use crate::format;

/// Colours of the series, in order: told apart in print and by eyes that see few colours.
const COLOURS: [&str; 8] =
    ["#1f5fd0", "#d9480f", "#0b8a5f", "#7b3fc4", "#a67c00", "#0e7490", "#be185d", "#4b5563"];
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif";

/// Width of a character of the 12 px text, on the generous side: there is no font to measure here.
const CHAR: f64 = 6.8;
/// The most markers a series of points gets; above, its line stands alone.
const MARKERS: usize = 100;

/// What of a series is drawn: its unbroken lines, and the smoothed ones.
struct Drawn<'a> {
    series: &'a Series,
    colour: &'static str,
    lines: Vec<Vec<(f64, f64)>>,
    smooth: Vec<Vec<(f64, f64)>>,
}

/// An SVG document with all `series` in one plot.
///
/// The axes span everything that can be drawn and the floor. Values that cannot be drawn (not finite, beyond 1e30, not positive on a
/// logarithmic axis) are gaps, and their number is written above the plot. A long series is thinned to about 2,000 points; every spike stays.
pub fn loss_svg(series: &[Series], options: &PlotOptions) -> String {
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
    let mut svg = Svg(String::new());
    let [w, h] = [width, height];
    svg.line(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" font-family="{FONT}" font-size="12">"#
    ));
    svg.line(format_args!("<title>{}</title>", escape(&options.title)));
    svg.line(format_args!(r##"<rect width="{w}" height="{h}" fill="#ffffff"/>"##));
    let mut y = 12.0;
    for (text, size, style) in [
        (&options.title, 17.0, r##"fill="#1b1f24" font-weight="600""##),
        (&options.subtitle, 12.0, r##"fill="#5b6470""##),
    ] {
        if !text.is_empty() {
            y += size + 6.0;
            svg.line(format_args!(
                r#"<text x="{left}" y="{y}" font-size="{size}" {style}>{}</text>"#,
                escape(text)
            ));
        }
    }
    let mut notes = Vec::new();
    if drawn.iter().any(|one| !one.smooth.is_empty()) {
        notes.push(("thin: each value, bold: smoothed".to_owned(), "#7a828c"));
    }
    let lost =
        |one: &Series| one.points.iter().filter(|&&point| !thin::drawable(point, options.log_y)).count();
    let lost: usize = series.iter().map(lost).sum();
    if lost > 0 {
        let why =
            if options.log_y { "not finite, too large or not positive" } else { "not finite or too large" };
        let values = if lost == 1 { "value" } else { "values" };
        notes.push((format!("{} {values} not drawn: {why}", format::count(lost as u64)), "#b42318"));
    }
    let top = svg.legend(&drawn, &notes, (left, width - 24.0), y + 24.0) + 18.0;
    let bottom = height - 54.0;

    let all = || drawn.iter().flat_map(|one| one.lines.iter().chain(&one.smooth).flatten());
    let x_axis = Scale::new(all().map(|point| point.0), 0.015, false, (left, right));
    let values = all().map(|point| point.1).chain(floor.map(|floor| floor.value));
    let y_axis = Scale::new(values, 0.05, options.log_y, (bottom, top));
    let whole = series.iter().all(Series::counts_steps);
    let wanted = (((right - left) / 90.0) as usize).max(2);
    let x_ticks = if whole { x_axis.whole_ticks(wanted) } else { x_axis.ticks(wanted) };

    for (value, label) in y_axis.ticks((((bottom - top) / 50.0) as usize).max(2)) {
        let (y, x, base) = (y_axis.pixel(value), left - 10.0, y_axis.pixel(value) + 4.0);
        svg.line(format_args!(r##"<path d="M{left:.1} {y:.1}H{right:.1}" stroke="#e7eaee"/>"##));
        svg.line(format_args!(
            r##"<text x="{x:.1}" y="{base:.1}" text-anchor="end" fill="#404852">{label}</text>"##
        ));
    }
    for (value, label) in x_ticks {
        let (x, y) = (x_axis.pixel(value), bottom + 20.0);
        svg.line(format_args!(r##"<path d="M{x:.1} {bottom:.1}v5" stroke="#8a929c"/>"##));
        svg.line(format_args!(
            r##"<text x="{x:.1}" y="{y:.1}" text-anchor="middle" fill="#404852">{label}</text>"##
        ));
    }
    svg.line(format_args!(r##"<path d="M{left:.1} {bottom:.1}H{right:.1}" stroke="#8a929c"/>"##));
    let (middle, below, half) = (f64::midpoint(left, right), height - 14.0, f64::midpoint(top, bottom));
    let (x_label, y_label) = (escape(&options.x_label), escape(&options.y_label));
    svg.line(format_args!(
        r##"<text x="{middle:.1}" y="{below:.1}" text-anchor="middle" fill="#404852">{x_label}</text>"##
    ));
    svg.line(format_args!(
        r##"<text transform="translate(20 {half:.1}) rotate(-90)" text-anchor="middle" fill="#404852">{y_label}</text>"##
    ));

    if let Some(floor) = floor {
        let (y, x) = (y_axis.pixel(floor.value), right + 8.0);
        let (label, value) = (escape(&floor.label), format::loss(floor.value));
        svg.line(format_args!(
            r##"<path class="floor" d="M{left:.1} {y:.1}H{right:.1}" stroke="#4a525c" stroke-width="1.3" stroke-dasharray="6 4"/>"##
        ));
        let (above, under) = (y - 3.0, y + 12.0);
        svg.line(format_args!(
            r##"<text fill="#4a525c"><tspan x="{x:.1}" y="{above:.1}">{label}</tspan><tspan x="{x:.1}" y="{under:.1}">{value}</tspan></text>"##
        ));
    }
    for one in &drawn {
        svg.series(one, &x_axis, &y_axis);
    }
    if all().next().is_none() {
        svg.line(format_args!(
            r##"<text x="{middle:.1}" y="{half:.1}" text-anchor="middle" fill="#8a929c" font-size="15">nothing to draw</text>"##
        ));
    }
    svg.line(format_args!("</svg>"));
    svg.0
}

impl Series {
    /// Whether all x are whole numbers.
    fn counts_steps(&self) -> bool {
        self.points.iter().all(|point| point.0.fract() == 0.0)
    }
}

/// A document as it grows.
struct Svg(String);

impl Svg {
    fn line(&mut self, arguments: fmt::Arguments) {
        self.0.write_fmt(arguments).expect("a String takes all text");
        self.0.push('\n');
    }

    /// The series and notes (text, colour) between two x, the first line at `y`; gives the y of the last line.
    fn legend(
        &mut self,
        drawn: &[Drawn],
        notes: &[(String, &str)],
        (left, right): (f64, f64),
        y: f64,
    ) -> f64 {
        let (mut x, mut y) = (left, y);
        let entries = drawn.iter().map(|one| (Some(one), one.series.label.as_str(), "#1b1f24"));
        let notes = notes.iter().map(|(note, colour)| (None, note.as_str(), *colour));
        for (one, label, fill) in entries.chain(notes) {
            let swatch = if one.is_some() { 30.0 } else { 0.0 };
            let long = swatch + label.chars().count() as f64 * CHAR;
            if x > left && x + long > right {
                (x, y) = (left, y + 18.0);
            }
            if let Some(Drawn { series, colour, .. }) = one {
                let (from, middle, base) = (x, x + 11.0, y - 4.0);
                self.line(format_args!(
                    r#"<path d="M{from:.1} {base:.1}h22" stroke="{colour}" stroke-width="2.4"/>"#
                ));
                if series.kind == Kind::Points {
                    self.marker(middle, base, colour);
                }
            }
            let text = x + swatch;
            self.line(format_args!(
                r#"<text x="{text:.1}" y="{y:.1}" fill="{fill}">{}</text>"#,
                escape(label)
            ));
            x += long + 22.0;
        }
        y
    }

    fn series(&mut self, one: &Drawn, x_axis: &Scale, y_axis: &Scale) {
        let colour = one.colour;
        let at = |&(x, y): &(f64, f64)| (x_axis.pixel(x), y_axis.pixel(y));
        let style = match (one.series.kind, one.smooth.is_empty()) {
            (Kind::Curve, false) => r#"stroke-width="1" stroke-opacity="0.38""#,
            (Kind::Curve, true) => r#"stroke-width="1.8""#,
            (Kind::Points, _) => r#"stroke-width="1.4" stroke-opacity="0.7""#,
        };
        self.line(format_args!(
            r#"<g fill="none" stroke="{colour}" stroke-linejoin="round" stroke-linecap="round">"#
        ));
        for line in one.lines.iter().filter(|line| line.len() > 1) {
            self.line(format_args!(r#"<path {style} d="{}"/>"#, path(line.iter().map(at))));
        }
        for smooth in &one.smooth {
            self.line(format_args!(r#"<path stroke-width="2.4" d="{}"/>"#, path(smooth.iter().map(at))));
        }
        self.line(format_args!("</g>"));
        // A point with no neighbour has no line: it gets a marker in any case.
        let total: usize = one.lines.iter().map(Vec::len).sum();
        let marked = one.series.kind == Kind::Points && total <= MARKERS;
        for line in one.lines.iter().filter(|line| marked || line.len() == 1) {
            for (x, y) in line.iter().map(at) {
                self.marker(x, y, colour);
            }
        }
    }

    fn marker(&mut self, x: f64, y: f64, colour: &str) {
        self.line(format_args!(
            r##"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}" stroke="#ffffff" stroke-width="1.2"/>"##
        ));
    }
}

/// Path data through `points`, in pixels.
fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut data = String::new();
    for (at, (x, y)) in points.enumerate() {
        let command = if at == 0 { 'M' } else { 'L' };
        write!(data, "{command}{x:.1} {y:.1}").expect("a String takes all text");
    }
    data
}

/// Text for XML: markup escaped, control characters (which XML cannot hold) as U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
