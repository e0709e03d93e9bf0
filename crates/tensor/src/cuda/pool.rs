//! A caching allocator for one stream: freed blocks are kept, by size, and handed out again.
//!
//! Sizes are rounded up, to 512 B up to 1 MiB and to an eighth of the power of two below beyond, so that at most an
//! eighth is wasted and like sizes share blocks. A block serves only its own rounded size. Since all work is on one
//! stream, a block can be reused as soon as it is given back. When the driver has no more, all cached blocks go back
//! to it and it is asked once more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Gpu;
use crate::error::Result;

/// What the pool holds, in bytes of rounded sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Held by living buffers.
    pub in_use: usize,
    /// The most of `in_use` since the last [`Gpu::reset_peak`].
    pub peak_in_use: usize,
    /// Taken from the driver: in use or cached.
    pub reserved: usize,
    /// How often the driver was asked for memory; constant in a steady state.
    pub driver_allocations: u64,
}

/// Memory on a [`Gpu`], given back to its pool on drop. Contents are what the block held before.
pub struct DeviceBuf {
    gpu: Arc<Gpu>,
    ptr: u64,
    bytes: usize,
}

impl DeviceBuf {
    pub(super) fn new(gpu: Arc<Gpu>, ptr: u64, bytes: usize) -> Self {
        DeviceBuf { gpu, ptr, bytes }
    }

    /// Device address, a multiple of 256.
    pub fn ptr(&self) -> u64 {
        self.ptr
    }

    /// Bytes asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device it is on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

impl Drop for DeviceBuf {
    fn drop(&mut self) {
        self.gpu.give(self.ptr, self.bytes);
    }
}

impl std::fmt::Debug for DeviceBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceBuf({} B at {:#x})", self.bytes, self.ptr)
    }
}

/// Where a pool gets its blocks.
pub(super) trait Memory {
    /// A block of so many bytes, or `None` if there is not enough memory.
    fn alloc(&self, bytes: usize) -> Result<Option<u64>>;
    /// Gives a block back.
    fn free(&self, ptr: u64) -> Result<()>;
}

#[derive(Default)]
pub(super) struct Pool {
    free: BTreeMap<usize, Vec<u64>>,
    stats: PoolStats,
    /// Blocks that graphs may use, and how many of them do.
    held: BTreeMap<u64, usize>,
    /// Blocks taken since [`Pool::start_holding`].
    taken: Option<BTreeSet<u64>>,
}

impl Pool {
    /// A block of at least so many bytes, or `None` if memory is exhausted even with nothing cached.
    pub(super) fn take(&mut self, bytes: usize, memory: &impl Memory) -> Result<Option<u64>> {
        let size = rounded(bytes);
        let ptr = if let Some(ptr) = self.free.get_mut(&size).and_then(Vec::pop) {
            ptr
        } else {
            let Some(ptr) = self.ask(size, memory)? else {
                return Ok(None);
            };
            self.stats.reserved += size;
            ptr
        };
        if let Some(taken) = &mut self.taken {
            taken.insert(ptr);
        }
        self.stats.in_use += size;
        self.stats.peak_in_use = self.stats.peak_in_use.max(self.stats.in_use);
        Ok(Some(ptr))
    }

    /// Puts a block back that [`Pool::take`] gave for the same number of bytes.
    pub(super) fn give(&mut self, ptr: u64, bytes: usize) {
        let size = rounded(bytes);
        self.stats.in_use -= size;
        self.free.entry(size).or_default().push(ptr);
    }

    /// Returns all cached blocks to the driver that no graph holds.
    pub(super) fn release_cached(&mut self, memory: &impl Memory) -> Result<()> {
        for (size, blocks) in &mut self.free {
            let (keep, go) = blocks.iter().partition(|ptr| self.held.contains_key(ptr));
            *blocks = keep;
            for ptr in go {
                self.stats.reserved -= size;
                memory.free(ptr)?;
            }
        }
        self.free.retain(|_, blocks| !blocks.is_empty());
        Ok(())
    }

    /// From here on the blocks that are handed out are held: they do not go back to the driver.
    pub(super) fn start_holding(&mut self) {
        self.taken = Some(BTreeSet::new());
    }

    /// The blocks handed out since [`Pool::start_holding`], each held until [`Pool::let_go`].
    pub(super) fn stop_holding(&mut self) -> Vec<u64> {
        let taken: Vec<u64> = self.taken.take().unwrap_or_default().into_iter().collect();
        for &ptr in &taken {
            *self.held.entry(ptr).or_default() += 1;
        }
        taken
    }

    /// Ends one hold of each of these blocks.
    pub(super) fn let_go(&mut self, blocks: &[u64]) {
        for ptr in blocks {
            if let Some(count) = self.held.get_mut(ptr) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(ptr);
                }
            }
        }
    }

    pub(super) fn stats(&self) -> PoolStats {
        self.stats
    }

    pub(super) fn reset_peak(&mut self) {
        self.stats.peak_in_use = self.stats.in_use;
    }

    fn ask(&mut self, size: usize, memory: &impl Memory) -> Result<Option<u64>> {
        self.stats.driver_allocations += 1;
        if let Some(ptr) = memory.alloc(size)? {
            return Ok(Some(ptr));
        }
        self.release_cached(memory)?;
        self.stats.driver_allocations += 1;
        memory.alloc(size)
    }
}

