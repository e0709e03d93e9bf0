//! Every optimizer on a device against the same on the CPU, for `muon lab kernels`: four steps on matrices of several
//! shapes, one fused, one stored `[in, out]`, an embedding, a kernel and a vector, each run twice.

use std::collections::BTreeMap;

use tensor::check::Outcome;
use tensor::params::{Init, ParamSpec, Params, Role, Segment};
use tensor::random::Stream;
use tensor::{Device, Precision};

use crate::ortho::bf16;
use crate::{Common, Default, Optimizer, Rates, Result, Rounding, StateType, Value, Watch};

/// One optimizer in one setting.
pub struct Case {
    optimizer: &'static str,
    /// `key=value` pairs, or nothing.
    settings: &'static str,
    common: Common,
    precision: Precision,
    bound: f64,
    /// Matrices of whose Gram matrix several blocks of a kernel are made, instead of the small ones.
    large: bool,
}

impl Case {
    /// The optimizer and what is set.
    pub fn name(&self) -> String {
        let rounding = if self.common.rounding == Rounding::Stochastic { " stochastic" } else { "" };
        let clip = if self.common.clip > 0.0 { " clipped" } else { "" };
        let state = if self.common.state == StateType::Bf16 { " state=bf16" } else { "" };
        let large = if self.large { " large" } else { "" };
        format!("{} {}{state}{rounding}{clip}{large}", self.optimizer, self.settings).trim().to_string()
    }

    /// Precision of the weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Runs it on the CPU and twice on `device`; every weight is compared relative to the distance that it moved.
    pub fn check(&self, device: &Device) -> Result<Vec<Outcome>> {
        let (names, reference) = self.run(&Device::Cpu)?;
        let (first, second) = (self.run(device)?.1, self.run(device)?.1);
        let start = self.params(&Device::Cpu)?;
        let mut outcomes = Vec::new();
        for (i, name) in names.into_iter().enumerate() {
            let moved = distance(&reference[i], &start.weight(i)?);
            outcomes.push(Outcome {
                op: "optimizer",
                shape: self.name(),
                tensor: name,
                error: distance(&first[i], &reference[i]) / moved,
                bound: self.bound,
                repeatable: first[i].iter().zip(&second[i]).all(|(a, b)| a.to_bits() == b.to_bits()),
            });
        }
        Ok(outcomes)
    }

    fn params(&self, device: &Device) -> Result<Params> {
        let params = Params::new(device, self.precision, specs(self.large))?;
        for (i, spec) in params.specs().iter().enumerate() {
            let mut values = vec![0.0; spec.numel()];
            Stream::new(1, i as u64).fill_normal(&mut values, 0.1);
            params.set_weight(i, &values)?;
        }
        Ok(params)
    }

