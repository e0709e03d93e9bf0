//! Cases of operations that mix the positions of a sequence.

use super::Span;
use super::rows::{EPS, EXP, norm_weight};
use crate::Result;
use crate::check::case::{Case, Input, Operands};
use crate::check::reference;
use crate::ops::{self, BatchLayout, Cols, Heads, Rope, Scan, ScanLayout};
use crate::tape::{Tape, Var};

/// The short convolution over `width` channels; `inside` places them in a wider value, `(start, stride)`.
pub fn conv1d_silu(layout: BatchLayout, width: usize, taps: usize, inside: Option<(usize, usize)>) -> Case {
    let BatchLayout { batch, len } = layout;
    let span = Span::of(width, inside);
    Case::new(
        "conv1d_silu",
        format!("B{batch} T{len} {span} taps {taps}"),
        [vec![span.input("x", batch * len)], conv_params(width, taps)].concat(),
        batch * len * width * (taps + EXP),
        move |tape, given| {
            let x = span.cols(given.value(0));
            ops::conv1d_silu(tape, &x, layout, given.param(1), given.param(2))
        },
        move |x| reference::conv1d_silu(&span.of_reference(&x[0]), &x[1], &x[2], len),
    )
}

/// Weight and bias of a convolution.
pub(super) fn conv_params(width: usize, taps: usize) -> Vec<Input> {
    vec![Input::vector("weight", &[width, 1, taps], 0.0, 0.5), Input::vector("bias", &[width], 0.0, 0.5)]
}

/// Attention; `theta` is that of rotary positions, if any.
pub fn attention(layout: BatchLayout, heads: Heads, theta: Option<f64>) -> Case {
    attention_of(layout, heads, theta, 1.0)
}

/// Attention with scores so large that the softmax is nearly a choice, and that the largest one turns up late.
pub fn attention_of_large_scores(layout: BatchLayout, heads: Heads) -> Case {
    attention_of(layout, heads, None, 6.0)
}

fn attention_of(layout: BatchLayout, heads: Heads, theta: Option<f64>, size: f32) -> Case {
    let Heads { query, key, dim, .. } = heads;
    let rows = layout.batch * layout.len;
    let told = if size > 1.0 { " large scores" } else { "" };
    let inputs = vec![
        Input::value("q", &[rows, query * dim]).about(0.0, size),
        Input::value("k", &[rows, key * dim]).about(0.0, size),
        Input::value("v", &[rows, key * dim]),
    ];
    Case::new(
        "attention",
        format!("{}{told}", attention_sizes(layout, heads, theta)),
        inputs,
        attention_work(layout, heads),
        move |tape, given| {
            let [q, k, v] = [0, 1, 2].map(|i| Cols::all(given.value(i)));
            run_attention(tape, &[q, k, v], layout, heads, theta)
        },
        move |x| reference::attention([&x[0], &x[1], &x[2]], layout.len, heads, theta),
    )
}

/// Attention whose q, k and v follow one another in the columns of one value, from `start` on.
pub fn attention_of_fused(layout: BatchLayout, heads: Heads, theta: Option<f64>, start: usize) -> Case {
    let (wide, narrow) = (heads.query * heads.dim, heads.key * heads.dim);
    let stride = start + wide + 2 * narrow;
    let span = |start, width| Span { start, width, stride };
    let spans = [span(start, wide), span(start + wide, narrow), span(start + wide + narrow, narrow)];
    let inputs = vec![span(start, stride - start).input("qkv", layout.batch * layout.len)];
    Case::new(
        "attention",
        format!("{} fused from {start}", attention_sizes(layout, heads, theta)),
        inputs,
        attention_work(layout, heads),
        move |tape, given| {
            run_attention(tape, &spans.map(|span| span.cols(given.value(0))), layout, heads, theta)
        },
        move |x| {
            let [q, k, v] = spans.map(|span| span.of_reference(&x[0]));
            reference::attention([&q, &k, &v], layout.len, heads, theta)
        },
    )
}

fn run_attention(
    tape: &mut Tape,
    qkv: &[Cols; 3],
    layout: BatchLayout,
    heads: Heads,
    theta: Option<f64>,
) -> Result<Var> {
    let rope = theta.map(|theta| Rope::new(tape.device(), layout.len, heads.dim, theta)).transpose()?;
    ops::attention(tape, qkv.each_ref(), layout, heads, rope.as_ref())
}

/// Half of all pairs: two products, two exponentials; and the sines.
fn attention_work(BatchLayout { batch, len }: BatchLayout, Heads { query, dim, .. }: Heads) -> usize {
    batch * query * len * (len * (dim + EXP) + dim * EXP)
}

fn attention_sizes(layout: BatchLayout, heads: Heads, theta: Option<f64>) -> String {
    let (BatchLayout { batch, len }, Heads { query, key, dim, .. }) = (layout, heads);
    format!("B{batch} T{len} heads {query}/{key} dim {dim}{}", if theta.is_some() { " rope" } else { "" })
}

