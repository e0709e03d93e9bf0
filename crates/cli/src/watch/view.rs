//! A frame of `watch`. Narrow terminals get the loss alone; what is drawn never depends on anything but the
//! [`App`] and the size.

use std::fmt::Write as _;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, GraphType, Paragraph};
use report::{Standing, format, gpu_figures, remarks, shortened, state};
use runs::Row;

use super::curve::{Curve, Panel, thin};
use super::state::App;
use crate::secrets::mask;

/// The least that there is something to see on.
const LEAST: (u16, u16) = (40, 10);
/// From this size on there is more than the loss.
const WHOLE: (u16, u16) = (72, 20);

const KEYS: &str = "q quit   tab/arrows other run   l log scale   z last quarter";
const KEYS_SHORT: &str = "q quit  tab run  l log  z zoom";

/// How things look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether there is nothing but ASCII.
    pub ascii: bool,
    /// Whether colours may be used.
    pub colours: bool,
}

impl Look {
    /// The style of the curve with this number.
    pub fn colour(self, which: usize) -> Style {
        const COLOURS: [Color; 4] = [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta];
        if self.colours { Style::new().fg(COLOURS[which % COLOURS.len()]) } else { Style::new() }
    }
}

/// Draws everything.
pub fn draw(frame: &mut Frame, app: &App) {
    let area = frame.area();
    let look = app.look;
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "this terminal is {} x {};\n{} x {} show something\nq quit",
            area.width, area.height, LEAST.0, LEAST.1
        );
        frame.render_widget(Paragraph::new(text), area);
    } else if area.width < WHOLE.0 || area.height < WHOLE.1 {
        narrow(frame, area, app, look);
    } else {
        whole(frame, area, app, look);
    }
    if look.ascii {
        to_ascii(frame.buffer_mut());
    }
}

fn narrow(frame: &mut Frame, area: Rect, app: &App, look: Look) {
    let parts = [Constraint::Length(2), Constraint::Min(6), Constraint::Length(1), Constraint::Length(1)];
    let [head, middle, figures, keys] = Layout::vertical(parts).areas(area);
    frame.render_widget(Paragraph::new(head_lines(app, area.width, true)), head);
    loss(app, middle).draw(frame, middle, Block::bordered(), look);
    if let Some(row) = app.watched.rows.last() {
        let text = format!("lr {}  {} tokens/s", rate(row.lr), format::short(row.tokens_per_s));
        frame.render_widget(Paragraph::new(text), figures);
    }
    frame.render_widget(Paragraph::new(bold(KEYS_SHORT)), keys);
}

fn whole(frame: &mut Frame, area: Rect, app: &App, look: Look) {
    let gpus = u16::try_from(app.gpus.len().min(8)).unwrap_or(8);
    let parts = [
        Constraint::Length(1),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(gpus),
        Constraint::Length(1),
    ];
    let [head, top, below, gpu_area, keys] = Layout::vertical(parts).areas(area);
    frame.render_widget(Paragraph::new(head_lines(app, area.width, false)), head);
    loss(app, top).draw(frame, top, Block::bordered(), look);
    let thirds = [Constraint::Fill(1), Constraint::Fill(1), Constraint::Length(34)];
    let [left, middle, right] = Layout::horizontal(thirds).areas(below);
    one(app, left, "rate", 3, rate, |row| row.lr).draw(frame, left, Block::bordered(), look);
    let speed = one(app, middle, "tokens/s", 3, format::short, |row| row.tokens_per_s);
    speed.draw(frame, middle, Block::bordered(), look);
    let block = Block::bordered().title("last step");
    frame.render_widget(Paragraph::new(figures(app, right)).block(block), right);
    let lines: Vec<Line> = app
        .gpus
        .iter()
        .map(|gpu| {
            let figures = gpu_figures(gpu).into_iter().filter(|figure| !figure.is_empty());
            Line::from(format!("GPU {} {}: {}", gpu.index, gpu.name, figures.collect::<Vec<_>>().join(", ")))
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), gpu_area);
    frame.render_widget(Paragraph::new(bold(KEYS)), keys);
}

/// What runs and how far it is: on one line, or on two where it is narrow.
fn head_lines(app: &App, width: u16, two: bool) -> Vec<Line<'static>> {
    let place =
        if app.names.len() > 1 { format!(" ({} of {})", app.at + 1, app.names.len()) } else { String::new() };
    let told = match (&app.watched.wrong, &app.watched.standing) {
        (Some(wrong), _) => mask(wrong).into_owned(),
        (None, Some(standing)) => progress(standing),
        (None, None) => String::new(),
    };
    let room = (width as usize).saturating_sub(place.len() + if two { 0 } else { told.chars().count() + 2 });
    let name = shortened(&mask(&app.watched.name), room.max(12));
    let name = vec![bold_span(name), Span::raw(place)];
    if two {
        return vec![Line::from(name), Line::from(told)];
    }
    let gap = Span::raw(format!("  {told}"));
    vec![Line::from([name, vec![gap]].concat())]
}

