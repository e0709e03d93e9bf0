//! Tensors as they were at one moment: copied on the device in an instant, brought to the host while the stream goes on.
//!
//! The way to the host is a [`Lane`], a stream of its own with pinned buffers. It reads what stands still: a [`Staged`]
//! copy, whose memory nothing else touches, after [`Staged::take`] has waited for it; or tensors that no work on the
//! main stream changes meanwhile. So the two streams never wait for each other.

use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUevent, CUstream};

use super::check;
use super::copies::new_event;
use super::gpu::Gpu;
use super::pool::DeviceBuf;
use crate::error::Result;
use crate::{DType, Tensor};

/// Small enough that what the main stream brings to the host in between does not wait long.
const SLOT_BYTES: usize = 4 << 20;
const SLOTS: usize = 4;
/// Where copies begin in the memory of a [`Staged`], in bytes, unless they follow each other as their tensors do.
const ALIGN: usize = 256;

/// Room on a GPU for a copy of some tensors.
pub struct Staged {
    tensors: Vec<Tensor>,
    /// Where the copy of each begins.
    places: Vec<usize>,
    runs: Vec<Run>,
    memory: DeviceBuf,
    lane: Lane,
}

/// A way from the device to the host beside the main stream; may be used from any thread.
pub struct Lane {
    gpu: Arc<Gpu>,
    stream: CUstream,
    /// The slots, one after the other, pinned.
    memory: *mut u8,
    /// Passed when a slot is filled.
    came: [CUevent; SLOTS],
}

// SAFETY: the handles may be used from any thread with the context current, which every call makes sure of; all use is
// through `&mut self`.
unsafe impl Send for Lane {}

/// Tensors next to each other, copied at once.
struct Run {
    from: u64,
    to: usize,
    bytes: usize,
}

impl Staged {
    /// Makes room for a copy of `tensors`, all on `gpu`.
    pub fn new(gpu: &Arc<Gpu>, tensors: Vec<Tensor>) -> Result<Self> {
        let span = |tensor: &Tensor| (tensor.allocation(), tensor.ptr(), size(tensor));
        let spans: Vec<_> = tensors.iter().map(span).collect();
        let (places, runs, bytes) = layout(&spans);
        let memory = gpu.alloc(bytes)?;
        Ok(Staged { tensors, places, runs, memory, lane: Lane::new(gpu)? })
    }

    /// Bytes of the room.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Copies the tensors as all work before leaves them, and waits for that.
    pub fn take(&mut self) -> Result<()> {
        let gpu = self.memory.gpu();
        for run in &self.runs {
            gpu.copy(self.memory.ptr() + run.to as u64, run.from, run.bytes)?;
        }
        gpu.synchronize()
    }

    /// The elements of tensor `i` at the last [`Staged::take`], as f32.
    pub fn to_vec(&mut self, i: usize) -> Result<Vec<f32>> {
        let (tensor, from) = (&self.tensors[i], self.memory.ptr() + self.places[i] as u64);
        self.lane.floats(from, tensor.numel(), tensor.dtype())
    }
}

