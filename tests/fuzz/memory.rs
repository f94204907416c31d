//! How much memory something takes, counted where it is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// What is taken whatever the length of the file: an unpacked block, its items and the rows that follow from them, which
/// are some 100 bytes for each of its own.
const FIXED: usize = 256 << 20;

#[global_allocator]
static COUNTED: Counted = Counted;

/// Allocated now, and at most since that was set back.
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Reads a file of so many bytes.
///
/// # Panics
/// When that takes more than 4 times as much memory, beside what it takes in any case.
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
