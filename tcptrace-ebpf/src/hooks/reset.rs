//! Resets, sent and received. Their order against the transition they cause differs from case to case and from
//! kernel to kernel; userspace sorts that out.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use tcptrace_common::{Head, counter, kind};

use crate::emit::{reserve, submit};
use crate::hooks::destroy::fill_event;
use crate::kernel::load;
use crate::layout::{self, off};

#[btf_tracepoint(function = "tcp_send_reset")]
fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let reason = if layout::reset_has_reason() { ctx.arg::<u32>(2) } else { 0 };
    report(&ctx, kind::RESET_SENT, reason)
}

#[btf_tracepoint(function = "tcp_receive_reset")]
fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    report(&ctx, kind::RESET_RECEIVED, 0)
}

#[inline(always)]
fn report(ctx: &BtfTracePointContext, kind: u8, reason: u32) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    // Since 6.10 resets that belong to no socket are shown too.
    if sk.is_null() {
        return 0;
    }
    // SAFETY: the verifier knows the argument as a `struct sock`, and checks the load. It may be a mini-socket:
    // nothing beyond `struct sock_common` is read.
    let cookie: u64 = unsafe { load(sk, off::SOCK_COMMON_COOKIE()) };
    if cookie == 0 {
        return 0;
    }
    let Some(mut entry) = reserve::<Head>(counter::LOST_OTHERS) else { return 0 };
    let head = entry.as_mut_ptr();
    // SAFETY: the record is reserved and filled completely.
    unsafe {
        fill_event(head, kind, cookie, 0);
        (&raw mut (*head).extra).write(reason);
    }
    submit(entry);
    0
}
