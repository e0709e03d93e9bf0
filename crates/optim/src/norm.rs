//! The global gradient norm: the guard before every step, and clipping.

use tensor::Device;
use tensor::params::{Bank, Params};

use crate::error::{Error, Result};
use crate::kernels;

/// The largest norm of gradients that is stepped by: a momentum is at most 20 times that, which f32 still holds.
const LARGEST: f64 = 1e36;

/// Global L2 norm of all gradients; an error names the first weight whose gradient is not finite, or beyond 1e36.
pub fn gradient_norm(params: &Params) -> Result<f64> {
    let banks = params.banks();
    let squares: Vec<f64> = match params.device() {
        Device::Cpu => banks.iter().map(whole).collect::<Result<_>>()?,
        Device::Cuda(_) => {
            // All sums are started before the first is waited for.
            let parts =
                banks.iter().map(|bank| kernels::start_squares(&bank.grad, 1)).collect::<Result<Vec<_>>>()?;
            parts.iter().map(|part| Ok(kernels::add_squares(&part.to_vec()?))).collect::<Result<_>>()?
        }
    };
    let total: f64 = squares.iter().sum();
    let fits = |square: f64| square.sqrt() <= LARGEST;
    if fits(total) {
        return Ok(total.sqrt());
    }
    for bank in banks {
        let squares = kernels::member_squares(&bank.grad)?;
        if let Some(i) = squares.iter().position(|&square| !fits(square)) {
            return Err(Error::NotFinite { weight: params.specs()[bank.members[i]].name.clone() });
        }
    }
    Ok(total.sqrt())
}

fn whole(bank: &Bank) -> Result<f64> {
    Ok(kernels::member_squares(&bank.grad)?.iter().sum())
}
