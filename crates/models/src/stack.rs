//! What lies between embedding and head in every family: pre-norm layers on a residual stream, and a last norm.

use std::sync::Arc;

use tensor::ops::{self, BatchLayout};
use tensor::params::Param;
use tensor::tape::{Tape, Var};

use crate::error::{Error, Result};

/// What the families differ in.
pub(crate) trait Layers {
    /// How many layers there are.
    fn count(&self) -> usize;

    /// Weight of the norm before layer `i`; of the last norm where `i` is their number.
    fn norm(&self, i: usize) -> &Param;

    /// Epsilon of all norms of the stream.
    fn eps(&self) -> f32;

    /// Factor of what a layer adds to the stream.
    fn multiplier(&self) -> f32;

    /// Layer `i` from the stream and its norm: the stream with the mixer added, and what the MLP adds to it.
    fn layer(
        &self,
        tape: &mut Tape,
        i: usize,
        x: &Var,
        normed: &Var,
        layout: BatchLayout,
    ) -> tensor::Result<(Var, Var)>;
}

/// The layers of a model.
pub(crate) struct Stack {
    layers: Arc<dyn Layers>,
    max_len: usize,
}

impl Stack {
    /// Layers for sequences of up to `max_len` tokens.
    pub fn new(layers: impl Layers + 'static, max_len: usize) -> Self {
        Stack { layers: Arc::new(layers), max_len }
    }

    /// From the embedded tokens `[R, H]` to the normed last hidden state.
    pub fn forward(&self, tape: &mut Tape, mut x: Var, layout: BatchLayout) -> Result<Var> {
        self.check_len(layout)?;
        let all = &self.layers;
        let (count, eps, m) = (all.count(), all.eps(), all.multiplier());
        if tape.recomputes() {
            for i in 0..count {
                let all = Arc::clone(all);
                x = tape.again(&x, move |tape, x| {
                    let normed = ops::rms_norm(tape, x, all.norm(i), eps)?;
                    let (x, y) = all.layer(tape, i, x, &normed, layout)?;
                    ops::residual(tape, &x, &y, m)
                })?;
            }
            return Ok(ops::rms_norm(tape, &x, all.norm(count), eps)?);
        }
        let mut normed = ops::rms_norm(tape, &x, all.norm(0), eps)?;
        for i in 0..count {
            let y;
            (x, y) = all.layer(tape, i, &x, &normed, layout)?;
            (x, normed) = ops::residual_norm(tape, &x, &y, m, all.norm(i + 1), eps)?;
        }
        Ok(normed)
    }

    /// Refuses a sequence longer than the rotary tables were made for.
    fn check_len(&self, layout: BatchLayout) -> Result<()> {
        let max_len = self.max_len;
        if layout.len <= max_len {
            return Ok(());
        }
        Err(Error::Tensor(tensor::Error::Shape {
            op: "model",
            reason: format!("a sequence of {} tokens; the model was laid out for {max_len}", layout.len),
        }))
    }
}
