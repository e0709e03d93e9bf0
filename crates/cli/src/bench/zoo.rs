//! `muon bench optim --zoo`: how exact the exact orthogonalisers are on difficult matrices.

use anyhow::bail;
use optim::ortho::{Ortho, measure};
use tensor::{DType, Device, Tensor};

use super::banks;
use crate::output::{Page, say};
use crate::progress::Work;

/// Largest orthogonality on the numerical rank, and residual.
const BOUND: f64 = 1e-5;

/// Prints a table; fails where a result is beyond [`BOUND`], or where what is not finite is not refused.
pub fn run(device: &Device) -> anyhow::Result<()> {
    let head =
        ["matrix", "method", "rank", "orthogonality", "asymmetry", "smallest eigenvalue", "residual", ""];
    let (mut rows, mut failing) = (vec![head.map(String::from)], 0);
    let matrices = matrices(device)?;
    let mut progress = Work::new("matrices", matrices.len());
    for (name, rank, x) in matrices {
        for method in ["polar", "svd"] {
            let y = Ortho::parse(method, "", 0, DType::F32)?.apply(&x)?;
            let told = measure::quality(&x.slot(0), &y.slot(0))?;
            let ok = told.projector <= BOUND && told.residual <= BOUND && told.rank == rank;
            failing += usize::from(!ok);
            rows.push([
                name.clone(),
                method.into(),
                told.rank.to_string(),
                format!("{:.1e}", told.projector),
                format!("{:.1e}", told.asymmetry),
                format!("{:.1e}", told.positivity),
                format!("{:.1e}", told.residual),
                if ok { "ok" } else { "ABOVE" }.into(),
            ]);
        }
        progress.one_more();
    }
    drop(progress);
    let mut page = Page::default();
    page.table("results", &rows)?;
    for bad in [f32::NAN, f32::INFINITY] {
        for method in ["polar", "svd"] {
            let x = device.from_slice(&[1.0, 2.0, bad, 3.0, 1.0, 1.0], &[1, 2, 3])?;
            if Ortho::parse(method, "", 0, DType::F32)?.apply(&x).is_ok() {
                bail!("{method} takes {bad}");
            }
        }
    }
    if failing == 0 {
        say("all within 1e-5; what is not finite is refused")?;
    }
    page.end()?;
    match failing {
        0 => Ok(()),
        count => bail!("{count} results are beyond 1e-5"),
    }
}

/// Names, ranks and matrices `[1, m, n]`.
fn matrices(device: &Device) -> anyhow::Result<Vec<(String, usize, Tensor)>> {
    let big = if device.is_cuda() { 768 } else { 128 };
    let mut all = Vec::new();
    for [m, n] in [[big, 2 * big], [5 * big, big], [big, big], [1, 40], [40, 1], [33, 65], [65, 33]] {
        all.push((format!("normal {m} x {n}"), m.min(n), banks::gaussian(device, [1, m, n], 1)?));
    }
    for [m, n] in [[big, 2 * big], [2 * big, big], [big, big]] {
        for condition in [1e2, 1e3, 1e4, 1e5, 1e6] {
            let x = banks::geometric(device, [1, m, n], 3, condition)?;
            all.push((format!("condition {condition:e} {m} x {n}"), big, x));
        }
    }
    let noisy = banks::spectrum(device, [1, big, 2 * big], 5, |i| if i < 9 { 1.0 } else { 1e-4 })?;
    all.push((format!("rank 9 and noise {big} x {}", 2 * big), big, noisy));
    for rank in [1, 40] {
        let x = banks::spectrum(device, [1, big, 2 * big], 7, |i| if i < rank { 1.0 } else { 0.0 })?;
        all.push((format!("rank {rank} of {big} x {}", 2 * big), rank, x));
    }
    // Rows of zeros, and rows that are equal: dead and tied neurons.
    let mut tied = banks::gaussian(device, [1, big, 2 * big], 11)?.to_vec()?;
    for i in 0..8 {
        tied[i * 2 * big..(i + 1) * 2 * big].fill(0.0);
        let source = tied[(20 + i) * 2 * big..(21 + i) * 2 * big].to_vec();
        tied[(10 + i) * 2 * big..(11 + i) * 2 * big].copy_from_slice(&source);
    }
    all.push(("dead and tied rows".into(), big - 16, device.from_slice(&tied, &[1, big, 2 * big])?));
    all.push(("zeros".into(), 0, device.zeros(&[1, 64, 96], DType::F32)?));
    for factor in [1e-30f32, 1e30] {
        let x: Vec<f32> =
            banks::gaussian(device, [1, 96, 160], 9)?.to_vec()?.iter().map(|x| 100.0 * x * factor).collect();
        all.push((format!("normal 96 x 160 times {factor:e}"), 96, device.from_slice(&x, &[1, 96, 160])?));
    }
    Ok(all)
}
