//! The table of cases: one function an operation, taking sizes, and the lists of sizes that are tried.

mod mixing;
mod plain;
mod rows;
mod shared;

pub use mixing::{
    attention, attention_of_fused, attention_of_large_scores, conv1d_silu, mixer, scan, scan_of_decay,
};
pub use plain::{add_assign, cast, matmul, normal, qr, svd, symmetric, transpose};
pub use rows::{
    embedding, feed_forward, gated_rms_norm, linear, linear_cross_entropy, residual, residual_norm, rms_norm,
    swiglu,
};

use super::Case;
use crate::ops::{BatchLayout, Heads, ScanLayout};
use crate::random::Stream;

/// Odd and ordinary shapes whose f64 reference is affordable.
pub(super) fn small() -> Vec<Case> {
    let at = |batch, len| BatchLayout { batch, len };
    let mut cases = vec![
        embedding(at(1, 1), 33, 8, 12.0, None),
        embedding(at(3, 17), 33, 20, 1.0, None),
        embedding(at(2, 130), 1003, 17, 12.0, Some(1002)),
        linear(1, 1, 1, false),
        linear(17, 40, 33, true),
        linear(34, 24, 16, false),
        linear(130, 13, 7, true),
        linear(512, 64, 24, true),
        rms_norm(1, 20),
        rms_norm(17, 33),
        rms_norm(130, 64),
        rms_norm(512, 24),
        gated_rms_norm(1, 16, None),
        gated_rms_norm(17, 33, Some((3, 41))),
        gated_rms_norm(130, 32, Some((0, 72))),
        gated_rms_norm(512, 24, None),
        swiglu(1, 8, true),
        swiglu(17, 33, true),
        swiglu(17, 33, false),
        swiglu(130, 40, true),
        swiglu(512, 24, false),
        feed_forward(17, 24, 33),
        feed_forward(130, 8, 256),
        residual(1, 5, 0.246),
        residual(17, 33, 1.0),
        residual(512, 64, 0.22),
        residual_norm(1, 5, 0.246),
        residual_norm(17, 33, 1.0),
        residual_norm(130, 64, 0.22),
        residual_norm(512, 24, 0.246),
        linear_cross_entropy(1, 8, 33, 1.0, Masked::None),
        linear_cross_entropy(17, 20, 33, 0.5, Masked::Some),
        linear_cross_entropy(34, 16, 1003, 1.0 / 3.0, Masked::Some),
        linear_cross_entropy(130, 24, 100, 1.0, Masked::None),
        linear_cross_entropy(17, 24, 1024, 1.0, Masked::All),
        rows::lent_cross_entropy(34, 16, 1003),
        conv1d_silu(at(1, 1), 8, 4, None),
        conv1d_silu(at(2, 2), 20, 4, Some((3, 30))),
        conv1d_silu(at(3, 17), 33, 4, Some((8, 48))),
        conv1d_silu(at(1, 130), 48, 4, Some((16, 80))),
        conv1d_silu(at(2, 130), 7, 3, None),
        conv1d_silu(at(2, 17), 24, 7, None),
        conv1d_silu(at(1, 512), 16, 2, None),
        attention(at(1, 1), heads(1, 1, 8, 0.35), None),
        attention(at(2, 2), heads(4, 2, 16, 0.25), Some(1e4)),
        attention(at(2, 17), heads(6, 2, 8, 0.35), None),
        attention(at(1, 17), heads(3, 3, 10, 0.3), Some(1e6)),
        attention(at(1, 130), heads(4, 1, 16, 0.25), Some(1e4)),
        attention(at(2, 130), heads(2, 2, 64, 0.015_625), None),
        attention(at(1, 512), heads(2, 1, 8, 0.35), None),
        attention(at(1, 1), heads(3, 1, 32, 0.2), Some(1e4)),
        attention(at(2, 17), heads(8, 2, 32, 0.2), Some(1e4)),
        attention(at(1, 66), heads(2, 2, 96, 0.1), None),
        attention(at(1, 70), heads(3, 1, 128, 0.09), Some(1e6)),
        attention_of_fused(at(2, 17), heads(4, 1, 64, 0.125), Some(1e4), 8),
        attention_of_fused(at(2, 17), heads(4, 2, 32, 0.2), None, 3),
        attention_of_large_scores(at(1, 130), heads(3, 1, 32, 0.06)),
        scan(layout(at(1, 1), [1, 5, 1, 3], OPEN), None),
        scan(layout(at(2, 2), [4, 32, 2, 16], OPEN), None),
        scan(layout(at(3, 17), [4, 5, 4, 3], CLAMPED), Some((2, 9))),
        scan(layout(at(2, 17), [4, 32, 1, 128], CLAMPED), None),
        scan(layout(at(1, 130), [2, 64, 2, 16], OPEN), Some((8, 16))),
        scan(layout(at(2, 17), [2, 64, 1, 128], OPEN), None),
        scan(layout(at(1, 130), [2, 5, 1, 64], CLAMPED), None),
        scan(layout(at(1, 17), [2, 32, 2, 200], OPEN), None),
        scan(layout(at(2, 130), [4, 5, 2, 16], OPEN), None),
        scan(layout(at(1, 512), [2, 32, 1, 16], CLAMPED), None),
        mixer(layout(at(2, 17), [4, 5, 2, 3], OPEN)),
        mixer(layout(at(1, 130), [2, 32, 1, 16], OPEN)),
    ];
    for transposed in [(false, false), (true, false), (false, true), (true, true)] {
        cases.push(matmul([1, 17, 33, 20], transposed, false));
        cases.push(matmul([3, 34, 16, 40], transposed, true));
    }
    cases.extend([
        matmul([1, 1, 1, 1], (false, false), true),
        matmul([1, 130, 512, 7], (false, true), false),
        symmetric([1, 1, 1], false),
        symmetric([3, 17, 40], true),
        symmetric([2, 130, 64], false),
        symmetric([3, 256, 40], false),
        symmetric([2, 256, 330], true),
        symmetric([2, 384, 72], false),
        svd(1, 1, 1),
        svd(2, 17, 33),
        svd(3, 40, 24),
        svd(2, 32, 32),
        qr(1, 1, 1),
        qr(3, 40, 24),
        qr(2, 65, 33),
        qr(2, 32, 32),
        transpose(3, 17, 40),
        transpose(1, 1, 33),
        normal(1, 1),
        normal(3, 1003),
        normal(2, 10_000),
        cast(1),
        cast(1003),
        cast(40_000),
        add_assign(1),
        add_assign(1003),
        add_assign(40_000),
    ]);
    cases.extend(shared::all());
    cases
}

