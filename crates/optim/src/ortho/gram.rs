//! The polynomials of `fixed`, iterated on the Gram matrix `R` of the smaller side: X itself enters only where `R` is
//! made anew, which half precision needs, after two steps (after three, a direction far above all others makes the rest
//! blow up).
//!
//! A step is `P = a I + b R + c R^2`, `Q <- Q P` and `R <- P R P`. In bf16 P is rounded to 2^-9 of its largest entry, on
//! the diagonal; R goes on from the P that Q took, rounded, so that it stays the Gram matrix of `Q X` and the steps that
//! follow mend what rounding did. Polynomials in R commute only up to rounding, so which products may be computed by halves
//! counts too: `(P R) P` loses least; Q is computed whole. With Q by halves asymmetry is up to three times as high, in
//! another order up to eighty times, with R made from P as it was before it was rounded up to five (benches/gram-order.py).

use tensor::Tensor;

use super::fixed::{self, Bank};
use crate::error::Result;

/// The step before which X and its Gram matrix are made anew.
const RESTART: usize = 2;

/// Result of the steps. Square matrices take the plain form, which is no dearer there.
pub(super) fn iterate(mut bank: Bank, steps: &[[f64; 3]]) -> Result<Tensor> {
    if bank.x.shape()[1] == bank.x.shape()[2] || steps.is_empty() {
        return fixed::iterate(bank, steps);
    }
    bank.plan(steps);
    let (r, mut p, mut q, mut free) = (bank.square()?, bank.square()?, bank.square()?, bank.square()?);
    bank.gram(&r)?;
    for (i, [a, b, c]) in steps.iter().map(|k| k.map(|k| k as f32)).enumerate() {
        let restarts = i == RESTART;
        if restarts {
            bank.apply_in_order(&q)?;
            bank.gram(&r)?;
        }
        let (first, last) = (i == 0 || restarts, i + 1 == RESTART || i + 1 == steps.len());
        bank.polynomial(&p, [a, b, c], &r, last)?;
        if !last {
            bank.symmetric(&free, &p, &r)?;
            bank.symmetric(&r, &free, &p)?;
        }
        if first {
            std::mem::swap(&mut q, &mut p);
        } else {
            bank.product(&free, &q, &p)?;
            std::mem::swap(&mut q, &mut free);
        }
    }
    bank.apply_in_order(&q)?;
    Ok(bank.x)
}
