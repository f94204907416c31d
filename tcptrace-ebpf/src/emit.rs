//! The way out: the ring buffer, its wakeups, and what did not fit.

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::btf_maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated};
use aya_ebpf::macros::btf_map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use tcptrace_common::{Head, TaskTail, counter};

/// A record that says who is on the CPU.
#[repr(C)]
pub(crate) struct TaskRecord {
    pub(crate) head: Head,
    pub(crate) task: TaskTail,
}

/// The loader sets the size that is really used.
#[btf_map]
static EVENTS: RingBuf<u8, 4096> = RingBuf::new();

/// 1 while the reader sleeps and wants to be woken by the next record.
#[btf_map]
static WAKE: Array<u32, 1> = Array::new();

#[btf_map]
static COUNTERS: PerCpuArray<u64, { counter::COUNT as usize }> = PerCpuArray::new();

/// Room for a record; counted as lost when there is none.
#[inline(always)]
pub(crate) fn reserve<T: 'static>(lost: u32) -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve_untyped::<T>(0);
    if entry.is_none() {
        count(lost);
    }
    entry
}

/// Hands a filled record over. It wakes the reader only if that sleeps: a wakeup per event would cost more than all
/// the rest, and a busy reader comes by on a timer.
#[inline(always)]
pub(crate) fn submit<T: 'static>(entry: RingBufEntry<T>) {
    let mut flags = BPF_RB_NO_WAKEUP;
    if let Some(wake) = WAKE.get_ptr_mut(0) {
        // SAFETY: the map's only element. Two CPUs that both see 1 wake the reader twice, which does no harm.
        unsafe {
            if wake.read_volatile() != 0 {
                wake.write_volatile(0);
                flags = BPF_RB_FORCE_WAKEUP;
            }
        }
    }
    entry.submit(u64::from(flags));
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: this CPU's own element; programs do not preempt each other on a CPU, interrupts aside, where a
        // lost increment of a statistics counter is the worst that can happen.
        unsafe { counter.write(counter.read().wrapping_add(1)) }
    }
}

/// Time in ns of `CLOCK_BOOTTIME`. Taken after the room is reserved, so that it hardly ever runs against the order
/// of the records.
#[inline(always)]
pub(crate) fn boot_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { generated::bpf_ktime_get_boot_ns() }
}

/// Notes who is on the CPU.
///
/// # Safety
///
/// `tail` points into a reserved record.
#[inline(always)]
pub(crate) unsafe fn fill_task(tail: *mut TaskTail) {
    let pid_tgid = bpf_get_current_pid_tgid();
    // SAFETY: `tail` is valid for writes; the helper fills all 16 bytes, padding with NUL.
    unsafe {
        (&raw mut (*tail).pid).write((pid_tgid >> 32) as u32);
        (&raw mut (*tail).tid).write(pid_tgid as u32);
        generated::bpf_get_current_comm((&raw mut (*tail).comm).cast(), 16);
    }
}
