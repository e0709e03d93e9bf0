//! Cases in which a parameter is used twice or a value has two readers, so that gradients are added up: each operation
//! must add to what another one, or itself, left, whichever comes first in the backward pass.

use std::sync::Arc;

use super::mixing::{conv_params, run_scan, scan_params, scan_work, sizes};
use super::rows::{EPS, EXP, norm_weight, targets};
use super::{Masked, OPEN, Span, ids, layout};
use crate::check::case::{Case, Input};
use crate::check::reference;
use crate::ops::{self, BatchLayout, Cols};
use crate::tape::{Tape, Var};
use crate::{Result, Tokens};

pub(super) fn all() -> Vec<Case> {
    vec![
        linear(),
        linear_thrice(),
        rms_norm(),
        made_again(),
        residual_norms(0.5),
        residual_norms(1.0),
        branch_of_a_norm(),
        gated_rms_norm(),
        conv1d_silu(),
        scan(),
        embedding(),
        tied(),
        residual_of_itself(),
        residual_read_later(),
    ]
}

/// `x` as a value of the residual stream.
fn lift(tape: &mut Tape, x: &Var) -> Result<Var> {
    let stream = tape.precision().stream();
    if x.value.dtype() == stream {
        return Ok(x.clone());
    }
    let zeros = tape.device().zeros(x.value.shape(), stream)?;
    let zeros = tape.leaf(zeros);
    ops::residual(tape, &zeros, x, 1.0)
}

/// Both layers of a network are one, and `x` goes around it.
fn linear() -> Case {
    const WIDTH: usize = 20;
    Case::new(
        "linear",
        "R17 K20 N20 bias, applied twice".into(),
        vec![
            Input::value("x", &[17, WIDTH]),
            Input::matrix("weight", &[WIDTH, WIDTH]),
            Input::vector("bias", &[WIDTH], 0.0, 1.0),
        ],
        2 * 17 * WIDTH * WIDTH,
        |tape, given| {
            let (x, w, b) = (given.value(0), given.param(1), Some(given.param(2)));
            let h = ops::linear(tape, x, w, b)?;
            let y = ops::linear(tape, &h, w, b)?;
            let x = lift(tape, x)?;
            ops::residual(tape, &x, &y, 0.5)
        },
        |x| {
            let h = reference::linear(&x[0], &x[1], Some(&x[2]), WIDTH);
            reference::residual(&x[0], &reference::linear(&h, &x[1], Some(&x[2]), WIDTH), 0.5)
        },
    )
}

/// Three projections read one value, as those of attention do.
fn linear_thrice() -> Case {
    const SIZES: [usize; 2] = [24, 16];
    let weight = |name| Input::matrix(name, &[SIZES[1], SIZES[0]]);
    Case::new(
        "linear",
        "R34 K24 N16, three read x".into(),
        vec![Input::value("x", &[34, SIZES[0]]), weight("w1"), weight("w2"), weight("w3")],
        3 * 34 * SIZES[0] * SIZES[1],
        |tape, given| {
            let x = given.value(0);
            let [a, b, c] = [1, 2, 3].map(|i| ops::linear(tape, x, given.param(i), None));
            let a = lift(tape, &a?)?;
            let ab = ops::residual(tape, &a, &b?, 0.5)?;
            ops::residual(tape, &ab, &c?, -0.25)
        },
        |x| {
            let [a, b, c] = [1, 2, 3].map(|i| reference::linear(&x[0], &x[i], None, SIZES[0]));
            reference::residual(&reference::residual(&a, &b, 0.5), &c, -0.25)
        },
    )
}

fn rms_norm() -> Case {
    let eps = f64::from(EPS);
    Case::new(
        "rms_norm",
        "R130 C33, applied twice".into(),
        vec![Input::stream("x", &[130, 33]), norm_weight(33)],
        130 * 33,
        |tape, given| {
            let (x, w) = (given.value(0), given.param(1));
            let h = ops::rms_norm(tape, x, w, EPS)?;
            let h = lift(tape, &h)?;
            let y = ops::rms_norm(tape, &h, w, EPS)?;
            ops::residual(tape, x, &y, 0.5)
        },
        move |x| {
            let h = reference::rms_norm(&x[0], &x[1], eps);
            reference::residual(&x[0], &reference::rms_norm(&h, &x[1], eps), 0.5)
        },
    )
}

