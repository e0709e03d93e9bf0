//! Attention on the GPU without scores in memory (`FlashAttention`-2, Dao 2023): launches of `flash_forward.cu` and
//! `flash_backward.cu`, which say how they go about it.
//!
//! What is kept for the backward pass: q and k, rotated where there are rotary positions (what they were before is not,
//! unless v lies in the same value), v, the output, and the logs of the denominators. Heads stay in the columns that
//! they come in.

use super::{Heads, Inputs, Operand, Target, whole};
use crate::cuda::{Arg, Gpu, Source};
use crate::ops::launch;
use crate::{DType, Result, Tensor};

/// Threads of a block of the rotation, and pairs that each has.
const ROTATION: (usize, usize) = (256, 8);

/// The kernels for one width of heads.
pub struct Flash {
    pub source: Source,
    dim: usize,
    forward: Tiles,
    queries: Tiles,
    keys: Tiles,
}

/// How a kernel cuts its work: each warp of a block owns some rows, and all go over columns, so many at a time.
struct Tiles {
    warps: usize,
    rows: usize,
    columns: usize,
}

impl Tiles {
    const fn new(warps: usize, fragments: usize, columns: usize) -> Self {
        Tiles { warps, rows: 16 * fragments * warps, columns }
    }
}

/// For each kernel: warps of a block, fragments of 16 rows that a warp has, columns fetched at a time, columns whose
/// scores a warp has at a time (forward: all that are fetched), blocks that are to share a multiprocessor, and whether
/// a warp keeps its rows in registers.
macro_rules! flash {
    (
        $dim:literal,
        forward: [$fw:literal, $ft:literal, $fc:literal, $fb:literal, $fk:literal],
        queries: [$qw:literal, $qt:literal, $qc:literal, $qs:literal, $qb:literal, $qk:literal],
        keys: [$kw:literal, $kt:literal, $kc:literal, $ks:literal, $kb:literal, $kk:literal]
    ) => {
        Flash {
            source: Source {
                name: concat!("flash_", $dim, ".cu"),
                text: concat!(
                    concat!("#define HEAD_DIM ", $dim, "\n#define FORWARD_WARPS ", $fw, "\n"),
                    concat!("#define FORWARD_TILES ", $ft, "\n#define FORWARD_KEYS ", $fc, "\n"),
                    concat!("#define FORWARD_BLOCKS ", $fb, "\n#define FORWARD_KEPT ", $fk, "\n"),
                    concat!("#define QUERIES_WARPS ", $qw, "\n#define QUERIES_TILES ", $qt, "\n"),
                    concat!("#define QUERIES_KEYS ", $qc, "\n#define QUERIES_SUB ", $qs, "\n"),
                    concat!("#define QUERIES_BLOCKS ", $qb, "\n#define QUERIES_KEPT ", $qk, "\n"),
                    concat!("#define KEYS_WARPS ", $kw, "\n#define KEYS_TILES ", $kt, "\n"),
                    concat!("#define KEYS_QUERIES ", $kc, "\n#define KEYS_SUB ", $ks, "\n"),
                    concat!("#define KEYS_BLOCKS ", $kb, "\n#define KEYS_KEPT ", $kk, "\n"),
                    include_str!("flash.cuh"),
                    include_str!("flash_forward.cu"),
                    include_str!("flash_backward.cu")
                ),
            },
            dim: $dim,
            forward: Tiles::new($fw, $ft, $fc),
            queries: Tiles::new($qw, $qt, $qc),
            keys: Tiles::new($kw, $kt, $kc),
        }
    };
}

pub(super) static TABLE: [Flash; 4] = [
    flash!(32, forward: [4, 1, 64, 4, 1], queries: [4, 1, 64, 64, 3, 1], keys: [4, 1, 64, 64, 3, 1]),
    flash!(64, forward: [4, 2, 64, 2, 1], queries: [4, 1, 64, 32, 3, 1], keys: [4, 1, 64, 64, 2, 1]),
    flash!(96, forward: [4, 1, 64, 3, 0], queries: [4, 1, 64, 32, 2, 1], keys: [4, 1, 64, 64, 2, 0]),
    flash!(128, forward: [4, 1, 64, 2, 1], queries: [4, 1, 64, 64, 1, 1], keys: [4, 1, 64, 64, 1, 0]),
];

/// The kernels for these inputs, where there are any; see the rule in `mod.rs`.
pub(super) fn find(inputs: &Inputs) -> Option<&'static Flash> {
    let whole = |x: &Operand| {
        x.value.dtype() == DType::BF16
            && launch::lane(DType::BF16, inputs.heads.dim, &[(&x.value, x.start)]) * DType::BF16.size() == 16
    };
    let all = [&inputs.q, &inputs.k, &inputs.v].into_iter().all(whole);
    TABLE.iter().find(|kernels| all && kernels.dim == inputs.heads.dim)
}

