//! Bytes to, from and on the device, in order with everything else on its stream; and the time that passes there.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUevent};

use super::check;
use super::gpu::{Gpu, lock};
use super::profile::Work;
use crate::error::Result;

impl Gpu {
    /// Copies bytes to device address `dst`. Returns once `src` is read, which may be before the copy has run: it
    /// goes through pinned memory, so that the stream need not be waited for.
    pub fn upload(&self, dst: u64, src: &[u8]) -> Result<()> {
        self.outside_graphs("a copy from the host")?;
        self.bind()?;
        let mut staging = lock(&self.staging);
        if staging.is_none() {
            *staging = Some(Staging::new()?);
        }
        let staging = staging.as_mut().expect("made above");
        let mut to = dst;
        for chunk in src.chunks(SLOT_BYTES) {
            staging.send(self, to, chunk)?;
            to += chunk.len() as u64;
        }
        self.note(|| moved("upload", src.len()))
    }

    /// Copies bytes from device address `src`, after waiting for all work before.
    pub fn download(&self, dst: &mut [u8], src: u64) -> Result<()> {
        if dst.is_empty() {
            return Ok(());
        }
        self.outside_graphs("a copy to the host")?;
        self.bind()?;
        // SAFETY: `dst` is exclusive and as long as said, and outlives the copy, which is waited for.
        let copied = check::driver("cuMemcpyDtoHAsync", unsafe {
            sys::cuMemcpyDtoHAsync_v2(dst.as_mut_ptr().cast::<c_void>(), src, dst.len(), self.stream)
        });
        copied.and_then(|()| self.note(|| moved("download", dst.len()))).and(self.synchronize())
    }

    /// Copies bytes on the device; the ranges must not overlap.
    pub fn copy(&self, dst: u64, src: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: no host memory is involved; the driver refuses addresses that are not the device's.
        check::driver("cuMemcpyDtoDAsync", unsafe {
            sys::cuMemcpyDtoDAsync_v2(dst, src, bytes, self.stream)
        })?;
        self.note(|| moved("copy", 2 * bytes))
    }

    /// Sets bytes to zero.
    pub fn fill_zero(&self, dst: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: as in `copy`.
        check::driver("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(dst, 0, bytes, self.stream) })?;
        self.note(|| moved("zero", bytes))
    }

    /// Sets `count` f32 to a value.
    pub fn fill_f32(&self, dst: u64, value: f32, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: as in `copy`.
        check::driver("cuMemsetD32Async", unsafe {
            sys::cuMemsetD32Async(dst, value.to_bits(), count, self.stream)
        })?;
        self.note(|| moved("fill", 4 * count))
    }
}

fn moved(detail: &str, bytes: usize) -> Work {
    Work { name: "copies", detail: detail.to_owned(), bytes: bytes as u64, flops: 0.0 }
}

const SLOTS: usize = 16;
const SLOT_BYTES: usize = 1 << 20;

/// A ring of pinned buffers. A slot is written again only after the copy out of it has run.
pub(super) struct Staging {
    memory: *mut u8,
    sent: [CUevent; SLOTS],
    next: usize,
}

impl Staging {
    /// Needs the context to be current.
    fn new() -> Result<Self> {
        let mut memory: *mut c_void = ptr::null_mut();
        // SAFETY: the pointer is a local; the memory is freed in `destroy`.
        check::driver("cuMemHostAlloc", unsafe {
            sys::cuMemHostAlloc(&raw mut memory, SLOTS * SLOT_BYTES, 0)
        })?;
        let mut staging = Staging { memory: memory.cast(), sent: [ptr::null_mut(); SLOTS], next: 0 };
        for event in &mut staging.sent {
            if let Err(error) =
                new_event(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map(|made| *event = made)
            {
                staging.destroy();
                return Err(error);
            }
        }
        Ok(staging)
    }

    fn send(&mut self, gpu: &Gpu, dst: u64, chunk: &[u8]) -> Result<()> {
        let event = self.sent[self.next];
        // SAFETY: the slot lies within the ring, `chunk` fits into it, and the device has finished reading it; an
        // event that was never recorded counts as done.
        let slot = unsafe {
            check::driver("cuEventSynchronize", sys::cuEventSynchronize(event))?;
            let slot = self.memory.add(self.next * SLOT_BYTES);
            ptr::copy_nonoverlapping(chunk.as_ptr(), slot, chunk.len());
            slot
        };
        self.next = (self.next + 1) % SLOTS;
        // SAFETY: the slot stays as it is until the event has passed.
        unsafe {
            let from = slot.cast::<c_void>();
            check::driver(
                "cuMemcpyHtoDAsync",
                sys::cuMemcpyHtoDAsync_v2(dst, from, chunk.len(), gpu.stream),
            )?;
            check::driver("cuEventRecord", sys::cuEventRecord(event, gpu.stream))
        }
    }

    /// Needs the context to be current and the stream to be idle.
    pub(super) fn destroy(self) {
        // SAFETY: all were made in `new`, and no copy is under way; errors at the end have no remedy.
        unsafe {
            for event in self.sent.into_iter().filter(|event| !event.is_null()) {
                let _ = sys::cuEventDestroy_v2(event);
            }
            let _ = sys::cuMemFreeHost(self.memory.cast());
        }
    }
}

/// Measures the time between points on the stream.
pub struct Timer {
    gpu: Arc<Gpu>,
    /// The first is the start.
    marks: Vec<CUevent>,
}

impl Timer {
    /// Starts when everything before has run.
    pub fn start(gpu: &Arc<Gpu>) -> Result<Self> {
        Timer { gpu: Arc::clone(gpu), marks: Vec::new() }.lap()
    }

