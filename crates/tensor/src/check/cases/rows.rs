//! Cases of operations that treat every row by itself, and of the loss.

use std::sync::Arc;

use super::{Masked, Span, ids};
use crate::check::case::{Case, Input};
use crate::check::reference;
use crate::ops::{self, BatchLayout};
use crate::{DType, Tokens};

/// Small enough to matter where rows are small.
pub(super) const EPS: f32 = 1e-3;

/// Multiplications that an exponential takes as long as.
pub(super) const EXP: usize = 10;

/// A norm weight of `width`.
pub(super) fn norm_weight(width: usize) -> Input {
    Input::vector("weight", &[width], 1.0, 0.2)
}

/// Embedding of `layout` tokens from a table `[vocab, width]`; the row of `padding` gets no gradient.
pub fn embedding(layout: BatchLayout, vocab: usize, width: usize, scale: f32, padding: Option<u32>) -> Case {
    let BatchLayout { batch, len } = layout;
    let told = padding.map_or(String::new(), |id| format!(" padding {id}"));
    let shape = format!("B{batch} T{len} V{vocab} C{width}{told}");
    let mut tokens = ids(batch * len, vocab);
    // The padding id occurs, and one id twice where there is room.
    if let (Some(id), Some(last)) = (padding, tokens.last_mut()) {
        *last = id as i32;
    }
    if tokens.len() > 2 {
        tokens[1] = tokens[0];
    }
    let table = Input {
        frozen: padding.map(|id| id as usize),
        ..Input::matrix("table", &[vocab, width]).about(0.0, 1.0)
    };
    let same = tokens.clone();
    Case::new(
        "embedding",
        shape,
        vec![table],
        batch * len * width,
        move |tape, given| {
            let tokens = Arc::new(Tokens::new(tape.device(), &tokens, batch, len)?);
            ops::embedding(tape, &tokens, given.param(0), scale, padding)
        },
        move |x| reference::embedding(&same, &x[0], width, f64::from(scale)),
    )
}

/// `[rows, inner]` times the transpose of `[out, inner]`.
pub fn linear(rows: usize, inner: usize, out: usize, bias: bool) -> Case {
    let shape = format!("R{rows} K{inner} N{out}{}", if bias { " bias" } else { "" });
    let mut inputs = vec![Input::value("x", &[rows, inner]), Input::matrix("weight", &[out, inner])];
    if bias {
        inputs.push(Input::vector("bias", &[out], 0.0, 1.0));
    }
    Case::new(
        "linear",
        shape,
        inputs,
        rows * inner * out,
        move |tape, given| {
            let bias = bias.then(|| given.param(2));
            ops::linear(tape, given.value(0), given.param(1), bias)
        },
        move |x| reference::linear(&x[0], &x[1], x.get(2).map(Vec::as_slice), inner),
    )
}

/// The norm of rows of `width`.
pub fn rms_norm(rows: usize, width: usize) -> Case {
    Case::new(
        "rms_norm",
        format!("R{rows} C{width}"),
        vec![Input::stream("x", &[rows, width]), norm_weight(width)],
        rows * width,
        |tape, given| ops::rms_norm(tape, given.value(0), given.param(1), EPS),
        |x| reference::rms_norm(&x[0], &x[1], f64::from(EPS)),
    )
}

/// The stream `x + m y`, its norm, and what a linear layer that reads the norm adds to the stream.
pub fn residual_norm(rows: usize, width: usize, m: f32) -> Case {
    let value = |name| Input::value(name, &[rows, width]);
    Case::new(
        "residual_norm",
        format!("R{rows} C{width} m {m}"),
        vec![
            Input::stream("x", &[rows, width]),
            value("y"),
            norm_weight(width),
            Input::matrix("linear", &[width, width]),
        ],
        rows * width * width,
        move |tape, given| {
            let (x, y) = (given.value(0), given.value(1));
            let (sum, norm) = ops::residual_norm(tape, x, y, m, given.param(2), EPS)?;
            let branch = ops::linear(tape, &norm, given.param(3), None)?;
            ops::residual(tape, &sum, &branch, 0.5)
        },
        move |x| {
            let sum = reference::residual(&x[0], &x[1], f64::from(m));
            let norm = reference::rms_norm(&sum, &x[2], f64::from(EPS));
            reference::residual(&sum, &reference::linear(&norm, &x[3], None, width), 0.5)
        },
    )
}

