//! Ctrl-C and SIGTERM: the first asks the run to save and stop, a second one ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Remembers which signal came.
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Takes the signals over, for the rest of the process.
    pub fn watch() -> io::Result<Self> {
        let (came, which) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and raises it, the second one finds it up.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&came))?;
            flag::register(signal, Arc::clone(&came))?;
            flag::register_usize(signal, Arc::clone(&which), signal as usize)?;
        }
        Ok(Signals(which))
    }

    /// The signal that came, if one did.
    pub fn came(&self) -> Option<i32> {
        Some(self.0.load(Ordering::SeqCst)).filter(|&signal| signal != 0).map(|signal| signal as i32)
    }
}
