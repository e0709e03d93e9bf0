//! CUDA graphs: work recorded once and launched as a whole, without the gaps between its pieces.
//!
//! What is recorded are addresses and arguments. Memory that the work took from the pool while it was recorded belongs
//! to the graph as long as that lives; graphs share theirs, since they run one after the other on one stream, but for
//! results that still live. Values that change from launch to launch must be in memory, at addresses that stay.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUstreamCaptureMode};

use super::check;
use super::gpu::{Gpu, lock};
use crate::error::{Error, Result};

/// Recorded work.
pub struct Graph {
    gpu: Arc<Gpu>,
    exec: CUgraphExec,
    nodes: usize,
    /// Blocks of the pool that it may use.
    held: Vec<u64>,
}

// SAFETY: the handle may be used from any thread with the context current; it is launched through `&self`, and the
// driver serialises launches of one graph on one stream.
unsafe impl Send for Graph {}

impl Gpu {
    /// Records what `work` puts on the stream, which does not run. Work that waits for the device, or copies from or to
    /// the host, is refused.
    pub fn capture<T, E: From<Error>>(
        self: &Arc<Self>,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Graph, T), E> {
        self.bind()?;
        if lock(&self.profile).is_some() {
            let call = "recording a graph".to_owned();
            return Err(Error::Cuda { call, reason: "a profile is being taken".to_owned() }.into());
        }
        // SAFETY: the stream is of the current context.
        check::driver("cuStreamBeginCapture", unsafe {
            let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
            sys::cuStreamBeginCapture_v2(self.stream, mode)
        })?;
        self.capturing.store(true, Ordering::Relaxed);
        lock(&self.pool).start_holding();
        let done = work();
        let held = lock(&self.pool).stop_holding();
        self.capturing.store(false, Ordering::Relaxed);
        let mut recorded: CUgraph = ptr::null_mut();
        // SAFETY: the capture was begun above, on this stream.
        let ended = check::driver("cuStreamEndCapture", unsafe {
            sys::cuStreamEndCapture(self.stream, &raw mut recorded)
        });
        let mut graph = Graph { gpu: Arc::clone(self), exec: ptr::null_mut(), nodes: 0, held };
        let made = ended.and_then(|()| graph.instantiate(recorded));
        if !recorded.is_null() {
            // SAFETY: made by the capture, destroyed once; what was instantiated of it lives on.
            let _ = unsafe { sys::cuGraphDestroy(recorded) };
        }
        // An error of the work itself says more than that of the capture it broke.
        let done = done?;
        made?;
        Ok((graph, done))
    }

    /// Refuses what cannot be part of a graph while one is recorded.
    pub(super) fn outside_graphs(&self, what: &str) -> Result<()> {
        if self.capturing.load(Ordering::Relaxed) {
            return Err(Error::Cuda {
                call: what.to_owned(),
                reason: "a graph is being recorded, in which the host can take no part".to_owned(),
            });
        }
        Ok(())
    }
}

impl Graph {
    /// Puts the recorded work on the stream.
    pub fn launch(&self) -> Result<()> {
        self.gpu.bind()?;
        // SAFETY: the graph is instantiated; its addresses are held, or the caller's duty as with any launch.
        check::driver("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.exec, self.gpu.stream) })
    }

    /// How many pieces of work it consists of.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    fn instantiate(&mut self, recorded: CUgraph) -> Result<()> {
        // SAFETY: the graph was recorded in the current context; the pointers are to fields, and a null list asks for
        // the number of nodes alone.
        unsafe {
            let made = sys::cuGraphInstantiateWithFlags(&raw mut self.exec, recorded, 0);
            check::driver("cuGraphInstantiate", made)?;
            let counted = sys::cuGraphGetNodes(recorded, ptr::null_mut(), &raw mut self.nodes);
            check::driver("cuGraphGetNodes", counted)
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // It may still run; the memory may go back to the driver after that.
        if !self.exec.is_null() && self.gpu.synchronize().is_ok() {
            // SAFETY: instantiated once, destroyed once.
            let _ = unsafe { sys::cuGraphExecDestroy(self.exec) };
        }
        lock(&self.gpu.pool).let_go(&self.held);
    }
}
