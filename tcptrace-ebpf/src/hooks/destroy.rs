//! The end of a full socket, at `tcp_destroy_sock`: after CLOSED at once, or when a process closes the descriptor of
//! a socket that has long been CLOSED.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use tcptrace_common::{Head, counter, kind};

use crate::emit::{boot_ns, count, reserve, submit};
use crate::kernel::load;
use crate::layout::off;
use crate::recent;
use crate::reported::{self, Seen};
use crate::socket::flags;

#[btf_tracepoint(function = "tcp_destroy_sock")]
fn tcp_destroy_sock(ctx: BtfTracePointContext) -> i32 {
    reported::note(&reported::ENDS, || seen(&ctx));
    look(&ctx, counter::LOST_OTHERS);
    0
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
fn tcp_destroy_sock_stand_in(ctx: BtfTracePointContext) -> i32 {
    if !reported::take(&reported::ENDS, seen(&ctx)) {
        count(counter::STOOD_IN);
        look(&ctx, counter::STAND_IN + counter::LOST_OTHERS);
    }
    0
}

#[inline(always)]
fn seen(ctx: &BtfTracePointContext) -> Seen {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: the verifier knows the argument as a `struct sock`, and checks the load.
    Seen { address: sk as u64, what: unsafe { load(sk, off::SOCK_COMMON_COOKIE()) } }
}

#[inline(always)]
fn look(ctx: &BtfTracePointContext, lost: usize) {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: as above.
    let cookie: u64 = unsafe { load(sk, off::SOCK_COMMON_COOKIE()) };
    // Never seen in any transition, or just reported: userspace does not need its end.
    if cookie == 0 || recent::was_closed(cookie) {
        return;
    }
    let Some(mut entry) = reserve::<Head>(lost) else { return };
    // SAFETY: the record is reserved and filled completely.
    unsafe { fill_event(entry.as_mut_ptr(), kind::DESTROY, cookie, flags(sk)) };
    submit(entry);
}

/// Fills the head of a record that says nothing of addresses.
///
/// # Safety
///
/// `head` points into a reserved record.
#[inline(always)]
pub(crate) unsafe fn fill_event(head: *mut Head, kind: u8, id: u64, flags: u8) {
    // SAFETY: the writes stay inside the record.
    unsafe {
        (&raw mut (*head).boot_ns).write(boot_ns());
        (&raw mut (*head).id).write(id);
        (&raw mut (*head).local_addr).cast::<[u64; 2]>().write([0; 2]);
        (&raw mut (*head).remote_addr).cast::<[u64; 2]>().write([0; 2]);
        (&raw mut (*head).local_port).write(0);
        (&raw mut (*head).remote_port).write(0);
        (&raw mut (*head).netns).write(0);
        (&raw mut (*head).extra).write(0);
        (&raw mut (*head).kind).write(kind);
        (&raw mut (*head).old).write(0);
        (&raw mut (*head).new).write(0);
        (&raw mut (*head).flags).write(flags);
    }
}
