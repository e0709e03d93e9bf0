//! A caching allocator for one stream: freed blocks are kept, by size, and handed out again.
//!
//! Sizes are rounded up, to 512 B up to 1 MiB and beyond to an eighth of the power of two below, at most to 2 MiB, so
//! that at most an eighth is wasted and like sizes share blocks. A block serves only its own rounded size. Since all
//! work is on one stream, a block can be reused as soon as it is given back. When the driver has no more, all cached
//! blocks go back to it and it is asked once more.

use std::collections::BTreeMap;
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
    /// Blocks that graphs use, by address. Nobody else gets them: what lives between two launches would be overwritten.
    held: BTreeMap<u64, Held>,
    /// Blocks taken for the graph that is being recorded, with their sizes.
    taken: Option<BTreeMap<u64, usize>>,
}

/// A block that graphs use.
struct Held {
    size: usize,
    graphs: usize,
    /// Whether a living buffer is in it: the result of a graph.
    live: bool,
}

impl Pool {
    /// A block of at least so many bytes, or `None` if memory is exhausted even with nothing cached.
    pub(super) fn take(&mut self, bytes: usize, memory: &impl Memory) -> Result<Option<u64>> {
        let size = rounded(bytes);
        let ptr = if let Some(ptr) = self.take_held(size) {
            return Ok(Some(ptr));
        } else if let Some(ptr) = self.free.get_mut(&size).and_then(Vec::pop) {
            ptr
        } else {
            let Some(ptr) = self.ask(size, memory)? else {
                return Ok(None);
            };
            self.stats.reserved += size;
            ptr
        };
        if let Some(taken) = &mut self.taken {
            taken.insert(ptr, size);
        }
        self.stats.in_use += size;
        self.stats.peak_in_use = self.stats.peak_in_use.max(self.stats.in_use);
        Ok(Some(ptr))
    }

    /// Puts a block back that [`Pool::take`] gave for the same number of bytes.
    pub(super) fn give(&mut self, ptr: u64, bytes: usize) {
        if let Some(held) = self.held.get_mut(&ptr) {
            held.live = false;
            return;
        }
        let size = rounded(bytes);
        self.stats.in_use -= size;
        self.free.entry(size).or_default().push(ptr);
    }

    /// Returns all cached blocks to the driver, but for those of a graph that is being recorded.
    pub(super) fn release_cached(&mut self, memory: &impl Memory) -> Result<()> {
        for (&size, blocks) in &mut self.free {
            let recorded = |ptr: &u64| self.taken.as_ref().is_some_and(|taken| taken.contains_key(ptr));
            let (keep, go) = std::mem::take(blocks).into_iter().partition(recorded);
            *blocks = keep;
            let go: Vec<u64> = go;
            for ptr in go {
                self.stats.reserved -= size;
                memory.free(ptr)?;
            }
        }
        self.free.retain(|_, blocks| !blocks.is_empty());
        Ok(())
    }

    /// From here on the blocks that are handed out are those of a graph. Blocks of other graphs that hold no living
    /// buffer come first: graphs run one after the other.
    pub(super) fn start_holding(&mut self) {
        self.taken = Some(BTreeMap::new());
    }

    /// The blocks of the graph: kept for it, and counted as in use, until [`Pool::let_go`].
    pub(super) fn stop_holding(&mut self) -> Vec<u64> {
        let taken = self.taken.take().unwrap_or_default();
        for (&ptr, &size) in &taken {
            if let Some(held) = self.held.get_mut(&ptr) {
                held.graphs += 1;
                continue;
            }
            let cached = self.free.entry(size).or_default();
            let place = cached.iter().position(|&block| block == ptr);
            if let Some(place) = place {
                cached.swap_remove(place);
                self.stats.in_use += size;
            }
            self.held.insert(ptr, Held { size, graphs: 1, live: place.is_none() });
        }
        self.stats.peak_in_use = self.stats.peak_in_use.max(self.stats.in_use);
        taken.into_keys().collect()
    }

    /// Gives the blocks of one graph back.
    pub(super) fn let_go(&mut self, blocks: &[u64]) {
        for ptr in blocks {
            let Some(held) = self.held.get_mut(ptr) else { continue };
            held.graphs -= 1;
            if held.graphs > 0 {
                continue;
            }
            let Held { size, live, .. } = self.held.remove(ptr).expect("found above");
            if !live {
                self.stats.in_use -= size;
                self.free.entry(size).or_default().push(*ptr);
            }
        }
    }

    /// While a graph is recorded: a block that other graphs use and no living buffer is in.
    fn take_held(&mut self, size: usize) -> Option<u64> {
        let taken = self.taken.as_mut()?;
        let (&ptr, held) = self.held.iter_mut().find(|(_, held)| held.size == size && !held.live)?;
        held.live = true;
        taken.insert(ptr, size);
        Some(ptr)
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
    const COARSEST: usize = 2 << 20;
    if bytes <= COARSE_FROM {
        bytes.max(1).next_multiple_of(FINE)
    } else {
        let step = ((1usize << bytes.ilog2()) / 8).min(COARSEST);
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
    fn sizes_round_up_by_at_most_an_eighth_or_two_mebibytes() {
        assert_eq!([0, 1, 512, 513, 1 << 20].map(rounded), [512, 512, 512, 1024, 1 << 20]);
        assert_eq!(rounded((1 << 20) + 1), (1 << 20) + (1 << 17));
        for bytes in [1_500_000, 3 << 20, 77_777_777, (5 << 30) + 3] {
            let size = rounded(bytes);
            assert!(size >= bytes && size - bytes <= (bytes / 8).min(2 << 20), "{bytes} -> {size}");
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
    fn the_blocks_of_a_graph_serve_nobody_else_but_later_graphs() {
        let (fake, mut pool) = (Fake::of(8 << 20), Pool::default());
        let size = 1 << 20;
        let take = |pool: &mut Pool| pool.take(size, &fake).unwrap().unwrap();
        pool.start_holding();
        let (passing, result) = (take(&mut pool), take(&mut pool));
        pool.give(passing, size);
        let first = pool.stop_holding();
        assert_eq!((first.len(), pool.stats().in_use), (2, 2 * size));
        let other = take(&mut pool);
        assert!(![passing, result].contains(&other), "it may live on beside the graph");
        pool.start_holding();
        let shared = take(&mut pool);
        assert_eq!(shared, passing, "graphs run one after the other");
        let own = take(&mut pool);
        pool.give(shared, size);
        pool.give(own, size);
        let second = pool.stop_holding();
        pool.give(result, size);
        pool.give(other, size);
        assert_eq!((second.len(), pool.stats().in_use), (2, 3 * size), "what graphs hold is in use");
        pool.let_go(&first);
        assert_eq!(pool.stats().in_use, 2 * size, "the block of both is still held");
        pool.let_go(&second);
        assert_eq!((pool.stats().in_use, pool.stats().reserved), (0, 4 * size));
    }

    #[test]
    fn memory_that_runs_out_while_a_graph_is_recorded_takes_nothing_of_it() {
        let (fake, mut pool) = (Fake::of(8 << 20), Pool::default());
        pool.start_holding();
        let used = pool.take(5 << 20, &fake).unwrap().unwrap();
        pool.give(used, 5 << 20);
        assert_eq!(pool.take(6 << 20, &fake).unwrap(), None, "there would be room without the block in use");
        assert_eq!(pool.stop_holding(), [used]);
        assert_eq!(
            (pool.stats().in_use, pool.stats().reserved, fake.left.get()),
            (5 << 20, 5 << 20, 3 << 20)
        );
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
