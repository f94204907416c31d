//! Mini-sockets at the kernel's own functions (`net/ipv4/inet_timewait_sock.c`). These run for mini-sockets only, and the
//! tracepoints of timers for every timer of the machine. They show each extension, too, which often leaves the timer in
//! its bucket. Not every kernel can attach them.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::fentry;
use aya_ebpf::programs::FEntryContext;
use tcptrace_common::kind;

use super::mini::{Timer, report, report_cancelled};
use crate::layout::off;
use crate::recent;
use crate::socket::member;

/// `__inet_twsk_schedule(tw, timeo, rearm)`: a mini-socket is made, or gets more time.
#[fentry(function = "__inet_twsk_schedule")]
fn mini_scheduled(ctx: FEntryContext) -> i32 {
    let tw: u64 = ctx.arg(0);
    let ticks: i32 = ctx.arg(1);
    // A `bool` in a register: the rest of it may be anything.
    let is_extension = ctx.arg::<u64>(2) & 0xff != 0;
    if is_extension {
        report(tw, ticks, kind::MINI_EXTENDED);
    } else {
        recent::note_created(member(tw, off::SOCK_COMMON_COOKIE()), ticks, member(tw, off::TW_SUBSTATE()));
    }
    0
}

/// `inet_twsk_kill(tw)`: ends a mini-socket. Whoever has stopped its timer calls it. The timer itself calls it, too, when it
/// expires; `timer_expire_entry` shows that.
#[fentry(function = "inet_twsk_kill")]
fn mini_killed(ctx: FEntryContext) -> i32 {
    let timer = Timer::in_mini(ctx.arg(0));
    if timer.is_running() {
        report_cancelled(timer, ctx.as_ptr());
    }
    0
}