fn progress(standing: &Standing) -> String {
    let metadata = &standing.metadata;
    let (done, steps) = (metadata.steps_done, metadata.setup.steps);
    let share = 100.0 * done as f64 / steps.max(1) as f64;
    let left = standing.left.map_or(String::new(), |left| format!(", {} left", format::duration(left)));
    format!("{}, step {done}/{steps}, {share:.0} %{left}", state(metadata, standing.died))
}

/// The losses, their floor, and what they are now.
fn loss(app: &App, area: Rect) -> Panel {
    let rows = app.rows();
    let most = 2 * area.width as usize;
    let curve = |points: Vec<(f64, f64)>, kind, colour| Curve { points, kind, colour };
    let train = thin(rows.iter().map(|row| (row.step as f64, row.loss)), most);
    let validation: Vec<(f64, f64)> = rows
        .iter()
        .filter_map(|row| Some((row.step as f64, row.val_loss?)))
        .filter(|point| point.1.is_finite())
        .collect();
    let metadata = app.watched.standing.as_ref().map(|standing| &standing.metadata);
    let floor = metadata.and_then(|metadata| metadata.setup.entropy_floor);
    let mut title = if area.width < WHOLE.0 { "loss" } else { "loss [nats/token]" }.to_owned();
    if let Some(row) = app.watched.rows.last() {
        let _ = write!(title, ": {}", format::loss(row.loss));
    }
    if let Some(loss) = metadata.and_then(|metadata| metadata.validation_loss.last) {
        let _ = write!(title, ", validation {}", format::loss(loss));
    }
    let mut curves = vec![curve(train, GraphType::Line, 0), curve(validation, GraphType::Scatter, 1)];
    if let (Some(floor), Some(first), Some(last)) = (floor, rows.first(), rows.last()) {
        let _ = write!(title, ", floor {}", format::loss(floor));
        let points = vec![(first.step as f64, floor), (last.step as f64, floor)];
        curves.push(curve(points, GraphType::Line, 2));
    }
    if app.log {
        title += ", log scale";
    }
    if app.recent {
        title += ", last quarter";
    }
    Panel { title, curves, log: app.log, label: format::loss }
}

/// A panel with one curve.
fn one(
    app: &App,
    area: Rect,
    name: &str,
    colour: usize,
    label: fn(f64) -> String,
    value: fn(&Row) -> f64,
) -> Panel {
    let points = thin(app.rows().iter().map(|row| (row.step as f64, value(row))), 2 * area.width as usize);
    let now = app.watched.rows.last().map_or(String::new(), |row| format!(": {}", label(value(row))));
    let curves = vec![Curve { points, kind: GraphType::Line, colour }];
    Panel { title: format!("{name}{now}"), curves, log: false, label }
}

/// What is known of the last step: what is amiss first, then time, gradient, and diagnostics, the latest of each.
fn figures(app: &App, area: Rect) -> Vec<Line<'static>> {
    let rows = &app.watched.rows;
    let Some(row) = rows.last() else { return vec![Line::from("no step yet")] };
    let mut lines: Vec<Line> = remarks(&row.diagnostics).into_iter().map(|text| bold(&text)).collect();
    let room = (area.width as usize).saturating_sub(13);
    let mut add = |name: &str, value: String| {
        lines.push(Line::from(format!("{:<room$} {value:>10}", shortened(name, room))));
    };
    add("time", format::duration(row.step_ms / 1e3));
    add("gradient norm", format::short(row.grad_norm));
    // Full diagnostics are not taken in every step.
    let mut latest: Vec<(&str, f64)> = Vec::new();
    for (name, value) in rows.iter().rev().take(200).flat_map(|row| &row.diagnostics) {
        if latest.iter().all(|(known, _)| known != name) {
            latest.push((name, *value));
        }
    }
    for (name, value) in latest {
        add(
            name,
            if value.abs() < 1e-3 || value.abs() >= 1e6 {
                format!("{value:.2e}")
            } else {
                format!("{value:.4}")
            },
        );
    }
    lines
}

/// A learning rate.
fn rate(value: f64) -> String {
    format!("{value:.2e}")
}

fn bold_span(text: String) -> Span<'static> {
    Span::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn bold(text: &str) -> Line<'static> {
    Line::from(bold_span(text.to_owned()))
}

/// Draws in ASCII what was drawn in more.
fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        let ascii = match cell.symbol() {
            symbol if symbol.is_ascii() => continue,
            "│" | "┤" | "├" => "|",
            "─" => "-",
            "┌" | "┐" | "└" | "┘" | "┬" | "┴" | "┼" => "+",
            _ => "?",
        };
        cell.set_symbol(ascii);
    }
}

#[cfg(test)]
mod tests;
