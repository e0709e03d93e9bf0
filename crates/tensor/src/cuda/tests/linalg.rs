//! Products and decompositions against plain loops; each passes, and says so, where there is no GPU.

use super::{download, gpu, largest_difference, noise, to_bytes, upload};
use crate::cuda::{DeviceBuf, Gemm, Operand};
use crate::device::DType;
use crate::error::Result;

#[test]
fn on_a_gpu_products_agree_with_plain_loops() -> Result<()> {
    let Some(gpu) = gpu("on_a_gpu_products_agree_with_plain_loops") else {
        return Ok(());
    };
    let (m, n, k, batch, pad) = (37, 53, 29, 3, 5);
    for flags in 0..8 {
        let [ta, tb, tc] = [1, 2, 4].map(|bit| flags & bit != 0);
        // Each operand is a slice of columns of a wider matrix.
        let operand =
            |rows: usize, cols: usize, transposed: bool, seed| -> Result<(Vec<f32>, DeviceBuf, Operand)> {
                let (r, c) = if transposed { (cols, rows) } else { (rows, cols) };
                let values = noise(batch * r * (c + pad), seed);
                let buf = upload(&gpu, &values)?;
                let (ld, stride) = (c + pad, r * (c + pad));
                let operand = Operand { ptr: buf.ptr() + 8, ld, stride, transposed, dtype: DType::F32 };
                Ok((values, buf, operand))
            };
        let place = |o: &Operand, i: usize, row: usize, col: usize| {
            let (row, col) = if o.transposed { (col, row) } else { (row, col) };
            2 + i * o.stride + row * o.ld + col
        };
        let (av, _abuf, a) = operand(m, k, ta, 4)?;
        let (bv, _bbuf, b) = operand(k, n, tb, 5)?;
        let (cv, cbuf, c) = operand(m, n, tc, 6)?;
        let gemm = Gemm { m, n, k, alpha: 0.5, beta: -2.0, a, b, c, batch };
        gpu.gemm(&gemm)?;
        // What lies between the slice's rows must stay.
        let mut want = cv.clone();
        for (i, row, col) in (0..batch * m * n).map(|x| (x / (m * n), x / n % m, x % n)) {
            let product = |x| f64::from(av[place(&a, i, row, x)]) * f64::from(bv[place(&b, i, x, col)]);
            let old = &mut want[place(&c, i, row, col)];
            *old = (0.5 * (0..k).map(product).sum::<f64>() - 2.0 * f64::from(*old)) as f32;
        }
        let off = largest_difference(&download(&gpu, cbuf.ptr(), cv.len())?, &want);
        assert!(off < 1e-5, "{ta} {tb} {tc}: off by {off}");
    }
    Ok(())
}

#[test]
fn on_a_gpu_products_with_a_summand_agree_with_plain_loops_and_leave_it() -> Result<()> {
    let Some(gpu) = gpu("on_a_gpu_products_with_a_summand_agree_with_plain_loops_and_leave_it") else {
        return Ok(());
    };
    for (m, n, k, batch) in [(37, 53, 29, 3), (64, 128, 96, 2), (1, 5, 7, 1)] {
        for flags in 0..4 {
            let [ta, tb] = [1, 2].map(|bit| flags & bit != 0);
            let operand = |buf: &DeviceBuf, rows: usize, cols: usize, transposed| {
                let ld = if transposed { rows } else { cols };
                Operand { ptr: buf.ptr(), ld, stride: rows * cols, transposed, dtype: DType::F32 }
            };
            let [av, bv, cv] = [m * k, k * n, m * n].map(|size| noise(batch * size, (7 * size) as u64));
            let (a, b, c) = (upload(&gpu, &av)?, upload(&gpu, &bv)?, upload(&gpu, &cv)?);
            let d = gpu.alloc(4 * batch * m * n)?;
            let (oa, ob) = (operand(&a, m, k, ta), operand(&b, k, n, tb));
            let (oc, od) = (operand(&c, m, n, false), operand(&d, m, n, false));
            gpu.gemm_plus(&Gemm { m, n, k, alpha: 0.5, beta: -2.0, a: oa, b: ob, c: od, batch }, oc)?;
            let at = |l: usize, row: usize, col: usize, size: [usize; 2], turned: bool| {
                l * size[0] * size[1] + if turned { col * size[0] + row } else { row * size[1] + col }
            };
            let entry = |i: usize| {
                let (l, row, col) = (i / (m * n), i / n % m, i % n);
                let term =
                    |x| f64::from(av[at(l, row, x, [m, k], ta)]) * f64::from(bv[at(l, x, col, [k, n], tb)]);
                (0.5 * (0..k).map(term).sum::<f64>() - 2.0 * f64::from(cv[i])) as f32
            };
            let want: Vec<f32> = (0..batch * m * n).map(entry).collect();
            let off = largest_difference(&download(&gpu, d.ptr(), want.len())?, &want);
            assert!(off < 1e-5, "{m} {n} {k} {ta} {tb}: off by {off}");
            assert_eq!(download(&gpu, c.ptr(), cv.len())?, cv);
            // In place too.
            gpu.gemm_plus(&Gemm { m, n, k, alpha: 0.5, beta: -2.0, a: oa, b: ob, c: oc, batch }, oc)?;
            let off = largest_difference(&download(&gpu, c.ptr(), want.len())?, &want);
            assert!(off < 1e-5, "{m} {n} {k} {ta} {tb} in place: off by {off}");
        }
    }
    Ok(())
}

