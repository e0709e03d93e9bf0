//! The attention block that both families share: projections, rotary positions, attention, output projection.

use tensor::ops::{self, BatchLayout, Cols, Heads, Rope};
use tensor::params::Param;
use tensor::tape::{Tape, Var};

use tensor::Result;

use crate::model::Handles;

/// Weights of one attention block.
pub(crate) struct Attention {
    q: Projection,
    k: Projection,
    v: Projection,
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
        let projection = |name: &str| Projection {
            weight: handles.get(&format!("{at}.{name}_proj.weight")),
            bias: biased.then(|| handles.get(&format!("{at}.{name}_proj.bias"))),
        };
        Attention {
            q: projection("q"),
            k: projection("k"),
            v: projection("v"),
            output: handles.get(&format!("{at}.o_proj.weight")),
            heads,
        }
    }

    /// `[R, H]` to `[R, H]`.
    pub fn forward(&self, tape: &mut Tape, x: &Var, layout: BatchLayout, rope: Option<&Rope>) -> Result<Var> {
        let mut project = |p: &Projection| ops::linear(tape, x, &p.weight, p.bias.as_ref());
        let (q, k, v) = (project(&self.q)?, project(&self.k)?, project(&self.v)?);
        let [q, k, v] = [&q, &k, &v].map(Cols::all);
        let y = ops::attention(tape, [&q, &k, &v], layout, self.heads, rope)?;
        ops::linear(tape, &y, &self.output, None)
    }
}
