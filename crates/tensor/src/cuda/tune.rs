//! Which of cuBLASLt's algorithms a product takes: the fastest of those that give the same bits as the first one.
//!
//! cuBLASLt orders its algorithms by a model of the device, and the first is seldom far from the best. Those that cut
//! the result into other tiles but add up each element in the same order give the same bits, so a choice among them by
//! timing changes no result. That they are the same is measured, on the operands of the first call. The choice is made
//! once for each kind of product; while a graph is recorded it is the first one.
//!
//! A GPU that computes products at full power changes its clock within milliseconds, by a quarter and more. So
//! algorithms are timed in turns, many times over, and the medians are compared.

use std::ptr;
use std::sync::atomic::Ordering;

use cudarc::cublaslt::sys::cublasLtMatmulAlgo_t;

use cudarc::driver::sys::{self, CUevent};

use super::blas::Blas;
use super::copies::{elapsed, new_event, record};
use super::gemm::Gemm;
use super::gpu::Gpu;
use super::kernels::{Arg, Source};
use super::lt::Call;
use crate::device::DType;
use crate::error::{Error, Result};

pub(crate) static SOURCE: Source = Source { name: "tune.cu", text: include_str!("tune.cu") };

/// Algorithms tried.
pub(super) const CANDIDATES: usize = 12;
/// Milliseconds that the timing of one kind of product may take, about, and how often each algorithm is run in them.
const BUDGET: f32 = 60.0;
const ROUNDS: (usize, usize) = (5, 40);
/// Products below so many operations are left with the first algorithm.
const WORTH: f64 = 2e8;
/// Results of fewer elements may be the same by rounding alone.
const TELLING: usize = 1 << 18;
/// Share of the first one's time that another must come below.
const BETTER: f32 = 0.99;

impl Gpu {
    /// The algorithm for `call`, of `candidates` in cuBLASLt's order. They write to memory of their own.
    pub(super) fn fastest(
        &self,
        blas: &Blas,
        gemm: &Gemm,
        call: &Call,
        candidates: &[cublasLtMatmulAlgo_t],
    ) -> Result<cublasLtMatmulAlgo_t> {
        let first = candidates[0];
        let small = gemm.work().flops < WORTH || gemm.m * gemm.n * gemm.batch < TELLING;
        if candidates.len() == 1 || small || self.capturing.load(Ordering::Relaxed) {
            return Ok(first);
        }
        let trial = match Trial::new(self, gemm) {
            // The bits are the same either way.
            Err(Error::OutOfMemory { .. }) => return Ok(first),
            other => other?,
        };
        call.run(self, blas, gemm, trial.expected, &first)?;
        if trial.same_bits()? {
            // All zeros, as `found` still is: of that every algorithm has the same bits.
            return Ok(first);
        }
        let mut same = vec![first];
        for algo in &candidates[1..] {
            // One that the library proposes may still refuse to run.
            if call.run(self, blas, gemm, trial.found, algo).is_ok() && trial.same_bits()? {
                same.push(*algo);
            }
        }
        let times = trial.rounds(blas, call, &same)?;
        let (mut best, mut least) = (first, BETTER * times[0]);
        for (algo, ms) in same.iter().zip(times).skip(1) {
            if ms < least {
                (best, least) = (*algo, ms);
            }
        }
        Ok(best)
    }
}

/// Memory for two results and what else it takes to compare algorithms.
struct Trial<'a> {
    gpu: &'a Gpu,
    gemm: &'a Gemm,
    bytes: usize,
    expected: u64,
    found: u64,
    count: u64,
    /// One more than there are algorithms.
    marks: [CUevent; CANDIDATES + 1],
}

impl<'a> Trial<'a> {
    fn new(gpu: &'a Gpu, gemm: &'a Gemm) -> Result<Self> {
        let (c, cols) = (gemm.c, if gemm.c.transposed { gemm.m } else { gemm.n });
        let rows = gemm.m * gemm.n / cols;
        let elements = (gemm.batch - 1) * c.stride + (rows - 1) * c.ld + cols;
        let bytes = (elements * c.dtype.size()).next_multiple_of(4);
        let marks = [ptr::null_mut(); CANDIDATES + 1];
        let mut trial = Trial { gpu, gemm, bytes, expected: 0, found: 0, count: 0, marks };
        for place in [&mut trial.expected, &mut trial.found] {
            *place = gpu.take(bytes)?;
            // Not every word of it need be part of the result.
            gpu.fill_zero(*place, bytes)?;
        }
        trial.count = gpu.take(4)?;
        for mark in &mut trial.marks {
            *mark = new_event(sys::CUevent_flags::CU_EVENT_DEFAULT)?;
        }
        Ok(trial)
    }

    /// Medians of the milliseconds of each of these, in rounds.
    fn rounds(&self, blas: &Blas, call: &Call, algos: &[cublasLtMatmulAlgo_t]) -> Result<Vec<f32>> {
        // Whatever is set up at first use is not the algorithm's time.
        let first = self.round(blas, call, algos)?;
        let whole: f32 = first.iter().sum();
        let count = ((BUDGET / whole) as usize).clamp(ROUNDS.0, ROUNDS.1);
        let rounds = (0..count).map(|_| self.round(blas, call, algos)).collect::<Result<Vec<_>>>()?;
        let median = |i: usize| {
            let mut times: Vec<f32> = rounds.iter().map(|round| round[i]).collect();
            times.sort_by(f32::total_cmp);
            times[count / 2]
        };
        Ok((0..algos.len()).map(median).collect())
    }

    /// Milliseconds of each, one right behind the other; the device is kept busy before the first.
    fn round(&self, blas: &Blas, call: &Call, algos: &[cublasLtMatmulAlgo_t]) -> Result<Vec<f32>> {
        let run = |algo| call.run(self.gpu, blas, self.gemm, self.found, algo);
        run(&algos[0])?;
        record(self.gpu, self.marks[0])?;
        for (algo, mark) in algos.iter().zip(&self.marks[1..]) {
            run(algo)?;
            record(self.gpu, *mark)?;
        }
        self.marks.windows(2).take(algos.len()).map(|pair| elapsed(pair[0], pair[1])).collect()
    }

    fn same_bits(&self) -> Result<bool> {
        self.gpu.fill_zero(self.count, 4)?;
        let [expected, found, count] = [self.expected, self.found, self.count].map(Arg::Ptr);
        let args = [expected, found, count, Arg::I64((self.bytes / 4) as i64)];
        let (grid, block) = ([1024, 1, 1], [256, 1, 1]);
        self.gpu.launch(&SOURCE, DType::F32, "count_differences", grid, block, 0, &args)?;
        let mut differences = [0; 4];
        self.gpu.download(&mut differences, self.count)?;
        Ok(differences == [0; 4])
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        for (place, bytes) in [(self.expected, self.bytes), (self.found, self.bytes), (self.count, 4)] {
            if place != 0 {
                self.gpu.give(place, bytes);
            }
        }
        for event in self.marks.into_iter().filter(|event| !event.is_null()) {
            // SAFETY: made in `new`, destroyed once; an error at the end has no remedy.
            let _ = unsafe { sys::cuEventDestroy_v2(event) };
        }
    }
}
