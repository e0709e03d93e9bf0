//! The global gradient norm: the guard before every step, and clipping.

use tensor::params::{Bank, Params};
use tensor::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::kernels;

/// The largest norm of gradients that is stepped by: a momentum is at most 20 times that, which f32 still holds.
const LARGEST: f64 = 1e36;

/// The sum of the squares of all gradients.
///
/// On a GPU [`GradientSquares::new`] only launches, so that it can be captured as part of a step; whenever that has run
/// again, [`GradientSquares::norm`] tells of the gradients then.
pub struct GradientSquares(Sum);

enum Sum {
    Done(f64),
    /// A number and a power of two, `[1, 2]`.
    OnDevice(Tensor),
}

impl GradientSquares {
    /// Of the gradients in the banks.
    pub fn new(params: &Params) -> Result<Self> {
        let banks = params.banks();
        let Device::Cuda(gpu) = params.device() else {
            let whole = |bank: &Bank| Ok(kernels::member_squares(&bank.grad)?.iter().sum::<f64>());
            return Ok(GradientSquares(Sum::Done(banks.iter().map(whole).sum::<Result<f64>>()?)));
        };
        let parts: Vec<u32> =
            banks.iter().map(|bank| kernels::blocks(bank.grad.numel(), kernels::SUMS)).collect();
        let all: u32 = parts.iter().sum();
        let partial = params.device().empty(&[1, all as usize, 2], DType::F32)?;
        let mut to = partial.ptr();
        for (bank, parts) in banks.iter().zip(parts) {
            kernels::partial_squares(gpu, &bank.grad, 1, parts, to)?;
            to += 8 * u64::from(parts);
        }
        Ok(GradientSquares(Sum::OnDevice(kernels::add_up(gpu, &partial)?)))
    }

    /// The norm; an error names the first weight whose gradient is not finite, or beyond 1e36. Waits for the device.
    pub fn norm(&self, params: &Params) -> Result<f64> {
        let total = match &self.0 {
            Sum::Done(total) => *total,
            Sum::OnDevice(sum) => kernels::square(&sum.to_vec()?),
        };
        let fits = |square: f64| square.sqrt() <= LARGEST;
        if fits(total) {
            return Ok(total.sqrt());
        }
        for bank in params.banks() {
            let squares = kernels::member_squares(&bank.grad)?;
            if let Some(i) = squares.iter().position(|&square| !fits(square)) {
                return Err(Error::NotFinite { weight: params.specs()[bank.members[i]].name.clone() });
            }
        }
        Ok(total.sqrt())
    }
}

/// Global L2 norm of all gradients; an error names the first weight whose gradient is not finite, or beyond 1e36.
pub fn gradient_norm(params: &Params) -> Result<f64> {
    GradientSquares::new(params)?.norm(params)
}