/// Shapes of granite-4.0-h-350m at batch 2, length 512, with a smaller vocabulary; and such as make an operation cut
/// its work in another way: more rows than partial sums, wide rows, scores in several pieces, logits in two blocks.
pub(super) fn full_size() -> Vec<Case> {
    let rows = BatchLayout { batch: 2, len: 512 };
    let mut cases = vec![
        embedding(rows, 1003, 768, 12.0, Some(7)),
        linear(1024, 768, 3376, false),
        linear(1024, 768, 1024, true),
        linear(1024, 2048, 768, false),
        linear(40_000, 8, 16, true),
        rms_norm(1024, 768),
        rms_norm(10_000, 24),
        rms_norm(9, 6144),
        gated_rms_norm(1024, 1536, Some((0, 3376))),
        gated_rms_norm(9, 6144, None),
        swiglu(1024, 2048, true),
        feed_forward(2100, 664, 2048),
        residual(1024, 768, 0.246),
        residual_norm(1024, 768, 0.246),
        residual_norm(1024, 1024, 1.0),
        residual_norm(100, 1536, 0.22),
        linear_cross_entropy(1024, 768, 4096, 1.0 / 3.0, Masked::Some),
        linear_cross_entropy(700, 8, 100_352, 1.0 / 3.0, Masked::Some),
        linear_cross_entropy(1400, 8, 100_352, 1.0, Masked::None),
        linear_cross_entropy(40, 8, 151_936, 1.0, Masked::Some),
        linear_cross_entropy(37, 8, 60_008, 0.5, Masked::Some),
        linear_cross_entropy(17, 8, 60_008, 1.0, Masked::All),
        rows::lent_cross_entropy(1024, 64, 4096),
        conv1d_silu(rows, 1792, 4, Some((1536, 3376))),
        attention(rows, heads(12, 4, 64, 0.015_625), None),
        attention(rows, heads(16, 4, 64, 0.015_625), Some(1e7)),
        attention(rows, heads(12, 4, 64, 0.015_625), None).plain_kernels(),
        attention(rows, heads(16, 4, 64, 0.015_625), Some(1e7)).plain_kernels(),
        attention(rows, heads(16, 16, 64, 0.125), Some(1e4)),
        attention(BatchLayout { batch: 5, len: 512 }, heads(16, 16, 64, 0.125), Some(1e4)),
        attention(BatchLayout { batch: 80, len: 1 }, heads(1, 1, 64, 0.125), None),
        attention_of_fused(BatchLayout { batch: 9, len: 300 }, heads(8, 8, 64, 0.125), Some(1e4), 8),
        attention_of_large_scores(BatchLayout { batch: 9, len: 130 }, heads(8, 8, 64, 0.03)),
        attention(rows, heads(12, 4, 128, 0.007_812_5), None),
        attention(rows, heads(4, 2, 32, 0.177), None),
        attention(rows, heads(8, 4, 96, 0.1), Some(1e4)),
        attention(BatchLayout { batch: 2, len: 1024 }, heads(8, 1, 32, 0.15), None),
        attention(BatchLayout { batch: 2, len: 1024 }, heads(8, 1, 32, 0.15), None).plain_kernels(),
        attention(BatchLayout { batch: 1, len: 2111 }, heads(4, 1, 64, 0.125), Some(1e4)),
        attention_of_large_scores(BatchLayout { batch: 1, len: 700 }, heads(4, 2, 128, 0.03)),
        attention_of_fused(BatchLayout { batch: 3, len: 333 }, heads(6, 2, 64, 0.125), None, 16),
        matmul([4, 768, 1024, 256], (false, true), false),
        matmul([4, 256, 768, 256], (true, false), true),
        symmetric([7, 1024, 1024], false),
        symmetric([3, 768, 1536], false),
        symmetric([2, 768, 3376], true),
        symmetric([1, 896, 4864], true),
        svd(2, 192, 320),
        qr(3, 768, 256),
        qr(2, 300, 300),
        transpose(3, 768, 2048),
        normal(3, 1 << 20),
        cast(1 << 20),
        add_assign(1 << 20),
    ];
    cases.extend(scans());
    cases
}

