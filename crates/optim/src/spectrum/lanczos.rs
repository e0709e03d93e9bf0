//! The Lanczos recurrence on the CPU: the plain form of `spectrum.cu`.

use rayon::prelude::*;
use tensor::linalg::matmul;
use tensor::random::Stream;
use tensor::{DType, Tensor};

use super::rules::{self, Member, PROBES};
use crate::error::Result;

/// The stream of the probes: fixed, so that the estimate is a function of the matrix alone.
const STREAM: u64 = 0x7370_6563;

/// Probes `[PROBES, r]` of random signs, of norm 1.
pub(super) fn probes(r: usize) -> Vec<f32> {
    let stream = Stream::new(STREAM, r as u64);
    let entry = 1.0 / (r as f32).sqrt();
    (0..PROBES * r).map(|i| if stream.uniform(i as u64) < 0.5 { -entry } else { entry }).collect()
}

/// Rules for every Gram matrix of a bank `[L, r, r]`. The vectors are not orthogonalised again: that of a converged
/// direction comes back, with its weight shared among the copies, which leaves the rule as it is.
pub(super) fn quadrature(gram: &Tensor, steps: usize) -> Result<Vec<Member>> {
    let [l, r] = [0, 1].map(|axis| gram.shape()[axis]);
    let vectors = || gram.device().zeros(&[l, PROBES, r], DType::F32);
    let (mut before, mut now, mut next) = (vectors()?, vectors()?, vectors()?);
    let probes = probes(r);
    now.write().chunks_exact_mut(PROBES * r).for_each(|member| member.copy_from_slice(&probes));
    let (mut alpha, mut beta) = (vec![0.0; l * PROBES * steps], vec![0.0; l * PROBES * steps]);
    for step in 0..steps {
        // R is symmetric: each row times R is R times that vector.
        matmul(&next, false, 1.0, &now, gram)?;
        let (v, u, mut w) = (now.read(), before.read(), next.write());
        for (i, w) in w.chunks_exact_mut(r).enumerate() {
            let (v, u, at) = (&v[i * r..][..r], &u[i * r..][..r], i * steps + step);
            let last = if step > 0 { beta[at - 1] } else { 0.0 };
            alpha[at] = w.iter().zip(v).map(|(w, v)| w * v).sum();
            w.iter_mut().zip(v.iter().zip(u)).for_each(|(w, (v, u))| *w -= alpha[at] * v + last * u);
            beta[at] = w.iter().map(|w| w * w).sum::<f32>().sqrt();
            let inverse = if beta[at] > 0.0 { 1.0 / beta[at] } else { 0.0 };
            w.iter_mut().for_each(|w| *w *= inverse);
        }
        drop((v, u, w));
        std::mem::swap(&mut before, &mut now);
        std::mem::swap(&mut now, &mut next);
    }
    let member = |(i, gram): (usize, &[f32])| {
        let trace: f64 = (0..r).map(|i| f64::from(gram[i * (r + 1)])).sum();
        let square = gram.iter().map(|&x| (f64::from(x) / trace).powi(2)).sum();
        let probe = |p: usize| {
            let at = (i * PROBES + p) * steps..(i * PROBES + p + 1) * steps;
            rules::rules(&alpha[at.clone()], &beta[at], trace, r)
        };
        let usable = trace > 0.0 && trace.is_finite();
        let rules = if usable { (0..PROBES).map(probe).collect() } else { Vec::new() };
        Member { trace, square, rules }
    };
    Ok(gram.read().par_chunks(r * r).enumerate().map(member).collect())
}
