//! Transposes of whole banks.

use rayon::prelude::*;

use crate::{DType, Device, Error, Result, Tensor};

/// Columns and rows that are moved together, so that both sides stay in the cache.
const TILE: usize = 32;

/// `[L, n, m]` from a bank `[L, m, n]` of f32: a copy with every member transposed.
pub fn transpose(x: &Tensor) -> Result<Tensor> {
    let [l, m, n] = *x.shape() else {
        return Err(Error::shape("transpose", format!("{x:?} is no bank of matrices")));
    };
    if x.dtype() != DType::F32 {
        return Err(Error::shape("transpose", format!("{x:?} is not f32")));
    }
    let y = x.device().empty(&[l, n, m], DType::F32)?;
    if y.numel() == 0 {
        return Ok(y);
    }
    match x.device() {
        Device::Cpu => {
            let x = x.read();
            y.write().par_chunks_mut(m * n).zip(x.par_chunks(m * n)).for_each(|(y, x)| {
                for (rows, cols) in
                    (0..m).step_by(TILE).flat_map(|i| (0..n).step_by(TILE).map(move |j| (i, j)))
                {
                    for j in cols..(cols + TILE).min(n) {
                        for i in rows..(rows + TILE).min(m) {
                            y[j * m + i] = x[i * n + j];
                        }
                    }
                }
            });
        }
        Device::Cuda(gpu) => cuda::transpose(gpu, x, &y, [l, m, n])?,
    }
    Ok(y)
}

pub(crate) use cuda::{SOURCE, mirror};

mod cuda {
    //! The launch of `transpose.cu`.

    use super::TILE;
    use crate::cuda::{Arg, Gpu, Source};
    use crate::{DType, Result, Tensor};

    pub(crate) static SOURCE: Source = Source { name: "transpose.cu", text: include_str!("transpose.cu") };

    pub(super) fn transpose(gpu: &Gpu, x: &Tensor, y: &Tensor, [l, m, n]: [usize; 3]) -> Result<()> {
        let blocks = |size: usize| size.div_ceil(TILE) as u32;
        let grid = [blocks(n), blocks(m).min(65_535), l.min(65_535) as u32];
        let args = [
            Arg::Ptr(x.ptr()),
            Arg::Ptr(y.ptr()),
            Arg::I64(l as i64),
            Arg::I64(m as i64),
            Arg::I64(n as i64),
        ];
        gpu.launch(&SOURCE, DType::F32, "transpose", grid, [TILE as u32, 8, 1], 0, &args)
    }

    /// Copies the lower left quarter of each member of `c [l, r, r]` over the upper right one, transposed; 64 divides r.
    pub(crate) fn mirror(gpu: &Gpu, c: &Tensor, l: usize, r: usize) -> Result<()> {
        let tiles = (r / 2 / TILE) as u32;
        let args = [Arg::Ptr(c.ptr()), Arg::I32((r / 2) as i32)];
        gpu.launch(&SOURCE, c.dtype(), "mirror", [tiles, tiles, l as u32], [TILE as u32, 8, 1], 0, &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_change_places() {
        for [l, m, n] in [[2, 3, 5], [1, 70, 33], [3, 1, 4]] {
            let values: Vec<f32> = (0..l * m * n).map(|i| i as f32).collect();
            let y = transpose(&Device::Cpu.from_slice(&values, &[l, m, n]).unwrap()).unwrap();
            assert_eq!(y.shape(), [l, n, m]);
            for (at, y) in y.read().iter().enumerate() {
                let (i, j, k) = (at / (m * n), at / m % n, at % m);
                assert_eq!(y.to_bits(), values[i * m * n + k * n + j].to_bits());
            }
        }
    }
}
