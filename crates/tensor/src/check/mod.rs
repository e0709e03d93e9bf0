//! A battery of checks over every operation, for tests and for `muon lab kernels`.
//!
//! [`cases()`] is one table over all operations and many shapes. A [`Case`] makes its inputs from a seed, runs its
//! operation forward and backward with a random gradient, twice, and compares outputs and all gradients:
//!
//! - on the CPU with [`reference`], plain loops in f64, and central differences of them;
//! - on a GPU with the CPU's f32 results. In mixed precision and in bf16 the inputs are first rounded to bf16 for both;
//!   in bf16 the gradients of matrices are bf16 too.
//!
//! Memory that an operation is about to be given is filled with NaN beforehand, so that what it leaves unwritten shows.
//! The two runs must agree in every bit.

mod case;
mod cases;
mod execute;
mod poison;
pub mod reference;
#[cfg(test)]
mod tests;

pub use case::Case;
pub use cases::{
    Masked, add_assign, attention, attention_of_fused, attention_of_large_scores, cast, conv1d_silu,
    embedding, feed_forward, gated_rms_norm, linear, linear_cross_entropy, matmul, mixer, normal, qr,
    residual, residual_norm, rms_norm, scan, scan_of_decay, svd, swiglu, symmetric, transpose,
};

use crate::{Device, Error, Precision, Result};

/// One tensor of one case, compared.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The operation.
    pub op: &'static str,
    /// Sizes and variant, such as `B2 T17 heads 4/2 dim 16`.
    pub shape: String,
    /// `y`, or `d` and the name of an input.
    pub tensor: String,
    /// Frobenius norm of the difference over that of the reference; where the reference is zero, the root mean square
    /// of what was found. NaN where anything is.
    pub error: f64,
    /// The most that `error` may be.
    pub bound: f64,
    /// Whether a second run gave the same bits.
    pub repeatable: bool,
}

impl Outcome {
    /// Within its bound and repeatable; NaN never is.
    pub fn ok(&self) -> bool {
        self.error <= self.bound && self.repeatable
    }
}

/// The cases to run on `device` whose operation's name contains `filter`.
///
/// On the CPU those whose plain-loop reference is affordable and, since there is nothing to compare with f64 there, not
/// those of a model's full sizes.
pub fn cases(device: &Device, filter: Option<&str>) -> Vec<Case> {
    let mut cases = cases::small();
    if device.is_cuda() {
        cases.extend(cases::full_size());
    }
    cases.retain(|case| filter.is_none_or(|filter| case.op().contains(filter)));
    cases
}

/// Runs [`cases()`] in order. The CPU computes in f32 only.
pub fn run(device: &Device, precision: Precision, filter: Option<&str>) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for case in cases(device, filter) {
        outcomes.extend(case.check(device, precision)?);
    }
    Ok(outcomes)
}

/// Bounds of the relative error. f32 has 24 bits and sums of a few hundred terms here; bf16 has 8 bits, and a result in
/// it is off by 2^-9 at least, a gradient that went through several roundings by a few times that.
fn bound(precision: Precision, gradient: bool) -> f64 {
    match (precision, gradient) {
        (Precision::F32, false) => 2e-5,
        (Precision::F32, true) => 1e-4,
        (Precision::Mixed | Precision::Bf16, false) => 1e-2,
        (Precision::Mixed | Precision::Bf16, true) => 2e-2,
    }
}

fn refuse(device: &Device, precision: Precision) -> Result<()> {
    match (device, precision) {
        (Device::Cpu, Precision::Mixed | Precision::Bf16) => {
            Err(Error::shape("check", "the CPU computes in f32 only; use --precision f32 or --device cuda"))
        }
        _ => Ok(()),
    }
}
