//! Launches of `spectrum.cu`.

use std::sync::Arc;

use tensor::cuda::{Arg, Gpu, Source};
use tensor::{DType, Device, Tensor};

use super::lanczos::probes;
use super::rules::{Member, Node, PROBES, RULES};
use crate::error::Result;

pub(crate) static SOURCE: Source = Source { name: "spectrum.cu", text: include_str!("spectrum.cu") };

/// Blocks that look for the largest entry of one member.
const BLOCKS: usize = 64;
/// Rows of the Gram matrix that a block multiplies.
const ROWS: usize = 32;

/// A bank divided by the largest entries of its members, in bf16: what that rounds away are singular values below 1e-4
/// of the largest.
pub(super) fn scaled(gpu: &Gpu, x: &Tensor) -> Result<Tensor> {
    let l = x.shape()[0];
    let (y, maxima) =
        (x.device().empty(x.shape(), DType::BF16)?, x.device().empty(&[l, BLOCKS], DType::F32)?);
    let grid = [BLOCKS as u32, l as u32, 1];
    let size = Arg::I64((x.numel() / l) as i64);
    let [x, to, maxima] = [x, &y, &maxima].map(|t| Arg::Ptr(t.ptr()));
    launch(gpu, "largest", grid, 256, &[x, size, maxima])?;
    launch(gpu, "scale", grid, 256, &[x, size, maxima, to])?;
    Ok(y)
}

/// Rules for every Gram matrix of a bank `[L, r, r]`; one copy to the host at the end.
pub(super) fn quadrature(gpu: &Arc<Gpu>, gram: &Tensor, steps: usize) -> Result<Vec<Member>> {
    let [l, r] = [0, 1].map(|axis| gram.shape()[axis]);
    let device = Device::Cuda(Arc::clone(gpu));
    let start = device.from_slice(&probes(r), &[PROBES, r])?;
    let vectors = || device.empty(&[l, PROBES, r], DType::F32);
    let (mut before, mut now, mut next) = (vectors()?, vectors()?, vectors()?);
    let coefficients = device.empty(&[2, l, PROBES, steps], DType::F32)?;
    let (alpha, beta) = (coefficients.slot(0), coefficients.slot(1));
    let ptr = |t: &Tensor| Arg::Ptr(t.ptr());
    let int = |x: usize| Arg::I32(x as i32);
    let members = l as u32;

    // f64: trace and sum of squares of each member, then the rules.
    let exact = gpu.alloc(8 * 2 * l)?;
    let nodes = gpu.alloc(16 * l * PROBES * RULES * steps)?;
    launch(gpu, "moments", [members, 1, 1], 1024, &[ptr(gram), int(r), Arg::Ptr(exact.ptr())])?;
    let repeat = [ptr(&start), ptr(&now), ptr(&before), int(PROBES * r)];
    launch(gpu, "start", [(PROBES * r).div_ceil(256) as u32, members, 1], 256, &repeat)?;
    for step in 0..steps {
        let grid = [r.div_ceil(ROWS) as u32, members, 1];
        launch(gpu, "multiply", grid, 256, &[ptr(gram), ptr(&now), ptr(&next), int(r)])?;
        let args =
            [ptr(&now), ptr(&before), ptr(&next), ptr(&alpha), ptr(&beta), int(r), int(steps), int(step)];
        launch(gpu, "recur", [PROBES as u32, members, 1], 256, &args)?;
        std::mem::swap(&mut before, &mut now);
        std::mem::swap(&mut now, &mut next);
    }
    let jobs = l * PROBES * RULES;
    let args =
        [ptr(&alpha), ptr(&beta), Arg::Ptr(exact.ptr()), int(r), int(steps), int(l), Arg::Ptr(nodes.ptr())];
    launch(gpu, "rules", [jobs.div_ceil(32) as u32, 1, 1], 32, &args)?;

    let exact = download(gpu, exact.ptr(), 2 * l)?;
    let nodes = download(gpu, nodes.ptr(), 2 * jobs * steps)?;
    // Room is for k nodes also where a rule has k/2.
    let rule = |nodes: &[f64], i: usize| -> Vec<Node> {
        let count = if i < 2 { steps } else { steps / 2 };
        nodes[2 * i * steps..].as_chunks().0[..count].to_vec()
    };
    let probe = |nodes: &[f64]| std::array::from_fn(|i| rule(nodes, i));
    let member = |(exact, nodes): (&[f64], &[f64])| Member {
        trace: exact[0],
        square: exact[1],
        rules: nodes.chunks_exact(2 * RULES * steps).map(probe).collect(),
    };
    let size = 2 * PROBES * RULES * steps;
    Ok(exact.chunks_exact(2).zip(nodes.chunks_exact(size)).map(member).collect())
}

fn launch(gpu: &Gpu, kernel: &str, grid: [u32; 3], threads: u32, args: &[Arg]) -> Result<()> {
    Ok(gpu.launch(&SOURCE, DType::F32, kernel, grid, [threads, 1, 1], 0, args)?)
}

fn download(gpu: &Gpu, ptr: u64, count: usize) -> Result<Vec<f64>> {
    let mut bytes = vec![0; 8 * count];
    gpu.download(&mut bytes, ptr)?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}
