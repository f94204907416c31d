//! Counts the memory that an operation allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Memory for a file of any length: an unpacked block, its items and their rows, about 100 bytes for each of the
/// block's own.
const FIXED: usize = 256 << 20;

#[global_allocator]
static COUNTED: Counted = Counted;

/// Bytes allocated now, and the peak since the last reset.
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Reads a file of this many bytes.
///
/// # Panics
/// If that takes more than 4 times as much memory, besides the memory for a file of any length.
pub(crate) fn is_within_bounds(len: usize, read: impl FnOnce()) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    read();
    let taken = MOST.load(Relaxed).saturating_sub(before);
    assert!(taken <= FIXED + 4 * len, "{taken} bytes of memory for a file of {len}");
}

struct Counted;

impl Counted {
    fn add(len: usize) {
        let now = NOW.fetch_add(len, Relaxed) + len;
        MOST.fetch_max(now, Relaxed);
    }
}

// SAFETY: It only counts what the system's allocator does.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: The caller's promises are passed on, here and below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: As above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::add(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: As above.
        unsafe { System.realloc(place, layout, size) }
    }
}
