//! Standing in for a program that is interrupted.
//!
//! The kernel does not run a program that is already running on that CPU. Packets may interrupt a process that closes a
//! socket, and may make other sockets change. So there are two programs on a tracepoint: the first one notes what it
//! sees; the second one runs right after it and looks at what was not noted.

use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::btf_map;

/// More events than may come between the two programs, when the CPU is interrupted just there: a network card's queue
/// brings in a round of 64 packets.
const MOST: u64 = 128;

/// Identifies one event on that CPU.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Seen {
    /// The socket's address.
    pub(crate) address: u64,
    /// Its cookie, if it has one, and what happens to it.
    pub(crate) what: u64,
}

#[repr(C)]
pub(crate) struct Reported {
    next: u64,
    events: [Seen; MOST as usize],
}

pub(crate) type Map = PerCpuArray<Reported, 1>;

/// 1 while a program stands in for another, or is about to: nobody reads the notes otherwise.
#[btf_map]
static STAND_INS: Array<u32, 1> = Array::new();

#[btf_map]
pub(crate) static CHANGES: Map = PerCpuArray::new();

#[btf_map]
pub(crate) static ENDS: Map = PerCpuArray::new();

/// Notes an event that the first program has seen, if a second one follows it.
#[inline(always)]
pub(crate) fn note(map: &Map, seen: impl FnOnce() -> Seen) {
    // SAFETY: the map's only element, which only the loader writes.
    if STAND_INS.get_ptr(0).is_none_or(|stand_ins| unsafe { stand_ins.read_volatile() } == 0) {
        return;
    }
    let seen = seen();
    if let Some(reported) = map.get_ptr_mut(0) {
        // SAFETY: this CPU's own element. The first program does not interrupt itself, the second writes to what was
        // noted before only, and the index stays within bounds.
        unsafe {
            let next = (*reported).next;
            (&raw mut (*reported).events).cast::<Seen>().add((next % MOST) as usize).write(seen);
            (*reported).next = next.wrapping_add(1);
        }
    }
}

/// Whether an event was noted; removes the note. If the second program did not run, because it was running already, the
/// first one's note stays.
#[inline(always)]
pub(crate) fn take(map: &Map, seen: Seen) -> bool {
    let Some(reported) = map.get_ptr_mut(0) else { return false };
    // SAFETY: as above.
    unsafe {
        let next = (*reported).next;
        let mut back = 1;
        while back <= MOST {
            let noted = (&raw mut (*reported).events).cast::<Seen>().add((next.wrapping_sub(back) % MOST) as usize);
            if (*noted).address == seen.address && (*noted).what == seen.what {
                (*noted).address = 0;
                return true;
            }
            back += 1;
        }
    }
    false
}