/// Linear layers, one of them twice over, read values that the backward pass makes again, which others read as well.
fn made_again() -> Case {
    const WIDTH: usize = 24;
    let eps = f64::from(EPS);
    let square = |name| Input::matrix(name, &[WIDTH, WIDTH]);
    Case::new(
        "linear",
        "R130 K24 N24, of a norm, a product of gates and a gated norm".into(),
        vec![Input::stream("x", &[130, WIDTH]), norm_weight(WIDTH), square("w1"), square("w2"), square("w3")],
        5 * 130 * WIDTH * WIDTH,
        |tape, given| {
            let (x, w) = (given.value(0), given.param(1));
            let n = ops::rms_norm(tape, x, w, EPS)?;
            let a = ops::linear(tape, &n, given.param(2), None)?;
            let b = ops::linear(tape, &n, given.param(3), None)?;
            let s = ops::swiglu(tape, &Cols::all(&a), &Cols::all(&b))?;
            let c = ops::linear(tape, &s, given.param(4), None)?;
            let z = ops::linear(tape, &n, given.param(2), None)?;
            let g = ops::gated_rms_norm(tape, &c, &Cols::all(&z), w, EPS)?;
            let d = ops::linear(tape, &g, given.param(4), None)?;
            let sum = ops::residual(tape, x, &d, 0.5)?;
            ops::residual(tape, &sum, &n, -0.25)
        },
        move |x| {
            let n = reference::rms_norm(&x[0], &x[1], eps);
            let [a, b] = [2, 3].map(|i| reference::linear(&n, &x[i], None, WIDTH));
            let s = reference::swiglu(&a, &b);
            let c = reference::linear(&s, &x[4], None, WIDTH);
            let g = reference::gated_rms_norm(&c, &a, &x[1], eps);
            let d = reference::linear(&g, &x[4], None, WIDTH);
            reference::residual(&reference::residual(&x[0], &d, 0.5), &n, -0.25)
        },
    )
}

/// A stream of two additions with norms, of which the second has no later reader of its sum, the first's inputs are
/// read elsewhere, and one norm is not read at all.
fn residual_norms(m: f32) -> Case {
    let eps = f64::from(EPS);
    Case::new(
        "residual_norm",
        format!("R17 C33 m {m}, three on a stream"),
        vec![Input::stream("x", &[17, 33]), Input::value("y", &[17, 33]), norm_weight(33)],
        4 * 17 * 33,
        move |tape, given| {
            let (x, y, w) = (given.value(0), given.value(1), given.param(2));
            let (first, _) = ops::residual_norm(tape, x, y, m, w, EPS)?;
            let (second, norm) = ops::residual_norm(tape, &first, y, m, w, EPS)?;
            let (_, last) = ops::residual_norm(tape, &second, &norm, -0.25, w, EPS)?;
            ops::residual(tape, x, &last, 0.5)
        },
        move |x| {
            let m = f64::from(m);
            let second = reference::residual(&reference::residual(&x[0], &x[1], m), &x[1], m);
            let norm = reference::rms_norm(&second, &x[2], eps);
            let last = reference::rms_norm(&reference::residual(&second, &norm, -0.25), &x[2], eps);
            reference::residual(&x[0], &last, 0.5)
        },
    )
}

