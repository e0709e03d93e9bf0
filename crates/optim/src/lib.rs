//! Muon and its relatives: optimizers that step whole banks of weights at once.
//!
//! [`ALL`] lists the optimizers; a row has the name, the keys and the function that builds the rule. An
//! [`Optimizer`] claims every weight of a model for exactly one rule ([`routing`]): matrices for the rule of the
//! row, everything else for AdamW. Rules do no I/O and read no clock.
//!
//! ```
//! use std::collections::BTreeMap;
//! use optim::{AdamWSettings, Optimizer, Rates};
//! use tensor::{Device, Precision, params::{Init, ParamSpec, Params, Role}};
//!
//! let weight = ParamSpec {
//!     name: "w".into(),
//!     shape: vec![2, 3],
//!     role: Role::Matrix,
//!     out_axis: 0,
//!     segments: vec![],
//!     init: Init::Zeros,
//! };
//! let params = Params::new(&Device::Cpu, Precision::F32, vec![weight])?;
//! params.banks()[0].grad.copy_from_slice(&[1.0, 0.0, 0.0, 0.0, -2.0, 0.0])?;
//! let mut muon = Optimizer::new("muon", &BTreeMap::new(), &AdamWSettings::default(), &params)?;
//! muon.step(&params, Rates { matrices: 0.5, rest: 1e-3 })?;
//! // The polar factor of the gradient has singular values 1, whatever the gradient's were.
//! let w = params.weight(0)?;
//! assert!((w[0] + 0.5).abs() < 1e-5 && (w[4] - 0.5).abs() < 1e-5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adamw;
mod error;
mod kernels;
mod muon;
mod norm;
mod optimizer;
pub mod ortho;
pub mod routing;
mod settings;

pub use adamw::AdamWSettings;
pub use error::{Error, Result};
pub use kernels::KERNELS;
pub use norm::gradient_norm;
pub use optimizer::{Optimizer, Rates, Rule};
pub use settings::{Default, Key, Settings, Value};

use tensor::params::Bank;

/// One optimizer.
pub struct Row {
    /// Name in recipes and flags.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// Its keys beside the learning rate.
    pub keys: &'static [Key],
    /// Bytes of state it keeps for each matrix entry.
    pub state_bytes: usize,
    /// Which weights go to its rule.
    route: routing::Route,
    /// Builds the rule for one bank.
    build: fn(&Settings, &AdamWSettings, &Bank) -> Result<Box<dyn Rule>>,
}

/// All optimizers.
pub static ALL: &[Row] = &[muon::ROW, adamw::ROW];

/// The row of an optimizer.
pub fn find(name: &str) -> Result<&'static Row> {
    ALL.iter().find(|row| row.name == name).ok_or_else(|| Error::Unknown {
        name: name.to_string(),
        known: ALL.iter().map(|row| row.name).collect::<Vec<_>>().join(", "),
    })
}
