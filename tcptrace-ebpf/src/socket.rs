//! What a record says about its socket, and whether the filter wants it.

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use tcptrace_common::{FILTER_PORTS, Head, flag};

use crate::kernel::{load, read};
use crate::layout::{filter, off, sock_cgroup, sock_reuse};

const AF_INET: u16 = 2;
/// The first bytes of an IPv4-mapped IPv6 address, in memory order.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Bits of `sk_flags` (`enum sock_flags` in `include/net/sock.h`, the same since 2.6).
pub(crate) mod sock_flag {
    pub(crate) const DEAD: u64 = 1 << 0;
    pub(crate) const DONE: u64 = 1 << 1;
    pub(crate) const KEEPOPEN: u64 = 1 << 3;
    pub(crate) const LINGER: u64 = 1 << 4;
}

const RCV_SHUTDOWN: u8 = 1;
const SEND_SHUTDOWN: u8 = 2;

/// Ports, namespace and family: what the filter looks at.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) netns: u32,
    pub(crate) ipv4: bool,
}

impl Key {
    /// Of a full socket; `sk` and `tcp` are the same one, as `struct sock` and `struct tcp_sock`.
    ///
    /// While it connects, `inet_sport` may still be the port of an earlier connection of the same socket, and only
    /// `skc_num` says whether a port is taken; while it closes, that is 0 already.
    ///
    /// # Safety
    ///
    /// Both are pointers that the verifier trusts.
    #[inline(always)]
    pub(crate) unsafe fn of_socket(sk: *const u8, tcp: *const u8, connects: bool) -> Self {
        // SAFETY: the verifier checks each access.
        unsafe {
            let net: *const u8 = load(tcp, off::SOCK_COMMON_NET());
            Self {
                local_port: if connects {
                    load(sk, off::SOCK_COMMON_NUM())
                } else {
                    u16::from_be(load(tcp, off::INET_SPORT()))
                },
                remote_port: u16::from_be(load(sk, off::SOCK_COMMON_DPORT())),
                netns: load(net, off::NET_INUM()),
                ipv4: is_ipv4(
                    load(sk, off::SOCK_COMMON_FAMILY()),
                    load(sk, off::SOCK_COMMON_V6_RCV_SADDR()),
                    load(sk, off::SOCK_COMMON_V6_RCV_SADDR() + 8),
                ),
            }
        }
    }

    /// Of a mini-socket, at any address.
    #[inline(always)]
    pub(crate) fn of_mini(tw: u64) -> Self {
        Self::at(tw, off::TW_SPORT())
    }

    /// Of a socket of any kind, at any address; `port` is the offset of its local port, in network order.
    #[inline(always)]
    pub(crate) fn at(sk: u64, port: usize) -> Self {
        let net: u64 = member(sk, off::SOCK_COMMON_NET());
        Self {
            local_port: u16::from_be(member(sk, port)),
            remote_port: u16::from_be(member(sk, off::SOCK_COMMON_DPORT())),
            netns: member(net, off::NET_INUM()),
            ipv4: is_ipv4(
                member(sk, off::SOCK_COMMON_FAMILY()),
                member(sk, off::SOCK_COMMON_V6_RCV_SADDR()),
                member(sk, off::SOCK_COMMON_V6_RCV_SADDR() + 8),
            ),
        }
    }

    /// Whether the filter lets it through. A port that the kernel has not chosen yet passes: the beginning of a
    /// connection must not be hidden.
    #[inline(always)]
    pub(crate) fn is_wanted(self) -> bool {
        let filter = filter();
        // SAFETY: the filter is a constant of this program; volatile as its value is set by the loader.
        unsafe {
            let netns = (&raw const (*filter).netns).read_volatile();
            let family = (&raw const (*filter).family).read_volatile();
            (netns == 0 || netns == self.netns)
                && (family == 0 || (family == 4) == self.ipv4)
                && any_port((&raw const (*filter).ports).cast(), self.local_port, self.remote_port)
                && any_port((&raw const (*filter).local_ports).cast(), self.local_port, self.local_port)
                && any_port((&raw const (*filter).remote_ports).cast(), self.remote_port, self.remote_port)
        }
    }
}

/// Whether one of two ports is in the list, or the list is empty, or either port is not known yet.
///
/// # Safety
///
/// `list` points to `FILTER_PORTS` ports.
#[inline(always)]
unsafe fn any_port(list: *const u16, one: u16, other: u16) -> bool {
    // SAFETY: the index stays below `FILTER_PORTS`.
    unsafe {
        if list.read_volatile() == 0 || one == 0 || other == 0 {
            return true;
        }
        let mut index = 0;
        while index < FILTER_PORTS {
            let port = list.add(index).read_volatile();
            if port != 0 && (port == one || port == other) {
                return true;
            }
            index += 1;
        }
        false
    }
}

#[inline(always)]
fn is_ipv4(family: u16, high: u64, low: u64) -> bool {
    family == AF_INET || (high == 0 && low as u32 == MAPPED)
}

/// A member of a structure at any kernel address; zero where there is nothing to read.
#[inline(always)]
pub(crate) fn member<T: Copy + Default>(base: u64, offset: usize) -> T {
    read(base.wrapping_add(offset as u64))
}

/// The cookie of a full socket, which the kernel makes up when there is none yet.
///
/// # Safety
///
/// `sk` is a `struct sock` that the verifier trusts.
#[inline(always)]
pub(crate) unsafe fn cookie(sk: *const u8) -> u64 {
    // SAFETY: the verifier checks the access, and the argument of the helper.
    unsafe {
        let cookie: u64 = load(sk, off::SOCK_COMMON_COOKIE());
        if cookie != 0 { cookie } else { bpf_get_socket_cookie(sk.cast_mut().cast()) }
    }
}

