//! Thin singular value decomposition of f32: faer, in f64, on the CPU, cuSOLVER on the GPU.

use faer::MatRef;
use rayon::prelude::*;

use crate::tensor::Storage;
use crate::{DType, Device, Error, Result, Tensor};

/// `A = U diag(S) V^T`, with `r = min(m, n)`.
pub struct Svd {
    /// `[L, m, r]`.
    pub u: Tensor,
    /// `[L, r]`, descending.
    pub s: Tensor,
    /// `[L, r, n]`.
    pub vt: Tensor,
}

/// Thin SVD of every member of a bank `[L, m, n]` of f32. Not finite input and failed convergence are errors.
pub fn svd(a: &Tensor) -> Result<Svd> {
    let [l, m, n] = *a.shape() else {
        return Err(Error::shape("svd", format!("{a:?} is no bank of matrices")));
    };
    let r = m.min(n);
    let gpu = match a.device() {
        Device::Cuda(gpu) => gpu,
        Device::Cpu => return svd_cpu(a, [l, m, n]),
    };
    let parts = gpu.svd(a.ptr(), l, m, n)?;
    let tensor =
        |buf, shape: &[usize]| Tensor::whole(a.device().clone(), Storage::Cuda(buf), shape, DType::F32);
    Ok(Svd { u: tensor(parts.u, &[l, m, r]), s: tensor(parts.s, &[l, r]), vt: tensor(parts.vt, &[l, r, n]) })
}

fn svd_cpu(a: &Tensor, [l, m, n]: [usize; 3]) -> Result<Svd> {
    let r = m.min(n);
    let u = Device::Cpu.empty(&[l, m, r], DType::F32)?;
    let s = Device::Cpu.empty(&[l, r], DType::F32)?;
    let vt = Device::Cpu.empty(&[l, r, n], DType::F32)?;
    u.write()
        .par_chunks_mut(m * r)
        .zip(s.write().par_chunks_mut(r))
        .zip(vt.write().par_chunks_mut(r * n))
        .zip(a.read().par_chunks(m * n))
        .try_for_each(|(((u, s), vt), a)| one(MatRef::from_row_major_slice(a, m, n), u, s, vt))?;
    Ok(Svd { u, s, vt })
}

/// One decomposition on the calling thread; `u`, `s`, `vt` are row-major.
fn one(a: MatRef<'_, f32>, u: &mut [f32], s: &mut [f32], vt: &mut [f32]) -> Result<()> {
    if !a.is_all_finite() {
        return Err(Error::Linalg {
            what: "svd",
            reason: "the matrix has entries that are not finite".into(),
        });
    }
    // faer's decomposition in f32 loses small singular values (41 of 768 at condition 1e4), so it is made in f64.
    let decomposition = faer::Mat::from_fn(a.nrows(), a.ncols(), |i, j| f64::from(a[(i, j)])).thin_svd();
    crate::cpu::clear_vector_state();
    let decomposition =
        decomposition.map_err(|_| Error::Linalg { what: "svd", reason: "it did not converge".into() })?;
    let fill = |to: &mut [f32], from: MatRef<'_, f64>| {
        for (i, row) in to.chunks_exact_mut(from.ncols()).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, x)| *x = from[(i, j)] as f32);
        }
    };
    fill(u, decomposition.U());
    fill(vt, decomposition.V().transpose());
    let values = decomposition.S().column_vector();
    s.iter_mut().enumerate().for_each(|(i, s)| *s = values[i] as f32);
    Ok(())
}

/// `U_r V_r^T` of every matrix of `[L, m, n]` in f64 on the host, rounded once; directions with `s <= 4 eps s_max` (1e-15)
/// are dropped. The reference for what is computed in f32.
pub fn polar_f64(a: &[f32], shape: &[usize]) -> Result<Vec<f32>> {
    let &[_, m, n] = shape else {
        return Err(Error::shape("polar_f64", format!("{shape:?} is no bank of matrices")));
    };
    let mut out = vec![0.0; a.len()];
    out.par_chunks_mut(m * n).zip(a.par_chunks(m * n)).try_for_each(|(out, a)| {
        let failed = |reason: &str| Error::Linalg { what: "svd", reason: reason.into() };
        let a = faer::Mat::from_fn(m, n, |i, j| f64::from(a[i * n + j]));
        if !a.is_all_finite() {
            return Err(failed("the matrix has entries that are not finite"));
        }
        let parts = a.thin_svd().map_err(|_| failed("it did not converge"))?;
        let s = parts.S().column_vector();
        let kept = (0..m.min(n)).take_while(|&i| s[i] > 4.0 * f64::EPSILON * s[0]).count();
        let factor = parts.U().subcols(0, kept) * parts.V().subcols(0, kept).transpose();
        crate::cpu::clear_vector_state();
        out.iter_mut().enumerate().for_each(|(i, x)| *x = factor[(i / n, i % n)] as f32);
        Ok(())
    })?;
    Ok(out)
}
