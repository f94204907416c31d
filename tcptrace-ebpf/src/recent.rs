//! The last events on this CPU: the kernel does some things in two steps, one right after the other and without leaving
//! the CPU. The second step can only be understood with the first.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;

#[repr(C)]
struct Recent {
    /// Cookie, remaining ticks and substate of the mini-socket whose timer was started last.
    created: u64,
    created_ticks: u32,
    created_substate: u32,
    /// Cookie of the full socket that was closed last, if no process held it.
    closed: u64,
}

#[btf_map]
static RECENT: PerCpuArray<Recent, 1> = PerCpuArray::new();

/// Notes the mini-socket whose timer was started.
#[inline(always)]
pub(crate) fn note_created(cookie: u64, ticks: i32, substate: u8) {
    if let Some(recent) = RECENT.get_ptr_mut(0) {
        // SAFETY: this CPU's own element.
        unsafe {
            (*recent).created = cookie;
            (*recent).created_ticks = ticks as u32;
            (*recent).created_substate = u32::from(substate);
        }
    }
}

/// What the mini-socket that took over from the socket with this cookie was made as, and in how many ticks its timer
/// is due; zeros when none was made.
///
/// `tcp_time_wait` (`net/ipv4/tcp_minisocks.c`) makes it, starts its timer and closes the full socket without
/// leaving the CPU, as bottom halves are disabled. The loader does not rely on this where they can be preempted.
#[inline(always)]
pub(crate) fn take_created(cookie: u64) -> (u8, u32) {
    let Some(recent) = RECENT.get_ptr_mut(0) else { return (0, 0) };
    // SAFETY: this CPU's own element.
    unsafe {
        if cookie == 0 || (*recent).created != cookie {
            return (0, 0);
        }
        (*recent).created = 0;
        ((*recent).created_substate as u8, (*recent).created_ticks)
    }
}

/// Notes that a socket which no process holds was closed, and that this has been reported.
#[inline(always)]
pub(crate) fn note_closed(cookie: u64) {
    if let Some(recent) = RECENT.get_ptr_mut(0) {
        // SAFETY: this CPU's own element.
        unsafe { (*recent).closed = cookie }
    }
}

/// Whether that was the last socket to be closed: its destruction, which follows at once (`tcp_done` in
/// `net/ipv4/tcp.c`), is no news then.
#[inline(always)]
pub(crate) fn was_closed(cookie: u64) -> bool {
    // SAFETY: this CPU's own element.
    RECENT.get_ptr_mut(0).is_some_and(|recent| unsafe { (*recent).closed == cookie })
}