/// Branches, whose gradients are the stream's: a norm of the stream that a linear layer reads too, and what that layer
/// makes of it, whose gradient waits while the stream's goes on.
fn branch_of_a_norm() -> Case {
    let eps = f64::from(EPS);
    Case::new(
        "residual_norm",
        "R17 C24 m 1, of a norm".into(),
        vec![Input::stream("x", &[17, 24]), norm_weight(24), Input::matrix("w", &[24, 24])],
        17 * 24 * 24,
        |tape, given| {
            let (x, w) = (given.value(0), given.param(1));
            let n = ops::rms_norm(tape, x, w, EPS)?;
            let y = ops::linear(tape, &n, given.param(2), None)?;
            let (first, of_first) = ops::residual_norm(tape, x, &n, 1.0, w, EPS)?;
            let (second, of_second) = ops::residual_norm(tape, &first, &y, 1.0, w, EPS)?;
            let sum = ops::residual(tape, &second, &of_second, 0.5)?;
            ops::residual(tape, &sum, &of_first, -0.25)
        },
        move |x| {
            let n = reference::rms_norm(&x[0], &x[1], eps);
            let first = reference::residual(&x[0], &n, 1.0);
            let second = reference::residual(&first, &reference::linear(&n, &x[2], None, 24), 1.0);
            let sum = reference::residual(&second, &reference::rms_norm(&second, &x[1], eps), 0.5);
            reference::residual(&sum, &reference::rms_norm(&first, &x[1], eps), -0.25)
        },
    )
}

fn gated_rms_norm() -> Case {
    let eps = f64::from(EPS);
    let value = |name| Input::value(name, &[130, 33]);
    Case::new(
        "gated_rms_norm",
        "R130 C33, applied twice".into(),
        vec![value("y"), value("z1"), value("z2"), norm_weight(33)],
        2 * 130 * 33 * EXP,
        |tape, given| {
            let (y, w) = (given.value(0), given.param(3));
            let h = ops::gated_rms_norm(tape, y, &Cols::all(given.value(1)), w, EPS)?;
            let out = ops::gated_rms_norm(tape, &h, &Cols::all(given.value(2)), w, EPS)?;
            let y = lift(tape, y)?;
            ops::residual(tape, &y, &out, 0.5)
        },
        move |x| {
            let h = reference::gated_rms_norm(&x[0], &x[1], &x[3], eps);
            reference::residual(&x[0], &reference::gated_rms_norm(&h, &x[2], &x[3], eps), 0.5)
        },
    )
}

fn conv1d_silu() -> Case {
    let at = BatchLayout { batch: 2, len: 17 };
    Case::new(
        "conv1d_silu",
        "B2 T17 C20 taps 4, applied twice".into(),
        [vec![Input::value("x", &[34, 20])], conv_params(20, 4)].concat(),
        2 * 34 * 20 * (4 + EXP),
        move |tape, given| {
            let (w, b) = (given.param(1), given.param(2));
            let h = ops::conv1d_silu(tape, &Cols::all(given.value(0)), at, w, b)?;
            ops::conv1d_silu(tape, &Cols::all(&h), at, w, b)
        },
        move |x| {
            let h = reference::conv1d_silu(&x[0], &x[1], &x[2], at.len);
            reference::conv1d_silu(&h, &x[1], &x[2], at.len)
        },
    )
}

fn scan() -> Case {
    let sizes_of = layout(BatchLayout { batch: 2, len: 17 }, [4, 5, 2, 3], OPEN);
    let dt = Span::of(sizes_of.heads, None);
    let xbc = |name| Input::value(name, &[34, sizes_of.width()]);
    let raw = |name| Input { mean: -1.0, ..dt.input(name, 34) };
    Case::new(
        "scan",
        format!("{}, twice with one set of parameters", sizes(sizes_of)),
        [vec![xbc("xbc1"), raw("dt1"), xbc("xbc2"), raw("dt2")], scan_params(sizes_of.heads)].concat(),
        2 * scan_work(sizes_of),
        move |tape, given| {
            let first = run_scan(tape, given, sizes_of, dt, [0, 1, 4])?;
            let second = run_scan(tape, given, sizes_of, dt, [2, 3, 4])?;
            let first = lift(tape, &first)?;
            ops::residual(tape, &first, &second, 0.5)
        },
        move |x| {
            let [first, second] =
                [0, 2].map(|i| reference::scan(&x[i], &x[i + 1], &x[4], &x[5], &x[6], sizes_of));
            reference::residual(&first, &second, 0.5)
        },
    )
}

