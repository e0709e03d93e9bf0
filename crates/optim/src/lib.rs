//! Muon and its relatives: optimizers that step whole banks of weights at once.
//!
//! [`ALL`] lists the optimizers; a row has the name, the keys and the function that builds the rule. An
//! [`Optimizer`] claims every weight of a model for exactly one rule ([`routing`]): matrices for the rule of the
//! row, everything else for `AdamW`. Rules do no I/O and read no clock; noise comes from streams that hang on the seed,
//! the step and the weight's name.
//!
//! Muon on arrays of one's own, on the CPU:
//!
//! ```
//! use std::collections::BTreeMap;
//! use optim::{Common, Optimizer, Rates, Watch};
//! use tensor::{Device, Precision, params::{Init, ParamSpec, Params, Role}};
//!
//! // A weight [out, in] = [2, 3] and a bias, with their gradients.
//! let mut weight = vec![0.5f32; 6];
//! let mut bias = vec![0.1f32; 2];
//! let weight_grad = [1.0f32, 0.0, 0.0, 0.0, -2.0, 0.0];
//! let bias_grad = [0.3f32, -0.3];
//!
//! // Declared once: names, shapes, roles.
//! let spec = |name: &str, shape: &[usize], role| ParamSpec {
//!     name: name.into(), shape: shape.to_vec(), role, out_axis: 0, segments: vec![], init: Init::Zeros,
//! };
//! let specs = vec![spec("weight", &[2, 3], Role::Matrix), spec("bias", &[2], Role::Vector)];
//! let params = Params::new(&Device::Cpu, Precision::F32, specs)?;
//! params.set_weight(0, &weight)?;
//! params.set_weight(1, &bias)?;
//! let mut muon = Optimizer::new("muon", &BTreeMap::new(), &Common::default(), &params)?;
//!
//! // Every step: gradients in, step, weights out.
//! params.get(0).grad.copy_from_slice(&weight_grad)?;
//! params.get(1).grad.copy_from_slice(&bias_grad)?;
//! let report = muon.step(&params, Rates { matrices: 0.25, rest: 1e-3 }, Watch::Off)?;
//! weight.copy_from_slice(&params.weight(0)?);
//! bias.copy_from_slice(&params.weight(1)?);
//!
//! // The polar factor of the gradient has singular values 1, whatever the gradient's were.
//! for (w, expected) in weight.iter().zip([0.25, 0.5, 0.5, 0.5, 0.75, 0.5]) {
//!     assert!((w - expected).abs() < 1e-5);
//! }
//! assert!((bias[0] - 0.099).abs() < 1e-5);
//! assert!((report.grad_norm - 5.18f64.sqrt()).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod check;
mod diagnostics;
mod error;
mod kernels;
pub mod noise;
mod norm;
mod optimizer;
pub mod ortho;
mod pipeline;
mod quantile;
mod record;
mod rounding;
pub mod routing;
mod rows;
mod settings;
pub mod spectrum;
mod tiles;

pub use diagnostics::{Findings, Watch};
pub use error::{Error, Result};
pub use norm::{GradientSquares, gradient_norm};
pub use optimizer::{Common, Optimizer, Rates, Report};
pub use rounding::{Rounding, StateType};
pub use rows::adamw::AdamWSettings;
pub use settings::{Default, Key, Settings, Value};

use tensor::cuda::Source;

/// Kernel sources of this crate.
pub const KERNELS: &[&Source] = &[
    &kernels::SOURCE,
    &tiles::SOURCE,
    &quantile::SOURCE,
    &ortho::SOURCE,
    &ortho::FUSED,
    &noise::SOURCE,
    &spectrum::SOURCE,
];

/// One optimizer.
pub struct Row {
    /// Name in recipes, flags and reports.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// Its keys beside the shared ones, and shared ones with another default.
    own: &'static [Key],
    /// Which of a model's learning rates suits it.
    pub lr: LrHint,
    /// Bytes of state it keeps for each matrix entry, in f32.
    pub state_bytes: usize,
    /// Builds its rules.
    build: Build,
}

/// What size of learning rate suits an optimizer: what the norm of its updates at rate 1 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LrHint {
    /// Singular values of about 1.
    Spectral,
    /// A root mean square of 0.2, whatever the shape: the rates of `AdamW` suit it.
    Rms,
    /// `AdamW` itself.
    AdamW,
}

/// How a row makes the rules of a model's banks.
#[derive(Clone, Copy)]
enum Build {
    /// Matrices by a pipeline, the rest by `AdamW`.
    Matrices(fn(&Settings) -> Result<pipeline::Plan>),
    /// `AdamW` on everything.
    AdamW,
}

/// All optimizers.
pub static ALL: &[Row] = &[
    rows::muon::ROW,
    rows::nolah::ROW,
    rows::orthonoise::ROW,
    rows::isotropic::ROW,
    rows::block_muon::ROW,
    rows::block_periodic::ROW,
    rows::muon_nesterov::ROW,
    rows::moonlight::ROW,
    rows::normuon::ROW,
    rows::adamw::ROW,
];

/// The row of an optimizer.
pub fn find(name: &str) -> Result<&'static Row> {
    ALL.iter().find(|row| row.name == name).ok_or_else(|| Error::Unknown {
        name: name.to_string(),
        known: ALL.iter().map(|row| row.name).collect::<Vec<_>>().join(", "),
    })
}

impl Row {
    /// Its keys beside the learning rate: its own first, then the shared ones of all matrix rules.
    pub fn keys(&self) -> Vec<Key> {
        let shared: &[Key] = if matches!(self.build, Build::AdamW) { &[] } else { pipeline::keys::SHARED };
        let new = |key: &&Key| !shared.iter().any(|shared| shared.name == key.name);
        let changed = |key: &Key| self.own.iter().find(|own| own.name == key.name).copied().unwrap_or(*key);
        self.own.iter().filter(new).copied().chain(shared.iter().map(changed)).collect()
    }
}