    /// Milliseconds on the device from the start to here; waits for the work between.
    pub fn stop(self) -> Result<f32> {
        let [ms] = self.lap()?.laps()?[..] else { unreachable!("one lap was taken") };
        Ok(ms)
    }

    /// Marks a point on the stream; waits for nothing.
    pub fn lap(mut self) -> Result<Self> {
        self.gpu.bind()?;
        self.marks.push(new_event(sys::CUevent_flags::CU_EVENT_DEFAULT)?);
        record(&self.gpu, self.marks[self.marks.len() - 1])?;
        Ok(self)
    }

    /// Milliseconds on the device from the start to each lap; waits for the work before the last.
    pub fn laps(self) -> Result<Vec<f32>> {
        self.gpu.bind()?;
        self.marks[1..].iter().map(|&mark| elapsed(self.marks[0], mark)).collect()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.gpu.bind().is_err() {
            return;
        }
        for mark in self.marks.drain(..) {
            // SAFETY: made in `lap`; the driver keeps what is still in flight.
            let _ = unsafe { sys::cuEventDestroy_v2(mark) };
        }
    }
}

/// Puts an event on the stream. Needs the context to be current.
pub(super) fn record(gpu: &Gpu, event: CUevent) -> Result<()> {
    // SAFETY: event and stream are of the same, current context.
    check::driver("cuEventRecord", unsafe { sys::cuEventRecord(event, gpu.stream) })
}

/// Milliseconds between two recorded events; waits for the second. Needs the context to be current.
pub(super) fn elapsed(start: CUevent, stop: CUevent) -> Result<f32> {
    let mut ms = 0.0;
    // SAFETY: both events live and were recorded; the result is a local.
    unsafe {
        check::driver("cuEventSynchronize", sys::cuEventSynchronize(stop))?;
        let taken = sys::cuEventElapsedTime_v2(&raw mut ms, start, stop);
        check::driver("cuEventElapsedTime", taken)?;
    }
    Ok(ms)
}

pub(super) fn new_event(flags: sys::CUevent_flags) -> Result<CUevent> {
    let mut event = ptr::null_mut();
    // SAFETY: the context is current; the event is a local.
    check::driver("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut event, flags as u32) })?;
    Ok(event)
}
