//! The exact polar factor on the CPU: one member at a time, all in f32.
//!
//! The first phase is iterated on R alone, X being multiplied once by the product of its Qs. That rounds X as if it had
//! been multiplied 25-fold, which well-conditioned matrices, done after it, do not show; later phases go step by step.

use rayon::prelude::*;
use tensor::linalg::{self, Factor, Finish};
use tensor::{DType, Device, Tensor};

use super::schedule::PURIFY;
use super::{Iterate, converge};
use crate::error::Result;
use crate::kernels::sum_of_squares;
use crate::ortho::kernels;
use crate::ortho::not_finite;

/// The polar factors of a bank `[L, m, n]`, and how many members were rank-deficient.
pub(super) fn factor(input: &Tensor) -> Result<(Tensor, usize)> {
    let out = Device::Cpu.empty(input.shape(), DType::F32)?;
    let (x, [m, n]) = (input.read(), [input.shape()[1], input.shape()[2]]);
    let deficient = out
        .write()
        .par_chunks_mut(m * n)
        .zip(x.par_chunks(m * n))
        .enumerate()
        .map(|(i, (out, x))| {
            let largest = kernels::largest_of(x);
            if !largest.is_finite() {
                return Err(not_finite(i));
            }
            if largest == 0.0 {
                out.fill(0.0);
                return Ok(0);
            }
            let mut member = Member::new(x, [1, m, n], largest)?;
            let deficient = converge(&mut member)?;
            out.copy_from_slice(&member.x.read());
            Ok(deficient)
        })
        .try_reduce(|| 0, |a, b| Ok(a + b))?;
    Ok((out, deficient))
}

/// One matrix, as a bank `[1, m, n]`.
struct Member {
    x: Tensor,
    next: Tensor,
    wide: bool,
    /// Factor by which X still has to be multiplied, in the first phase.
    scale: f32,
    started: bool,
    r: Tensor,
    /// Room for three more of R's size; the first is R^2 at the start.
    room: [Tensor; 3],
}

impl Member {
    fn new(values: &[f32], shape: [usize; 3], largest: f32) -> Result<Self> {
        let [_, m, n] = shape;
        let empty = |shape: &[usize]| Device::Cpu.empty(shape, DType::F32);
        let (rank, x) = (m.min(n), empty(&shape)?);
        let square = || empty(&[1, rank, rank]);
        // A power of two leaves every bit in place.
        let power = kernels::power_below(largest);
        x.write().iter_mut().zip(values).for_each(|(y, x)| *y = x / power);
        let mut member = Member {
            x,
            next: empty(&shape)?,
            wide: m <= n,
            scale: 1.0,
            started: false,
            r: square()?,
            room: [square()?, square()?, square()?],
        };
        member.gram()?;
        let first = norm(&member.r, 0.0);
        multiply(&member.r, (1.0 / first) as f32);
        linalg::symmetric(&member.room[0], 1.0, &member.r, &member.r, None)?;
        let second = norm(&member.room[0], 0.0).sqrt();
        multiply(&member.r, (1.0 / second) as f32);
        multiply(&member.room[0], (1.0 / second / second) as f32);
        member.scale = (1.0 / (first * second).sqrt()) as f32;
        Ok(member)
    }

    fn gram(&self) -> Result<()> {
        let x = Factor::from(&self.x);
        if self.wide {
            linalg::symmetric(&self.r, 1.0, x, x.t(), None)?;
        } else {
            linalg::symmetric(&self.r, 1.0, x.t(), x, None)?;
        }
        Ok(())
    }

    /// `X = Q X`, or `X = X + Q X`.
    fn apply(&mut self, q: &Tensor, add: bool) -> Result<()> {
        let (left, right) = if self.wide { (q, &self.x) } else { (&self.x, q) };
        if add {
            linalg::affine(&self.next, 1.0, left, right, 1.0, &self.x)?;
        } else {
            linalg::matmul(&self.next, false, self.scale, left, right)?;
            self.scale = 1.0;
        }
        std::mem::swap(&mut self.x, &mut self.next);
        Ok(())
    }
}

impl Member {
    /// Several steps on R, then `X = Q X`.
    fn together(&mut self, steps: &[[f64; 3]], squared: bool) -> Result<()> {
        let [mut z, mut q, mut t] = self.room.clone();
        for (i, [a, b, c]) in steps.iter().map(|k| k.map(|k| k as f32)).enumerate() {
            if squared && i == 0 {
                z.write().iter_mut().zip(self.r.read().iter()).for_each(|(z, r)| *z = c * *z + b * r);
            } else {
                linalg::symmetric(&z, c, &self.r, &self.r, Some((b, &self.r)))?;
            }
            if i > 0 {
                linalg::symmetric(&t, 1.0, &q, &z, Some((a, &q)))?;
                std::mem::swap(&mut q, &mut t);
            }
            if i + 1 < steps.len() {
                linalg::symmetric(&t, 1.0, &self.r, &z, Some((a, &self.r)))?;
                linalg::symmetric(&self.r, 1.0, &z, &t, Some((a, &t)))?;
            }
            if i == 0 {
                linalg::finish(&z, Finish { diagonal: a, ..Finish::default() })?;
                std::mem::swap(&mut q, &mut z);
            }
        }
        self.apply(&q, false)?;
        self.gram()
    }
}

impl Iterate for Member {
    fn steps(&mut self, steps: &[[f64; 3]]) -> Result<()> {
        if !self.started {
            self.started = true;
            return self.together(steps, true);
        }
        steps.chunks(1).try_for_each(|step| self.together(step, false))
    }

    fn distances(&mut self) -> Result<Vec<f64>> {
        Ok(vec![norm(&self.r, 1.0)])
    }

    fn polish(&mut self) -> Result<()> {
        let q = self.room[0].clone();
        linalg::finish(&self.r, Finish { diagonal: -1.0, ..Finish::default() })?;
        linalg::symmetric(&q, 0.375, &self.r, &self.r, Some((-0.5, &self.r)))?;
        self.apply(&q, true)
    }

    fn purify(&mut self) -> Result<Vec<f64>> {
        let [_, b, c] = PURIFY;
        let z = self.room[0].clone();
        linalg::symmetric(&z, c as f32, &self.r, &self.r, Some((b as f32, &self.r)))?;
        // Z = b R + c R^2 with b + c = 1, so Z - R = c (R^2 - R).
        let square = |(z, r): (&f32, &f32)| f64::from(z - r).powi(2);
        let off = z.read().iter().zip(self.r.read().iter()).map(square).sum::<f64>().sqrt() / -c;
        self.apply(&z, false)?;
        self.gram()?;
        Ok(vec![off])
    }

    fn rank(&self) -> usize {
        self.r.cols()
    }
}

/// `norm_F(R - diagonal I)`.
fn norm(r: &Tensor, diagonal: f32) -> f64 {
    let squares = |(i, row): (usize, &[f32])| {
        let (left, right) = (&row[..i], &row[i + 1..]);
        sum_of_squares(left) + f64::from(row[i] - diagonal).powi(2) + sum_of_squares(right)
    };
    r.read().chunks_exact(r.cols()).enumerate().map(squares).sum::<f64>().sqrt()
}

fn multiply(r: &Tensor, factor: f32) {
    r.write().iter_mut().for_each(|x| *x *= factor);
}
