//! Changes of state, at `inet_sock_set_state`. It fires before the new state is stored, under the socket's lock, so
//! that for one socket the order of records is the order of transitions (`net/ipv4/af_inet.c`, 5.8 to 6.19).

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_skc_to_tcp_sock};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use tcptrace_common::state::{CLOSE_WAIT, CLOSED, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT};
use tcptrace_common::{
    ChildTail, ClosedChildTail, ClosedTail, EndTail, EndedChildTail, Head, IdleTail, IdleTaskTail, OpenTail,
    UNKNOWN_TICKS, counter, end_flag, flag, kind,
};

use crate::emit::{TaskRecord, boot_ns, count, fill_task, reserve, submit};
use crate::kernel::load;
use crate::layout::{self, off};
use crate::recent;
use crate::reported::{self, Seen};
use crate::socket::{Key, bit, cgroup, cookie, fill_addresses, flags, interface, reuse, sock_flag};

#[repr(C)]
struct OpenRecord {
    head: Head,
    open: OpenTail,
}

#[repr(C)]
struct ChildRecord {
    head: Head,
    child: ChildTail,
}

#[repr(C)]
struct ClosedChildRecord {
    head: Head,
    closed: ClosedChildTail,
}

#[repr(C)]
struct EndRecord {
    head: Head,
    closed: ClosedTail,
}

#[repr(C)]
struct IdleRecord {
    head: Head,
    idle: IdleTail,
}

#[repr(C)]
struct IdleTaskRecord {
    head: Head,
    tail: IdleTaskTail,
}

/// One change of state, and where to read about it.
///
/// Pointers are better read through `tcp`: for each that is read through the argument of a tracepoint, the verifier of
/// kernels up to 6.18 goes through the names of all types, which takes it half a millisecond.
#[derive(Clone, Copy)]
struct Change {
    sk: *const u8,
    tcp: *const u8,
    old: u8,
    new: u8,
    key: Key,
    /// Its cookie, or its address while it has none of its own.
    id: u64,
    unborn: bool,
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    look(&ctx, 0);
    // It has a cookie now, if it was reported.
    reported::note(&reported::CHANGES, || seen(&ctx));
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state_stand_in(ctx: BtfTracePointContext) -> i32 {
    if !reported::take(&reported::CHANGES, seen(&ctx)) {
        count(counter::STOOD_IN);
        look(&ctx, counter::STAND_IN);
    }
    0
}

#[inline(always)]
fn seen(ctx: &BtfTracePointContext) -> Seen {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: the verifier knows the argument as a `struct sock`, and checks the load.
    let cookie: u64 = unsafe { load(sk, off::SOCK_COMMON_COOKIE()) };
    let states = (ctx.arg::<u64>(1) & 0xff) << 8 | (ctx.arg::<u64>(2) & 0xff);
    Seen { address: sk as u64, what: cookie << 16 | states }
}

/// Reports a change of state; `counters` is where to count what is not reported.
#[inline(always)]
fn look(ctx: &BtfTracePointContext, counters: usize) {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: the verifier knows the argument as a `struct sock`. The helper gives NULL for what is not TCP, so that
    // MPTCP's own sockets, SCTP and DCCP end here.
    let tcp: *const u8 = unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast()) }.cast();
    if tcp.is_null() {
        return;
    }
    let (old, new) = (ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    // SAFETY: as above.
    let key = unsafe { Key::of_socket(sk, tcp, new == SYN_SENT) };
    if !key.is_wanted() {
        count(counters + counter::FILTERED);
        return;
    }
    // Up to 6.14 a child that is being made still shows the listener's cookie, and no remote port: it is known by
    // its address until it is ESTABLISHED (`inet_csk_clone_lock`; since 6.15 all is set before).
    let unborn = old == LISTEN && new == SYN_RECV && key.remote_port == 0;
    // Even if there is no room for the record, it has a cookie from now on, by which a mini-socket can be known.
    // SAFETY: as above.
    let id = if unborn { sk as u64 } else { unsafe { cookie(sk) } };
    let change = Change { sk, tcp, old, new, key, id, unborn };
    #[cfg(feature = "bpf-log")]
    aya_log_ebpf::debug!(ctx, "state {} to {}, port {}", change.old, change.new, key.local_port);
    // SAFETY: the pointers in `change` are trusted by the verifier.
    unsafe { report(change, counters + counter::LOST_TRANSITIONS) };
}

