//! The battery that every optimizer of the table goes through, in its defaults and in variants: against plain f64 loops
//! ([`reference`]), and the properties that any optimizer here has.

mod reference;
mod setup;
mod state;

use optim::{Common, Error, Rates, Rounding, StateType, Watch};
use setup::{Run, VARIANTS, distance, gradients, params, shapes};
use tensor::Precision;
use tensor::params::{ParamSpec, Role, Segment};

const RATES: Rates = Rates { matrices: 0.02, rest: 0.003 };

/// Every row in its defaults, then the variants.
fn all() -> Vec<(&'static str, &'static str)> {
    optim::ALL.iter().map(|row| (row.name, "")).chain(VARIANTS.iter().copied()).collect()
}

/// The same settings without bf16.
fn in_f32(name: &str, settings: &str) -> String {
    let keys = optim::find(name).unwrap().keys();
    let mut settings = settings.to_string();
    if keys.iter().any(|key| key.name == "ortho_dtype") {
        settings += " ortho_dtype=f32";
    }
    let rounds = |key: &optim::Key| {
        key.name == "ortho" && key.default.value() == optim::Value::Word("jordan-bf16".into())
    };
    if keys.iter().any(rounds) {
        settings += " ortho=newton-schulz";
    }
    settings
}

#[test]
fn every_optimizer_follows_its_formula_in_f64() {
    for (name, settings) in all() {
        let mut settings = in_f32(name, settings);
        // The reference knows no adaptive trigger.
        if optim::find(name).unwrap().keys().iter().any(|key| key.name == "adaptive") {
            settings += " adaptive=false";
        }
        let params = params(Precision::F32, shapes());
        let mut run = Run::new(name, &settings, Common::default(), &params);
        let mut reference = reference::Reference::new(name, &settings, &params);
        for t in 1..=6 {
            let grads = gradients(params.specs(), t);
            run.step(&params, &grads, RATES);
            reference.step(&grads, RATES);
        }
        for (i, spec) in params.specs().iter().enumerate() {
            let (off, moved) = reference.compare(i, &params.weight(i).unwrap());
            assert!(off <= 1e-4 * moved, "{name} {settings}: {} is off by {:.1e}", spec.name, off / moved);
        }
    }
}

#[test]
fn a_transposed_weight_moves_by_the_transposed_update() {
    // Sums of products go in another order, and rounding to bf16 makes that 2e-2.
    let transpose = |x: &[f32], n: usize| -> Vec<f32> {
        (0..n).flat_map(|j| x.iter().skip(j).step_by(n).copied()).collect()
    };
    for (name, settings) in all() {
        let matrices: Vec<ParamSpec> =
            shapes().into_iter().filter(|spec| spec.role == Role::Matrix).collect();
        let turned: Vec<ParamSpec> = matrices
            .iter()
            .map(|spec| ParamSpec {
                shape: vec![spec.shape[1], spec.shape[0]],
                out_axis: 1 - spec.out_axis,
                ..spec.clone()
            })
            .collect();
        let (plain, turned) = (params(Precision::F32, matrices), params(Precision::F32, turned));
        for (i, spec) in plain.specs().iter().enumerate() {
            turned.set_weight(i, &transpose(&plain.weight(i).unwrap(), spec.shape[1])).unwrap();
        }
        let starts: Vec<Vec<f32>> = (0..plain.specs().len()).map(|i| plain.weight(i).unwrap()).collect();
        let settings = in_f32(name, settings);
        let mut one = Run::new(name, &settings, Common::default(), &plain);
        let mut other = Run::new(name, &settings, Common::default(), &turned);
        for t in 1..=3 {
            let grads = gradients(plain.specs(), t);
            let turned_grads: Vec<Vec<f32>> =
                grads.iter().zip(plain.specs()).map(|(g, spec)| transpose(g, spec.shape[1])).collect();
            one.step(&plain, &grads, RATES);
            other.step(&turned, &turned_grads, RATES);
        }
        for (i, spec) in plain.specs().iter().enumerate() {
            let back = transpose(&turned.weight(i).unwrap(), spec.shape[0]);
            let plain = plain.weight(i).unwrap();
            let off = distance(&plain, &back) / distance(&plain, &starts[i]);
            assert!(off <= 1e-3, "{name} {settings}: {} differs by {off:.1e}", spec.name);
        }
    }
}