fn embedding() -> Case {
    let (first, second) = (ids(34, 33), ids(35, 33)[1..].to_vec());
    let same = [first.clone(), second.clone()];
    Case::new(
        "embedding",
        "B2 T17 V33 C20, twice from one table".into(),
        vec![Input::matrix("table", &[33, 20]).about(0.0, 1.0), norm_weight(20)],
        2 * 34 * 20,
        move |tape, given| {
            let [a, b] = [&first, &second].map(|ids| {
                let tokens = Arc::new(Tokens::new(tape.device(), ids, 2, 17)?);
                ops::embedding(tape, &tokens, given.param(0), 12.0, None)
            });
            let b = ops::rms_norm(tape, &b?, given.param(1), EPS)?;
            ops::residual(tape, &a?, &b, 0.5)
        },
        move |x| {
            let [a, b] = same.each_ref().map(|ids| reference::embedding(ids, &x[0], 20, 12.0));
            reference::residual(&a, &reference::rms_norm(&b, &x[1], f64::from(EPS)), 0.5)
        },
    )
}

/// A model of an embedding, a norm and the same matrix as its head.
fn tied() -> Case {
    const SIZES: [usize; 2] = [33, 20];
    let (tokens, targets) = (ids(34, SIZES[0]), targets(34, SIZES[0], Masked::Some));
    let same = (tokens.clone(), targets.clone());
    Case::new(
        "linear_cross_entropy",
        "R34 C20 V33 some masked, head tied to an embedding".into(),
        vec![Input::matrix("head", &SIZES).about(0.0, 0.5), norm_weight(SIZES[1])],
        34 * SIZES[0] * (SIZES[1] + EXP),
        move |tape, given| {
            let tokens = Arc::new(Tokens::new(tape.device(), &tokens, 2, 17)?);
            let targets = Tokens::new(tape.device(), &targets, 2, 17)?;
            let x = ops::embedding(tape, &tokens, given.param(0), 2.0, None)?;
            let x = ops::rms_norm(tape, &x, given.param(1), EPS)?;
            Ok(ops::linear_cross_entropy(tape, &x, given.param(0), &targets, 0.5)?.mean)
        },
        move |x| {
            let hidden = reference::embedding(&same.0, &x[0], SIZES[1], 2.0);
            let hidden = reference::rms_norm(&hidden, &x[1], f64::from(EPS));
            vec![reference::cross_entropy(&hidden, &x[0], &same.1, 0.5)]
        },
    )
    .mean()
}

fn residual_of_itself() -> Case {
    Case::new(
        "residual",
        "R17 C33 m 0.246, x twice".into(),
        vec![Input::value("x", &[17, 33])],
        17 * 33,
        |tape, given| {
            let x = lift(tape, given.value(0))?;
            ops::residual(tape, &x, given.value(0), 0.246)
        },
        |x| reference::residual(&x[0], &x[0], f64::from(0.246_f32)),
    )
}

/// Both inputs of a residual have later readers, whose gradients come first.
fn residual_read_later() -> Case {
    let eps = f64::from(EPS);
    Case::new(
        "residual",
        "R17 C33 m 0.5, norms read x and y later".into(),
        vec![Input::stream("x", &[17, 33]), Input::value("y", &[17, 33]), norm_weight(33)],
        3 * 17 * 33,
        |tape, given| {
            let (x, y, w) = (given.value(0), given.value(1), given.param(2));
            let first = ops::residual(tape, x, y, 0.5)?;
            let of_x = ops::rms_norm(tape, x, w, EPS)?;
            let second = ops::residual(tape, &first, &of_x, 0.25)?;
            let y = lift(tape, y)?;
            let of_y = ops::rms_norm(tape, &y, w, EPS)?;
            ops::residual(tape, &second, &of_y, -1.0)
        },
        move |x| {
            let first = reference::residual(&x[0], &x[1], 0.5);
            let second = reference::residual(&first, &reference::rms_norm(&x[0], &x[2], eps), 0.25);
            reference::residual(&second, &reference::rms_norm(&x[1], &x[2], eps), -1.0)
        },
    )
}