    fn run(&self, device: &Device) -> Result<(Vec<String>, Vec<Vec<f32>>)> {
        let params = self.params(device)?;
        let keys = crate::find(self.optimizer)?.keys();
        let given: BTreeMap<String, Value> = self
            .settings
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, text)| {
                let default = keys.iter().find(|known| known.name == key).map(|known| known.default);
                let value = match default {
                    Some(Default::Number(_) | Default::Count(_)) => {
                        Value::Number(text.parse().unwrap_or(f64::NAN))
                    }
                    Some(Default::Switch(_)) => Value::Switch(text == "true"),
                    _ => Value::Word(text.into()),
                };
                (key.to_string(), value)
            })
            .collect();
        let mut optimizer = Optimizer::new(self.optimizer, &given, &self.common, &params)?;
        for step in 1..=4 {
            for (i, spec) in params.specs().iter().enumerate() {
                params.get(i).grad.copy_from_slice(&self.gradient(spec, step, i as u64))?;
            }
            optimizer.step(&params, Rates { matrices: 0.02, rest: 0.01 }, Watch::Full)?;
        }
        let weights = (0..params.specs().len()).map(|i| Ok(params.weight(i)?)).collect::<Result<_>>()?;
        Ok((params.specs().iter().map(|spec| spec.name.clone()).collect(), weights))
    }

    /// Gaussian gradients, well-conditioned so that methods in bf16 can agree. For a rule with noise every second matrix
    /// is of low rank, so that the adaptive trigger has something to decide. In bf16 their values are such as a GPU's
    /// gradients can hold.
    fn gradient(&self, spec: &ParamSpec, step: u64, index: u64) -> Vec<f32> {
        let mut values = vec![0.0; spec.numel()];
        Stream::new(2 + step, index).fill_normal(&mut values, 0.1);
        let noisy =
            crate::find(self.optimizer).is_ok_and(|row| row.keys().iter().any(|key| key.name == "adaptive"));
        if noisy && spec.role == Role::Matrix && index.is_multiple_of(2) {
            let n = spec.shape[1];
            let (mut left, mut right) = (vec![0.0; spec.shape[0]], vec![0.0; n]);
            Stream::new(20 + step, index).fill_normal(&mut left, 1.0);
            Stream::new(40 + step, index).fill_normal(&mut right, 1.0);
            for (i, row) in values.chunks_exact_mut(n).enumerate() {
                row.iter_mut().zip(&right).for_each(|(x, r)| *x += left[i] * r);
            }
        }
        if self.precision == Precision::Bf16 {
            values.iter_mut().for_each(|x| *x = bf16(*x));
        }
        values
    }
}

/// Every optimizer as it is, and the variants that have kernels of their own.
pub fn cases() -> Vec<Case> {
    let case = |optimizer, settings, bound| Case {
        optimizer,
        settings,
        common: Common::default(),
        precision: Precision::F32,
        bound,
        large: false,
    };
    // f32 methods agree to rounding; those in bf16 to a few roundings of it.
    let (exact, rounded) = (1e-4, 5e-2);
    let mut cases: Vec<Case> = crate::ALL
        .iter()
        .map(|row| {
            let fixed = row.keys().iter().any(|key| {
                matches!(key.default, Default::Choice { default, .. } if key.name == "ortho" && default != "polar")
            });
            case(row.name, "", if fixed { rounded } else { exact })
        })
        .collect();
    cases.extend([
        case("muon", "ortho=svd split=segments", exact),
        case("muon", "split=heads route=all-2d nesterov=true scale=spectral weight_decay=0.1", exact),
        case("muon", "ortho=polar-express", rounded),
        case("muon", "ortho=gram", rounded),
        case("nolah", "gate=sigmoid momentum_scale=0.5 quantile=0.5", exact),
        case("nolah", "gate=relu", exact),
        case("orthonoise", "adaptive=false noise_target=momentum split=heads", exact),
        case("isotropic", "adaptive=false anneal=exponential", exact),
        case("block-muon", "block_size=24 scale_shape=full ortho=newton-schulz ortho_dtype=f32", exact),
        case("block-periodic", "block_size=24 period=2 block_lr_ratio=0.5 ortho_dtype=f32", exact),
        case("normuon", "ortho_dtype=f32", exact),
    ]);
    // Symmetric products in halves: taken for the whole in the wrong order, they would be off by 0.17 to 0.21. One
    // polynomial without a square, which needs the whole of a Gram matrix.
    cases.extend(
        ["ortho=newton-schulz", "ortho=gram", "ortho=gram coefficients=2,-1.5,0.5;1.5,-0.5,0"]
            .map(|settings| Case { large: true, ..case("muon", settings, rounded) }),
    );
    // Tiles in one launch: all alike; cut off by edges, with scales of their own, once as published; with whole steps between.
    // Those of 96 by batched products, since some are tall.
    cases.extend(
        [
            ("block-muon", "", rounded),
            ("block-muon", "ortho=newton-schulz block_size=80 scale=spectral", rounded),
            ("block-muon", "block_size=80", rounded),
            ("block-muon", "ortho=newton-schulz block_size=96", rounded),
            ("block-periodic", "period=2 ortho=polar-express", rounded),
        ]
        .map(|(name, settings, bound)| Case { large: true, ..case(name, settings, bound) }),
    );
    for (precision, rounding, clip) in [
        (Precision::Bf16, Rounding::Nearest, 0.0),
        (Precision::Bf16, Rounding::Stochastic, 0.0),
        (Precision::Bf16, Rounding::Nearest, 1.0),
        (Precision::F32, Rounding::Nearest, 1.0),
    ] {
        for name in ["muon", "adamw"] {
            let common = Common { clip, rounding, ..Common::default() };
            let bound = if precision == Precision::Bf16 { rounded } else { exact };
            cases.push(Case { common, precision, ..case(name, "", bound) });
        }
    }
    // Every pass over gradients in bf16; weights of record that round the other way are what the bounds allow.
    cases.extend(
        [
            ("muon", "ortho=gram", 2.0 * rounded),
            ("muon", "ortho=gram ortho_dtype=f32 split=segments", rounded),
            ("muon", "nesterov=true", rounded),
            ("normuon", "ortho_dtype=f32", rounded),
            ("nolah", "gate=sigmoid momentum_scale=0.5 quantile=0.5", rounded),
            ("orthonoise", "adaptive=false split=heads", rounded),
        ]
        .map(|(name, settings, bound)| Case { precision: Precision::Bf16, ..case(name, settings, bound) }),
    );
    // State in bf16: both ways that momenta go, weights of both types. An entry whose sum differs in its last bits is
    // rounded the other way once in a while.
    let common = Common { state: StateType::Bf16, ..Common::default() };
    let stochastic = Common { rounding: Rounding::Stochastic, ..common };
    cases.extend(
        [
            ("adamw", "", Precision::F32, common, 1e-3),
            ("adamw", "", Precision::Bf16, common, rounded),
            ("adamw", "", Precision::Bf16, stochastic, rounded),
            ("muon", "", Precision::F32, common, 1e-3),
            ("muon", "ortho=gram ortho_dtype=f32", Precision::F32, common, 1e-3),
            ("muon", "ortho=gram", Precision::Bf16, stochastic, 2.0 * rounded),
            ("normuon", "ortho_dtype=f32", Precision::F32, common, 1e-3),
            ("nolah", "", Precision::F32, common, 1e-3),
            ("orthonoise", "adaptive=false noise_target=momentum split=heads", Precision::F32, common, 1e-3),
        ]
        .map(|(name, settings, precision, common, bound)| Case {
            common,
            precision,
            ..case(name, settings, bound)
        }),
    );
    cases
}

