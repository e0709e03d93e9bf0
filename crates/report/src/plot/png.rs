//! A drawing as PNG, two pixels for each of the drawing's, with a font of its own: the same bytes on every machine.

use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke as Pen, StrokeDash,
    Transform,
};
use ttf_parser::{Face, GlyphId, OutlineBuilder};

use super::scene::{Anchor, Colour, Item, MARKER, Scene, Stroke, Text};

/// Pixels for each pixel of the drawing.
const SCALE: f32 = 2.0;
/// `DejaVu` Sans, Latin letters and some signs (see `font/LICENSE`).
const REGULAR: &[u8] = include_bytes!("font/DejaVuSans.ttf");
const BOLD: &[u8] = include_bytes!("font/DejaVuSans-Bold.ttf");
/// What stands for a character that the font has not.
const MISSING: char = '\u{fffd}';

/// The file.
pub(super) fn file(scene: &Scene) -> Vec<u8> {
    let [width, height] = [scene.width, scene.height].map(|side| (side as f32 * SCALE).round() as u32);
    let mut ground = Pixmap::new(width, height).expect("a plot has 240 pixels or more each way");
    ground.fill(Color::WHITE);
    let faces = [REGULAR, BOLD].map(|font| Face::parse(font, 0).expect("the font is part of the program"));
    for item in &scene.items {
        match item {
            Item::Line(points, stroke) => line(&mut ground, points, stroke),
            Item::Marker(at, colour) => marker(&mut ground, *at, *colour),
            Item::Text(of) => text(&mut ground, of, &faces[usize::from(of.bold)]),
        }
    }
    ground.encode_png().expect("memory takes all bytes")
}

fn line(ground: &mut Pixmap, points: &[(f64, f64)], stroke: &Stroke) {
    let mut path = PathBuilder::new();
    for (at, &(x, y)) in points.iter().enumerate() {
        let (x, y) = (x as f32, y as f32);
        if at == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    // A line of one point has nothing to draw.
    let Some(path) = path.finish() else { return };
    let pen = Pen {
        width: stroke.width as f32,
        line_cap: LineCap::Round,
        line_join: LineJoin::Round,
        dash: stroke.dash.and_then(|(dash, gap)| StrokeDash::new(vec![dash as f32, gap as f32], 0.0)),
        ..Pen::default()
    };
    ground.stroke_path(&path, &paint(stroke.colour, stroke.opacity), &pen, scaled(), None);
}

fn marker(ground: &mut Pixmap, (x, y): (f64, f64), colour: Colour) {
    let (radius, edge) = MARKER;
    for (radius, colour) in [(radius + edge / 2.0, Colour(0x00ff_ffff)), (radius - edge / 2.0, colour)] {
        if let Some(disc) = PathBuilder::from_circle(x as f32, y as f32, radius as f32) {
            fill(ground, &disc, colour, scaled());
        }
    }
}

fn text(ground: &mut Pixmap, of: &Text, face: &Face) {
    let scale = of.size as f32 / f32::from(face.units_per_em());
    let glyphs: Vec<GlyphId> = of.line.chars().filter_map(|c| glyph(face, c)).collect();
    let advance = |id: &GlyphId| f32::from(face.glyph_hor_advance(*id).unwrap_or(0)) * scale;
    let long: f32 = glyphs.iter().map(advance).sum();
    let mut x = match of.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -long / 2.0,
        Anchor::End => -long,
    };
    let (at_x, at_y) = (of.at.0 as f32, of.at.1 as f32);
    let place = scaled().pre_translate(at_x, at_y);
    let place = if of.upwards { place.pre_rotate(-90.0) } else { place };
    for id in &glyphs {
        let mut outline = Outline(PathBuilder::new());
        // A space has no outline.
        if face.outline_glyph(*id, &mut outline).is_some()
            && let Some(path) = outline.0.finish()
        {
            fill(ground, &path, of.colour, place.pre_translate(x, 0.0).pre_scale(scale, -scale));
        }
        x += advance(id);
    }
}

/// The glyph of a character, that of [`MISSING`] where the font has none.
fn glyph(face: &Face, c: char) -> Option<GlyphId> {
    let c = if c.is_control() { MISSING } else { c };
    face.glyph_index(c).or_else(|| face.glyph_index(MISSING))
}

fn fill(ground: &mut Pixmap, path: &Path, colour: Colour, place: Transform) {
    ground.fill_path(path, &paint(colour, 1.0), FillRule::Winding, place, None);
}

fn paint(Colour(rgb): Colour, opacity: f64) -> Paint<'static> {
    let [_, red, green, blue] = rgb.to_be_bytes();
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(red, green, blue, (opacity * 255.0).round() as u8);
    paint
}

fn scaled() -> Transform {
    Transform::from_scale(SCALE, SCALE)
}

/// Takes the outline of a glyph, in units of the font.
struct Outline(PathBuilder);

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        self.0.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.0.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.0.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.0.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.0.close();
    }
}
