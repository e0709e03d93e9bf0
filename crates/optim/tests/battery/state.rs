//! State in bf16: what rounding keeps and what it must not lose, against plain f64 loops.

use std::collections::BTreeMap;

use optim::{AdamWSettings, Common, Error, Optimizer, Rates, StateType};
use tensor::Precision;
use tensor::params::ParamSpec;

use super::{all, in_f32, reference};
use crate::setup::{Run, distance, gradients, params, shapes};

const RATES: Rates = Rates { matrices: 0.02, rest: 0.003 };
/// Entries of one weight that all have the same gradients.
const ENTRIES: usize = 1 << 14;

pub(super) fn in_bf16() -> Common {
    Common { state: StateType::Bf16, ..Common::default() }
}

#[test]
fn every_optimizer_with_state_in_bf16_stays_near_its_formula() {
    for (name, settings) in all() {
        let mut settings = in_f32(name, settings);
        // The reference knows no adaptive trigger.
        if optim::find(name).unwrap().keys().iter().any(|key| key.name == "adaptive") {
            settings += " adaptive=false";
        }
        let params = params(Precision::F32, shapes());
        let mut run = Run::new(name, &settings, in_bf16(), &params);
        let mut reference = reference::Reference::new(name, &settings, &params);
        for t in 1..=6 {
            let grads = gradients(params.specs(), t);
            run.step(&params, &grads, RATES);
            reference.step(&grads, RATES);
        }
        for (i, spec) in params.specs().iter().enumerate() {
            let (off, moved) = reference.compare(i, &params.weight(i).unwrap());
            let share = off / moved;
            assert!(share <= 0.02, "{name} {settings}: {} is off by {share:.1e}", spec.name);
            assert!(share >= 1e-5, "{name} {settings}: the state of {} was not rounded", spec.name);
        }
        for (name, values) in run.state(&params) {
            let held = values.iter().all(|x| x.to_bits().trailing_zeros() >= 16);
            assert!(held != name.ends_with(".neuron_moments"), "{name}");
        }
    }
}

/// Means of the state's parts over all entries of a weight, after gradients that are the same for all of them.
fn means(common: Common, name: &str, shape: &[usize], grads: &[f32]) -> Vec<f64> {
    let spec = ParamSpec { shape: shape.to_vec(), segments: vec![], ..shapes().remove(1) };
    let params = params(Precision::F32, vec![spec]);
    let mut optimizer = Optimizer::new(name, &BTreeMap::new(), &common, &params).unwrap();
    for &g in grads {
        params.get(0).grad.copy_from_slice(&vec![g; ENTRIES]).unwrap();
        optimizer.step(&params, Rates { matrices: 0.0, rest: 0.0 }, optim::Watch::Off).unwrap();
    }
    let mean = |x: Vec<f32>| x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
    optimizer.state(&params).into_iter().map(|(_, tensor)| mean(tensor.to_vec().unwrap())).collect()
}

/// Gradients for a while, then none: moments must rise to where they belong, and fall again. At beta2 = 0.999 rounding to
/// nearest does neither: steps of v below a part in 512 are lost.
#[test]
fn moments_in_bf16_have_the_mean_of_those_in_f64_where_rounding_to_nearest_stalls() {
    let (b1, b2) = (0.9f32, 0.999f32);
    let adamw = AdamWSettings { betas: (b1, b2), ..AdamWSettings::default() };
    let common = Common { adamw, ..in_bf16() };
    let mut grads: Vec<f32> = (0..2000).map(|t| if t % 3 == 0 { 0.5 } else { 1.0 }).collect();
    let [mut m, mut v, mut nearest] = [0.0f64; 3];
    for end in [2000, 4000] {
        grads.resize(end, 0.0);
        let from = if end == 2000 { 0 } else { 2000 };
        for &g in &grads[from..] {
            let (g, b1, b2) = (f64::from(g), f64::from(b1), f64::from(b2));
            m = b1 * m + (1.0 - b1) * g;
            v = b2 * v + (1.0 - b2) * g * g;
            nearest = to_nearest(b2 * nearest + (1.0 - b2) * g * g);
        }
        let found = means(common, "adamw", &[64, ENTRIES / 64], &grads);
        // 0.05 of v is the deviation of one entry; of the mean of all 4e-4.
        assert!((found[1] / v - 1.0).abs() < 2e-3, "after {end} steps: {} for {v}", found[1]);
        assert!((found[0] - m).abs() < 1e-3, "after {end} steps: {} for {m}", found[0]);
        assert!((nearest / v - 1.0).abs() > 0.3, "nearest is {nearest} for {v}: this test shows nothing");
    }
}

/// The nearest bf16 of a number that f32 holds.
fn to_nearest(x: f64) -> f64 {
    let bits = (x as f32).to_bits();
    f64::from(f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
}

#[test]
fn a_momentum_in_bf16_has_the_mean_of_one_in_f64() {
    let grads: Vec<f32> = (1..=60).map(|t| 0.3 + 0.7 / t as f32).collect();
    let expected = grads.iter().fold(0.0, |m, &g| f64::from(0.95f32) * m + f64::from(g));
    let found = means(in_bf16(), "muon", &[64, ENTRIES / 64], &grads);
    // 0.7 % of it is the deviation of one entry; of the mean of all 6e-5.
    assert!((found[0] / expected - 1.0).abs() < 3e-4, "{} for {expected}", found[0]);
}

#[test]
fn state_in_f32_is_not_rounded_into_bf16_in_silence() {
    let params = params(Precision::F32, shapes());
    for name in ["muon", "adamw"] {
        let mut before = Run::new(name, "", Common::default(), &params);
        before.step(&params, &gradients(params.specs(), 1), RATES);
        let mut after = Run::new(name, "", in_bf16(), &params);
        let untouched = after.everything(&params);
        let error = after.try_restore(&params, &before, &params).unwrap_err();
        let told = "holds values that bf16 does not: it was written with state in f32";
        assert!(matches!(&error, Error::State(text) if text.contains(told)), "{name}: {error}");
        assert!(after.everything(&params) == untouched, "{name}");
        // What bf16 holds, f32 does too.
        after.step(&params, &gradients(params.specs(), 1), RATES);
        before.try_restore(&params, &after, &params).unwrap();
        let (a, b) = (before.everything(&params), after.everything(&params));
        let off: f64 = a.iter().zip(&b).map(|(a, b)| distance(a, b)).sum();
        assert!(off == 0.0, "{name}: {off}");
    }
}
