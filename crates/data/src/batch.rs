//! A batch of rows, and how documents become rows.

/// How documents become rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Documents in a row after each other, end-of-text between them; a row may start and end inside a document.
    #[default]
    Pack,
    /// One document a row, cut at the end or padded; pads are masked out of the loss.
    Truncate,
}

impl Packing {
    /// The name used in recipes and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Truncate => "truncate",
        }
    }
}

impl std::str::FromStr for Packing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Pack, Self::Truncate]
            .into_iter()
            .find(|packing| packing.name() == text)
            .ok_or_else(|| format!("unknown packing `{text}`; it is pack or truncate"))
    }
}

/// The target of a position that does not count in the loss.
pub const MASKED: i32 = -1;

/// Rows of tokens and what should follow each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Number of rows, B.
    pub rows: usize,
    /// Tokens a row, T.
    pub seq_len: usize,
    /// Input tokens [B * T].
    pub inputs: Vec<i32>,
    /// Next tokens [B * T]; [`MASKED`] (-1) where there is none.
    pub targets: Vec<i32>,
}

impl Batch {
    /// Makes room for `rows` rows of `seq_len` pads, all masked. Allocates only when it grows.
    pub(crate) fn reset(&mut self, rows: usize, seq_len: usize, pad: u32) {
        self.rows = rows;
        self.seq_len = seq_len;
        self.inputs.clear();
        self.inputs.resize(rows * seq_len, pad as i32);
        self.targets.clear();
        self.targets.resize(rows * seq_len, MASKED);
    }

    /// Writes `tokens`, at most `seq_len + 1` of them, as row `row`: token `i` is input `i` and target `i - 1`. The last
    /// one is never an input, so that every input has its target.
    pub(crate) fn put(&mut self, row: usize, tokens: impl IntoIterator<Item = u32>) {
        let row = row * self.seq_len..(row + 1) * self.seq_len;
        let (inputs, targets) = (&mut self.inputs[row.clone()], &mut self.targets[row]);
        let mut tokens = tokens.into_iter();
        let Some(mut input) = tokens.next() else {
            return;
        };
        for (i, token) in tokens.enumerate() {
            inputs[i] = input as i32;
            targets[i] = token as i32;
            input = token;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_row_is_padded_and_masked() {
        let mut batch = Batch::default();
        batch.reset(2, 4, 9);
        batch.put(0, [1, 2, 3]);
        batch.put(1, [5, 6, 7, 8, 4]);
        assert_eq!(batch.inputs, [1, 2, 9, 9, 5, 6, 7, 8]);
        assert_eq!(batch.targets, [2, 3, -1, -1, 6, 7, 8, 4]);
        batch.reset(1, 2, 0);
        assert_eq!((batch.inputs, batch.targets), (vec![0, 0], vec![-1, -1]));
    }

    #[test]
    fn packing_names_round_trip() {
        for packing in [Packing::Pack, Packing::Truncate] {
            assert_eq!(packing.name().parse(), Ok(packing));
        }
        assert!("Pack".parse::<Packing>().is_err());
    }
}
