//! Norms of gradients: what guards and diagnostics read.

use tensor::params::Params;

use crate::error::Result;
use crate::kernels;

/// Global L2 norm of all gradients; not finite if any entry is not.
pub fn gradient_norm(params: &Params) -> Result<f64> {
    let partials =
        params.banks().iter().map(|bank| kernels::partial_squares(&bank.grad)).collect::<Result<Vec<_>>>()?;
    let mut total = 0.0;
    for partial in partials {
        total += partial.to_vec()?.iter().map(|&x| f64::from(x)).sum::<f64>();
    }
    Ok(total.sqrt())
}