/// Scans that a GPU does in chunks of 64 steps where it computes in bf16, and the same by the plain kernels: parts of a
/// chunk, segments of a long sequence, several groups and slices of a head, decay that leaves nothing and almost all.
fn scans() -> Vec<Case> {
    let at = |batch, len| BatchLayout { batch, len };
    let each = |plain: bool| {
        let cases = [
            scan(layout(at(2, 512), [48, 32, 1, 128], OPEN), Some((3328, 3376))),
            scan(layout(at(2, 512), [16, 64, 4, 128], CLAMPED), None),
            scan(layout(at(1, 1), [2, 32, 1, 128], OPEN), None),
            scan(layout(at(2, 64), [6, 32, 2, 128], OPEN), None),
            scan(layout(at(2, 65), [3, 96, 1, 128], CLAMPED), None),
            scan(layout(at(1, 2100), [3, 32, 1, 128], OPEN), None),
            scan(layout(at(1, 2100), [4, 64, 2, 128], CLAMPED), None),
            scan_of_decay(layout(at(2, 200), [6, 32, 1, 128], OPEN), -6.0),
            scan_of_decay(layout(at(2, 200), [6, 32, 1, 128], OPEN), 3.0),
            scan_of_decay(layout(at(2, 200), [6, 32, 1, 128], OPEN), 12.0),
            mixer(layout(at(2, 512), [48, 32, 1, 128], OPEN)),
        ];
        cases.map(|case| if plain { case.plain_kernels() } else { case })
    };
    [each(false), each(true)].into_iter().flatten().collect()
}

/// Which targets the loss ignores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masked {
    /// None of them.
    None,
    /// Every third, from the second.
    Some,
    /// All: the loss is 0.
    All,
}

const OPEN: (f32, f32) = (0.0, f32::INFINITY);
/// Both ends of it are reached by time steps of the size used here.
const CLAMPED: (f32, f32) = (0.1, 0.5);

fn heads(query: usize, key: usize, dim: usize, scale: f32) -> Heads {
    Heads { query, key, dim, scale }
}

fn layout(
    rows: BatchLayout,
    [heads, head_dim, groups, state]: [usize; 4],
    dt_limit: (f32, f32),
) -> ScanLayout {
    ScanLayout { rows, heads, head_dim, groups, state, dt_limit }
}

/// Columns `start..start + width` of a value of `stride` columns.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    width: usize,
    stride: usize,
}

impl Span {
    /// `(start, stride)`, or all columns of a value as wide.
    fn of(width: usize, inside: Option<(usize, usize)>) -> Self {
        let (start, stride) = inside.unwrap_or((0, width));
        Span { start, width, stride }
    }

    fn input(self, name: &'static str, rows: usize) -> super::case::Input {
        super::case::Input::value(name, &[rows, self.stride]).columns(self.start, self.width)
    }

    fn cols(self, var: &crate::tape::Var) -> crate::ops::Cols {
        crate::ops::Cols::new(var, self.start, self.width)
    }

    fn of_reference(self, x: &[f64]) -> Vec<f64> {
        super::reference::columns(x, self.stride, self.start, self.width)
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "C{}", self.width)?;
        if self.stride > self.width { write!(f, " at {} of {}", self.start, self.stride) } else { Ok(()) }
    }
}

/// Token ids below `vocab`.
fn ids(count: usize, vocab: usize) -> Vec<i32> {
    let stream = Stream::new(count as u64, vocab as u64);
    (0..count as u64).map(|i| (stream.uniform(i) * vocab as f64) as i32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new operation must come into the table.
    #[test]
    fn every_operation_has_a_case() {
        let text = include_str!("../../ops/mod.rs");
        let names = text.lines().filter_map(|line| line.strip_prefix("pub use ")).flat_map(|line| {
            let items = line.trim_end_matches(';').split("::").nth(1).unwrap_or_default();
            items.trim_matches(['{', '}']).split(", ").filter(|item| item.starts_with(char::is_lowercase))
        });
        let cases = small();
        for name in
            names.chain(["matmul", "symmetric", "transpose", "qr", "svd", "normal", "cast", "add_assign"])
        {
            assert!(cases.iter().any(|case| case.op() == name), "no case of {name}");
        }
    }
}
