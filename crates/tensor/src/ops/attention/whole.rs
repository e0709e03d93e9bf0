//! The backward pass of whole heads on an H100 or H200: the launch of `flash_whole.cu`, which says how it goes about
//! it.
//!
//! One block has a head of a sequence, so there must be enough of them for the device, and each short enough for the
//! shared memory of one multiprocessor.

use super::{Heads, Inputs, Target, flash};
use crate::cuda::{Arg, Gpu, Source};
use crate::ops::launch;
use crate::{DType, Result, Tensor};

pub static SOURCE: Source = Source {
    name: "flash_whole.cu",
    text: concat!("#define HEAD_DIM 64\n", include_str!("flash.cuh"), include_str!("flash_whole.cu")),
};

/// Width of a head, and the longest sequence.
const DIM: usize = 64;
const LEN: usize = 512;

/// Fewest heads of sequences for each round of the device's multiprocessors: with more of them idle, two kernels with
/// tiles of 64 rows are faster (an H100 has 132 and both take as long for 64 heads, and for 144).
const FEWEST: usize = 70;

const THREADS: u32 = 256;

/// Bytes of a tile of 128 rows in bf16.
const TILE: usize = 128 * DIM * 2;
/// What a block has in shared memory: keys and values, two stages of queries and dO, dS, parts of dQ of all tiles but
/// the first; delta, and two stages of logs of 128 denominators.
const SHARED: usize = (2 + 4 + 2 + 2 * 3) * TILE + (LEN + 2 * 128) * size_of::<f32>();

/// Whether to use it for these inputs, which [`flash`] takes.
pub(super) fn fits(gpu: &Gpu, inputs: &Inputs) -> bool {
    let Heads { query, key, dim, .. } = inputs.heads;
    let heads = inputs.layout.batch * query;
    gpu.is_hopper()
        && dim == DIM
        && query == key
        && inputs.layout.len <= LEN
        && heads >= FEWEST * heads.div_ceil(gpu.multiprocessors() as usize)
}

/// The gradients of q, k and v before the rotation.
pub(super) fn backward(
    gpu: &Gpu,
    [dq, dk, dv]: [&Target; 3],
    dy: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    inputs: &Inputs,
) -> Result<()> {
    let to = flash::gradients([dq, dk, dv], inputs.heads);
    let own = [dq, dk, dv].map(|target| flash::stride(&target.value));
    let heads = inputs.heads.query;
    let args = [
        &to[..],
        &[launch::ptr(dy), launch::ptr(out), launch::ptr(lse)],
        &flash::qkv(inputs),
        &flash::tables(inputs),
        &own,
        &flash::strides(inputs),
        &[launch::int(inputs.layout.len), launch::int(heads), Arg::F32(inputs.heads.scale)],
    ]
    .concat();
    let grid = [launch::blocks(inputs.layout.batch * heads, 1), 1, 1];
    gpu.launch(&SOURCE, DType::BF16, "flash_whole", grid, [THREADS, 1, 1], SHARED, &args)
}
