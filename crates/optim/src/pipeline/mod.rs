//! The matrix rule as one pipeline whose stages a row plugs in or leaves out:
//!
//! ```text
//! gate(G) -> momentum -> momentum scale -> Nesterov -> noise -> projection
//!         -> orthogonalise (whole, in blocks, or periodic) -> neuron norm -> shape scale -> weight decay -> apply
//! ```
//!
//! A [`Plan`] says which; [`Plan::rule`] makes the rule of one bank. Element-wise stages work on whole banks; what
//! looks at a matrix as such (noise, orthogonaliser, shape scale) works on the units that the routing cuts out of it.

pub(crate) mod keys;
mod noise;
mod shape_scale;
mod step;

use tensor::params::{Bank, ParamSpec};
use tensor::{DType, Tensor};

pub(crate) use noise::{KEYS as NOISE_KEYS, Noise};
pub(crate) use shape_scale::Scale;

use crate::error::Result;
use crate::kernels::Gate;
use crate::ortho::Ortho;
use crate::rounding::StateType;
use crate::routing::{Route, Split};
use crate::settings::Settings;
use crate::tiles::Lattice;

/// The stages of a row, with their settings.
pub(crate) struct Plan {
    pub route: Route,
    pub split: Split,
    pub gate: Gate,
    pub momentum: f32,
    /// Weight of the gradient as it enters the buffer.
    pub gradient_weight: f32,
    pub momentum_scale: Option<MomentumScale>,
    pub nesterov: bool,
    pub noise: Option<Noise>,
    /// Projection `x sigmoid(x)` before the orthogonaliser.
    pub self_gate: bool,
    pub ortho: OrthoPlan,
    pub blocks: Option<Blocks>,
    pub neurons: Option<Neurons>,
    pub scale: Scale,
    pub weight_decay: f32,
}

/// Scales the buffer by `factor` where the gradient's magnitude exceeds its `quantile`.
pub(crate) struct MomentumScale {
    pub quantile: f64,
    pub factor: f32,
}

/// Orthogonalises tiles of side `size` instead of whole matrices.
pub(crate) struct Blocks {
    pub size: usize,
    /// Whole matrices in the first step of every so many; 0: never.
    pub period: usize,
    /// Learning rate of the steps in tiles, in units of the others'.
    pub rate_ratio: f32,
    /// Whether the shape scale is that of the tile; else that of the matrix.
    pub scale_by_tile: bool,
}

/// Divides each neuron's update by the root of its running mean square, and gives the whole a root mean square of 0.2.
pub(crate) struct Neurons {
    pub beta: f32,
    pub eps: f32,
}

/// The orthogonaliser as given.
pub(crate) struct OrthoPlan {
    method: String,
    coefficients: String,
    steps: usize,
    dtype: DType,
}

impl OrthoPlan {
    /// Whether the method tells rank-deficient matrices.
    pub fn finds_ranks(&self) -> bool {
        matches!(&*self.method, "polar" | "svd")
    }

    fn build(&self) -> Result<Ortho> {
        Ortho::parse(&self.method, &self.coefficients, self.steps, self.dtype)
    }
}

impl Plan {
    /// Baseline Muon with the shared keys of `settings`.
    pub fn shared(settings: &Settings) -> Result<Self> {
        if settings.word("ortho") == "jordan-bf16" && settings.word("ortho_dtype") == "f32" {
            return Err(
                settings.refuse("ortho_dtype", "has no effect on jordan-bf16; take newton-schulz for f32")
            );
        }
        let ortho = OrthoPlan {
            method: settings.word("ortho").to_string(),
            coefficients: settings.word("coefficients").to_string(),
            steps: settings.count("ortho_steps"),
            dtype: if settings.word("ortho_dtype") == "f32" { DType::F32 } else { DType::BF16 },
        };
        ortho.build()?;
        let momentum = settings.number("momentum");
        if momentum >= 1.0 {
            return Err(settings.refuse("momentum", "must be below 1"));
        }
        Ok(Plan {
            route: Route::parse(settings.word("route")),
            split: Split::parse(settings.word("split")),
            gate: Gate::None,
            momentum,
            gradient_weight: 1.0,
            momentum_scale: None,
            nesterov: settings.switch("nesterov"),
            noise: None,
            self_gate: false,
            ortho,
            blocks: None,
            neurons: None,
            scale: Scale::parse(settings.word("scale")),
            weight_decay: settings.number("weight_decay"),
        })
    }

    /// The rule of one bank, whose members are declared as `spec` is.
    pub fn rule(self, bank: &Bank, spec: &ParamSpec, state: StateType) -> Result<MatrixRule> {
        let device = bank.weight.device();
        let moments = match self.neurons {
            Some(_) => Some(device.zeros(&[bank.members.len(), bank.shape[bank.out_axis]], DType::F32)?),
            None => None,
        };
        Ok(MatrixRule {
            units: self.split.units(spec)?,
            ortho: self.ortho.build()?,
            buffer: device.zeros(bank.grad.shape(), state.stored(device))?,
            moments,
            plan: self,
        })
    }
}

/// The pipeline on one bank, with its state.
pub(crate) struct MatrixRule {
    plan: Plan,
    units: Vec<Lattice>,
    ortho: Ortho,
    /// f32, or bf16 where state is kept so on a GPU.
    buffer: Tensor,
    /// Mean squares of the neurons, `[L, out]`.
    moments: Option<Tensor>,
}
