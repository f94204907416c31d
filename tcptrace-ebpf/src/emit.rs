//! Output: the ring buffers, their wakeups, and the records that did not fit.

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, PerCpuArray, RingBuf};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated};
use aya_ebpf::macros::btf_map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use tcptrace_common::{Head, RING_PATTERN, RINGS_OF_CPU, TaskTail, counter};

use crate::kernel::load;
use crate::layout::off;

/// A record that says who is on the CPU.
#[repr(C)]
pub(crate) struct TaskRecord {
    pub(crate) head: Head,
    pub(crate) task: TaskTail,
}

/// By CPU, the ring buffer that it writes to, and the one for what does not fit there, which another CPU writes to. CPUs
/// that share one pass its lock back and forth, which takes as long as everything else. The loader sets the number of
/// CPUs, and puts in buffers of the size that is really used.
#[btf_map]
static EVENTS: ArrayOfMaps<RingBuf<u8, { RING_PATTERN as usize }>, 2> = ArrayOfMaps::new();

/// 1 while the reader sleeps and wants to be woken by the next record.
#[btf_map]
static WAKE: Array<u32, 1> = Array::new();

#[btf_map]
static COUNTERS: PerCpuArray<[u64; counter::COUNT], 1> = PerCpuArray::new();

/// Reserves room for a record; counts the record as lost if there is none.
#[inline(always)]
pub(crate) fn reserve<T: 'static>(lost: usize) -> Option<RingBufEntry<T>> {
    // SAFETY: a helper without arguments.
    let own = unsafe { generated::bpf_get_smp_processor_id() } * RINGS_OF_CPU;
    let reserve_in = |place: u32| EVENTS.get(place).and_then(|ring| ring.reserve_untyped::<T>(0));
    let entry = reserve_in(own).or_else(|| reserve_in(own + 1));
    if entry.is_none() {
        count(lost);
    }
    entry
}

/// Submits a filled record. Wakes the reader only if it sleeps: a wakeup per event would cost more than everything
/// else, and a busy reader comes by on a timer.
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
pub(crate) fn count(index: usize) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: this CPU's own element. A program does not interrupt itself, and each program that counts transitions
        // has an element of its own. Another kind of record may go uncounted if a counting program interrupts another
        // one. The verifier checks the index.
        unsafe {
            let counter = counters.cast::<u64>().add(index);
            counter.write(counter.read().wrapping_add(1));
        }
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
    // SAFETY: the helper gives the current task, which the verifier trusts.
    unsafe { fill_task_of(tail, generated::bpf_get_current_task_btf().cast()) }
}

/// Whether a task is a thread of the kernel's own.
///
/// # Safety
///
/// `task` is a `struct task_struct` that the verifier trusts.
#[inline(always)]
pub(crate) unsafe fn is_kernels(task: *const u8) -> bool {
    /// `PF_KTHREAD` in `include/linux/sched.h`, the same since 2.6.
    const KERNEL_THREAD: u32 = 0x0020_0000;
    // SAFETY: the verifier checks the load.
    unsafe { load::<u32>(task, off::TASK_FLAGS()) & KERNEL_THREAD != 0 }
}

/// Notes which task it is.
///
/// # Safety
///
/// `tail` points into a reserved record, `task` is a `struct task_struct` that the verifier trusts.
#[inline(always)]
pub(crate) unsafe fn fill_task_of(tail: *mut TaskTail, task: *const u8) {
    // SAFETY: `tail` is valid for writes; the verifier checks each load.
    unsafe {
        (&raw mut (*tail).pid).write(if is_kernels(task) { 0 } else { load(task, off::TASK_TGID()) });
        (&raw mut (*tail).tid).write(load(task, off::TASK_PID()));
        let process: *const u8 = load(task, off::TASK_GROUP_LEADER());
        let comm = (&raw mut (*tail).comm).cast::<[u64; 2]>();
        comm.write([load(process, off::TASK_COMM()), load(process, off::TASK_COMM() + 8)]);
    }
}

/// Notes who is on the CPU, without knowing the layout of a task: a thread that is not its process's first one says
/// nothing of the process's name.
///
/// # Safety
///
/// `tail` points into a reserved record.
#[inline(always)]
pub(crate) unsafe fn fill_task_plainly(tail: *mut TaskTail) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let (pid, tid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
    // SAFETY: `tail` is valid for writes; the helper fills all 16 bytes, padding with NUL.
    unsafe {
        (&raw mut (*tail).pid).write(pid);
        (&raw mut (*tail).tid).write(tid);
        if pid == tid {
            generated::bpf_get_current_comm((&raw mut (*tail).comm).cast(), 16);
        } else {
            (&raw mut (*tail).comm).cast::<[u64; 2]>().write([0; 2]);
        }
    }
}
