//! A drawing: what there is to draw, in pixels from the upper left corner, whatever it is drawn with.

/// All of it, over a white ground.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scene {
    pub width: f64,
    pub height: f64,
    /// What the drawing is called.
    pub title: String,
    /// From the lowest to the topmost.
    pub items: Vec<Item>,
}

/// One thing to draw.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    /// A line through points, its ends and corners round.
    Line(Vec<(f64, f64)>, Stroke),
    /// A disc of radius [`MARKER`] with a white edge.
    Marker((f64, f64), Colour),
    /// One line of text.
    Text(Text),
}

/// Radius of a marker, and the width of its edge, half of which lies within.
pub(super) const MARKER: (f64, f64) = (4.0, 1.2);

/// The size of the font of all but titles.
pub(super) const BODY: f64 = 12.0;

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stroke {
    pub colour: Colour,
    pub width: f64,
    /// 1 covers what lies below.
    pub opacity: f64,
    /// Lengths of a dash and of the gap after it.
    pub dash: Option<(f64, f64)>,
}

/// One line of text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    pub line: String,
    /// On the baseline: where the text begins, or what [`Anchor`] says.
    pub at: (f64, f64),
    pub anchor: Anchor,
    /// The size of the font.
    pub size: f64,
    pub colour: Colour,
    pub bold: bool,
    /// Whether it runs upwards instead of to the right.
    pub upwards: bool,
}

/// What of a text lies at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Red, green and blue, 8 bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colour(pub u32);

impl Stroke {
    /// A line that covers what lies below.
    pub fn new(colour: Colour, width: f64) -> Self {
        Self { colour, width, opacity: 1.0, dash: None }
    }
}

impl Text {
    /// A text of the usual size that begins at a point.
    pub fn new(line: impl Into<String>, at: (f64, f64), colour: Colour) -> Self {
        let (anchor, bold) = (Anchor::Start, false);
        Self { line: line.into(), at, anchor, size: BODY, colour, bold, upwards: false }
    }

    /// The same about another point of it.
    pub fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }
}