impl Flash {
    /// The inputs with q and k rotated, if there are rotary positions.
    pub(super) fn rotated(&self, gpu: &Gpu, inputs: Inputs) -> Result<Inputs> {
        let Some(rope) = &inputs.rope else { return Ok(inputs) };
        let (q, k, heads) = (&inputs.q, &inputs.k, inputs.heads);
        let rows = q.value.rows();
        let [to_q, to_k] = [heads.query, heads.key]
            .map(|count| q.value.device().empty(&[rows, count * self.dim], DType::BF16));
        let (to_q, to_k) = (to_q?, to_k?);
        let pairs = rows * (heads.query + heads.key) * self.dim / 2;
        let (threads, each) = ROTATION;
        let grid = [launch::blocks(pairs, threads * each), 1, 1];
        let args = [
            launch::ptr(&to_q),
            launch::ptr(&to_k),
            launch::columns(&q.value, q.start, heads.query * self.dim),
            launch::columns(&k.value, k.start, heads.key * self.dim),
            launch::ptr(&rope.cos),
            launch::ptr(&rope.sin),
            stride(&q.value),
            stride(&k.value),
            launch::long(rows),
            launch::int(inputs.layout.len),
            launch::int(heads.query),
            launch::int(heads.key),
        ];
        gpu.launch(&self.source, DType::BF16, "flash_rotate", grid, [threads as u32, 1, 1], 0, &args)?;
        let rotated = |value, x: &Operand| Operand { value, start: 0, of: x.of.clone() };
        let (q, k) = (rotated(to_q, q), rotated(to_k, k));
        Ok(Inputs { q, k, ..inputs })
    }

    /// The output, and the logs of the denominators; `inputs` are rotated.
    pub(super) fn forward(&self, gpu: &Gpu, out: &Tensor, lse: &Tensor, inputs: &Inputs) -> Result<()> {
        let shared = self.tile_bytes(self.forward.rows + 4 * self.forward.columns);
        let args =
            [&[launch::ptr(out), launch::ptr(lse)], &qkv(inputs)[..], &strides(inputs), &sizes(inputs)];
        self.launch(gpu, "flash_forward", inputs.heads.query, &self.forward, shared, inputs, &args.concat())
    }

    /// The gradients of q, k and v before the rotation.
    pub(super) fn backward(
        &self,
        gpu: &Gpu,
        [dq, dk, dv]: &[Target; 3],
        dy: &Tensor,
        out: &Tensor,
        lse: &Tensor,
        inputs: &Inputs,
    ) -> Result<()> {
        if whole::fits(gpu, inputs) {
            return whole::backward(gpu, [dq, dk, dv], dy, out, lse, inputs);
        }
        let delta = dy.device().empty(lse.shape(), DType::F32)?;
        let tables = tables(inputs);
        let [dq_to, dk_to, dv_to] = gradients([dq, dk, dv], inputs.heads);

        let tiles = &self.queries;
        let shared = self.tile_bytes(2 * tiles.rows + 4 * tiles.columns);
        let first = [dq_to, launch::ptr(&delta), launch::ptr(dy), launch::ptr(out), launch::ptr(lse)];
        let strides = strides(inputs);
        let args =
            [&first[..], &qkv(inputs), &tables, &[stride(&dq.value)], &strides, &sizes(inputs)].concat();
        self.launch(gpu, "flash_backward_queries", inputs.heads.query, tiles, shared, inputs, &args)?;

        let tiles = &self.keys;
        let shared =
            self.tile_bytes(2 * tiles.rows + 4 * tiles.columns) + 4 * tiles.columns * size_of::<f32>();
        let first = [dk_to, dv_to, launch::ptr(dy), launch::ptr(lse), launch::ptr(&delta)];
        let own = [stride(&dk.value), stride(&dv.value)];
        let args = [&first[..], &qkv(inputs), &tables, &own, &strides, &sizes(inputs)].concat();
        self.launch(gpu, "flash_backward_keys", inputs.heads.key, tiles, shared, inputs, &args)
    }

    fn tile_bytes(&self, rows: usize) -> usize {
        rows * self.dim * DType::BF16.size()
    }

    /// A block for each tile of rows of each of `heads` of each sequence.
    #[expect(clippy::too_many_arguments, reason = "they are the launch")]
    fn launch(
        &self,
        gpu: &Gpu,
        kernel: &str,
        heads: usize,
        tiles: &Tiles,
        shared: usize,
        inputs: &Inputs,
        args: &[Arg],
    ) -> Result<()> {
        let grid = [
            launch::blocks(inputs.layout.batch * heads, 1),
            launch::blocks(inputs.layout.len, tiles.rows),
            1,
        ];
        let threads = [32 * tiles.warps as u32, 1, 1];
        gpu.launch(&self.source, DType::BF16, kernel, grid, threads, shared, args)
    }
}

pub(super) fn qkv(inputs: &Inputs) -> [Arg; 3] {
    let Heads { query, key, dim, .. } = inputs.heads;
    [(&inputs.q, query), (&inputs.k, key), (&inputs.v, key)]
        .map(|(x, count)| launch::columns(&x.value, x.start, count * dim))
}

/// Where the gradients of q, k and v go.
pub(super) fn gradients(targets: [&Target; 3], heads: Heads) -> [Arg; 3] {
    let [q, k, v] = targets;
    [(q, heads.query), (k, heads.key), (v, heads.key)]
        .map(|(to, count)| launch::columns(&to.value, to.start, count * heads.dim))
}

pub(super) fn strides(inputs: &Inputs) -> [Arg; 3] {
    [&inputs.q, &inputs.k, &inputs.v].map(|x| stride(&x.value))
}

/// Cosines and sines, null where there is no rotation.
pub(super) fn tables(inputs: &Inputs) -> [Arg; 2] {
    inputs.rope.as_ref().map_or([Arg::Ptr(0); 2], |r| [launch::ptr(&r.cos), launch::ptr(&r.sin)])
}

/// Elements from row to row.
pub(super) fn stride(rows: &Tensor) -> Arg {
    launch::long(rows.cols())
}

fn sizes(inputs: &Inputs) -> [Arg; 4] {
    let h = inputs.heads;
    let [len, query, group] = [inputs.layout.len, h.query, h.query / h.key].map(launch::int);
    [len, query, group, Arg::F32(h.scale)]
}