/// The gated norm; `inside` places the gate at a column of a wider value, `(start, stride)`.
pub fn gated_rms_norm(rows: usize, width: usize, inside: Option<(usize, usize)>) -> Case {
    let gate = Span::of(width, inside);
    Case::new(
        "gated_rms_norm",
        format!("R{rows} gate {gate}"),
        vec![Input::value("y", &[rows, width]), gate.input("z", rows), norm_weight(width)],
        rows * width * EXP,
        move |tape, given| {
            ops::gated_rms_norm(tape, given.value(0), &gate.cols(given.value(1)), given.param(2), EPS)
        },
        move |x| reference::gated_rms_norm(&x[0], &gate.of_reference(&x[1]), &x[2], f64::from(EPS)),
    )
}

/// The gate and what it gates: halves of one value, or a value each.
pub fn swiglu(rows: usize, width: usize, fused: bool) -> Case {
    let (first, second, inputs) = if fused {
        let half = |start| Span { start, width, stride: 2 * width };
        (half(0), half(width), vec![Input::value("x", &[rows, 2 * width])])
    } else {
        let whole = Span::of(width, None);
        (whole, whole, vec![whole.input("gate", rows), whole.input("up", rows)])
    };
    let last = inputs.len() - 1;
    Case::new(
        "swiglu",
        format!("R{rows} F{width}{}", if fused { " fused" } else { "" }),
        inputs,
        rows * width * EXP,
        move |tape, given| ops::swiglu(tape, &first.cols(given.value(0)), &second.cols(given.value(last))),
        move |x| reference::swiglu(&first.of_reference(&x[0]), &second.of_reference(&x[last])),
    )
}

/// A gated feed-forward layer.
pub fn feed_forward(rows: usize, inner: usize, width: usize) -> Case {
    Case::new(
        "feed_forward",
        format!("R{rows} K{inner} F{width}"),
        vec![
            Input::value("x", &[rows, inner]),
            Input::matrix("gate_up", &[2 * width, inner]),
            Input::matrix("down", &[inner, width]),
        ],
        3 * rows * inner * width,
        |tape, given| ops::feed_forward(tape, given.value(0), given.param(1), given.param(2)),
        move |x| {
            let values = reference::linear(&x[0], &x[1], None, inner);
            let half = |start| reference::columns(&values, 2 * width, start, width);
            reference::linear(&reference::swiglu(&half(0), &half(width)), &x[2], None, width)
        },
    )
}

/// `x + m y`.
pub fn residual(rows: usize, width: usize, m: f32) -> Case {
    Case::new(
        "residual",
        format!("R{rows} C{width} m {m}"),
        vec![Input::stream("x", &[rows, width]), Input::value("y", &[rows, width])],
        rows * width,
        move |tape, given| ops::residual(tape, given.value(0), given.value(1), m),
        move |x| reference::residual(&x[0], &x[1], f64::from(m)),
    )
}

/// The mean loss of a head `[vocab, hidden]`.
pub fn linear_cross_entropy(rows: usize, hidden: usize, vocab: usize, scale: f32, masked: Masked) -> Case {
    loss([rows, hidden, vocab], scale, masked, 0)
}

/// The same on a tape that is lent memory for all logits and their gradient.
pub(super) fn lent_cross_entropy(rows: usize, hidden: usize, vocab: usize) -> Case {
    loss([rows, hidden, vocab], 1.0, Masked::Some, 2 * rows * vocab)
}

fn loss([rows, hidden, vocab]: [usize; 3], scale: f32, masked: Masked, lent: usize) -> Case {
    let told = match masked {
        Masked::None => "",
        Masked::Some => " some masked",
        Masked::All => " all masked",
    };
    let told = format!("{told}{}", if lent > 0 { " in lent memory" } else { "" });
    let targets = targets(rows, vocab, masked);
    let same = targets.clone();
    Case::new(
        "linear_cross_entropy",
        format!("R{rows} C{hidden} V{vocab} scale {scale:.3}{told}"),
        vec![Input::value("x", &[rows, hidden]), Input::matrix("head", &[vocab, hidden]).about(0.0, 0.5)],
        rows * vocab * (hidden + EXP),
        move |tape, given| {
            let targets = Tokens::new(tape.device(), &targets, 1, rows)?;
            if lent > 0 {
                let memory = tape.device().empty(&[lent], DType::F32)?;
                tape.lend(Some(memory));
            }
            Ok(ops::linear_cross_entropy(tape, given.value(0), given.param(1), &targets, scale)?.mean)
        },
        move |x| vec![reference::cross_entropy(&x[0], &x[1], &same, f64::from(scale))],
    )
    .mean()
}

/// Targets below `vocab`, -1 where masked.
pub(super) fn targets(rows: usize, vocab: usize, masked: Masked) -> Vec<i32> {
    let mut targets = ids(rows, vocab);
    for (i, target) in targets.iter_mut().enumerate() {
        if masked == Masked::All || (masked == Masked::Some && i % 3 == 1) {
            *target = -1;
        }
    }
    targets
}
