//! A plot in characters, for a terminal.

use super::scale::Scale;
use super::{PlotOptions, Series, thin};
use crate::Charset;

/// What marks the values of each series, in order.
const MARKS: [char; 8] = ['*', 'o', '+', 'x', '#', '@', '%', '&'];
/// The colours of the series on a terminal: blue, red, green, magenta, yellow, cyan, white, grey.
const COLOURS: [u8; 8] = [34, 31, 32, 35, 33, 36, 37, 90];

/// How a plot in characters is drawn.
#[derive(Clone, Copy, Debug)]
pub struct TextPlot {
    /// Characters across, axis included; at least 40.
    pub width: usize,
    /// Lines of the plot itself, without title, axis and legend; at least 5.
    pub height: usize,
    /// What its lines are made of.
    pub charset: Charset,
    /// Whether the series have the colours of a terminal (ANSI escapes).
    pub colour: bool,
}

/// The series as text: title, plot, axis and legend. Each column shows the mean of the values that fall into it; what cannot be
/// drawn is left out. Where series meet, the later one is on top.
pub fn loss_text(series: &[Series], options: &PlotOptions, plot: TextPlot) -> String {
    let log = options.log_y;
    let drawable = |one: &Series| -> Vec<(f64, f64)> {
        one.points.iter().copied().filter(|&point| thin::drawable(point, log)).collect()
    };
    let series: Vec<(&str, Vec<(f64, f64)>)> =
        series.iter().map(|one| (one.label.as_str(), drawable(one))).collect();
    let floor = options.floor.as_ref().filter(|floor| thin::drawable((0.0, floor.value), log));
    let (width, height) = (plot.width.max(40), plot.height.max(5));

    let points = || series.iter().flat_map(|(_, points)| points);
    let values = points().map(|point| point.1).chain(floor.map(|floor| floor.value));
    let y_axis = Scale::new(values, 0.0, log, ((height - 1) as f64, 0.0));
    let ticks = y_axis.ticks((height / 4).max(2));
    let margin = ticks.iter().map(|(_, label)| label.len()).max().unwrap_or(0);
    let columns = width - margin - 2;
    let x_axis = Scale::new(points().map(|point| point.0), 0.0, false, (0.0, (columns - 1) as f64));
    let at = |axis: &Scale, value: f64, most: usize| (axis.pixel(value).round().max(0.0) as usize).min(most);

    let [horizontal, vertical, tick, corner, dash] = match plot.charset {
        Charset::Unicode => ['\u{2500}', '\u{2502}', '\u{2524}', '\u{2514}', '\u{254c}'],
        Charset::Ascii => ['-', '|', '+', '+', '.'],
    };
    // Each cell: a character, and the series it belongs to.
    let mut cells = vec![vec![(' ', None); columns]; height];
    if let Some(floor) = floor {
        cells[at(&y_axis, floor.value, height - 1)].fill((dash, None));
    }
    for (which, (_, points)) in series.iter().enumerate() {
        let mut sums = vec![(0.0, 0.0); columns];
        for &(x, y) in points {
            let (sum, count) = &mut sums[at(&x_axis, x, columns - 1)];
            *sum += if log { y.ln() } else { y };
            *count += 1.0;
        }
        for (column, (sum, count)) in sums.into_iter().enumerate().filter(|(_, (_, count))| *count > 0.0) {
            let mean: f64 = if log { f64::exp(sum / count) } else { sum / count };
            cells[at(&y_axis, mean, height - 1)][column] = (MARKS[which % MARKS.len()], Some(which));
        }
    }

    let paint = |text: &str, which: Option<usize>| match which {
        Some(which) if plot.colour => format!("\x1b[{}m{text}\x1b[0m", COLOURS[which % COLOURS.len()]),
        _ => text.to_owned(),
    };
    let mut lines = vec![options.title.clone()];
    for (line, row) in cells.iter().enumerate() {
        let label = ticks.iter().find(|(value, _)| at(&y_axis, *value, height - 1) == line);
        let (label, edge) = label.map_or(("", vertical), |(_, label)| (label.as_str(), tick));
        let end = row.iter().rposition(|cell| cell.0 != ' ').map_or(0, |last| last + 1);
        let drawn: String = row[..end].iter().map(|&(mark, which)| paint(&mark.to_string(), which)).collect();
        lines.push(format!("{label:>margin$} {edge}{drawn}"));
    }
    lines.push(format!("{:margin$} {corner}{}", "", horizontal.to_string().repeat(columns)));
    lines.push(format!("{:margin$}  {}", "", x_labels(&x_axis, columns, &options.x_label)));
    if points().next().is_none() {
        lines.push("nothing to draw".to_owned());
    }
    for (which, (label, _)) in series.iter().enumerate() {
        let mark = paint(&MARKS[which % MARKS.len()].to_string(), Some(which));
        lines.push(format!("{:margin$}  {mark} {label}", ""));
    }
    if let Some(floor) = floor {
        let value = crate::format::loss(floor.value);
        lines.push(format!("{:margin$}  {dash} {}, {value}", "", floor.label));
    }
    let text = lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n") + "\n";
    match plot.charset {
        Charset::Unicode => text,
        Charset::Ascii => text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect(),
    }
}

/// The labels below the axis, each centred on its tick where there is room, and the axis's name at the end.
fn x_labels(axis: &Scale, columns: usize, name: &str) -> String {
    let mut line = String::new();
    let room = columns.saturating_sub(name.len() + 1);
    for (value, label) in axis.whole_ticks((columns / 12).max(2)) {
        let from = (axis.pixel(value).round().max(0.0) as usize).saturating_sub(label.len() / 2);
        let free = line.is_empty() || from > line.len();
        if free && from + label.len() <= room {
            line = format!("{line:from$}{label}");
        }
    }
    format!("{line:room$} {name}")
}
