//! The polynomials of `fixed`, iterated on the Gram matrix `R` of the smaller side: X itself enters only where `R` is
//! made anew, which half precision needs, after two steps.
//!
//! In bf16 a Q rounds to 2^-9 of its largest entry, which turns the singular vectors by that. Of the sets, `you` turns
//! them least (on an H100, all products by cuBLAS: asymmetry 1.1e-2 on normal entries; jordan 1.8e-2, polar-express
//! 3.4e-2, at condition 1e4 0.24, 0.30 and 0.85), hence the default. Momenta of high condition want newton-schulz (8e-3)
//! or polar.
//!
//! Polynomials in R commute only up to rounding, so which products may be computed by halves, and in which order, counts
//! (docs/performance-log.md): R of the next step as (P R) P is symmetric whatever the rounding; Q is not, and is
//! computed whole.

use tensor::Tensor;
use tensor::linalg::{self, Finish};

use super::fixed::{self, Bank};
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
            bank.apply_in_order(&q)?;
            bank.gram(&r)?;
        }
        let (first, last) = (i == 0 || restarts, i + 1 == RESTART || i + 1 == steps.len());
        // P of this step is p(R) = a I + b R + c R^2, of which Z has all but `rest` I; Q is the product of those since the
        // last start, in this order.
        let rest = if first && last {
            bank.last(&z, c, &r, &r, (b, &r), a)?
        } else {
            bank.symmetric(&z, c, &r, &r, (b, &r))?;
            a
        };
        if !first {
            bank.product(&free, &q, &z, (a, &q), last)?;
            std::mem::swap(&mut q, &mut free);
        }
        // R of the next step is (P R) P, symmetric whatever the rounding; P R is so as far as they commute.
        if !last {
            bank.symmetric(&free, 1.0, &z, &r, (a, &r))?;
            bank.symmetric(&r, 1.0, &free, &z, (a, &free))?;
        }
        if first {
            if rest != 0.0 {
                linalg::finish(&z, Finish { diagonal: rest, by: None })?;
                bank.round(&z);
            }
            std::mem::swap(&mut q, &mut z);
        }
    }
    bank.apply_in_order(&q)?;
    Ok(bank.x)
}