/// Id of the control group of a full socket; 0 where the kernel keeps none.
///
/// # Safety
///
/// `sk` is a `struct sock` that the verifier trusts.
#[inline(always)]
pub(crate) unsafe fn cgroup(sk: *const u8) -> u64 {
    let Some(offset) = sock_cgroup() else { return 0 };
    // SAFETY: the verifier checks each access. A load through a pointer that leads nowhere is zero.
    unsafe {
        let cgroup: *const u8 = load(sk, offset);
        let node: *const u8 = load(cgroup, off::CGROUP_KN());
        load(node, off::KERNFS_NODE_ID())
    }
}

/// Index of the only interface that a full socket uses; 0 if it may use any. A child socket has its own one once its
/// addresses are set.
///
/// # Safety
///
/// `sk` is a `struct sock` that the verifier trusts.
#[inline(always)]
pub(crate) unsafe fn interface(sk: *const u8) -> u32 {
    // SAFETY: the verifier checks the load.
    unsafe { load(sk, off::SOCK_COMMON_BOUND_DEV_IF()) }
}

/// The byte that has `skc_reuse` and `skc_reuseport` of a full socket; 0 where the kernel has none. The verifier lets a
/// bit field be loaded by whole bytes that contain it (`btf_struct_walk` in `kernel/bpf/btf.c`).
///
/// # Safety
///
/// `sk` is a `struct sock` that the verifier trusts.
#[inline(always)]
pub(crate) unsafe fn reuse(sk: *const u8) -> u8 {
    let Some(offset) = sock_reuse() else { return 0 };
    // SAFETY: the verifier checks the load.
    unsafe { load(sk, offset) }
}

/// The flags of a full socket, as [`Head::flags`] wants them.
///
/// # Safety
///
/// `sk` is a `struct sock` that the verifier trusts.
#[inline(always)]
pub(crate) unsafe fn flags(sk: *const u8) -> u8 {
    // SAFETY: the verifier checks each access.
    unsafe {
        let sock_flags: u64 = load(sk, off::SOCK_COMMON_FLAGS());
        let shutdown: u8 = load(sk, off::SOCK_SHUTDOWN());
        let socket: u64 = load(sk, off::SOCK_SOCKET());
        bit(sock_flags & sock_flag::DEAD != 0, flag::DEAD)
            | bit(sock_flags & sock_flag::DONE != 0, flag::DONE)
            | bit(socket != 0, flag::HAS_SOCKET)
            | bit(shutdown & RCV_SHUTDOWN != 0, flag::RCV_SHUTDOWN)
            | bit(shutdown & SEND_SHUTDOWN != 0, flag::SEND_SHUTDOWN)
    }
}

#[inline(always)]
pub(crate) fn bit(on: bool, bit: u8) -> u8 {
    if on { bit } else { 0 }
}

/// Fills in both addresses of a full socket.
///
/// # Safety
///
/// `head` points into a reserved record, `sk` is a `struct sock` that the verifier trusts.
#[inline(always)]
pub(crate) unsafe fn fill_addresses(head: *mut Head, sk: *const u8) {
    // SAFETY: the verifier checks each load; the writes stay inside the record.
    unsafe {
        let local = (&raw mut (*head).local_addr).cast::<u64>();
        let remote = (&raw mut (*head).remote_addr).cast::<u64>();
        if load::<u16>(sk, off::SOCK_COMMON_FAMILY()) == AF_INET {
            put_ipv4(local, load(sk, off::SOCK_COMMON_RCV_SADDR()));
            put_ipv4(remote, load(sk, off::SOCK_COMMON_DADDR()));
        } else {
            local.write(load(sk, off::SOCK_COMMON_V6_RCV_SADDR()));
            local.add(1).write(load(sk, off::SOCK_COMMON_V6_RCV_SADDR() + 8));
            remote.write(load(sk, off::SOCK_COMMON_V6_DADDR()));
            remote.add(1).write(load(sk, off::SOCK_COMMON_V6_DADDR() + 8));
        }
    }
}

/// Fills in both addresses of a mini-socket.
///
/// # Safety
///
/// `head` points into a reserved record.
#[inline(always)]
pub(crate) unsafe fn fill_mini_addresses(head: *mut Head, tw: u64) {
    // SAFETY: the writes stay inside the record.
    unsafe {
        let local = (&raw mut (*head).local_addr).cast::<u64>();
        let remote = (&raw mut (*head).remote_addr).cast::<u64>();
        if member::<u16>(tw, off::SOCK_COMMON_FAMILY()) == AF_INET {
            put_ipv4(local, member(tw, off::SOCK_COMMON_RCV_SADDR()));
            put_ipv4(remote, member(tw, off::SOCK_COMMON_DADDR()));
        } else {
            local.write(member(tw, off::SOCK_COMMON_V6_RCV_SADDR()));
            local.add(1).write(member(tw, off::SOCK_COMMON_V6_RCV_SADDR() + 8));
            remote.write(member(tw, off::SOCK_COMMON_V6_DADDR()));
            remote.add(1).write(member(tw, off::SOCK_COMMON_V6_DADDR() + 8));
        }
    }
}

/// Writes an IPv4 address (network order) as IPv4-mapped IPv6.
///
/// # Safety
///
/// `to` points to 16 writable bytes, aligned to 4.
#[inline(always)]
pub(crate) unsafe fn put_ipv4(to: *mut u64, address: u32) {
    // SAFETY: as above.
    unsafe {
        to.write(0);
        to.add(1).cast::<u32>().write(MAPPED);
        to.add(1).cast::<u32>().add(1).write(address);
    }
}
