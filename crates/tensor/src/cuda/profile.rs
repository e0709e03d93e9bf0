//! What each piece of work on the stream takes: an event after each, where a profile is being taken.

use cudarc::driver::sys::{self, CUevent};

use super::copies::{elapsed, new_event, record};
use super::gpu::{Gpu, lock};
use crate::error::Result;

/// Events recorded one after the other to learn what they cost.
const EMPTY: usize = 200;

/// What one piece of work is.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The operation: a source's name, `products`, `copies`.
    pub name: &'static str,
    /// The kernel, or the sizes of a product.
    pub detail: String,
    /// Bytes that it reads and writes: of each array once, twice where it is added to. Neither what a kernel reads again
    /// nor what a cache spares it is in them.
    pub bytes: u64,
    /// Floating-point operations of a product.
    pub flops: f64,
}

/// A piece of work and the time it took, from the end of the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// What it was.
    pub work: Work,
    /// Milliseconds on the device, without those of the event.
    pub ms: f64,
}

impl Gpu {
    /// From here on the time of everything on the stream is taken, until [`Gpu::stop_profile`].
    pub fn start_profile(&self) -> Result<()> {
        self.bind()?;
        let recorder = Recorder { marks: vec![(None, self.mark()?)] };
        *lock(&self.profile) = Some(recorder);
        Ok(())
    }

    /// Ends the profile: everything since its start, in order.
    pub fn stop_profile(&self) -> Result<Vec<Cost>> {
        let Some(recorder) = lock(&self.profile).take() else { return Ok(Vec::new()) };
        self.synchronize()?;
        let empty = self.empty_interval()?;
        let mut costs = Vec::with_capacity(recorder.marks.len());
        for pair in recorder.marks.windows(2) {
            let [(_, before), (Some(work), after)] = pair else { continue };
            let ms = f64::from(elapsed(*before, *after)?) - empty;
            costs.push(Cost { work: work.clone(), ms: ms.max(0.0) });
        }
        Ok(costs)
    }

    /// Milliseconds between two events with nothing between them: what the events themselves add to each piece.
    fn empty_interval(&self) -> Result<f64> {
        let marks = (0..=EMPTY).map(|_| Ok((None, self.mark()?))).collect::<Result<_>>()?;
        let recorder = Recorder { marks };
        let whole = elapsed(recorder.marks[0].1, recorder.marks[EMPTY].1)?;
        Ok(f64::from(whole) / EMPTY as f64)
    }

    /// Says what was just put on the stream.
    pub(super) fn note(&self, work: impl FnOnce() -> Work) -> Result<()> {
        let mut profile = lock(&self.profile);
        let Some(recorder) = profile.as_mut() else { return Ok(()) };
        let mark = self.mark()?;
        recorder.marks.push((Some(work()), mark));
        Ok(())
    }

    fn mark(&self) -> Result<CUevent> {
        let event = new_event(sys::CUevent_flags::CU_EVENT_DEFAULT)?;
        record(self, event)?;
        Ok(event)
    }
}

/// The events of a profile that is being taken.
pub(super) struct Recorder {
    /// The first one has no work before it.
    marks: Vec<(Option<Work>, CUevent)>,
}

// SAFETY: events may be used from any thread with the context current.
unsafe impl Send for Recorder {}

impl Drop for Recorder {
    fn drop(&mut self) {
        for (_, event) in self.marks.drain(..) {
            // SAFETY: made in `mark`, destroyed once; the driver keeps what is still in flight.
            let _ = unsafe { sys::cuEventDestroy_v2(event) };
        }
    }
}
