//! A ring buffer of the kernel (`kernel/bpf/ringbuf.c`), mapped and read in place.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};
use zerocopy::{Immutable, IntoBytes};

use super::merge::{Front, Stream};

// Values of `include/uapi/linux/bpf.h`.
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const RING_BUFFER: u32 = 27;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// What a record has before its content.
const HEADER: usize = 8;

/// The part of `union bpf_attr` that `BPF_MAP_CREATE` reads.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Attributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// Creates the map of a ring buffer with room for `bytes`, a power of two.
pub(super) fn create(bytes: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes {
        map_type: RING_BUFFER,
        key_size: 0,
        value_size: 0,
        max_entries: bytes.max(u32::try_from(page()?).unwrap_or(0)),
        map_flags: 0,
        inner_map: 0,
        numa_node: 0,
        name: [0; 16],
    };
    attributes.name[..4].copy_from_slice(b"RING");
    // SAFETY: the kernel reads the attributes, which have no padding.
    let result = unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, &raw const attributes, size_of::<Attributes>()) };
    let descriptor = RawFd::try_from(Errno::result(result)?).map_err(io::Error::other)?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The part of `union bpf_attr` that `BPF_MAP_UPDATE_BATCH` reads.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    value_flags: u64,
    flags: u64,
}

/// Has a map of maps lead from these numbers to these maps. The kernel waits once until no program uses what was there
/// before; with a call for each, it would wait for each, for milliseconds.
///
/// # Errors
/// The kernel's error; older kernels cannot do it.
pub(super) fn fill(map: BorrowedFd<'_>, entries: &[(u32, BorrowedFd<'_>)]) -> io::Result<()> {
    let number = |fd: &BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(io::Error::other);
    let keys: Vec<u32> = entries.iter().map(|(key, _)| *key).collect();
    let values = entries.iter().map(|(_, fd)| number(fd)).collect::<io::Result<Vec<u32>>>()?;
    let attributes = Batch {
        from: 0,
        to: 0,
        keys: keys.as_ptr().addr() as u64,
        values: values.as_ptr().addr() as u64,
        count: u32::try_from(entries.len()).map_err(io::Error::other)?,
        map: number(&map)?,
        value_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the attributes, which have no padding, and as many keys and values as they say.
    let result = unsafe { libc::syscall(libc::SYS_bpf, MAP_UPDATE_BATCH, &raw const attributes, size_of::<Batch>()) };
    Errno::result(result)?;
    Ok(())
}

/// A ring buffer. Positions in it count all bytes that were ever written.
pub(in super::super) struct Ring {
    /// A page that begins with the position of the reader, which we write.
    consumer: Mapping,
    /// A page that begins with the position of the writers, and the data, twice in a row: no record breaks at the end.
    producer: Mapping,
    page: usize,
    /// Size of the data.
    size: usize,
    /// Where the writers were when we last looked.
    end: usize,
    /// How far it has been read, and how far of that the writers know.
    read: usize,
    released: usize,
    /// The record at the reader's position, and the one behind it.
    front: Spot,
    following: Spot,
    map: OwnedFd,
}

/// What is at a place.
#[derive(Clone, Copy)]
enum Spot {
    /// Nobody has looked, or nothing has come.
    Nothing,
    Busy,
    Record(Record),
}

/// A record that is complete.
#[derive(Clone, Copy)]
struct Record {
    /// Where its header begins.
    header: usize,
    len: usize,
    /// Where the next one begins.
    end: usize,
    at: u64,
}

impl Ring {
    /// Maps one.
    pub(super) fn open(map: OwnedFd, bytes: u32) -> io::Result<Self> {
        let page = page()?;
        let size = usize::try_from(bytes).map_err(io::Error::other)?.max(page);
        let consumer = Mapping::new(&map, page, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let producer = Mapping::new(&map, page + 2 * size, libc::PROT_READ, page)?;
        let read = consumer.position().load(Ordering::Acquire);
        Ok(Self {
            consumer,
            producer,
            page,
            size,
            end: read,
            read,
            released: read,
            front: Spot::Nothing,
            following: Spot::Nothing,
            map,
        })
    }

    /// What begins at a position.
    fn spot(&self, mut position: usize) -> Spot {
        while position != self.end {
            let header = self.producer.at(self.page + (position & (self.size - 1)));
            // SAFETY: positions are multiples of eight within the data, and each that was reached begins with a header,
            // which the kernel writes atomically. It clears this bit after the content is complete.
            let header = unsafe { header.cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return Spot::Busy;
            }
            let len = (header & !DISCARDED) as usize;
            let end = position + HEADER + len.next_multiple_of(8);
            if header & DISCARDED == 0 {
                let record = Record { header: position, len, end, at: 0 };
                return Spot::Record(Record { at: time_of(self.content(&record)), ..record });
            }
            position = end;
        }
        Spot::Nothing
    }

    fn content(&self, record: &Record) -> &[u8] {
        // It may lie where the data is mapped for the second time.
        let place = self.producer.at(self.page + (record.header & (self.size - 1)) + HEADER);
        // SAFETY: the record is not longer than the data, which is mapped twice. Nobody writes to it until it is released,
        // for which the caller needs this exclusively.
        unsafe { std::slice::from_raw_parts(place.cast::<u8>().as_ptr(), record.len.min(self.size)) }
    }
}

/// What every record begins with (`Head` in `tcptrace-common`).
fn time_of(record: &[u8]) -> u64 {
    record.first_chunk().map_or(0, |time| u64::from_ne_bytes(*time))
}

impl Stream for Ring {
    fn refresh(&mut self) {
        self.end = self.producer.position().load(Ordering::Acquire);
    }

    fn front(&mut self) -> Front {
        if !matches!(self.front, Spot::Record(_)) {
            self.front = self.spot(self.read);
        }
        let front = match self.front {
            Spot::Nothing => return Front::Nothing,
            Spot::Busy => return Front::Busy,
            Spot::Record(record) => record,
        };
        if !matches!(self.following, Spot::Record(_)) {
            self.following = self.spot(front.end);
        }
        let following = if let Spot::Record(following) = self.following { following.at } else { front.at };
        Front::At(front.at.min(following))
    }

    fn pass(&mut self, each: &mut impl FnMut(&[u8])) {
        let Spot::Record(record) = self.front else { return };
        each(self.content(&record));
        self.read = record.end;
        self.front = std::mem::replace(&mut self.following, Spot::Nothing);
    }

    fn read(&self) -> u64 {
        self.read as u64
    }

    fn release(&mut self) {
        if self.released != self.read {
            self.released = self.read;
            self.consumer.position().store(self.read, Ordering::Release);
        }
    }
}

/// For the event loop.
impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.map.as_raw_fd()
    }
}

