//! Basic service for kernels without BTF: the classic tracepoints, whose layout is the same from 5.8 to 6.19. They show
//! no cookie, so an address identifies a socket. They show no facts about how a connection ended.

use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use tcptrace_common::state::SYN_SENT;
use tcptrace_common::{Head, counter, flag, kind};

use crate::emit::{TaskRecord, count, fill_task_plainly, reserve, submit};
use crate::hooks::destroy::fill_event;
use crate::socket::{Key, put_ipv4};

const IPPROTO_TCP: u16 = 6;
const AF_INET: u16 = 2;

/// Offsets in `events/sock/inet_sock_set_state/format`.
mod field {
    pub(super) const ADDRESS: usize = 8;
    pub(super) const OLD_STATE: usize = 16;
    pub(super) const NEW_STATE: usize = 20;
    pub(super) const LOCAL_PORT: usize = 24;
    pub(super) const REMOTE_PORT: usize = 26;
    pub(super) const FAMILY: usize = 28;
    pub(super) const PROTOCOL: usize = 30;
    pub(super) const LOCAL_V4: usize = 32;
    pub(super) const REMOTE_V4: usize = 36;
    pub(super) const LOCAL_V6: usize = 40;
    pub(super) const REMOTE_V6: usize = 56;
}

#[tracepoint(category = "sock", name = "inet_sock_set_state")]
fn classic_inet_sock_set_state(ctx: TracePointContext) -> u32 {
    if at::<u16>(&ctx, field::PROTOCOL) != IPPROTO_TCP {
        return 0;
    }
    let family: u16 = at(&ctx, field::FAMILY);
    let new = at::<u32>(&ctx, field::NEW_STATE) as u8;
    let key = Key {
        // While it connects, the port may be that of an earlier connection of the same socket.
        local_port: if new == SYN_SENT { 0 } else { at(&ctx, field::LOCAL_PORT) },
        remote_port: at(&ctx, field::REMOTE_PORT),
        netns: 0,
        ipv4: family == AF_INET,
    };
    if !key.is_wanted() {
        count(counter::FILTERED);
        return 0;
    }
    let Some(mut entry) = reserve::<TaskRecord>(counter::LOST_TRANSITIONS) else { return 0 };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved and filled completely.
    unsafe {
        let head = &raw mut (*record).head;
        fill_event(head, kind::STATE_TASK, at(&ctx, field::ADDRESS), flag::ID_IS_ADDRESS | flag::BARE);
        fill_addresses(head, &ctx, family);
        (&raw mut (*head).local_port).write(key.local_port);
        (&raw mut (*head).remote_port).write(key.remote_port);
        (&raw mut (*head).old).write(at::<u32>(&ctx, field::OLD_STATE) as u8);
        (&raw mut (*head).new).write(new);
        fill_task_plainly(&raw mut (*record).task);
    }
    submit(entry);
    0
}

#[tracepoint(category = "tcp", name = "tcp_destroy_sock")]
fn classic_tcp_destroy_sock(ctx: TracePointContext) -> u32 {
    let Some(mut entry) = reserve::<Head>(counter::LOST_OTHERS) else { return 0 };
    let address = at(&ctx, field::ADDRESS);
    // SAFETY: the record is reserved and filled completely.
    unsafe { fill_event(entry.as_mut_ptr(), kind::DESTROY, address, flag::ID_IS_ADDRESS | flag::BARE) };
    submit(entry);
    0
}

/// # Safety
///
/// `head` points into a reserved record.
#[inline(always)]
unsafe fn fill_addresses(head: *mut Head, ctx: &TracePointContext, family: u16) {
    // SAFETY: the writes stay inside the record.
    unsafe {
        let local = (&raw mut (*head).local_addr).cast::<u64>();
        let remote = (&raw mut (*head).remote_addr).cast::<u64>();
        if family == AF_INET {
            put_ipv4(local, at(ctx, field::LOCAL_V4));
            put_ipv4(remote, at(ctx, field::REMOTE_V4));
        } else {
            local.write(at(ctx, field::LOCAL_V6));
            local.add(1).write(at(ctx, field::LOCAL_V6 + 8));
            remote.write(at(ctx, field::REMOTE_V6));
            remote.add(1).write(at(ctx, field::REMOTE_V6 + 8));
        }
    }
}

/// A field of the tracepoint.
#[inline(always)]
fn at<T: Copy + Default>(ctx: &TracePointContext, offset: usize) -> T {
    // SAFETY: the helper checks the address and copies; it never faults.
    unsafe { ctx.read_at(offset) }.unwrap_or_default()
}
