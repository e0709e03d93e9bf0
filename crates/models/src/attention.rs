//! The attention block that both families share: projections, rotary positions, attention, output projection.

use tensor::Result;
use tensor::ops::{self, BatchLayout, Cols, Heads, Rope};
use tensor::params::Param;
use tensor::tape::{Tape, Var};

use crate::model::Handles;

/// Weights of one attention block.
pub(crate) struct Attention {
    /// Of q, k and v, those in one that lie next to each other.
    projections: Vec<Projection>,
    output: Param,
    heads: Heads,
}

struct Projection {
    weight: Param,
    bias: Option<Param>,
}

impl Attention {
    /// The block whose weights' names start with `at`.
    pub fn new(handles: &Handles, at: &str, heads: Heads, biased: bool) -> Self {
        let mut projections: Vec<Projection> = Vec::new();
        for name in ["q", "k", "v"] {
            let next = Projection {
                weight: handles.get(&format!("{at}.{name}_proj.weight")),
                bias: biased.then(|| handles.get(&format!("{at}.{name}_proj.bias"))),
            };
            match projections.last_mut().and_then(|last| Some((last.joined(&next)?, last))) {
                Some((both, last)) => *last = both,
                None => projections.push(next),
            }
        }
        Attention { projections, output: handles.get(&format!("{at}.o_proj.weight")), heads }
    }

    /// `[R, H]` to `[R, H]`.
    pub fn forward(&self, tape: &mut Tape, x: &Var, layout: BatchLayout, rope: Option<&Rope>) -> Result<Var> {
        let projected = self
            .projections
            .iter()
            .map(|p| ops::linear(tape, x, &p.weight, p.bias.as_ref()))
            .collect::<Result<Vec<_>>>()?;
        let Heads { query, key, dim, .. } = self.heads;
        let (mut from, mut start) = (projected.iter(), 0);
        let mut at = from.next();
        let [q, k, v] = [query, key, key].map(|heads| {
            if at.is_some_and(|var| var.value.cols() == start) {
                (at, start) = (from.next(), 0);
            }
            let columns = Cols::new(at.expect("q, k and v are projected"), start, heads * dim);
            start += heads * dim;
            columns
        });
        let y = ops::attention(tape, [&q, &k, &v], layout, self.heads, rope)?;
        ops::linear(tape, &y, &self.output, None)
    }
}

impl Projection {
    /// Both in one, where their weights and biases lie next to each other.
    fn joined(&self, next: &Projection) -> Option<Projection> {
        let weight = Param::joined(&[&self.weight, &next.weight])?;
        let bias = match (&self.bias, &next.bias) {
            (Some(a), Some(b)) => Some(Param::joined(&[a, b])?),
            _ => None,
        };
        Some(Projection { weight, bias })
    }
}
