//! System calls about TCP sockets that fail and leave no trace in the kernel: `bind`, `listen` and `accept`. While any of
//! these programs is attached, every system call of the machine takes longer, so they are attached on demand only.

use aya_ebpf::EbpfContext;
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user};
use aya_ebpf::macros::{btf_map, tracepoint};
use aya_ebpf::programs::TracePointContext;
use tcptrace_common::{Head, call, counter, flag, kind};

use crate::emit::{TaskRecord, boot_ns, fill_task, reserve, submit};
use crate::hooks::destroy::fill_event;
use crate::hooks::holder::socket_of;
use crate::kernel::load;
use crate::layout::off;
use crate::socket::{Key, fill_mini_addresses, member, put_ipv4};

const AF_UNSPEC: u16 = 0;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// Those that have a cause on this machine, by `include/uapi/asm-generic/errno*.h`.
mod errno {
    pub(super) const EACCES: i64 = 13;
    pub(super) const ENFILE: i64 = 23;
    pub(super) const EMFILE: i64 = 24;
    pub(super) const EADDRINUSE: i64 = 98;
    pub(super) const EADDRNOTAVAIL: i64 = 99;
}

/// A process without a free descriptor can call `accept` in a circle: of each thread, one failure in this time is
/// reported.
const BETWEEN_NS: u64 = 1_000_000;

/// What a thread has called last.
#[repr(C)]
struct Called {
    /// Of the address that it has given, in its memory.
    address: u64,
    address_len: u64,
    /// When a failed `accept` of this thread was reported last.
    reported: u64,
    fd: u32,
    call: u32,
}

/// By thread. Calls that fail for want of a descriptor or a port do not wait before: what others push out is not missed.
#[btf_map]
static CALLED: LruHashMap<u64, Called, 4096> = LruHashMap::new();

#[tracepoint]
fn bind_called(ctx: TracePointContext) -> u32 {
    // SAFETY: `bind` has these arguments.
    let (address, address_len) = unsafe { (argument(&ctx, 1), argument(&ctx, 2)) };
    // SAFETY: and this one.
    note(unsafe { argument(&ctx, 0) }, call::BIND, address, address_len)
}

#[tracepoint]
fn listen_called(ctx: TracePointContext) -> u32 {
    // SAFETY: as above.
    note(unsafe { argument(&ctx, 0) }, call::LISTEN, 0, 0)
}

#[tracepoint]
fn accept_called(ctx: TracePointContext) -> u32 {
    // SAFETY: as above.
    note(unsafe { argument(&ctx, 0) }, call::ACCEPT, 0, 0)
}

#[tracepoint]
fn bind_returned(ctx: TracePointContext) -> u32 {
    look(&ctx, call::BIND)
}

#[tracepoint]
fn listen_returned(ctx: TracePointContext) -> u32 {
    look(&ctx, call::LISTEN)
}

#[tracepoint]
fn accept_returned(ctx: TracePointContext) -> u32 {
    look(&ctx, call::ACCEPT)
}

/// An argument of a system call, in `events/syscalls/sys_enter_bind/format`.
///
/// # Safety
///
/// The call has so many.
#[inline(always)]
unsafe fn argument(ctx: &TracePointContext, index: usize) -> u64 {
    // SAFETY: the verifier checks that this lies in the context.
    unsafe { load(ctx.as_ptr().cast(), 16 + 8 * index) }
}

#[inline(always)]
fn note(fd: u64, call: u8, address: u64, address_len: u64) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let (fd, call) = (fd as u32, u32::from(call));
    if let Some(called) = CALLED.get_ptr_mut(thread) {
        // SAFETY: only this thread uses its entry.
        unsafe {
            (*called).address = address;
            (*called).address_len = address_len;
            (*called).fd = fd;
            (*called).call = call;
        }
    } else {
        let _ = CALLED.insert(thread, Called { address, address_len, reported: 0, fd, call }, 0);
    }
    0
}

#[inline(always)]
fn look(ctx: &TracePointContext, call: u8) -> u32 {
    /// Of the return value, in `events/syscalls/sys_exit_bind/format`.
    const RETURNED: usize = 16;
    // SAFETY: the verifier checks that this lies in the context.
    let returned: i64 = unsafe { load(ctx.as_ptr().cast(), RETURNED) };
    let errno = returned.wrapping_neg();
    let is_told = match call {
        call::ACCEPT => matches!(errno, errno::EMFILE | errno::ENFILE),
        _ => matches!(errno, errno::EADDRINUSE | errno::EADDRNOTAVAIL | errno::EACCES),
    };
    if !is_told {
        return 0;
    }
    let Some(called) = CALLED.get_ptr_mut(bpf_get_current_pid_tgid()) else { return 0 };
    // SAFETY: only this thread uses its entry.
    unsafe {
        if (*called).call != u32::from(call) {
            return 0;
        }
        if call == call::ACCEPT {
            let now = boot_ns();
            if now.wrapping_sub((*called).reported) < BETWEEN_NS {
                return 0;
            }
            (*called).reported = now;
        }
        report(&*called, call, errno as u8);
    }
    0
}

