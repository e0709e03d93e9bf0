//! Moving the weights of record: decay, update, rounding to the type they are kept in, the copy that the forward pass
//! reads, and what became of the step on the way.

use rayon::prelude::*;
use tensor::cuda::Arg;
use tensor::params::Bank;
use tensor::random::Stream;
use tensor::{DType, Device, Tensor};

use crate::error::Result;
use crate::kernels::{self, BLOCK, SOURCE, THREADS};
use crate::ortho::bf16;

/// Most blocks of a pass that leaves sums: the more, the closer to the speed of one that leaves none.
const WATCHED: u32 = 16_896;

/// How bf16 weights of record are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// To the nearest value, ties to even: steps below half the spacing of the weights are lost.
    #[default]
    Nearest,
    /// To one of the two neighbours, with the probability that keeps the mean.
    Stochastic,
}

/// What a step did to the weights of a bank or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Change {
    /// Square norm of the step asked for.
    pub asked: f64,
    /// Square norm of the step taken.
    pub moved: f64,
    /// Weights that did not change.
    pub unchanged: f64,
    /// Square norm of the weights after it.
    pub weight: f64,
    /// Number of weights.
    pub count: f64,
}

impl std::ops::AddAssign for Change {
    fn add_assign(&mut self, other: Change) {
        self.asked += other.asked;
        self.moved += other.moved;
        self.unchanged += other.unchanged;
        self.weight += other.weight;
        self.count += other.count;
    }
}

/// What became of a part of a bank, or that it stands in the next row of the sums on the device.
pub(crate) enum Pending {
    Done(Change),
    Row {
        /// Number of weights.
        count: usize,
    },
}

impl Change {
    /// From a row of sums.
    pub(crate) fn of(sums: &[f32], count: usize) -> Self {
        let [asked, moved, unchanged, weight] = [0, 1, 2, 3].map(|i| f64::from(sums[i]));
        Change { asked, moved, unchanged, weight, count: count as f64 }
    }
}

/// Where a step writes, and how it rounds.
pub(crate) struct Record<'a> {
    pub bank: &'a Bank,
    /// Streams of the members, for stochastic rounding.
    pub streams: Option<Vec<Stream>>,
    /// What changes from step to step, as the rule of the bank has it: f32 `[SCALARS]`.
    pub scalars: &'a Tensor,
    /// Whether to take down what became of the step.
    pub watch: bool,
    /// On a GPU, where: rows of four sums, `[.., 4]`.
    pub rows: Option<Tensor>,
}

/// Constants of AdamW.
#[derive(Clone, Copy)]
pub(crate) struct AdamWConstants {
    pub b1: f32,
    pub b2: f32,
    pub eps: f32,
}