/// The size of the block that serves so many bytes.
fn rounded(bytes: usize) -> usize {
    const FINE: usize = 512;
    const COARSE_FROM: usize = 1 << 20;
    if bytes <= COARSE_FROM {
        bytes.max(1).next_multiple_of(FINE)
    } else {
        let step = (1usize << bytes.ilog2()) / 8;
        bytes.checked_next_multiple_of(step).unwrap_or(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;

    use super::*;

    /// So many bytes of memory that exist in name only.
    struct Fake {
        left: Cell<usize>,
        next: Cell<u64>,
        blocks: RefCell<HashMap<u64, usize>>,
    }

    impl Fake {
        fn of(bytes: usize) -> Self {
            Fake { left: Cell::new(bytes), next: Cell::new(1), blocks: RefCell::default() }
        }
    }

    impl Memory for Fake {
        fn alloc(&self, bytes: usize) -> Result<Option<u64>> {
            if bytes > self.left.get() {
                return Ok(None);
            }
            self.left.set(self.left.get() - bytes);
            let ptr = self.next.replace(self.next.get() + 1);
            self.blocks.borrow_mut().insert(ptr, bytes);
            Ok(Some(ptr))
        }

        fn free(&self, ptr: u64) -> Result<()> {
            let bytes =
                self.blocks.borrow_mut().remove(&ptr).expect("freed once, and only what was allocated");
            self.left.set(self.left.get() + bytes);
            Ok(())
        }
    }

    #[test]
    fn sizes_round_up_by_at_most_an_eighth_beyond_a_mebibyte() {
        assert_eq!([0, 1, 512, 513, 1 << 20].map(rounded), [512, 512, 512, 1024, 1 << 20]);
        assert_eq!(rounded((1 << 20) + 1), (1 << 20) + (1 << 17));
        for bytes in [1_500_000, 3 << 20, 77_777_777, (5 << 30) + 3] {
            let size = rounded(bytes);
            assert!(size >= bytes && size - bytes <= bytes / 8, "{bytes} -> {size}");
            assert_eq!(rounded(size), size);
        }
    }

    #[test]
    fn a_repeated_pattern_asks_the_driver_only_the_first_time() {
        let (fake, mut pool) = (Fake::of(1 << 30), Pool::default());
        let sizes = [100, 5000, 2 << 20, 100, 3_000_000];
        let step = |pool: &mut Pool| {
            let blocks = sizes.map(|bytes| pool.take(bytes, &fake).unwrap().unwrap());
            sizes.iter().zip(blocks).for_each(|(&bytes, ptr)| pool.give(ptr, bytes));
        };
        step(&mut pool);
        let first = pool.stats();
        assert_eq!((first.driver_allocations, first.in_use), (5, 0));
        assert_eq!(first.peak_in_use, first.reserved);
        step(&mut pool);
        assert_eq!(pool.stats(), first);
    }

    #[test]
    fn full_memory_releases_the_cache_before_it_gives_up() {
        let (fake, mut pool) = (Fake::of(8 << 20), Pool::default());
        let held = pool.take(2 << 20, &fake).unwrap().unwrap();
        let cached = pool.take(5 << 20, &fake).unwrap().unwrap();
        pool.give(cached, 5 << 20);
        assert!(pool.take(6 << 20, &fake).unwrap().is_some(), "the cached 5 MiB make room");
        assert_eq!(pool.stats().reserved, 8 << 20);
        assert_eq!(pool.take(1, &fake).unwrap(), None);
        pool.give(held, 2 << 20);
        assert_eq!(pool.stats().in_use, 6 << 20);
    }

    #[test]
    fn what_a_graph_holds_stays_with_the_pool_until_it_is_let_go() {
        let (fake, mut pool) = (Fake::of(4 << 20), Pool::default());
        let other = pool.take(1 << 20, &fake).unwrap().unwrap();
        pool.start_holding();
        let used = pool.take(2 << 20, &fake).unwrap().unwrap();
        pool.give(used, 2 << 20);
        let held = pool.stop_holding();
        assert_eq!(held, [used]);
        pool.give(other, 1 << 20);
        assert_eq!(pool.take(3 << 20, &fake).unwrap(), None, "there would be room without the held block");
        assert_eq!((pool.stats().reserved, fake.left.get()), (2 << 20, 2 << 20), "the other one went back");
        assert_eq!(pool.take(2 << 20, &fake).unwrap(), Some(used), "a held block serves anyone");
        pool.give(used, 2 << 20);
        pool.let_go(&held);
        assert!(pool.take(3 << 20, &fake).unwrap().is_some());
    }

    #[test]
    fn the_peak_starts_anew_from_what_is_held() {
        let (fake, mut pool) = (Fake::of(1 << 20), Pool::default());
        let a = pool.take(1024, &fake).unwrap().unwrap();
        pool.take(2048, &fake).unwrap().unwrap();
        pool.give(a, 1024);
        assert_eq!(pool.stats().peak_in_use, 3072);
        pool.reset_peak();
        assert_eq!(pool.stats().peak_in_use, 2048);
    }
}
