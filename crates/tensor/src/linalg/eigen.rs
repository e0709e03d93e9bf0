//! Eigenvalues of small symmetric matrices, on the host.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{Mat, MatRef, Par};
use rayon::prelude::*;

use crate::{Error, Result, Tensor};

/// Eigenvalues, ascending, of every member of a bank `[L, n, n]` of symmetric matrices of f32: `L n` numbers. They are
/// computed in f64 from the lower triangles by the host's cores, a member each; from a GPU the bank is copied.
/// Not finite input is an error.
pub fn symmetric_eigenvalues(a: &Tensor) -> Result<Vec<f64>> {
    let &[l, n, columns] = a.shape() else {
        return Err(Error::shape("eigenvalues", format!("{a:?} is no bank of matrices")));
    };
    if n != columns || l * n == 0 {
        return Err(Error::shape("eigenvalues", format!("the members of {a:?} are not square")));
    }
    let values = a.to_vec()?;
    let mut eigenvalues = vec![0.0; l * n];
    eigenvalues
        .par_chunks_mut(n)
        .zip(values.par_chunks(n * n))
        .enumerate()
        .try_for_each(|(i, (to, a))| one(i, MatRef::from_row_major_slice(a, n, n), to))?;
    Ok(eigenvalues)
}

fn one(member: usize, a: MatRef<'_, f32>, to: &mut [f64]) -> Result<()> {
    let failed = |reason: &str| Error::Linalg {
        what: "eigenvalues",
        reason: format!("matrix {member} of the bank {reason}"),
    };
    if !a.is_all_finite() {
        return Err(failed("has entries that are not finite"));
    }
    let n = a.nrows();
    let a = Mat::from_fn(n, n, |i, j| f64::from(a[(i, j)]));
    let scratch =
        self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::No, Par::Seq, faer::prelude::default());
    let mut memory = MemBuffer::new(scratch);
    let mut values = faer::Mat::<f64>::zeros(n, 1);
    let found = self_adjoint_evd(
        a.as_ref(),
        values.as_mut().col_mut(0).as_diagonal_mut(),
        None,
        Par::Seq,
        MemStack::new(&mut memory),
        faer::prelude::default(),
    );
    crate::cpu::clear_vector_state();
    found.map_err(|_| failed("has eigenvalues that did not converge"))?;
    to.iter_mut().enumerate().for_each(|(i, x)| *x = values[(i, 0)]);
    to.sort_by(f64::total_cmp);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::check::reference::singular_values;
    use crate::random::{Stream, normal};

    #[test]
    fn eigenvalues_of_a_gram_matrix_are_squares_of_singular_values() {
        for n in [1, 5, 40] {
            let a = normal(&Device::Cpu, &[Stream::new(1, 2), Stream::new(1, 3)], &[n, 2 * n], 1.0).unwrap();
            let gram = Device::Cpu.zeros(&[2, n, n], crate::DType::F32).unwrap();
            let factor = crate::linalg::Factor::from(&a);
            crate::linalg::matmul(&gram, false, 1.0, factor, factor.t()).unwrap();
            let found = symmetric_eigenvalues(&gram).unwrap();
            let a: Vec<f64> = a.read().iter().map(|&x| f64::from(x)).collect();
            for (a, found) in a.chunks(2 * n * n).zip(found.chunks(n)) {
                let want = singular_values(a, n, 2 * n);
                let scale = want[0] * want[0];
                for (found, want) in found.iter().rev().zip(&want) {
                    assert!((found - want * want).abs() < 1e-5 * scale);
                }
            }
        }
        let bad = Device::Cpu.from_slice(&[1.0, f32::INFINITY, 0.0, 1.0], &[1, 2, 2]).unwrap();
        assert!(symmetric_eigenvalues(&bad).unwrap_err().to_string().contains("matrix 0"));
    }
}