fn specs(large: bool) -> Vec<ParamSpec> {
    let spec = |name: &str, shape: &[usize], role, segments| ParamSpec {
        name: name.into(),
        shape: shape.to_vec(),
        role,
        out_axis: 0,
        segments,
        init: Init::Zeros,
    };
    let segment = |name, rows, heads| Segment { name, rows, heads };
    if large {
        return vec![
            spec("large.wide", &[512, 640], Role::Matrix, vec![segment("out", 512, 1)]),
            spec("large.tall", &[640, 512], Role::Matrix, vec![segment("out", 640, 1)]),
        ];
    }
    vec![
        spec("embedding", &[64, 32], Role::Embedding, vec![segment("vocabulary", 64, 1)]),
        spec("fused", &[96, 40], Role::Matrix, vec![segment("z", 32, 4), segment("x", 64, 8)]),
        spec("wide.0", &[40, 96], Role::Matrix, vec![segment("out", 40, 1)]),
        spec("wide.1", &[40, 96], Role::Matrix, vec![segment("out", 40, 1)]),
        spec("square", &[48, 48], Role::Matrix, vec![segment("out", 48, 1)]),
        ParamSpec {
            out_axis: 1,
            ..spec("stored.in.out", &[24, 64], Role::Matrix, vec![segment("q", 64, 4)])
        },
        spec("kernel", &[32, 1, 4], Role::Conv, vec![]),
        spec("vector", &[65], Role::Vector, vec![]),
    ]
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}
