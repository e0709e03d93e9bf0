//! What each piece of work on the stream takes: an event after each, where a profile is being taken.

use cudarc::driver::sys::{self, CUevent};

use super::check;
use super::copies::{elapsed, new_event};
use super::gpu::{Gpu, lock};
use crate::error::Result;

/// What one piece of work is.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The operation: a source's name, `products`, `copies`.
    pub name: &'static str,
    /// The kernel, or the sizes of a product.
    pub detail: String,
    /// Bytes of the arrays that it reads and writes, each counted once.
    pub bytes: u64,
    /// Floating-point operations of a product.
    pub flops: f64,
}

/// A piece of work and the time it took, from the end of the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// What it was.
    pub work: Work,
    /// Milliseconds on the device.
    pub ms: f64,
}

impl Gpu {
    /// From here on the time of everything on the stream is taken, until [`Gpu::stop_profile`]. It costs about a
    /// microsecond for each piece of work.
    pub fn start_profile(&self) -> Result<()> {
        self.bind()?;
        let recorder = Recorder { marks: vec![(None, self.mark()?)] };
        *lock(&self.profile) = Some(recorder);
        Ok(())
    }

    /// Ends the profile: everything since its start, in order.
    pub fn stop_profile(&self) -> Result<Vec<Cost>> {
        let Some(mut recorder) = lock(&self.profile).take() else { return Ok(Vec::new()) };
        self.synchronize()?;
        let marks = std::mem::take(&mut recorder.marks);
        let mut costs = Vec::with_capacity(marks.len());
        for pair in marks.windows(2) {
            let [(_, before), (Some(work), after)] = pair else { continue };
            costs.push(Cost { work: work.clone(), ms: f64::from(elapsed(*before, *after)?) });
        }
        recorder.marks = marks;
        Ok(costs)
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
        // SAFETY: event and stream are of the same, current context.
        check::driver("cuEventRecord", unsafe { sys::cuEventRecord(event, self.stream) })?;
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
