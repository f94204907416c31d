//! Mini-sockets, which carry TIME_WAIT and the FIN_WAIT2 of orphans. They have no tracepoint, but their timer has:
//! `timer_start` when they are made, `timer_expire_entry` at their natural end, `timer_cancel` when they end early. A
//! FIN that turns FIN_WAIT2 into TIME_WAIT often leaves the timer in its bucket, which no tracepoint shows. `kfree_skb`
//! shows the FIN itself when it is freed, and names the socket that took it in since 6.11. Where `twsk` can be attached,
//! only `timer_expire_entry` is needed.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_jiffies64};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use tcptrace_common::state::TIME_WAIT;
use tcptrace_common::{CancelTail, Head, STACK_FRAMES, counter, flag, kind};

use crate::emit::{boot_ns, reserve, submit};
use crate::kernel::{load, read};
use crate::layout::{self, off};
use crate::recent;
use crate::socket::{Key, bit, fill_mini_addresses, member};

#[repr(C)]
struct CancelRecord {
    head: Head,
    cancel: CancelTail,
}

/// A mini-socket's timer. Its address is not one that the verifier trusts: it lies before the timer.
#[derive(Clone, Copy)]
pub(super) struct Timer {
    tw: u64,
    /// Ticks until it is due; negative when overdue.
    ticks: i32,
}

impl Timer {
    /// The timer, if it is that of a mini-socket.
    #[inline(always)]
    fn of(ctx: &BtfTracePointContext) -> Option<Self> {
        let timer: *const u8 = ctx.arg(0);
        // SAFETY: the verifier knows the argument as a `struct timer_list`, and checks both loads.
        unsafe {
            if load::<u64>(timer, off::TIMER_FUNCTION()) != layout::tw_timer_handler() {
                return None;
            }
            let expires: u64 = load(timer, off::TIMER_EXPIRES());
            Some(Self {
                tw: (timer as u64).wrapping_sub(off::TW_TIMER() as u64),
                ticks: expires.wrapping_sub(bpf_jiffies64()) as i32,
            })
        }
    }

    /// The timer of this mini-socket.
    #[inline(always)]
    pub(super) fn in_mini(tw: u64) -> Self {
        let expires: u64 = member(tw, off::TW_TIMER() + off::TIMER_EXPIRES());
        // SAFETY: it only tells the time.
        Self { tw, ticks: expires.wrapping_sub(unsafe { bpf_jiffies64() }) as i32 }
    }

    /// Whether it is not due yet. Otherwise it fires, which is an event of its own.
    #[inline(always)]
    pub(super) fn is_running(self) -> bool {
        self.ticks > 0
    }

    #[inline(always)]
    fn cookie(self) -> u64 {
        member(self.tw, off::SOCK_COMMON_COOKIE())
    }
}

#[btf_tracepoint(function = "timer_start")]
fn timer_start(ctx: BtfTracePointContext) -> i32 {
    if let Some(timer) = Timer::of(&ctx) {
        recent::note_created(timer.cookie(), timer.ticks, member(timer.tw, off::TW_SUBSTATE()));
    }
    0
}

#[btf_tracepoint(function = "timer_expire_entry")]
fn timer_expire_entry(ctx: BtfTracePointContext) -> i32 {
    if let Some(timer) = Timer::of(&ctx) {
        report(timer.tw, timer.ticks, kind::MINI_EXPIRED);
    }
    0
}

#[btf_tracepoint(function = "timer_cancel")]
fn timer_cancel(ctx: BtfTracePointContext) -> i32 {
    // A timer that fires is cancelled first, and `timer_expire_entry` follows.
    if let Some(timer) = Timer::of(&ctx).filter(|timer| timer.is_running()) {
        report_cancelled(timer, ctx.as_ptr());
    }
    0
}

/// Reports that a timer was cancelled by who is on the call stack.
#[inline(always)]
pub(super) fn report_cancelled(timer: Timer, ctx: *mut c_void) {
    let key = Key::of_mini(timer.tw);
    if !key.is_wanted() {
        return;
    }
    let Some(mut entry) = reserve::<CancelRecord>(counter::LOST_OTHERS) else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved and filled completely: the helper zeroes what it does not use.
    unsafe {
        fill(&raw mut (*record).head, timer.tw, timer.ticks, key, kind::MINI_CANCELLED);
        let stack = (&raw mut (*record).cancel.stack).cast();
        bpf_get_stack(ctx, stack, (STACK_FRAMES * 8) as u32, 0);
    }
    submit(entry);
}

#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(3);
    if sk.is_null() {
        return 0;
    }
    // SAFETY: the verifier knows the arguments as a `struct sock` and a `struct sk_buff`, and checks the loads. A
    // mini-socket is a `struct sock` as far as `struct sock_common` goes.
    let (head, transport) = unsafe {
        if load::<u8>(sk, off::SOCK_COMMON_STATE()) != TIME_WAIT {
            return 0;
        }
        let skb: *const u8 = ctx.arg(0);
        (load::<u64>(skb, off::SKB_HEAD()), load::<u16>(skb, off::SKB_TRANSPORT_HEADER()))
    };
    const FLAGS_IN_TCP_HEADER: u64 = 13;
    const FIN: u8 = 1;
    if read::<u8>(head.wrapping_add(u64::from(transport)).wrapping_add(FLAGS_IN_TCP_HEADER)) & FIN != 0 {
        report(sk as u64, 0, kind::MINI_FIN);
    }
    0
}

#[inline(always)]
pub(super) fn report(tw: u64, ticks: i32, kind: u8) {
    let key = Key::of_mini(tw);
    if !key.is_wanted() {
        return;
    }
    let Some(mut entry) = reserve::<Head>(counter::LOST_OTHERS) else { return };
    // SAFETY: the record is reserved and filled completely.
    unsafe { fill(entry.as_mut_ptr(), tw, ticks, key, kind) };
    submit(entry);
}

/// # Safety
///
/// `head` points into a reserved record.
#[inline(always)]
unsafe fn fill(head: *mut Head, tw: u64, ticks: i32, key: Key, kind: u8) {
    let cookie: u64 = member(tw, off::SOCK_COMMON_COOKIE());
    // SAFETY: the writes stay inside the record.
    unsafe {
        (&raw mut (*head).boot_ns).write(boot_ns());
        (&raw mut (*head).id).write(if cookie != 0 { cookie } else { tw });
        fill_mini_addresses(head, tw);
        (&raw mut (*head).local_port).write(key.local_port);
        (&raw mut (*head).remote_port).write(key.remote_port);
        (&raw mut (*head).netns).write(key.netns);
        (&raw mut (*head).extra).write(ticks as u32);
        (&raw mut (*head).kind).write(kind);
        (&raw mut (*head).old).write(member(tw, off::TW_SUBSTATE()));
        (&raw mut (*head).new).write(0);
        (&raw mut (*head).flags).write(bit(cookie == 0, flag::ID_IS_ADDRESS));
    }
}
