//! QR decomposition: orthonormal bases of the columns of whole banks, computed in f64.
//!
//! CPU: Householder reflections (faer). GPU: Cholesky QR, `A^T A = R^T R`, `Q = A R^-1`, which needs a condition number
//! below about 1e7 and says so where it is not; see [`crate::cuda`].

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::householder::{
    apply_block_householder_sequence_on_the_left_in_place_scratch as apply_scratch,
    apply_block_householder_sequence_on_the_left_in_place_with_conj as apply,
};
use faer::linalg::qr::no_pivoting::factor::{qr_in_place, qr_in_place_scratch, recommended_block_size};
use faer::{Conj, Mat, MatRef, Par};
use rayon::prelude::*;

use crate::{DType, Device, Error, Result, Tensor};

/// `Q [L, m, n]` of the reduced decomposition `A = Q R` of every member of a bank `[L, m, n]` of f32, `m >= n`, with the
/// diagonal of R positive. That choice makes Q unique, and uniformly distributed (Haar) where A has independent normal
/// entries (Mezzadri 2007, arXiv math-ph/0609050).
///
/// Not finite input is an error. Of a rank-deficient member the GPU makes an error, the CPU an arbitrary completion.
pub fn qr(a: &Tensor) -> Result<Tensor> {
    let [l, m, n] = *a.shape() else {
        return Err(Error::shape("qr", format!("{a:?} is no bank of matrices")));
    };
    if m < n || n == 0 || l == 0 {
        return Err(Error::shape(
            "qr",
            format!("{a:?}: the members need a column, and a row for each; transpose"),
        ));
    }
    let q = a.device().empty(a.shape(), DType::F32)?;
    match a.device() {
        Device::Cpu => q
            .write()
            .par_chunks_mut(m * n)
            .zip(a.read().par_chunks(m * n))
            .enumerate()
            .try_for_each(|(i, (q, a))| one(i, MatRef::from_row_major_slice(a, m, n), q))?,
        Device::Cuda(gpu) => gpu.qr(a.ptr(), q.ptr(), l, m, n)?,
    }
    Ok(q)
}

/// One decomposition on the calling thread; `q` is row-major.
fn one(member: usize, a: MatRef<'_, f32>, q: &mut [f32]) -> Result<()> {
    if !a.is_all_finite() {
        let reason = format!("matrix {member} of the bank has entries that are not finite");
        return Err(Error::Linalg { what: "qr", reason });
    }
    let (m, n) = a.shape();
    let block = recommended_block_size::<f64>(m, n);
    let mut factors = Mat::from_fn(m, n, |i, j| f64::from(a[(i, j)]));
    let mut coefficients = Mat::zeros(block, n);
    let scratch = qr_in_place_scratch::<f64>(m, n, block, Par::Seq, faer::prelude::default())
        .or(apply_scratch::<f64>(m, block, n));
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    qr_in_place(factors.as_mut(), coefficients.as_mut(), Par::Seq, stack, faer::prelude::default());
    let mut basis = Mat::<f64>::identity(m, n);
    apply(factors.as_ref(), coefficients.as_ref(), Conj::No, basis.as_mut(), Par::Seq, stack);
    crate::cpu::clear_vector_state();
    for (i, row) in q.chunks_exact_mut(n).enumerate() {
        for (j, x) in row.iter_mut().enumerate() {
            *x = (basis[(i, j)] * factors[(j, j)].signum()) as f32;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::reference::orthonormal_columns;
    use crate::random::{Stream, normal};

    #[test]
    fn the_basis_is_that_of_gram_schmidt() {
        for [l, m, n] in [[3, 40, 24], [1, 70, 70], [2, 9, 1], [1, 1, 1], [1, 300, 65]] {
            let streams: Vec<Stream> = (0..l as u64).map(|i| Stream::new(5, i)).collect();
            let a = normal(&Device::Cpu, &streams, &[m, n], 1.0).unwrap();
            let q = qr(&a).unwrap();
            assert_eq!(q.shape(), [l, m, n]);
            let (a, q) = (a.read(), q.read());
            for (a, q) in a.chunks(m * n).zip(q.chunks(m * n)) {
                let a: Vec<f64> = a.iter().map(|&x| f64::from(x)).collect();
                let off = |(&q, want): (&f32, f64)| (f64::from(q) - want).abs();
                let worst = q.iter().zip(orthonormal_columns(&a, m, n)).map(off).fold(0.0, f64::max);
                assert!(worst < 1e-6, "[{m}, {n}]: {worst:.1e}");
            }
        }
    }

    #[test]
    fn what_has_no_basis_is_refused_by_name() {
        let wide = Device::Cpu.zeros(&[1, 2, 3], DType::F32).unwrap();
        assert!(qr(&wide).unwrap_err().to_string().contains("transpose"));
        let bad = Device::Cpu.from_slice(&[1.0, 2.0, 1.0, f32::NAN], &[2, 2, 1]).unwrap();
        assert!(qr(&bad).unwrap_err().to_string().contains("matrix 1"));
    }
}
