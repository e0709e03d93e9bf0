//! Every operation on the CPU against plain loops in f64, gradients against central differences: the table of
//! [`tensor::check`], and random small shapes.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use tensor::check::{self, Case, Masked, Outcome};
use tensor::ops::{BatchLayout, Heads, ScanLayout};
use tensor::{Device, Precision};

fn failures(outcomes: &[Outcome]) -> Vec<String> {
    let told = |o: &Outcome| {
        let again = if o.repeatable { "" } else { ", and it does not repeat" };
        format!("{} {}, {}: {:.1e} over {:.0e}{again}", o.op, o.shape, o.tensor, o.error, o.bound)
    };
    outcomes.iter().filter(|o| !o.ok()).map(told).collect()
}

#[test]
fn the_table_of_cases_holds_on_the_cpu() {
    let outcomes = check::run(&Device::Cpu, Precision::F32, None).unwrap();
    assert!(outcomes.len() > 200, "{}", outcomes.len());
    assert_eq!(failures(&outcomes), Vec::<String>::new());
}

#[test]
fn mixed_precision_on_the_cpu_is_refused() {
    let error = check::run(&Device::Cpu, Precision::Mixed, Some("cast")).unwrap_err();
    assert!(error.to_string().contains("--precision f32"), "{error}");
}

#[test]
fn nan_is_never_within_a_bound_nor_are_different_bits() {
    let outcome = |error, repeatable| Outcome {
        op: "x",
        shape: String::new(),
        tensor: "y".into(),
        error,
        bound: 1.0,
        repeatable,
    };
    assert!(outcome(0.5, true).ok());
    assert!(!outcome(f64::NAN, true).ok() && !outcome(0.5, false).ok() && !outcome(1.5, true).ok());
}

fn holds(case: Case, seed: u64) -> Result<(), TestCaseError> {
    let outcomes = case.seeded(seed).check(&Device::Cpu, Precision::F32).unwrap();
    prop_assert_eq!(failures(&outcomes), Vec::<String>::new());
    Ok(())
}

fn rows() -> impl Strategy<Value = BatchLayout> {
    (1usize..4, 1usize..12).prop_map(|(batch, len)| BatchLayout { batch, len })
}

/// `(start, stride)` of some columns, or all.
fn inside(width: usize) -> impl Strategy<Value = Option<(usize, usize)>> {
    prop_oneof![Just(None), (0usize..6, 0usize..6).prop_map(move |(l, r)| Some((l, l + width + r)))]
}

fn widths() -> impl Strategy<Value = (usize, Option<(usize, usize)>)> {
    (1usize..24).prop_flat_map(|width| (Just(width), inside(width)))
}

fn scans() -> impl Strategy<Value = ScanLayout> {
    let limits = prop_oneof![Just((0.0, f32::INFINITY)), Just((0.1, 0.5))];
    (rows(), 1usize..4, 1usize..4, 1usize..20, 1usize..10, limits).prop_map(
        |(rows, groups, each, head_dim, state, dt_limit)| ScanLayout {
            rows,
            heads: groups * each,
            head_dim,
            groups,
            state,
            dt_limit,
        },
    )
}

fn heads() -> impl Strategy<Value = Heads> {
    (1usize..4, 1usize..4, 1usize..9, 0.1f32..0.6).prop_map(|(key, each, half, scale)| Heads {
        query: key * each,
        key,
        dim: 2 * half,
        scale,
    })
}

proptest! {
    #![proptest_config(Config {
        cases: 32,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn embedding(rows in rows(), vocab in 2usize..40, width in 1usize..20, padded: bool, seed: u64) {
        holds(check::embedding(rows, vocab, width, 12.0, padded.then_some(1)), seed)?;
    }

    #[test]
    fn linear(rows in 1usize..70, inner in 1usize..20, out in 1usize..20, bias: bool, seed: u64) {
        holds(check::linear(rows, inner, out, bias), seed)?;
    }

    #[test]
    fn rms_norm(rows in 1usize..70, width in 2usize..40, seed: u64) {
        holds(check::rms_norm(rows, width), seed)?;
    }

    #[test]
    fn residual_norm(rows in 1usize..70, width in 2usize..40, m in -2.0f32..2.0, seed: u64) {
        holds(check::residual_norm(rows, width, m), seed)?;
    }

    #[test]
    fn gated_rms_norm(rows in 1usize..70, (width, inside) in widths(), seed: u64) {
        holds(check::gated_rms_norm(rows, width, inside), seed)?;
    }

    #[test]
    fn swiglu(rows in 1usize..70, width in 1usize..40, fused: bool, seed: u64) {
        holds(check::swiglu(rows, width, fused), seed)?;
    }

    #[test]
    fn feed_forward(rows in 1usize..40, inner in 1usize..30, width in 1usize..40, seed: u64) {
        holds(check::feed_forward(rows, inner, width), seed)?;
    }

    #[test]
    fn residual(rows in 1usize..70, width in 1usize..40, m in -2.0f32..2.0, seed: u64) {
        holds(check::residual(rows, width, m), seed)?;
    }

    #[test]
    fn linear_cross_entropy(
        rows in 1usize..20,
        hidden in 1usize..20,
        vocab in 2usize..80,
        masked in prop_oneof![Just(Masked::None), Just(Masked::Some), Just(Masked::All)],
        seed: u64,
    ) {
        holds(check::linear_cross_entropy(rows, hidden, vocab, 0.5, masked), seed)?;
    }

    #[test]
    fn conv1d_silu(rows in rows(), (width, inside) in widths(), taps in 1usize..6, seed: u64) {
        holds(check::conv1d_silu(rows, width, taps, inside), seed)?;
    }

    #[test]
    fn attention(rows in rows(), heads in heads(), rope: bool, seed: u64) {
        holds(check::attention(rows, heads, rope.then_some(1e4)), seed)?;
    }

    #[test]
    fn scan((layout, inside) in scans().prop_flat_map(|l| (Just(l), inside(l.heads))), seed: u64) {
        holds(check::scan(layout, inside), seed)?;
    }

    #[test]
    fn mixer(layout in scans(), seed: u64) {
        // The norm takes out the size of its rows, and with it most of D's gradient where a row is short: with a few
        // entries what is left would be rounding.
        let rows = BatchLayout { len: layout.rows.len + 4, ..layout.rows };
        let (head_dim, heads) = (layout.head_dim + 4, 4 * layout.groups);
        holds(check::mixer(ScanLayout { rows, head_dim, heads, ..layout }), seed)?;
    }

    #[test]
    fn matmul(sizes in [1usize..4, 1usize..20, 1usize..20, 1usize..20], a: bool, b: bool, add: bool, seed: u64) {
        holds(check::matmul(sizes, (a, b), add), seed)?;
    }

    #[test]
    fn svd(batch in 1usize..4, m in 1usize..20, n in 1usize..20, seed: u64) {
        holds(check::svd(batch, m, n), seed)?;
    }

    #[test]
    fn cast_and_add_assign(count in 1usize..70_000, seed: u64) {
        holds(check::cast(count), seed)?;
        holds(check::add_assign(count), seed)?;
    }
}
