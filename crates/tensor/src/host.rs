//! Host memory for tensors: f32 buffers that go back to a free list when dropped, so that a training step in its
//! steady state asks the system for nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, RwLock};

static FREE: LazyLock<Mutex<HashMap<usize, Vec<Vec<f32>>>>> = LazyLock::new(Mutex::default);
static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// A pooled buffer. The lock makes aliasing a loud error instead of undefined behaviour: operations run one after
/// another and never read and write one buffer at once, so it is never contended.
pub struct HostBuf {
    pub(crate) data: RwLock<Vec<f32>>,
    len: usize,
}

impl HostBuf {
    /// A buffer of `len` elements with old contents (zeros when fresh from the system).
    pub fn new(len: usize) -> Self {
        let reused = FREE.lock().expect("pool lock").get_mut(&len).and_then(Vec::pop);
        let now = IN_USE.fetch_add(4 * len, Ordering::Relaxed) + 4 * len;
        PEAK.fetch_max(now, Ordering::Relaxed);
        HostBuf { data: RwLock::new(reused.unwrap_or_else(|| vec![0.0; len])), len }
    }
}

impl Drop for HostBuf {
    fn drop(&mut self) {
        IN_USE.fetch_sub(4 * self.len, Ordering::Relaxed);
        let data =
            std::mem::take(&mut *self.data.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner));
        FREE.lock().expect("pool lock").entry(self.len).or_default().push(data);
    }
}

/// Most bytes in use at once since [`reset_peak`].
pub fn peak_bytes() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// Starts the peak anew from what is in use now.
pub fn reset_peak() {
    PEAK.store(IN_USE.load(Ordering::Relaxed), Ordering::Relaxed);
}
