//! Weights, gradients and runs for the battery.

use std::collections::BTreeMap;

use optim::{Common, Default, Error, Optimizer, Rates, Report, Value, Watch};
use tensor::params::{Init, ParamSpec, Params, Role, Segment};
use tensor::random::Stream;
use tensor::{Device, Precision};

/// Settings beside the defaults.
pub const VARIANTS: &[(&str, &str)] = &[
    ("muon", "ortho=svd"),
    ("muon", "ortho=gram"),
    ("muon", "ortho=polar-express ortho_steps=8"),
    ("muon", "split=heads route=all-2d"),
    ("block-muon", "block_size=16 ortho=polar"),
    ("muon", "nesterov=true scale=spectral weight_decay=0.1 momentum=0.9"),
    ("nolah", "gate=sigmoid momentum_scale=0.9"),
    ("nolah", "gate=relu quantile=0.5"),
    ("orthonoise", "adaptive=false noise_target=momentum anneal=exponential anneal_steps=2"),
    ("orthonoise", "adaptive=false split=segments alpha=0.1"),
    ("isotropic", "adaptive=false anneal=constant"),
    ("block-muon", "block_size=16 scale_shape=full"),
    ("block-muon", "block_size=30 split=segments"),
    ("block-periodic", "block_size=16 period=2 block_lr_ratio=0.5"),
    ("moonlight", "coefficients=you"),
];

/// An embedding, matrices (one fused, two in one bank, one stored `[in, out]`), a kernel and a vector.
pub fn shapes() -> Vec<ParamSpec> {
    let spec = |name: &str, shape: &[usize], role, segments| ParamSpec {
        name: name.into(),
        shape: shape.to_vec(),
        role,
        out_axis: 0,
        segments,
        init: Init::Zeros,
    };
    let segment = |name, rows, heads| Segment { name, rows, heads };
    vec![
        spec("embedding", &[40, 24], Role::Embedding, vec![segment("vocabulary", 40, 1)]),
        spec("fused", &[96, 40], Role::Matrix, vec![segment("z", 32, 2), segment("x", 64, 4)]),
        spec("wide.0", &[24, 56], Role::Matrix, vec![segment("out", 24, 1)]),
        spec("wide.1", &[24, 56], Role::Matrix, vec![segment("out", 24, 1)]),
        ParamSpec { out_axis: 1, ..spec("turned", &[20, 48], Role::Matrix, vec![segment("q", 48, 4)]) },
        spec("square", &[32, 32], Role::Matrix, vec![segment("out", 32, 1)]),
        spec("kernel", &[8, 1, 4], Role::Conv, vec![]),
        spec("vector", &[33], Role::Vector, vec![]),
    ]
}

/// Banks on the CPU with the weights of their names.
pub fn params(precision: Precision, specs: Vec<ParamSpec>) -> Params {
    let params = Params::new(&Device::Cpu, precision, specs).unwrap();
    for (i, spec) in params.specs().iter().enumerate() {
        params.set_weight(i, &normal(spec, 0, 0.1)).unwrap();
    }
    params
}

/// The gradients of step `t`.
pub fn gradients(specs: &[ParamSpec], t: u64) -> Vec<Vec<f32>> {
    specs.iter().map(|spec| normal(spec, t, 0.1)).collect()
}

fn normal(spec: &ParamSpec, t: u64, std: f32) -> Vec<f32> {
    let stream = spec.name.bytes().fold(0u64, |hash, byte| hash * 31 + u64::from(byte));
    let mut values = vec![0.0; spec.numel()];
    Stream::new(t, stream).fill_normal(&mut values, std);
    values
}

/// Norm of the difference.
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

/// `key=value` pairs as the keys of an optimizer take them.
pub fn given(name: &str, settings: &str) -> BTreeMap<String, Value> {
    let keys = optim::find(name).map(optim::Row::keys).unwrap_or_default();
    let value = |pair: &str| {
        let (key, text) = pair.split_once('=').unwrap();
        let value = match keys.iter().find(|known| known.name == key).map(|known| known.default) {
            Some(Default::Number(_) | Default::Count(_)) => Value::Number(text.parse().unwrap()),
            Some(Default::Switch(_)) => text.parse().map_or(Value::Word(text.into()), Value::Switch),
            _ => Value::Word(text.into()),
        };
        (key.to_string(), value)
    };
    settings.split_whitespace().map(value).collect()
}

/// An optimizer at work.
pub struct Run(Optimizer);

impl Run {
    pub fn try_new(name: &str, settings: &str, common: Common, params: &Params) -> Result<Self, Error> {
        Optimizer::new(name, &given(name, settings), &common, params).map(Run)
    }

    pub fn new(name: &str, settings: &str, common: Common, params: &Params) -> Self {
        Run::try_new(name, settings, common, params).unwrap()
    }

    pub fn step(&mut self, params: &Params, grads: &[Vec<f32>], rates: Rates) -> Report {
        self.try_step(params, grads, rates).unwrap()
    }

    pub fn try_step(&mut self, params: &Params, grads: &[Vec<f32>], rates: Rates) -> Result<Report, Error> {
        for (i, grad) in grads.iter().enumerate() {
            params.get(i).grad.copy_from_slice(grad).unwrap();
        }
        self.0.step(params, rates, Watch::Cheap)
    }

    pub fn watched(&mut self, params: &Params, grads: &[Vec<f32>], rates: Rates, watch: Watch) -> Report {
        for (i, grad) in grads.iter().enumerate() {
            params.get(i).grad.copy_from_slice(grad).unwrap();
        }
        self.0.step(params, rates, watch).unwrap()
    }

    pub fn columns(&self, watch: Watch) -> Vec<&'static str> {
        self.0.columns(watch)
    }

    pub fn state_names(&self, params: &Params) -> Vec<String> {
        self.0.state(params).into_iter().map(|(name, _)| name).collect()
    }

    /// All weights and all state.
    pub fn everything(&self, params: &Params) -> Vec<Vec<f32>> {
        let weights = (0..params.specs().len()).map(|i| params.weight(i).unwrap());
        weights.chain(self.0.state(params).iter().map(|(_, tensor)| tensor.to_vec().unwrap())).collect()
    }

    /// The state by name.
    pub fn state(&self, params: &Params) -> BTreeMap<String, Vec<f32>> {
        let state = self.0.state(params);
        state.into_iter().map(|(name, tensor)| (name, tensor.to_vec().unwrap())).collect()
    }

    /// Takes over the state of another.
    pub fn restore(&mut self, params: &Params, from: &Run, of: &Params) {
        self.try_restore(params, from, of).unwrap();
    }

    pub fn try_restore(&mut self, params: &Params, from: &Run, of: &Params) -> Result<(), Error> {
        let state = from.state(of);
        self.0.restore(params, from.0.steps(), |name| state.get(name).cloned())
    }
}