impl Record<'_> {
    /// `w <- w - decay w - rate factor update`, with the scalars decay and rate.
    pub fn apply(&self, update: &Tensor, factor: f32) -> Result<Vec<Pending>> {
        self.each(|part, rounding| {
            let update = part.of(update);
            match part.weight.device() {
                Device::Cpu => {
                    let (decay, factor) = {
                        let scalars = self.scalars.read();
                        (scalars[0], -scalars[1] * factor)
                    };
                    let update = update.read();
                    let mut weight = part.weight.write();
                    let chunks = weight.par_chunks_mut(BLOCK).zip(update.par_chunks(BLOCK)).enumerate();
                    let changes = chunks.map(|(block, (w, update))| {
                        let mut change = Change::default();
                        for (i, (w, update)) in w.iter_mut().zip(update).enumerate() {
                            let delta = factor * update - decay * *w;
                            rounding.commit(w, delta, block * BLOCK + i, self.watch, &mut change);
                        }
                        change
                    });
                    Ok(total(changes.collect(), part.weight.numel()))
                }
                Device::Cuda(_) => {
                    let args = [kernels::array(&update, 1), Arg::Ptr(self.scalars.ptr()), Arg::F32(factor)];
                    self.launch("apply", update.dtype(), &part, &[&update], &args, &rounding)
                }
            }
        })
    }

    /// One AdamW step with the moments `m` and `v`, and the scalars `rate` times decay, `rate / (1 - b1^t)` and
    /// `1 / sqrt(1 - b2^t)`.
    pub fn adamw(&self, m: &Tensor, v: &Tensor, s: AdamWConstants) -> Result<Vec<Pending>> {
        self.each(|part, rounding| {
            let (g, m, v) = (part.of(&self.bank.grad), part.of(m), part.of(v));
            debug_assert_eq!(g.dtype(), part.weight.dtype(), "gradients are of the weights' type");
            match part.weight.device() {
                Device::Cpu => {
                    let (decay, rate, root) = {
                        let scalars = self.scalars.read();
                        (scalars[0], scalars[1], scalars[2])
                    };
                    let g = g.read();
                    let (mut w, mut m, mut v) = (part.weight.write(), m.write(), v.write());
                    let chunks =
                        w.par_chunks_mut(BLOCK).zip(m.par_chunks_mut(BLOCK)).zip(v.par_chunks_mut(BLOCK));
                    let changes =
                        chunks.zip(g.par_chunks(BLOCK)).enumerate().map(|(block, (((w, m), v), g))| {
                            let mut change = Change::default();
                            for (i, (((w, m), v), g)) in w.iter_mut().zip(m).zip(v).zip(g).enumerate() {
                                *m = s.b1 * *m + (1.0 - s.b1) * g;
                                *v = s.b2 * *v + (1.0 - s.b2) * g * g;
                                let delta = -decay * *w - rate * *m / (v.sqrt() * root + s.eps);
                                rounding.commit(w, delta, block * BLOCK + i, self.watch, &mut change);
                            }
                            change
                        });
                    Ok(total(changes.collect(), part.weight.numel()))
                }
                Device::Cuda(_) => {
                    let [g_array, m_array, v_array] =
                        [(&g, 1), (&m, 2), (&v, 2)].map(|(t, times)| kernels::array(t, times));
                    let pointers = [g_array, m_array, v_array, Arg::Ptr(self.scalars.ptr())];
                    let args = [&pointers[..], &[s.b1, s.b2, s.eps].map(Arg::F32)].concat();
                    self.launch("adamw", DType::F32, &part, &[&g, &m, &v], &args, &rounding)
                }
            }
        })
    }

    /// Runs a step on the whole bank, or member by member where each has its own stream.
    fn each(&self, step: impl Fn(Part, Round) -> Result<Pending>) -> Result<Vec<Pending>> {
        let Bank { weight, compute, record, .. } = self.bank;
        let done = match (record, &self.streams) {
            (DType::BF16, Some(streams)) => streams
                .iter()
                .enumerate()
                .map(|(i, &stream)| {
                    let part = Part { weight: weight.slot(i), compute: compute.slot(i), member: Some(i) };
                    step(part, Round::Stochastic(stream))
                })
                .collect::<Result<_>>()?,
            (record, _) => {
                let round = if *record == DType::BF16 { Round::Nearest } else { Round::Keep };
                vec![step(Part { weight: weight.clone(), compute: compute.clone(), member: None }, round)?]
            }
        };
        Ok(if self.watch { done } else { Vec::new() })
    }

    fn launch(
        &self,
        kernel: &str,
        element: DType,
        part: &Part,
        arrays: &[&Tensor],
        args: &[Arg],
        round: &Round,
    ) -> Result<Pending> {
        let Part { weight, compute, .. } = part;
        let Device::Cuda(gpu) = weight.device() else { panic!("{weight:?} is on no GPU") };
        let n = weight.numel();
        let blocks = kernels::blocks(n, if self.watch { WATCHED } else { kernels::MANY });
        let watched = self.rows.as_ref().map(|rows| rows.slot(part.member.unwrap_or(0)));
        let stats = match &watched {
            Some(_) => Some(weight.device().empty(&[blocks as usize, 4], DType::F32)?),
            None => None,
        };
        let copy = if compute.dtype() == weight.dtype() { Arg::Ptr(0) } else { kernels::array(compute, 1) };
        let (code, stream) = match round {
            Round::Keep => (0, 0),
            Round::Nearest => (1, 0),
            Round::Stochastic(stream) => (2, stream.state()),
        };
        let kernel = format!("{kernel}_{}", if weight.dtype() == DType::BF16 { "bf16" } else { "f32" });
        let head = [kernels::array(weight, 2), copy];
        let tail = [
            Arg::I32(code),
            Arg::U64(stream),
            Arg::Ptr(stats.as_ref().map_or(0, Tensor::ptr)),
            kernels::vec(&[arrays, &[weight, compute]].concat()),
            Arg::I64(n as i64),
        ];
        let args = [&head[..], args, &tail[..]].concat();
        gpu.launch(&SOURCE, element, &kernel, [blocks, 1, 1], [THREADS, 1, 1], 0, &args)?;
        let (Some(stats), Some(row)) = (stats, watched) else { return Ok(Pending::Done(Change::default())) };
        let args = [Arg::Ptr(stats.ptr()), Arg::Ptr(row.ptr()), Arg::I32(blocks as i32)];
        gpu.launch(&SOURCE, element, "total_change", [1, 1, 1], [4 * THREADS, 1, 1], 0, &args)?;
        Ok(Pending::Row { count: n })
    }
}

/// A bank, or one member of it.
struct Part {
    weight: Tensor,
    compute: Tensor,
    member: Option<usize>,
}

impl Part {
    /// The same part of another tensor of the bank's shape.
    fn of(&self, whole: &Tensor) -> Tensor {
        self.member.map_or_else(|| whole.clone(), |i| whole.slot(i))
    }
}

enum Round {
    Keep,
    Nearest,
    Stochastic(Stream),
}

impl Round {
    #[inline(always)]
    fn commit(&self, w: &mut f32, delta: f32, i: usize, watch: bool, change: &mut Change) {
        let old = *w;
        *w = match self {
            Round::Keep => old + delta,
            Round::Nearest => bf16(old + delta),
            Round::Stochastic(stream) => {
                let random = (stream.bits(i as u64) >> 48) as u32;
                f32::from_bits((old + delta).to_bits().wrapping_add(random) & 0xffff_0000)
            }
        };
        if watch {
            let moved = *w - old;
            change.asked += f64::from(delta).powi(2);
            change.moved += f64::from(moved).powi(2);
            change.unchanged += f64::from(u8::from(moved == 0.0));
            change.weight += f64::from(*w).powi(2);
        }
    }
}

fn total(changes: Vec<Change>, count: usize) -> Pending {
    let mut total = Change::default();
    changes.into_iter().for_each(|change| total += change);
    Pending::Done(Change { count: count as f64, ..total })
}
