//! A drawing as SVG: self-contained (no script, no font, no link), the same bytes for the same drawing.

use std::fmt::Write as _;

use super::scene::{Anchor, BODY, Colour, Item, MARKER, Scene, Stroke, Text};

const FONT: &str = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif";

/// The document.
pub(super) fn document(scene: &Scene) -> String {
    let (w, h) = (scene.width, scene.height);
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" font-family="{FONT}" font-size="{BODY}" fill="none" stroke-linejoin="round" stroke-linecap="round">
<title>{}</title>
<rect width="{w}" height="{h}" fill="#ffffff"/>
"##,
        escape(&scene.title)
    );
    for item in &scene.items {
        let element = match item {
            Item::Line(points, stroke) => line(points, stroke),
            Item::Marker(at, colour) => marker(*at, *colour),
            Item::Text(of) => text(of),
        };
        svg.push_str(&element);
        svg.push('\n');
    }
    svg.push_str("</svg>\n");
    svg
}

fn line(points: &[(f64, f64)], stroke: &Stroke) -> String {
    let mut path = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        let command = if at == 0 { 'M' } else { 'L' };
        write!(path, "{command}{x:.1} {y:.1}").expect("a String takes all text");
    }
    let (colour, width) = (hex(stroke.colour), stroke.width);
    let opacity = match stroke.opacity {
        1.0.. => String::new(),
        opacity => format!(r#" stroke-opacity="{opacity}""#),
    };
    let dash = stroke.dash.map(|(dash, gap)| format!(r#" stroke-dasharray="{dash} {gap}""#));
    let dash = dash.unwrap_or_default();
    format!(r#"<path stroke="{colour}" stroke-width="{width}"{opacity}{dash} d="{path}"/>"#)
}

fn marker((x, y): (f64, f64), colour: Colour) -> String {
    let ((radius, edge), fill) = (MARKER, hex(colour));
    format!(
        r##"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{fill}" stroke="#ffffff" stroke-width="{edge}"/>"##
    )
}

fn text(of: &Text) -> String {
    let (x, y) = of.at;
    let place = if of.upwards {
        format!(r#"transform="translate({x:.1} {y:.1}) rotate(-90)""#)
    } else {
        format!(r#"x="{x:.1}" y="{y:.1}""#)
    };
    let usual = (of.size - BODY).abs() < f64::EPSILON;
    let size = if usual { String::new() } else { format!(r#" font-size="{}""#, of.size) };
    let weight = if of.bold { r#" font-weight="600""# } else { "" };
    let anchor = match of.anchor {
        Anchor::Start => "",
        Anchor::Middle => r#" text-anchor="middle""#,
        Anchor::End => r#" text-anchor="end""#,
    };
    format!(r#"<text {place}{size}{weight}{anchor} fill="{}">{}</text>"#, hex(of.colour), escape(&of.line))
}

fn hex(colour: Colour) -> String {
    format!("#{:06x}", colour.0)
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