/// The scan; `inside` places the time steps in a wider value, `(start, stride)`.
pub fn scan(layout: ScanLayout, inside: Option<(usize, usize)>) -> Case {
    scan_of(layout, inside, None)
}

/// The scan with `A_log` about `a_log`: 3 and more makes the state vanish from step to step, -6 keeps it.
pub fn scan_of_decay(layout: ScanLayout, a_log: f32) -> Case {
    scan_of(layout, None, Some(a_log))
}

fn scan_of(layout: ScanLayout, inside: Option<(usize, usize)>, a_log: Option<f32>) -> Case {
    let rows = layout.rows.batch * layout.rows.len;
    let dt = Span::of(layout.heads, inside);
    let mut told = if inside.is_some() { format!(" dt {dt}") } else { String::new() };
    let mut params = scan_params(layout.heads);
    if let Some(a_log) = a_log {
        params[1].mean = a_log;
        told = format!(" A_log {a_log}");
    }
    let values =
        vec![Input::value("xbc", &[rows, layout.width()]), Input { mean: -1.0, ..dt.input("dt", rows) }];
    Case::new(
        "scan",
        format!("{}{told}", sizes(layout)),
        [values, params].concat(),
        scan_work(layout),
        move |tape, given| run_scan(tape, given, layout, dt, [0, 1, 2]),
        move |x| reference::scan(&x[0], &dt.of_reference(&x[1]), &x[2], &x[3], &x[4], layout),
    )
}

/// `dt_bias`, `A_log` and `D`.
pub(super) fn scan_params(heads: usize) -> Vec<Input> {
    vec![
        Input::vector("dt_bias", &[heads], 0.0, 0.3),
        Input::vector("a_log", &[heads], 0.0, 0.7),
        Input::vector("d", &[heads], 1.0, 0.3),
    ]
}

/// Runs the scan of the inputs `[xbc, dt, first of the three parameters]`.
pub(super) fn run_scan(
    tape: &mut Tape,
    given: &Operands,
    layout: ScanLayout,
    dt: Span,
    [xbc, of_dt, params]: [usize; 3],
) -> Result<Var> {
    let inputs = Scan {
        xbc: given.value(xbc).clone(),
        dt: dt.cols(given.value(of_dt)),
        dt_bias: given.param(params).clone(),
        a_log: given.param(params + 1).clone(),
        d: given.param(params + 2).clone(),
    };
    ops::scan(tape, &inputs, layout)
}

pub(super) fn scan_work(layout: ScanLayout) -> usize {
    2 * layout.rows.batch * layout.rows.len * layout.inner() * layout.state
}

pub(super) fn sizes(layout: ScanLayout) -> String {
    let ScanLayout { rows, heads, head_dim, groups, state, dt_limit } = layout;
    let told = if dt_limit.1.is_finite() { " clamped" } else { "" };
    format!("B{} T{} H{heads} P{head_dim} G{groups} N{state}{told}", rows.batch, rows.len)
}

/// A whole mixer between its projections: convolution, scan and gated norm read `z | xBC | dt` by columns of one value.
pub fn mixer(layout: ScanLayout) -> Case {
    const TAPS: usize = 4;
    let (inner, width, heads) = (layout.inner(), layout.width(), layout.heads);
    let rows = layout.rows.batch * layout.rows.len;
    let stride = inner + width + heads;
    let span = |start, width| Span { start, width, stride };
    let (z, xbc, dt) = (span(0, inner), span(inner, width), span(inner + width, heads));
    let fused = vec![Input::value("fused", &[rows, stride])];
    Case::new(
        "mixer",
        sizes(layout),
        [fused, conv_params(width, TAPS), scan_params(heads), vec![norm_weight(inner)]].concat(),
        scan_work(layout) + rows * (width + inner + heads) * EXP,
        move |tape, given| {
            let fused = given.value(0);
            let active =
                ops::conv1d_silu(tape, &xbc.cols(fused), layout.rows, given.param(1), given.param(2))?;
            let inputs = Scan {
                xbc: active,
                dt: dt.cols(fused),
                dt_bias: given.param(3).clone(),
                a_log: given.param(4).clone(),
                d: given.param(5).clone(),
            };
            let y = ops::scan(tape, &inputs, layout)?;
            ops::gated_rms_norm(tape, &y, &z.cols(fused), given.param(6), EPS)
        },
        move |x| {
            let active = reference::conv1d_silu(&xbc.of_reference(&x[0]), &x[1], &x[2], layout.rows.len);
            let y = reference::scan(&active, &dt.of_reference(&x[0]), &x[3], &x[4], &x[5], layout);
            reference::gated_rms_norm(&y, &z.of_reference(&x[0]), &x[6], f64::from(EPS))
        },
    )
}
