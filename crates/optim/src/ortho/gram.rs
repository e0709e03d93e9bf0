//! The polynomials of `fixed`, iterated on the Gram matrix `R` of the smaller side: X itself enters only where `R` is
//! made anew, which half precision needs, after two steps.
//!
//! In bf16 a Q rounds to 2^-9 of its largest entry, which turns the singular vectors by that. Of the sets, `you` turns
//! them least on an H100 (asymmetry 1.1e-2 on normal entries; jordan 1.8e-2, polar-express 3.4e-2, at condition 1e4
//! 0.24, 0.30 and 0.85), hence the default. Momenta of high condition want newton-schulz (8e-3) or polar.

use tensor::Tensor;

use super::fixed::{self, Bank};
use super::kernels;
use crate::error::Result;

/// The step before which X and its Gram matrix are made anew.
const RESTART: usize = 2;

/// Result of the steps. Square matrices take the plain form, which is no dearer there.
pub(super) fn iterate(mut bank: Bank, steps: &[[f64; 3]]) -> Result<Tensor> {
    if bank.x.shape()[1] == bank.x.shape()[2] || steps.is_empty() {
        return fixed::iterate(bank, steps);
    }
    let (r, mut z, mut q, mut free) = (bank.square()?, bank.square()?, bank.square()?, bank.square()?);
    bank.gram(&r)?;
    for (i, [a, b, c]) in steps.iter().map(|k| k.map(|k| k as f32)).enumerate() {
        let restarts = i == RESTART;
        if restarts {
            bank.apply(&q, 0.0)?;
            bank.gram(&r)?;
        }
        let (first, last) = (i == 0 || restarts, i + 1 == RESTART || i + 1 == steps.len());
        // Q of this step is p(R) = a I + b R + c R^2, of which Z has all but `rest` I; that of the steps since the last
        // start is their product.
        let rest = if first && last {
            bank.last(&z, c, &r, &r, (b, &r), a)?
        } else {
            bank.symmetric(&z, c, &r, &r, (b, &r))?;
            a
        };
        if !first {
            if last {
                bank.last(&free, 1.0, &q, &z, (a, &q), 0.0)?;
            } else {
                bank.symmetric(&free, 1.0, &q, &z, (a, &q))?;
            }
            std::mem::swap(&mut q, &mut free);
        }
        // R of the next step is p(R) R p(R).
        if !last {
            bank.symmetric(&free, 1.0, &r, &z, (a, &r))?;
            bank.symmetric(&r, 1.0, &z, &free, (a, &free))?;
        }
        if first {
            if rest != 0.0 {
                kernels::add_to_diagonal(&z, rest)?;
                bank.round(&z);
            }
            std::mem::swap(&mut q, &mut z);
        }
    }
    bank.apply(&q, 0.0)?;
    Ok(bank.x)
}