/// # Safety
///
/// The pointers in `change` are trusted by the verifier.
#[inline(always)]
unsafe fn report(change: Change, lost: usize) {
    let Change { old, new, .. } = change;
    // SAFETY: each record is reserved, and filled completely before it is handed over.
    unsafe {
        if new == CLOSED {
            if let Some(mut entry) = reserve::<EndRecord>(lost) {
                let record = entry.as_mut_ptr();
                fill_head(&raw mut (*record).head, change, kind::STATE_END);
                fill_end(&raw mut (*record).closed.end, change);
                let was_established = !matches!(old, LISTEN | SYN_SENT | SYN_RECV | CLOSED);
                fill_idle(&raw mut (*record).closed.idle, change.tcp, was_established);
                if old == SYN_RECV {
                    (&raw mut (*record).head.kind).write(kind::STATE_CHILD_END);
                    let ended = (&raw mut (*record).closed).cast::<EndedChildTail>();
                    (&raw mut (*ended).address).write(change.sk as u64);
                }
                if (*record).head.flags & flag::DEAD != 0 {
                    recent::note_closed((*record).head.id);
                }
                submit(entry);
            }
        } else if old == SYN_RECV && new == FIN_WAIT1 {
            // By `close`, and before 6.9 by `shutdown`: never by a packet (`tcp_close_state` in `net/ipv4/tcp.c`).
            if let Some(mut entry) = reserve::<ClosedChildRecord>(lost) {
                let record = entry.as_mut_ptr();
                fill_head(&raw mut (*record).head, change, kind::STATE_CHILD_CLOSED);
                fill_child(&raw mut (*record).closed.child, change);
                fill_task(&raw mut (*record).closed.task);
                submit(entry);
            }
        } else if old == SYN_RECV || (old == LISTEN && new == SYN_RECV) {
            if let Some(mut entry) = reserve::<ChildRecord>(lost) {
                let record = entry.as_mut_ptr();
                fill_head(&raw mut (*record).head, change, kind::STATE_CHILD);
                fill_child(&raw mut (*record).child, change);
                submit(entry);
            }
        } else if old == CLOSED && matches!(new, SYN_SENT | LISTEN) {
            if let Some(mut entry) = reserve::<OpenRecord>(lost) {
                let record = entry.as_mut_ptr();
                fill_head(&raw mut (*record).head, change, kind::STATE_OPEN);
                fill_task(&raw mut (*record).open.task);
                (&raw mut (*record).open.cgroup).write(cgroup(change.tcp));
                (&raw mut (*record).open.interface).write(interface(change.sk));
                (&raw mut (*record).open.reuse).write(reuse(change.tcp));
                (&raw mut (*record).open.padding).write([0; 3]);
                submit(entry);
            }
        } else if old == ESTABLISHED && new == FIN_WAIT1 {
            if let Some(mut entry) = reserve::<IdleTaskRecord>(lost) {
                let record = entry.as_mut_ptr();
                fill_head(&raw mut (*record).head, change, kind::STATE_IDLE_TASK);
                fill_task(&raw mut (*record).tail.task);
                fill_idle(&raw mut (*record).tail.idle, change.tcp, true);
                submit(entry);
            }
        } else if old == ESTABLISHED && new == CLOSE_WAIT {
            if let Some(mut entry) = reserve::<IdleRecord>(lost) {
                let record = entry.as_mut_ptr();
                fill_head(&raw mut (*record).head, change, kind::STATE_IDLE);
                fill_idle(&raw mut (*record).idle, change.tcp, true);
                submit(entry);
            }
        } else if old == new || matches!(new, FIN_WAIT1 | LAST_ACK) {
            if let Some(mut entry) = reserve::<TaskRecord>(lost) {
                let record = entry.as_mut_ptr();
                fill_head(&raw mut (*record).head, change, kind::STATE_TASK);
                fill_task(&raw mut (*record).task);
                submit(entry);
            }
        } else if let Some(mut entry) = reserve::<Head>(lost) {
            fill_head(entry.as_mut_ptr(), change, kind::STATE);
            submit(entry);
        }
    }
}

/// # Safety
///
/// `head` points into a reserved record; the pointers in `change` are trusted by the verifier.
#[inline(always)]
unsafe fn fill_head(head: *mut Head, change: Change, kind: u8) {
    let Change { sk, tcp, old, new, key, id, unborn } = change;
    // SAFETY: the writes stay inside the record; the verifier checks the loads.
    unsafe {
        (&raw mut (*head).boot_ns).write(boot_ns());
        (&raw mut (*head).id).write(id);
        fill_addresses(head, sk);
        (&raw mut (*head).local_port).write(key.local_port);
        (&raw mut (*head).remote_port).write(key.remote_port);
        (&raw mut (*head).netns).write(key.netns);
        (&raw mut (*head).extra).write(load(sk, off::SOCK_UID()));
        (&raw mut (*head).kind).write(kind);
        (&raw mut (*head).old).write(old);
        (&raw mut (*head).new).write(new);
        let silent = old == SYN_SENT && load::<u32>(tcp, off::TCP_SEGS_OUT()) == 0;
        let more = bit(unborn, flag::ID_IS_ADDRESS) | bit(silent, flag::SILENT);
        (&raw mut (*head).flags).write(flags(tcp) | more);
    }
}

/// # Safety
///
/// `child` points into a reserved record; the pointers in `change` are trusted by the verifier.
#[inline(always)]
unsafe fn fill_child(child: *mut ChildTail, change: Change) {
    // SAFETY: the writes stay inside the record; the verifier checks the loads.
    unsafe {
        (&raw mut (*child).address).write(change.sk as u64);
        (&raw mut (*child).cgroup).write(cgroup(change.tcp));
        (&raw mut (*child).interface).write(interface(change.sk));
        (&raw mut (*child).padding).write(0);
    }
}

