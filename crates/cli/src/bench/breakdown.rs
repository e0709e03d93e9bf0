//! Where the time of a step goes: an event after everything that is put on the stream, and the costs added up by
//! operation.

use std::collections::BTreeMap;
use std::sync::Arc;

use tensor::cuda::{Cost, Gpu};
use tensor::random::Stream;
use tensor::{DType, Device, linalg};
use train::Ready;

use super::median;
use super::stopwatch::Stopwatch;
use crate::output::{Page, say};

/// Steps that are profiled; the costs are those of the middle one.
const STEPS: u32 = 5;

/// Operations a second of one large matrix product: the most that products of a step can reach.
pub(super) fn ceiling(device: &Device, element: DType) -> anyhow::Result<f64> {
    let side = if device.is_cuda() { 8192 } else { 1024 };
    // Products of zeros and the like draw less power and are faster than any of real numbers.
    let mut fill = vec![0.0; side * side];
    Stream::new(0, 0).fill_normal(&mut fill, 1.0);
    let a = device.from_slice(&fill, &[side, side])?.cast(element)?;
    let c = device.empty(&[side, side], element)?;
    let mut seconds = Vec::new();
    for _ in 0..12 {
        let watch = Stopwatch::start(device)?;
        linalg::matmul(&c, false, 1.0, &a, linalg::Factor::from(&a).t())?;
        seconds.extend(watch.lap()?.stop()?);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(2.0 * (side as f64).powi(3) / median(&seconds))
}

/// Shows the costs of a step by operation, then by kernel or product (the first `rows`, 0 for all). `whole` is the
/// time of a step without a profile, launched piece by piece as a profiled one is, in seconds.
pub(super) fn of(
    gpu: &Arc<Gpu>,
    whole: f64,
    rows: usize,
    batch: &Ready,
    mut step: impl FnMut(&Ready) -> anyhow::Result<()>,
    page: &mut Page,
) -> anyhow::Result<()> {
    let mut profiles = Vec::new();
    for _ in 0..STEPS {
        gpu.start_profile()?;
        step(batch)?;
        profiles.push(gpu.stop_profile()?);
    }
    let total = |costs: &[Cost]| costs.iter().map(|cost| cost.ms).sum::<f64>();
    profiles.sort_by(|a, b| total(a).total_cmp(&total(b)));
    let costs = &profiles[profiles.len() / 2];
    let sum = total(costs);
    let by_operation = table(costs, sum, "operation", |cost| cost.work.name.to_string());
    let mut by_kernel =
        table(costs, sum, "kernel or product", |cost| format!("{}: {}", cost.work.name, cost.work.detail));
    if rows > 0 {
        by_kernel.truncate(rows + 1);
    }
    say("")?;
    page.table("operations", &by_operation)?;
    say("")?;
    page.table("kernels", &by_kernel)?;
    say(&format!(
        "\nin all {:.2} ms in {} pieces; the step launched piece by piece, as measured above: {:.2} ms ({:+.1} %)",
        sum,
        costs.len(),
        1e3 * whole,
        100.0 * (sum / (1e3 * whole) - 1.0),
    ))
}

#[derive(Default)]
struct Sum {
    count: usize,
    ms: f64,
    bytes: u64,
    flops: f64,
}

fn table(costs: &[Cost], total: f64, head: &str, key: impl Fn(&Cost) -> String) -> Vec<[String; 7]> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for cost in costs {
        let sum = sums.entry(key(cost)).or_default();
        sum.count += 1;
        sum.ms += cost.ms;
        sum.bytes += cost.work.bytes;
        sum.flops += cost.work.flops;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|(_, a), (_, b)| b.ms.total_cmp(&a.ms));
    let mut rows = vec![[head, "launches", "ms", "share", "GB", "GB/s", "TFLOP/s"].map(String::from)];
    rows.extend(sums.into_iter().map(|(name, sum)| {
        let flops = if sum.flops > 0.0 { format!("{:.0}", sum.flops / sum.ms / 1e9) } else { String::new() };
        [
            name,
            sum.count.to_string(),
            format!("{:.3}", sum.ms),
            format!("{:.1} %", 100.0 * sum.ms / total),
            told(sum.bytes, format!("{:.3}", sum.bytes as f64 / 1e9)),
            told(sum.bytes, format!("{:.0}", sum.bytes as f64 / sum.ms / 1e6)),
            flops,
        ]
    }));
    rows
}

/// A figure of bytes, blank where a launch does not tell of its arrays.
fn told(bytes: u64, figure: String) -> String {
    if bytes > 0 { figure } else { String::new() }
}
