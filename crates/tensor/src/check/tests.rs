//! The battery itself: what is wrong must show.

use std::cell::Cell;

use super::case::{Case, Input, Plain};
use super::{Outcome, reference};
use crate::ops::{self, Cols};
use crate::{DType, Device, Precision, Tensor};

fn check(case: &Case) -> Vec<Outcome> {
    case.check(&Device::Cpu, Precision::F32).unwrap()
}

/// Names of the tensors that are wrong.
fn wrong(case: &Case) -> Vec<String> {
    check(case).into_iter().filter(|outcome| !outcome.ok()).map(|outcome| outcome.tensor).collect()
}

/// A case that copies its input by `copy`, which is told how often it ran before.
fn copying(copy: impl Fn(u32, &Tensor, &Tensor) + 'static) -> Case {
    let runs = Cell::new(0);
    Case::plain(
        "copy",
        String::new(),
        vec![Input::value("x", &[77])],
        Plain {
            run: Box::new(move |device, _, given| {
                let to = device.empty(&[77], DType::F32)?;
                copy(runs.replace(runs.get() + 1), &given[0], &to);
                Ok(vec![to])
            }),
            compared: Box::new(|x| vec![("y", x[0].iter().map(|&x| f64::from(x)).collect())]),
            reference: Box::new(|x| vec![x[0].clone()]),
        },
    )
}

#[test]
fn an_entry_left_unwritten_is_nan() {
    assert!(wrong(&copying(|_, from, to| to.write().copy_from_slice(&from.read()))).is_empty());
    let most = copying(|_, from, to| to.write()[..76].copy_from_slice(&from.read()[..76]));
    let outcomes = check(&most);
    assert!(outcomes[0].error.is_nan() && !outcomes[0].ok(), "{outcomes:?}");
}

#[test]
fn another_result_the_second_time_does_not_repeat() {
    let outcomes = check(&copying(|runs, from, to| {
        to.write().copy_from_slice(&from.read());
        to.write()[5] *= 1.0 + runs as f32 * f32::EPSILON;
    }));
    assert!(outcomes[0].error < outcomes[0].bound && !outcomes[0].repeatable, "{outcomes:?}");
}

/// `x + m y`, held to a reference with `m` 0.5.
fn residual(m: f32) -> Case {
    let value = |name| Input::value(name, &[17, 33]);
    Case::new(
        "residual",
        String::new(),
        vec![value("x"), value("y")],
        17 * 33,
        move |tape, given| ops::residual(tape, given.value(0), given.value(1), m),
        |x| reference::residual(&x[0], &x[1], 0.5),
    )
}

#[test]
fn a_slightly_wrong_factor_shows_in_the_output_and_in_the_gradient_that_has_it() {
    assert!(wrong(&residual(0.5)).is_empty());
    assert_eq!(wrong(&residual(0.5002)), ["y (evaluation)", "y", "dy"]);
}

#[test]
fn a_gradient_of_other_columns_than_those_read_shows() {
    let read = |start| {
        Case::new(
            "swiglu",
            String::new(),
            vec![Input::value("gate", &[9, 20]).columns(start, 12), Input::value("up", &[9, 12])],
            9 * 12,
            |tape, given| ops::swiglu(tape, &Cols::new(given.value(0), 3, 12), &Cols::all(given.value(1))),
            |x| reference::swiglu(&reference::columns(&x[0], 20, 3, 12), &x[1]),
        )
    };
    assert!(wrong(&read(3)).is_empty());
    // Column 15 is written by no one.
    assert_eq!(wrong(&read(4)), ["dgate"]);
}

#[test]
fn a_reference_of_zeros_is_compared_absolutely() {
    let outcomes = check(&super::attention(
        ops::BatchLayout { batch: 3, len: 1 },
        ops::Heads { query: 2, key: 1, dim: 6, scale: 0.4 },
        None,
    ));
    // One position: the softmax is 1 whatever q and k are.
    let dq = outcomes.iter().find(|outcome| outcome.tensor == "dq").unwrap();
    assert!(dq.error < 1e-9, "{dq:?}");
}