/// The upper halves of f32, and the f32 that they stand for.
fn to_bf16(values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let halves = values.iter().map(|value| (value.to_bits() >> 16) as u16);
    let bytes = halves.clone().flat_map(u16::to_le_bytes).collect();
    (bytes, halves.map(|half| f32::from_bits(u32::from(half) << 16)).collect())
}

#[test]
fn on_a_gpu_bf16_products_sum_in_f32_and_repeat_bit_for_bit() -> Result<()> {
    let Some(gpu) = gpu("on_a_gpu_bf16_products_sum_in_f32_and_repeat_bit_for_bit") else {
        return Ok(());
    };
    let (m, n, k) = (64, 72, 4096);
    let factor = |count, seed| -> Result<(Vec<f32>, DeviceBuf)> {
        let (bytes, values) = to_bf16(&noise(count, seed));
        let buf = gpu.alloc(bytes.len())?;
        gpu.upload(buf.ptr(), &bytes)?;
        Ok((values, buf))
    };
    let ((av, a), (bv, b)) = (factor(m * k, 7)?, factor(k * n, 8)?);
    let operand =
        |buf: &DeviceBuf, ld, dtype| Operand { ptr: buf.ptr(), ld, stride: 0, transposed: false, dtype };
    let run = |dtype| -> Result<DeviceBuf> {
        let c = gpu.alloc(4 * m * n)?;
        let (a, b) = (operand(&a, k, DType::BF16), operand(&b, n, DType::BF16));
        gpu.gemm(&Gemm { m, n, k, alpha: 1.0, beta: 0.0, a, b, c: operand(&c, n, dtype), batch: 1 })?;
        Ok(c)
    };
    let exact = |row: usize, col: usize| -> f64 {
        (0..k).map(|x| f64::from(av[row * k + x]) * f64::from(bv[x * n + col])).sum()
    };
    let want: Vec<f32> = (0..m * n).map(|i| exact(i / n, i % n) as f32).collect();
    let wide = download(&gpu, run(DType::F32)?.ptr(), m * n)?;
    assert!(largest_difference(&wide, &want) < 1e-3);
    assert_eq!(to_bytes(&wide), to_bytes(&download(&gpu, run(DType::F32)?.ptr(), m * n)?));
    let mut bytes = vec![0; 2 * m * n];
    gpu.download(&mut bytes, run(DType::BF16)?.ptr())?;
    let narrow: Vec<f32> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|half| f32::from_bits(u32::from(u16::from_le_bytes(*half)) << 16))
        .collect();
    // One rounding: half of the last of 8 bits.
    let off = narrow.iter().zip(&want).map(|(a, b)| (a - b).abs() / (b.abs() + 0.1)).fold(0.0, f32::max);
    assert!(off < 1.0 / 250.0, "{off}");
    Ok(())
}

#[test]
fn on_a_gpu_factors_multiply_back_and_are_orthonormal() -> Result<()> {
    let Some(gpu) = gpu("on_a_gpu_factors_multiply_back_and_are_orthonormal") else {
        return Ok(());
    };
    for (m, n) in [(1, 1), (24, 24), (17, 40), (40, 17), (1, 9), (9, 1)] {
        let (batch, r) = (2, m.min(n));
        let values = noise(batch * m * n, (m * 100 + n) as u64);
        let a = upload(&gpu, &values)?;
        let svd = gpu.svd(a.ptr(), batch, m, n)?;
        assert_eq!((svd.rank, download(&gpu, a.ptr(), values.len())?), (r, values.clone()), "A is unchanged");
        let u = download(&gpu, svd.u.ptr(), batch * m * r)?;
        let s = download(&gpu, svd.s.ptr(), batch * r)?;
        let vt = download(&gpu, svd.vt.ptr(), batch * r * n)?;
        for i in 0..batch {
            let (u, s, vt) = (&u[i * m * r..], &s[i * r..][..r], &vt[i * r * n..]);
            assert!(s.is_sorted_by(|a, b| a >= b) && s[r - 1] >= 0.0, "{s:?}");
            for (row, a) in values[i * m * n..][..m * n].chunks(n).enumerate() {
                for (col, a) in a.iter().enumerate() {
                    let back: f32 = (0..r).map(|x| u[row * r + x] * s[x] * vt[x * n + col]).sum();
                    assert!((a - back).abs() < 1e-5, "[{m}, {n}] at {row}, {col}: {a} {back}");
                }
            }
            for x in 0..r {
                for y in 0..r {
                    let one = f32::from(u8::from(x == y));
                    let columns: f32 = (0..m).map(|row| u[row * r + x] * u[row * r + y]).sum();
                    let rows: f32 = (0..n).map(|col| vt[x * n + col] * vt[y * n + col]).sum();
                    assert!((columns - one).abs() < 1e-5 && (rows - one).abs() < 1e-5);
                }
            }
        }
    }
    let bad = upload(&gpu, &[1.0, 2.0, 3.0, 4.0, 1.0, f32::NAN, 0.0, 1.0])?;
    let message = gpu.svd(bad.ptr(), 2, 2, 2).unwrap_err().to_string();
    assert!(message.contains("matrix 1"), "{message}");
    Ok(())
}