/// A part of the map in memory.
struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and ends only when this is dropped.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(map: &OwnedFd, length: usize, protection: c_int, offset: usize) -> io::Result<Self> {
        let (anywhere, offset) = (std::ptr::null_mut(), libc::off_t::try_from(offset).map_err(io::Error::other)?);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { libc::mmap(anywhere, length, protection, libc::MAP_SHARED, map.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last().into());
        }
        // One process reads it; in a copy of the process, its pages would only count for a second time.
        // SAFETY: it is our mapping. A copy of the process neither uses nor drops this.
        let _ = unsafe { libc::madvise(start, length, libc::MADV_DONTFORK) };
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("it is mapped nowhere"))?;
        Ok(Self { start, length })
    }

    /// The position at its beginning.
    fn position(&self) -> &AtomicUsize {
        // SAFETY: each of the mappings begins with an `unsigned long`, aligned, which the kernel and we use atomically.
        unsafe { self.start.cast().as_ref() }
    }

    fn at(&self, offset: usize) -> NonNull<c_void> {
        debug_assert!(offset < self.length);
        // SAFETY: it lies in the mapping.
        unsafe { self.start.byte_add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is our mapping, and no reference to it is left. It cannot fail for it.
        let _ = unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
}

fn page() -> io::Result<usize> {
    // SAFETY: it only returns a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A file that looks like the map of a ring buffer, and where its writers are. What is written past the end of the
    /// data lies where the kernel maps its beginning for the second time.
    struct Written {
        file: File,
        begin: usize,
        end: usize,
    }

    impl Written {
        /// Readers and writers begin shortly before the end of the data.
        fn new() -> Self {
            let page = page().expect("pages have a size");
            let file = tempfile::tempfile().expect("a file");
            file.set_len(4 * page as u64).expect("room");
            let begin = 3 * page - 32;
            let written = Self { file, begin, end: begin };
            written.put(0, &begin.to_ne_bytes());
            written
        }

        fn put(&self, offset: usize, bytes: &[u8]) {
            self.file.write_all_at(bytes, offset as u64).expect("written");
        }

        /// Where a position is in the file.
        fn place(&self, position: usize) -> usize {
            let page = page().expect("pages have a size");
            2 * page + (self.begin & (page - 1)) + (position - self.begin)
        }

        /// Adds a record of this length that begins with its time, with these bits in its header. Returns its position.
        fn add(&mut self, len: u32, time: u64, bits: u32) -> usize {
            let position = self.end;
            self.put(self.place(position), &(len | bits).to_ne_bytes());
            self.put(self.place(position) + HEADER, &time.to_ne_bytes());
            self.end += HEADER + (len as usize).next_multiple_of(8);
            self.put(page().expect("pages have a size"), &self.end.to_ne_bytes());
            position
        }

        fn map(&self) -> Ring {
            Ring::open(self.file.try_clone().expect("another descriptor").into(), 0).expect("mapped")
        }

        fn released(&self) -> usize {
            let mut position = [0; size_of::<usize>()];
            self.file.read_exact_at(&mut position, 0).expect("read");
            usize::from_ne_bytes(position)
        }
    }

    fn passed(ring: &mut Ring) -> Vec<u8> {
        let mut passed = Vec::new();
        ring.pass(&mut |record| passed.extend_from_slice(record));
        passed
    }

    #[test]
    fn a_copy_of_the_process_does_not_have_it() {
        let map = Written::new().file.into();
        let mapping = Mapping::new(&map, page().expect("pages have a size"), libc::PROT_READ, 0).expect("mapped");
        let all = std::fs::read_to_string("/proc/self/smaps").expect("this process");
        let (_, ours) = all.split_once(&format!("{:x}-", mapping.start.addr())).expect("it is mapped");
        let flags = ours.lines().find_map(|line| line.strip_prefix("VmFlags:")).expect("flags");
        assert!(flags.split_whitespace().any(|flag| flag == "dc"), "{flags}");
    }

    #[test]
    fn records_are_read_where_they_are() {
        let mut written = Written::new();
        let mut ring = written.map();
        assert_eq!(ring.front(), Front::Nothing);
        written.add(12, 7, 0);
        assert_eq!(ring.front(), Front::Nothing, "it has not been refreshed");
        ring.refresh();
        assert_eq!(ring.front(), Front::At(7));
        // Beyond the end of the data, and older than what is before it.
        written.add(16, 5, 0);
        ring.refresh();
        assert_eq!(ring.front(), Front::At(5));
        assert_eq!(passed(&mut ring), [7_u64.to_ne_bytes().as_slice(), &[0; 4]].concat());
        assert_eq!(written.released(), written.begin, "it may not be overwritten yet");
        assert_eq!(ring.front(), Front::At(5));
        assert_eq!(passed(&mut ring).len(), 16);
        assert_eq!(ring.front(), Front::Nothing);
        ring.release();
        assert_eq!((written.released(), ring.read()), (written.end, written.end as u64));
    }

    #[test]
    fn a_record_that_is_being_written_is_waited_for() {
        let mut written = Written::new();
        let mut ring = written.map();
        written.add(8, 3, DISCARDED);
        let busy = written.add(8, 4, BUSY);
        ring.refresh();
        assert_eq!(ring.front(), Front::Busy);
        written.put(written.place(busy), &8_u32.to_ne_bytes());
        assert_eq!(ring.front(), Front::At(4));
        assert_eq!(passed(&mut ring), 4_u64.to_ne_bytes());
        assert_eq!(ring.read(), written.end as u64, "what was discarded is passed over");
    }
}