impl Lane {
    /// Opens a lane with buffers of its own.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        gpu.bind()?;
        let mut lane = Lane {
            gpu: Arc::clone(gpu),
            stream: ptr::null_mut(),
            memory: ptr::null_mut(),
            came: [ptr::null_mut(); SLOTS],
        };
        let non_blocking = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        let mut memory: *mut c_void = ptr::null_mut();
        // SAFETY: the context is current and the pointers are to locals; all is freed in `drop`, also after an error here.
        unsafe {
            check::driver("cuStreamCreate", sys::cuStreamCreate(&raw mut lane.stream, non_blocking))?;
            let made = sys::cuMemHostAlloc(&raw mut memory, SLOTS * SLOT_BYTES, 0);
            check::driver("cuMemHostAlloc", made)?;
        }
        lane.memory = memory.cast();
        for event in &mut lane.came {
            // A waiting thread sleeps: the others may need its core.
            *event = new_event(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC)?;
        }
        Ok(lane)
    }

    /// The elements of a tensor as f32. What writes to it must have been waited for, and nothing may begin to meanwhile.
    pub fn to_vec(&mut self, tensor: &Tensor) -> Result<Vec<f32>> {
        self.floats(tensor.ptr(), tensor.numel(), tensor.dtype())
    }

    fn floats(&mut self, from: u64, count: usize, dtype: DType) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(count);
        self.receive(from, count * dtype.size(), |bytes| match dtype {
            DType::F32 => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            DType::BF16 => {
                values.extend(bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()));
            }
            DType::F16 => {
                values.extend(bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()));
            }
        })?;
        Ok(values)
    }

    /// Passes device memory on, a slot at a time and in order.
    fn receive(&mut self, from: u64, bytes: usize, mut each: impl FnMut(&[u8])) -> Result<()> {
        self.gpu.bind()?;
        let length = |chunk: usize| SLOT_BYTES.min(bytes - chunk * SLOT_BYTES);
        let chunks = bytes.div_ceil(SLOT_BYTES);
        let mut sent = 0;
        for chunk in 0..chunks {
            // Into the slots of the chunks before this one, which are read.
            while sent < chunks.min(chunk + SLOTS) {
                self.send(sent % SLOTS, from + (sent * SLOT_BYTES) as u64, length(sent))?;
                sent += 1;
            }
            let slot = chunk % SLOTS;
            // SAFETY: the event is of the current context; once it has passed nothing writes to the slot until it is
            // sent into again, after `each`.
            let filled = unsafe {
                check::driver("cuEventSynchronize", sys::cuEventSynchronize(self.came[slot]))?;
                slice::from_raw_parts(self.memory.add(slot * SLOT_BYTES), length(chunk))
            };
            each(filled);
        }
        Ok(())
    }

    fn send(&mut self, slot: usize, from: u64, bytes: usize) -> Result<()> {
        // SAFETY: the slot is pinned, as long as the copy at least, and lives until the stream has been waited for in
        // `drop`; the driver refuses addresses that are not the device's.
        unsafe {
            let to = self.memory.add(slot * SLOT_BYTES).cast::<c_void>();
            let copied = sys::cuMemcpyDtoHAsync_v2(to, from, bytes, self.stream);
            check::driver("cuMemcpyDtoHAsync", copied)?;
            check::driver("cuEventRecord", sys::cuEventRecord(self.came[slot], self.stream))
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if self.gpu.bind().is_err() {
            return;
        }
        // SAFETY: all that is there was made in `new`; after the wait no copy is under way. Errors at the end have no
        // remedy.
        unsafe {
            if !self.stream.is_null() {
                let _ = sys::cuStreamSynchronize(self.stream);
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
            for event in self.came.into_iter().filter(|event| !event.is_null()) {
                let _ = sys::cuEventDestroy_v2(event);
            }
            if !self.memory.is_null() {
                let _ = sys::cuMemFreeHost(self.memory.cast());
            }
        }
    }
}

fn size(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.dtype().size()
}

/// Where copies of these spans (allocation, address, bytes) begin, what is copied at once, and the bytes of all: spans next
/// to each other in one allocation stay so. A copy that runs over its end into the next one is refused by the driver.
fn layout(spans: &[(u64, u64, usize)]) -> (Vec<usize>, Vec<Run>, usize) {
    let mut order: Vec<usize> = (0..spans.len()).filter(|&i| spans[i].2 > 0).collect();
    order.sort_by_key(|&i| spans[i]);
    let (mut places, mut runs, mut used) = (vec![0; spans.len()], Vec::<Run>::new(), 0);
    let mut inside = None;
    for i in order {
        let (allocation, from, bytes) = spans[i];
        match runs.last_mut() {
            Some(last) if inside == Some(allocation) && last.from + last.bytes as u64 == from => {
                last.bytes += bytes;
            }
            _ => {
                used = usize::next_multiple_of(used, ALIGN);
                runs.push(Run { from, to: used, bytes });
            }
        }
        inside = Some(allocation);
        places[i] = used;
        used += bytes;
    }
    (places, runs, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_copied_at_once_and_the_rest_apart() {
        // The last follows on the third, in an allocation of its own.
        let spans = [
            (5000, 5000, 10),
            (1000, 1000, 6),
            (1000, 1006, 2),
            (9000, 9000, 0),
            (2000, 2000, 4),
            (1008, 1008, 3),
        ];
        let (places, runs, bytes) = layout(&spans);
        let runs: Vec<_> = runs.iter().map(|run| (run.from, run.to, run.bytes)).collect();
        assert_eq!(runs, [(1000, 0, 8), (1008, 256, 3), (2000, 512, 4), (5000, 768, 10)]);
        assert_eq!((places, bytes), (vec![768, 0, 6, 0, 512, 256], 778));
    }
}