/// # Safety
///
/// As for [`fill_head`].
#[inline(always)]
unsafe fn fill_end(end: *mut EndTail, change: Change) {
    let Change { sk, tcp, id, .. } = change;
    // SAFETY: the writes stay inside the record; the verifier checks the loads.
    unsafe {
        fill_task(&raw mut (*end).task);
        (&raw mut (*end).bytes_sent).write(load(tcp, off::TCP_BYTES_SENT()));
        (&raw mut (*end).bytes_received).write(load(tcp, off::TCP_BYTES_RECEIVED()));
        (&raw mut (*end).retransmits).write(load(tcp, off::TCP_TOTAL_RETRANS()));
        (&raw mut (*end).srtt_us_8).write(load(tcp, off::TCP_SRTT_US()));
        let sock_flags: u64 = load(sk, off::SOCK_COMMON_FLAGS());
        (&raw mut (*end).unread).write(unread(tcp, sock_flags));
        (&raw mut (*end).err).write(load::<i32>(sk, off::SOCK_ERR()) as u16);
        (&raw mut (*end).flags).write(end_flags(sk, tcp, sock_flags));
        let (substate, ticks) = recent::take_created(id);
        (&raw mut (*end).mini).write(substate);
        (&raw mut (*end).mini_ticks).write(ticks);
        (&raw mut (*end).in_flight_retransmits).write(load(tcp, off::ICSK_RETRANSMITS()));
        (&raw mut (*end).probes_out).write(load(tcp, off::ICSK_PROBES_OUT()));
        (&raw mut (*end).reuse).write(reuse(change.tcp));
        (&raw mut (*end).padding).write(0);
    }
}

/// How long nothing has moved. All three times begin when the connection is established: received and sent by
/// `tcp_finish_connect`, `tcp_create_openreq_child` and `tcp_rcv_state_process`, acknowledged by `tcp_ack` of the
/// handshake. A FIN without data is none that was received or sent, and is acknowledged after this.
///
/// # Safety
///
/// `idle` points into a reserved record; `tcp` is trusted by the verifier.
#[inline(always)]
unsafe fn fill_idle(idle: *mut IdleTail, tcp: *const u8, was_established: bool) {
    // SAFETY: the writes stay inside the record; the verifier checks the loads.
    unsafe {
        // `tcp_jiffies32` in `include/net/tcp.h`.
        let now = bpf_jiffies64() as u32;
        let has_sent = was_established && load::<u64>(tcp, off::TCP_BYTES_SENT()) != 0;
        let since = |at: Option<usize>, is_known: bool| match at {
            Some(offset) if is_known => now.wrapping_sub(load::<u32>(tcp, offset)),
            _ => UNKNOWN_TICKS,
        };
        (&raw mut (*idle).received).write(since(layout::received_at(), was_established));
        (&raw mut (*idle).sent).write(since(layout::sent_at(), has_sent));
        (&raw mut (*idle).acked).write(since(layout::acked_at(), was_established));
        (&raw mut (*idle).padding).write(0);
    }
}

/// Bytes received and not read. The peer's FIN takes a sequence number of its own, which counts as read when the
/// process has read to the end (`tcp_recvmsg_locked` in `net/ipv4/tcp.c`).
///
/// # Safety
///
/// `tcp` is trusted by the verifier.
#[inline(always)]
unsafe fn unread(tcp: *const u8, sock_flags: u64) -> u32 {
    // SAFETY: the verifier checks the loads.
    unsafe {
        let received: u32 = load(tcp, off::TCP_RCV_NXT());
        let copied: u32 = load(tcp, off::TCP_COPIED_SEQ());
        let ahead = received.wrapping_sub(copied);
        if ahead > 0 && sock_flags & sock_flag::DONE != 0 { ahead - 1 } else { ahead }
    }
}

/// # Safety
///
/// `sk` and `tcp` are trusted by the verifier.
#[inline(always)]
unsafe fn end_flags(sk: *const u8, tcp: *const u8, sock_flags: u64) -> u8 {
    // SAFETY: the verifier checks the loads.
    unsafe {
        let lingertime: u64 = load(sk, off::SOCK_LINGERTIME());
        let linger2: i32 = load(tcp, off::TCP_LINGER2());
        let una: u32 = load(tcp, off::TCP_SND_UNA());
        let next: u32 = load(tcp, off::TCP_SND_NXT());
        let written: u32 = load(tcp, off::TCP_WRITE_SEQ());
        let user_timeout: u32 = load(tcp, off::ICSK_USER_TIMEOUT());
        bit(sock_flags & sock_flag::KEEPOPEN != 0, end_flag::KEEPALIVE)
            | bit(sock_flags & sock_flag::LINGER != 0 && lingertime == 0, end_flag::LINGER0)
            | bit(linger2 < 0, end_flag::LINGER2_NEGATIVE)
            | bit(una == written, end_flag::ALL_ACKED)
            | bit(una != next, end_flag::IN_FLIGHT)
            | bit(user_timeout != 0, end_flag::USER_TIMEOUT)
    }
}
