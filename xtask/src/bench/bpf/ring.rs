//! A ring buffer whose records nobody wants: they are read and thrown away.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};

use super::{Known, MAP_GET_FD_BY_ID, bpf};

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// The mappings of a ring buffer (`kernel/bpf/ringbuf.c`): a page with the consumer's position, which we may write, one
/// with the producer's, and the data, twice in a row.
pub(in crate::bench) struct Ring {
    consumer: NonNull<c_void>,
    producer: NonNull<c_void>,
    page: usize,
    size: usize,
}

// SAFETY: the mappings belong to the process, not to a thread, and end only when this is dropped.
unsafe impl Send for Ring {}

impl Ring {
    /// Opens one that somebody has made, of so many bytes.
    pub(in crate::bench) fn open(id: u32, size: usize) -> Result<Self> {
        ensure!(size.is_power_of_two(), "a ring buffer of {size} bytes");
        let map = bpf(MAP_GET_FD_BY_ID, &Known { id, next: 0, flags: 0 });
        let map = map.with_context(|| format!("cannot open the map {id}"))?;
        // SAFETY: it only returns a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).context("pages have no size")?;
        let consumer = mapped(&map, page, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        // From here on, it is unmapped when an error returns.
        let mut ring = Self { consumer, producer: NonNull::dangling(), page, size: 0 };
        ring.producer = mapped(&map, page + 2 * size, libc::PROT_READ, page)?;
        ring.size = size;
        Ok(ring)
    }

    /// Reads every record, and makes room.
    pub(in crate::bench) fn drain(&self) {
        // SAFETY: each page begins with a position, aligned, which the kernel and this program use atomically.
        let (consumer, producer) =
            unsafe { (self.consumer.cast::<AtomicU64>().as_ref(), self.producer.cast::<AtomicU64>().as_ref()) };
        let (from, to) = (consumer.load(Ordering::Relaxed), producer.load(Ordering::Acquire));
        // Positions only grow; the mask makes them small.
        let bytes = to.wrapping_sub(from) as usize;
        let first = from as usize & (self.size - 1);
        for offset in (0..bytes.min(self.size)).step_by(LINE) {
            // SAFETY: the data begins after a page and is mapped twice, so `first + offset` is less than twice its size.
            // Positions are multiples of eight.
            unsafe { self.producer.cast::<u8>().add(self.page + first + offset).cast::<u64>().read_volatile() };
        }
        consumer.store(to, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let producer = (self.size > 0).then_some((self.producer, self.page + 2 * self.size));
        for (start, length) in [(self.consumer, self.page)].into_iter().chain(producer) {
            // SAFETY: these are our mappings, and no reference to them is left. It cannot fail for them.
            let _ = unsafe { libc::munmap(start.as_ptr(), length) };
        }
    }
}

fn mapped(map: &OwnedFd, length: usize, protection: c_int, offset: usize) -> Result<NonNull<c_void>> {
    let (anywhere, offset) = (std::ptr::null_mut(), offset.try_into()?);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let mapping = unsafe { libc::mmap(anywhere, length, protection, libc::MAP_SHARED, map.as_raw_fd(), offset) };
    if mapping == libc::MAP_FAILED {
        return Err(Errno::last()).context("cannot map a ring buffer");
    }
    NonNull::new(mapping).context("a ring buffer is mapped nowhere")
}