/// Reports a call that failed, if it was about a TCP socket.
#[inline(always)]
fn report(called: &Called, call: u8, errno: u8) {
    let Some(sk) = socket_of(i64::from(called.fd as i32)) else { return };
    let protocol: u16 = member(sk, off::SOCK_PROTOCOL());
    let family: u16 = member(sk, off::SOCK_COMMON_FAMILY());
    if !matches!(family, AF_INET | AF_INET6) || !matches!(protocol, IPPROTO_TCP | IPPROTO_MPTCP) {
        return;
    }
    // Its own, for calls that are given none.
    let mut key = Key::at(sk, off::SOCK_COMMON_NUM());
    key.local_port = member(sk, off::SOCK_COMMON_NUM());
    key.remote_port = 0;
    let mut given = Given { family: AF_UNSPEC, port: 0, v4: 0, v6: [0; 4] };
    let mut is_known = true;
    if call == call::BIND {
        is_known = given.read(called);
        key.local_port = u16::from_be(given.port);
        key.ipv4 = given.family != AF_INET6 || (given.v6[0] == 0 && given.v6[1] == 0 && given.v6[2] == MAPPED);
    }
    if !key.is_wanted() {
        return;
    }
    let Some(mut entry) = reserve::<TaskRecord>(counter::LOST_OTHERS) else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved and filled completely.
    unsafe {
        let head = &raw mut (*record).head;
        let cookie = member(sk, off::SOCK_COMMON_COOKIE());
        fill_event(head, kind::FAILED_CALL, cookie, if is_known { 0 } else { flag::BARE });
        if call == call::BIND {
            given.fill(head);
        } else {
            fill_mini_addresses(head, sk);
        }
        (&raw mut (*head).local_port).write(key.local_port);
        (&raw mut (*head).netns).write(key.netns);
        (&raw mut (*head).extra).write(called.fd);
        (&raw mut (*head).old).write(call);
        (&raw mut (*head).new).write(errno);
        fill_task(&raw mut (*record).task);
    }
    submit(entry);
}

/// The third word of an IPv4-mapped IPv6 address, in memory order.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// What both kinds of addresses begin with; the last part only matters for IPv4.
#[repr(C)]
#[derive(Clone, Copy)]
struct Begin {
    family: u16,
    port: u16,
    v4: u32,
}

/// A `struct sockaddr_in` or `sockaddr_in6`.
struct Given {
    family: u16,
    /// In network order, as both addresses.
    port: u16,
    v4: u32,
    v6: [u32; 4],
}

impl Given {
    /// Reads what `bind` was given, and whether it was an address of such a family. When the call has returned, the kernel
    /// has read it, so that it is in memory.
    #[inline(always)]
    fn read(&mut self, called: &Called) -> bool {
        /// Of a `struct sockaddr_in`, and as much of a `sockaddr_in6` as the kernel asks for.
        const SHORTEST: [u64; 2] = [16, 24];
        let at = called.address;
        // SAFETY: the helper checks the address and copies; it never faults.
        let first = unsafe { bpf_probe_read_user(at as *const Begin) };
        let Ok(Begin { family, port, v4 }) = first else { return false };
        match family {
            AF_INET | AF_UNSPEC if called.address_len >= SHORTEST[0] => self.v4 = v4,
            AF_INET6 if called.address_len >= SHORTEST[1] => {
                // SAFETY: as above.
                let Ok(v6) = (unsafe { bpf_probe_read_user((at + 8) as *const [u32; 4]) }) else { return false };
                self.v6 = v6;
            }
            _ => return false,
        }
        self.family = family;
        self.port = port;
        true
    }

    /// # Safety
    ///
    /// `head` points into a reserved record.
    #[inline(always)]
    unsafe fn fill(&self, head: *mut Head) {
        // SAFETY: the writes stay inside the record.
        unsafe {
            let local = (&raw mut (*head).local_addr).cast::<u64>();
            if self.family == AF_INET6 {
                let local = local.cast::<u32>();
                local.write(self.v6[0]);
                local.add(1).write(self.v6[1]);
                local.add(2).write(self.v6[2]);
                local.add(3).write(self.v6[3]);
            } else {
                put_ipv4(local, self.v4);
            }
        }
    }
}
