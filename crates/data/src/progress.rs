//! How long work reports its progress; whoever calls draws the bar.

/// Receives the progress of a piece of work: one `begin`, any number of `advance`, one `end` (left out on an error).
pub trait Progress: Sync {
    /// Work named `what` starts; it covers `total_bytes` bytes if that is known.
    fn begin(&self, what: &str, total_bytes: Option<u64>);
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
    /// The work is done.
    fn end(&self);
}

/// Shows nothing.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
}
