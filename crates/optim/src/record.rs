//! Moving the weights of record: decay, update, rounding to the type they are kept in, the copy that the forward pass
//! reads, and what became of the step on the way.

use rayon::prelude::*;
use tensor::cuda::Arg;
use tensor::params::Bank;
use tensor::random::{Stream, StreamRange};
use tensor::{DType, Device, Tensor};

use crate::error::Result;
use crate::kernels::{self, BLOCK, SOURCE, THREADS};
use crate::ortho::bf16;
use crate::rounding::{Part, Rounding, StateType, round_state, stochastic};

/// Most blocks of a pass that leaves sums: the more, the closer to the speed of one that leaves none.
const WATCHED: u32 = 16_896;

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

/// What became of a bank or a member of it, or that it stands in the next row of the sums on the device.
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
    /// Of bf16 weights of record.
    pub rounding: Rounding,
    /// What the state is kept in.
    pub state: StateType,
    /// Streams of the members, where anything is rounded at random.
    pub streams: Option<StreamRange<'a>>,
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
        if self.bank.weight.device().is_cuda() {
            let args = [kernels::array(update, 1), Arg::Ptr(self.scalars.ptr()), Arg::F32(factor)];
            return self.launch("apply", update.dtype(), &[update], &args);
        }
        Ok(self.each(|piece| {
            let (decay, factor) = {
                let scalars = self.scalars.read();
                (scalars[0], -scalars[1] * factor)
            };
            let (weight, update) = (piece.of(&self.bank.weight), piece.of(update));
            let (mut weight, update) = (weight.write(), update.read());
            let chunks = weight.par_chunks_mut(BLOCK).zip(update.par_chunks(BLOCK)).enumerate();
            let changes = chunks.map(|(block, (w, update))| {
                let mut change = Change::default();
                for (i, (w, update)) in w.iter_mut().zip(update).enumerate() {
                    let delta = factor * update - decay * *w;
                    piece.round.commit(w, delta, block * BLOCK + i, self.watch, &mut change);
                }
                change
            });
            total(changes.collect(), weight.len())
        }))
    }

    /// One AdamW step with the moments `m` and `v`, and the scalars `rate` times decay, `rate / (1 - b1^t)` and
    /// `1 / sqrt(1 - b2^t)`. The step is taken by the moments as they are before they are rounded.
    pub fn adamw(&self, m: &Tensor, v: &Tensor, s: AdamWConstants) -> Result<Vec<Pending>> {
        let g = &self.bank.grad;
        debug_assert_eq!(g.dtype(), self.bank.weight.dtype(), "gradients are of the weights' type");
        if self.bank.weight.device().is_cuda() {
            let [g_array, m_array, v_array] =
                [(g, 1), (m, 2), (v, 2)].map(|(t, times)| kernels::array(t, times));
            let pointers = [g_array, m_array, v_array, Arg::Ptr(self.scalars.ptr())];
            let args = [&pointers[..], &[s.b1, s.b2, s.eps].map(Arg::F32)].concat();
            return self.launch("adamw", m.dtype(), &[g, m, v], &args);
        }
        Ok(self.each(|piece| {
            let (decay, rate, root) = {
                let scalars = self.scalars.read();
                (scalars[0], scalars[1], scalars[2])
            };
            let [w, g, m, v] = [&self.bank.weight, g, m, v].map(|whole| piece.of(whole));
            let (mut w, g, mut m, mut v) = (w.write(), g.read(), m.write(), v.write());
            let chunks = w.par_chunks_mut(BLOCK).zip(m.par_chunks_mut(BLOCK)).zip(v.par_chunks_mut(BLOCK));
            let changes = chunks.zip(g.par_chunks(BLOCK)).enumerate().map(|(block, (((w, m), v), g))| {
                let mut change = Change::default();
                for (i, (((w, m), v), g)) in w.iter_mut().zip(&mut *m).zip(&mut *v).zip(g).enumerate() {
                    *m = s.b1 * *m + (1.0 - s.b1) * g;
                    *v = s.b2 * *v + (1.0 - s.b2) * g * g;
                    let delta = -decay * *w - rate * *m / (v.sqrt() * root + s.eps);
                    piece.round.commit(w, delta, block * BLOCK + i, self.watch, &mut change);
                }
                if let Some(stream) = piece.state {
                    round_state(m, stream, Part::First, block * BLOCK);
                    round_state(v, stream, Part::Second, block * BLOCK);
                }
                change
            });
            total(changes.collect(), w.len())
        }))
    }

    /// How weights are rounded, short of a stream.
    fn rounding(&self) -> Option<Rounding> {
        (self.bank.record == DType::BF16).then_some(self.rounding)
    }

    /// The members' streams, if this step draws from them.
    fn drawn_from(&self) -> Option<StreamRange<'_>> {
        let draws = self.state == StateType::Bf16 || self.rounding() == Some(Rounding::Stochastic);
        self.streams.filter(|_| draws)
    }

    /// Runs a step of the CPU on the whole bank, or member by member where each has its own stream.
    fn each(&self, step: impl Fn(Piece) -> Change) -> Vec<Pending> {
        let piece = |member: Option<(usize, Stream)>| {
            let stream = member.map(|(_, stream)| stream);
            let round = match (self.rounding(), stream) {
                (None, _) => Round::Keep,
                (Some(Rounding::Stochastic), Some(stream)) => Round::Stochastic(stream),
                (Some(_), _) => Round::Nearest,
            };
            let state = stream.filter(|_| self.state == StateType::Bf16);
            Piece { member: member.map(|(i, _)| i), round, state }
        };
        let changes: Vec<Change> = match self.drawn_from() {
            Some(range) => {
                range.streams.iter().enumerate().map(|(i, &stream)| step(piece(Some((i, stream))))).collect()
            }
            None => vec![step(piece(None))],
        };
        if self.watch { changes.into_iter().map(Pending::Done).collect() } else { Vec::new() }
    }

    /// Launches a step of a GPU: `arrays` are those that it goes over beside the weights.
    fn launch(&self, kernel: &str, element: DType, arrays: &[&Tensor], args: &[Arg]) -> Result<Vec<Pending>> {
        let Bank { weight, compute, .. } = self.bank;
        let Device::Cuda(gpu) = weight.device() else { panic!("{weight:?} is on no GPU") };
        let streams = self.drawn_from();
        // Members have their streams; where none is drawn from, the whole bank is one.
        let members = streams.map_or(1, |range| range.streams.len());
        let size = weight.numel() / members;
        let arrays = [arrays, &[weight, compute]].concat();
        let most = if self.watch { (WATCHED / members as u32).max(1) } else { kernels::MANY };
        let blocks = kernels::blocks(size, most);
        let watched = self.rows.as_ref().map(|rows| rows.slot(0));
        let stats = match &watched {
            Some(_) => Some(weight.device().empty(&[blocks as usize * members, 4], DType::F32)?),
            None => None,
        };
        let copy = if compute.dtype() == weight.dtype() { Arg::Ptr(0) } else { kernels::array(compute, 1) };
        let rounding = match self.rounding() {
            None => 0,
            Some(Rounding::Nearest) => 1,
            Some(Rounding::Stochastic) => 2,
        };
        let head = [kernels::array(weight, 2), copy];
        let tail = [
            Arg::I32(rounding),
            Arg::Ptr(streams.and_then(|range| range.ptr).unwrap_or(0)),
            Arg::Ptr(stats.as_ref().map_or(0, Tensor::ptr)),
            kernels::vec(&arrays, members),
            Arg::I64(size as i64),
        ];
        let args = [&head[..], args, &tail[..]].concat();
        let kernel = format!("{kernel}_{}", kernels::word(weight));
        let grid = [blocks, members as u32, 1];
        gpu.launch(&SOURCE, element, &kernel, grid, [THREADS, 1, 1], 0, &args)?;
        let (Some(stats), Some(row)) = (stats, watched) else { return Ok(Vec::new()) };
        let count = Arg::I32(stats.shape()[0] as i32);
        let args = [Arg::Ptr(stats.ptr()), Arg::Ptr(row.ptr()), count];
        gpu.launch(&SOURCE, element, "total_change", [1, 1, 1], [4 * THREADS, 1, 1], 0, &args)?;
        Ok(vec![Pending::Row { count: weight.numel() }])
    }
}

/// What a step of the CPU works on: a bank, or one member of it.
struct Piece {
    member: Option<usize>,
    round: Round,
    /// By which its state is rounded.
    state: Option<Stream>,
}

impl Piece {
    /// Its part of a tensor of the bank's shape.
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
            Round::Stochastic(stream) => stochastic(old + delta, (stream.bits(i as u64) >> 48) as u16),
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

fn total(changes: Vec<Change>, count: usize) -> Change {
    let mut total = Change::default();
    changes.into_iter().for_each(|change| total += change);
    Change { count: count as f64, ..total }
}