#[test]
fn without_gradients_only_decay_moves_a_weight() {
    for (name, settings) in all() {
        let params = params(Precision::F32, shapes());
        let starts: Vec<Vec<f32>> = (0..params.specs().len()).map(|i| params.weight(i).unwrap()).collect();
        let mut run = Run::new(name, settings, Common::default(), &params);
        let grads: Vec<Vec<f32>> = params.specs().iter().map(|spec| vec![0.0; spec.numel()]).collect();
        run.step(&params, &grads, RATES);
        for (i, start) in starts.iter().enumerate() {
            let now = params.weight(i).unwrap();
            let share = now[0] / start[0];
            assert!((0.99..=1.0).contains(&share), "{name} {settings}: {share}");
            let expected: Vec<f32> = start.iter().map(|x| x * share).collect();
            assert!(distance(&now, &expected) < 1e-5, "{name} {settings}: {}", params.specs()[i].name);
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    for (name, settings) in all() {
        let params = params(Precision::F32, shapes());
        let mut run = Run::new(name, settings, Common { clip: 1.0, ..Common::default() }, &params);
        run.step(&params, &gradients(params.specs(), 1), RATES);
        let before = run.everything(&params);
        for (at, bad) in [(1, f32::NAN), (3, f32::INFINITY), (5, f32::NEG_INFINITY)] {
            let mut grads = gradients(params.specs(), 2);
            grads[at][7] = bad;
            let error = run.try_step(&params, &grads, RATES).unwrap_err();
            let weight = &params.specs()[at].name;
            assert!(matches!(&error, Error::NotFinite { weight: w } if w == weight), "{name}: {error}");
            assert!(run.everything(&params) == before, "{name} {settings}");
        }
        // Gradients whose sums would overflow are refused too.
        let mut grads = gradients(params.specs(), 2);
        grads[1][7] = 2e36;
        assert!(matches!(run.try_step(&params, &grads, RATES), Err(Error::NotFinite { .. })), "{name}");
        assert!(run.everything(&params) == before, "{name} {settings}");
        // Huge but finite gradients are stepped by.
        let mut grads = gradients(params.specs(), 2);
        grads[1].iter_mut().for_each(|x| *x *= 1e30);
        run.step(&params, &grads, RATES);
        assert!(run.everything(&params).iter().flatten().all(|x| x.is_finite()), "{name} {settings}");
    }
}

#[test]
fn a_restored_optimizer_continues_bit_for_bit() {
    for (name, settings) in all() {
        for (precision, rounding, state) in [
            (Precision::F32, Rounding::Nearest, StateType::F32),
            (Precision::F32, Rounding::Nearest, StateType::Bf16),
            (Precision::Bf16, Rounding::Stochastic, StateType::Bf16),
        ] {
            let common = Common { rounding, state, seed: 7, ..Common::default() };
            let through = params(precision, shapes());
            let mut run = Run::new(name, settings, common, &through);
            for t in 1..=2 {
                run.step(&through, &gradients(through.specs(), t), RATES);
            }
            // Other banks, other order: the state goes by names.
            let mut reversed = shapes();
            reversed.reverse();
            let resumed = params(precision, reversed);
            let count = resumed.specs().len();
            for i in 0..count {
                resumed.set_weight(count - 1 - i, &through.weight(i).unwrap()).unwrap();
            }
            let mut second = Run::new(name, settings, common, &resumed);
            second.restore(&resumed, &run, &through);
            for t in 3..=5 {
                let mut grads = gradients(through.specs(), t);
                run.step(&through, &grads, RATES);
                grads.reverse();
                second.step(&resumed, &grads, RATES);
            }
            for i in 0..count {
                let (a, b) = (through.weight(i).unwrap(), resumed.weight(count - 1 - i).unwrap());
                assert!(a == b, "{name} {settings}: {}", through.specs()[i].name);
            }
        }
    }
}

#[test]
fn a_bank_is_stepped_as_its_members_would_be_alone() {
    let both = |row| [(row, Common::default()), (row, state::in_bf16())];
    for ((name, settings), common) in all().into_iter().flat_map(both) {
        let together = params(Precision::F32, shapes());
        let mut run = Run::new(name, settings, common, &together);
        let alone: Vec<_> =
            together.specs().iter().map(|spec| params(Precision::F32, vec![spec.clone()])).collect();
        let mut runs: Vec<Run> =
            alone.iter().map(|params| Run::new(name, settings, common, params)).collect();
        for t in 1..=3 {
            let grads = gradients(together.specs(), t);
            run.step(&together, &grads, RATES);
            for ((run, params), grad) in runs.iter_mut().zip(&alone).zip(grads) {
                run.step(params, &[grad], RATES);
            }
        }
        for (i, params) in alone.iter().enumerate() {
            let (a, b) = (together.weight(i).unwrap(), params.weight(0).unwrap());
            assert!(a == b, "{name} {settings} {:?}: {}", common.state, together.specs()[i].name);
        }
    }
}

#[test]
fn segments_and_heads_are_matrices_of_their_own() {
    let fused = |segments| ParamSpec { segments, ..shapes().remove(1) };
    let segment = |name, rows, heads| Segment { name, rows, heads };
    for (split, rows) in [("segments", vec![32, 64]), ("heads", vec![16, 16, 16, 16, 16, 16])] {
        let whole = params(Precision::F32, vec![fused(vec![segment("z", 32, 2), segment("x", 64, 4)])]);
        let mut run = Run::new("moonlight", &format!("ortho=polar split={split}"), Common::default(), &whole);
        let start = whole.weight(0).unwrap();
        let grad = gradients(whole.specs(), 1).remove(0);
        run.step(&whole, std::slice::from_ref(&grad), RATES);
        let moved = whole.weight(0).unwrap();
        let (mut at, n) = (0, 40);
        for count in rows {
            let range = at * n..(at + count) * n;
            let spec = ParamSpec { shape: vec![count, n], ..fused(vec![]) };
            let part = params(Precision::F32, vec![spec]);
            part.set_weight(0, &start[range.clone()]).unwrap();
            let mut run = Run::new("moonlight", "ortho=polar", Common::default(), &part);
            run.step(&part, &[grad[range.clone()].to_vec()], RATES);
            let off = distance(&part.weight(0).unwrap(), &moved[range]);
            assert!(off < 1e-6, "{split} at row {at}: {off:.1e}");
            at += count;
        }
        assert_eq!(at, 96);
    }
}

#[test]
fn all_2d_takes_embeddings_too() {
    let params = params(Precision::F32, shapes());
    let run = |settings: &str| Run::new("muon", settings, Common::default(), &params).state_names(&params);
    assert!(run("").contains(&"embedding.first_moment".to_string()));
    let all = run("route=all-2d");
    assert!(all.contains(&"embedding.momentum".to_string()));
    assert!(all.contains(&"kernel.first_moment".to_string()), "a kernel has three axes");
}

#[test]
fn clipping_scales_the_gradients_to_the_norm() {
    let specs = || vec![shapes().remove(0), shapes().pop().unwrap()];
    let (clipped, scaled) = (params(Precision::F32, specs()), params(Precision::F32, specs()));
    let mut one = Run::new("adamw", "", Common { clip: 0.5, ..Common::default() }, &clipped);
    let mut other = Run::new("adamw", "", Common::default(), &scaled);
    let grads = gradients(clipped.specs(), 1);
    let norm = distance(&grads.concat(), &vec![0.0; grads.concat().len()]);
    assert!(norm > 0.5);
    let report = one.step(&clipped, &grads, RATES);
    assert!((report.grad_norm / norm - 1.0).abs() < 1e-6, "the norm before clipping is reported");
    let small: Vec<Vec<f32>> =
        grads.iter().map(|g| g.iter().map(|x| x * (0.5 / norm) as f32).collect()).collect();
    other.step(&scaled, &small, RATES);
    for i in 0..2 {
        let (a, b) = (clipped.weight(i).unwrap(), scaled.weight(i).unwrap());
        assert!(distance(&a, &b) < 1e-6, "weight {i}");
    }
}

/// The figure behind the precision of record: bf16 weights of standard deviation 0.1, rate 1e-4, one exact update of a
/// matrix 2048 wide. Most entries stay where they are, and little of the step survives; stochastic rounding keeps its
/// mean.
#[test]
fn survival_in_bf16_is_reported() {
    let spec = ParamSpec { shape: vec![64, 2048], segments: vec![], ..shapes().remove(1) };
    let rates = Rates { matrices: 1e-4, rest: 0.0 };
    let survival = |precision, rounding| {
        let params = params(precision, vec![spec.clone()]);
        let before = params.weight(0).unwrap();
        let mut run = Run::new("muon", "", Common { rounding, ..Common::default() }, &params);
        let report = run.step(&params, &gradients(params.specs(), 1), rates);
        let get = |name: &str| report.values.iter().find(|(known, _)| *known == name).unwrap().1;
        let moved: Vec<f32> =
            params.weight(0).unwrap().iter().zip(&before).map(|(now, was)| now - was).collect();
        (get("update_survival"), get("unchanged_share"), get("update_rms.matrices"), moved)
    };
    let (all, unchanged, asked, exact) = survival(Precision::F32, Rounding::Nearest);
    assert!((all - 1.0).abs() < 1e-2 && unchanged < 0.02, "{all} {unchanged}");
    assert!((asked - 1e-4 / 2048f64.sqrt()).abs() < 1e-9, "{asked}");
    let (nearest, unchanged, ..) = survival(Precision::Bf16, Rounding::Nearest);
    assert!(unchanged > 0.98, "{unchanged}");
    let (stochastic, _, _, moved) = survival(Precision::Bf16, Rounding::Stochastic);
    assert!(stochastic > 2.0 * nearest, "{stochastic} {nearest}");
    // The step along the exact one: the mean survives.
    let along = |moved: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        dot(moved, &exact) / dot(&exact, &exact)
    };
    assert!((along(&moved) - 1.0).abs() < 0.2, "{}", along(&moved));
}

#[test]
fn what_a_row_does_not_have_is_refused() {
    let params = params(Precision::F32, shapes());
    for (name, settings, word) in [
        ("muon", "gate=tanh", "is no key of it"),
        ("muon", "momentum=1.0", "below 1"),
        ("nolah", "gate=soft", "tanh, sigmoid, relu"),
        ("nolah", "quantile=2", "from 0 to 1"),
        ("block-muon", "block_size=0", "from 1"),
        ("block-muon", "block_size=1.5", "whole number"),
        ("block-periodic", "period=0", "from 1"),
        ("muon", "nesterov=1", "true or false"),
        ("muon", "coefficients=you", "not for polar"),
        ("moonlight", "coefficients=jordam", "jordan"),
        ("normuon", "scale=spectral", "no effect"),
        ("block-muon", "ortho_dtype=f32", "no effect on jordan-bf16"),
        ("adamw", "momentum=0.9", "it has: none"),
        ("muons", "", "muon, nolah"),
    ] {
        let error = Run::try_new(name, settings, Common::default(), &params).err().expect(settings);
        assert!(error.to_string().contains(word), "{name} {settings}: {error}");
    }
}

#[test]
fn the_adaptive_trigger_spares_matrices_of_high_rank() {
    let specs: Vec<ParamSpec> = shapes().into_iter().filter(|spec| spec.role == Role::Matrix).collect();
    for name in ["orthonoise", "isotropic"] {
        let params = params(Precision::F32, specs.clone());
        let count = specs.len() as f64;
        let noise = |settings: &str, grads: &[Vec<f32>]| {
            let mut run = Run::new(name, settings, Common::default(), &params);
            let values = run.step(&params, grads, RATES).values;
            let get = |name: &str| values.iter().find(|(known, _)| *known == name).unwrap().1;
            (get("noise_added"), get("noise_skipped"))
        };
        let gaussian = gradients(&specs, 1);
        // Rank one: every row a multiple of the same.
        let low: Vec<Vec<f32>> = specs
            .iter()
            .map(|spec| (0..spec.numel()).map(|i| ((i / spec.shape[1]) as f32 + 1.0) * 0.01).collect())
            .collect();
        assert_eq!(noise("", &gaussian), (0.0, count), "{name}");
        assert_eq!(noise("", &low), (count, 0.0), "{name}");
        assert_eq!(noise("rank_threshold=1", &gaussian), (count, 0.0), "{name}");
        assert_eq!(noise("adaptive=false", &gaussian), (count, 0.0), "{name}");
    }
}

/// With an exact polar factor the cubic steps change nothing but rounding: polar(NS(X)) = polar(X).
#[test]
fn reorthogonalising_before_an_exact_polar_factor_changes_nothing() {
    let step = |settings: &str| {
        let params = params(Precision::F32, shapes());
        let mut run = Run::new("orthonoise", settings, Common::default(), &params);
        run.step(&params, &gradients(params.specs(), 1), RATES);
        (0..params.specs().len()).map(|i| params.weight(i).unwrap()).collect::<Vec<_>>().concat()
    };
    let (with, without) = (step("adaptive=false"), step("adaptive=false reorthogonalize=0"));
    assert!(distance(&with, &without) < 1e-3 * RATES.matrices as f64, "{}", distance(&with, &without));
    assert!(with != without, "the steps were not taken");
}

#[test]
fn watching_changes_nothing_and_reports_its_columns() {
    for (name, settings) in all() {
        let mut results = Vec::new();
        for watch in [Watch::Off, Watch::Cheap, Watch::Full] {
            let params = params(Precision::F32, shapes());
            let mut run = Run::new(name, settings, Common::default(), &params);
            let report = run.watched(&params, &gradients(params.specs(), 1), RATES, watch);
            let names: Vec<_> = report.values.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, run.columns(watch), "{name}");
            assert!(report.values.iter().all(|(_, value)| value.is_finite()), "{name}: {:?}", report.values);
            let value = |name: &str| report.values.iter().find(|(known, _)| *known == name).map(|(_, x)| *x);
            assert!(value("ortho_failures").is_none_or(|count| count < 0.5), "{name} {settings}");
            // The exact methods are exact, tiles, splits and scales or not.
            if let (Some(error), Some(_)) = (value("orth_error"), value("ortho_deficient")) {
                assert!(error <= 1e-5, "{name} {settings}: {error:.1e}");
            }
            results.push(run.everything(&params));
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{name} {settings}");
    }
}

#[test]
fn rank_deficient_momenta_are_counted() {
    let specs: Vec<ParamSpec> = shapes().into_iter().filter(|spec| spec.role == Role::Matrix).collect();
    // The first rows made equal.
    let tied = |spec: &ParamSpec, grad: &[f32], rows: usize| -> Vec<f32> {
        let n = spec.shape[1];
        (0..grad.len()).map(|i| grad[if i / n < rows { i % n } else { i }]).collect()
    };
    for ortho in ["polar", "svd"] {
        for (rows, expected) in [(1, 0), (usize::MAX, specs.len())] {
            let params = params(Precision::F32, specs.clone());
            let mut run = Run::new("muon", &format!("ortho={ortho}"), Common::default(), &params);
            let grads: Vec<Vec<f32>> =
                specs.iter().zip(gradients(&specs, 1)).map(|(spec, g)| tied(spec, &g, rows)).collect();
            let values = run.step(&params, &grads, RATES).values;
            let found = values.iter().find(|(name, _)| *name == "ortho_deficient").unwrap().1;
            assert_eq!(found as usize, expected, "{ortho}");
        }
    }
}

/// The cubic steps belong to the noise: a matrix that gets none goes to the orthogonaliser as it is, which shows where
/// that is not exact.
#[test]
fn matrices_without_noise_are_stepped_as_by_muon() {
    let step = |name: &str, settings: &str| {
        let params = params(Precision::F32, shapes());
        let mut run = Run::new(name, settings, Common::default(), &params);
        run.step(&params, &gradients(params.specs(), 1), RATES);
        (0..params.specs().len()).map(|i| params.weight(i).unwrap()).collect::<Vec<_>>()
    };
    let inexact = "ortho=newton-schulz ortho_dtype=f32";
    assert!(step("orthonoise", &format!("{inexact} rank_threshold=0")) == step("muon", inexact));
}
