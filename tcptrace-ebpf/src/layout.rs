//! Where things are in the running kernel: set by the loader before the programs are verified, constant afterwards.

use aya_ebpf::Global;
use tcptrace_common::{FILTER_PORTS, Filter};

/// Declares the offset, in bytes, of a structure member. The loader finds it by this name.
macro_rules! offsets {
    ($($name:ident,)*) => {
        $(#[unsafe(no_mangle)] static $name: Global<u32> = Global::new(0);)*
        /// Offsets in bytes, named `structure member`.
        pub(crate) mod off {
            $(#[expect(non_snake_case, reason = "the name is the symbol's")]
            #[inline(always)]
            pub(crate) fn $name() -> usize { super::$name.load() as usize })*
        }
    };
}

offsets! {
    SOCK_COMMON_FAMILY,
    SOCK_COMMON_STATE,
    SOCK_COMMON_DADDR,
    SOCK_COMMON_RCV_SADDR,
    SOCK_COMMON_V6_DADDR,
    SOCK_COMMON_V6_RCV_SADDR,
    SOCK_COMMON_DPORT,
    SOCK_COMMON_NUM,
    SOCK_COMMON_NET,
    SOCK_COMMON_BOUND_DEV_IF,
    SOCK_COMMON_COOKIE,
    SOCK_COMMON_FLAGS,
    NET_INUM,
    SOCK_ERR,
    SOCK_SHUTDOWN,
    SOCK_SOCKET,
    SOCK_LINGERTIME,
    SOCK_UID,
    SOCK_PROTOCOL,
    SOCKET_FILE,
    SOCKET_SK,
    FILE_PRIVATE_DATA,
    TASK_FLAGS,
    TASK_PID,
    TASK_TGID,
    TASK_GROUP_LEADER,
    TASK_COMM,
    TASK_FILES,
    FILES_FDT,
    FDTABLE_MAX_FDS,
    FDTABLE_FD,
    CGROUP_KN,
    KERNFS_NODE_ID,
    INET_SPORT,
    ICSK_RETRANSMITS,
    ICSK_PROBES_OUT,
    ICSK_USER_TIMEOUT,
    TCP_BYTES_SENT,
    TCP_BYTES_RECEIVED,
    TCP_TOTAL_RETRANS,
    TCP_SRTT_US,
    TCP_SEGS_OUT,
    TCP_RCV_NXT,
    TCP_COPIED_SEQ,
    TCP_SND_UNA,
    TCP_SND_NXT,
    TCP_WRITE_SEQ,
    TCP_LINGER2,
    TIMER_EXPIRES,
    TIMER_FUNCTION,
    TW_TIMER,
    TW_SUBSTATE,
    TW_SPORT,
    SKB_HEAD,
    SKB_TRANSPORT_HEADER,
}

/// Declares the offset of a structure member that not every kernel need have; the largest number where it has none.
macro_rules! optional_offsets {
    ($($name:ident => $get:ident,)*) => {
        $(#[unsafe(no_mangle)] static $name: Global<u32> = Global::new(u32::MAX);
        #[inline(always)]
        pub(crate) fn $get() -> Option<usize> {
            match $name.load() {
                u32::MAX => None,
                offset => Some(offset as usize),
            }
        })*
    };
}

optional_offsets! {
    SOCK_CGROUP => sock_cgroup,
    ICSK_ACK_LRCVTIME => received_at,
    TCP_LSNDTIME => sent_at,
    TCP_RCV_TSTAMP => acked_at,
    SOCK_COMMON_REUSE => sock_reuse,
}

/// Address of `tw_timer_handler`, the function of every mini-socket's timer.
#[unsafe(no_mangle)]
static TW_TIMER_HANDLER: Global<u64> = Global::new(0);

/// 1 when the third argument of `tcp_send_reset` is its reason; before 6.10 the kernel gives none.
#[unsafe(no_mangle)]
static RESET_HAS_REASON: Global<u8> = Global::new(0);

#[unsafe(no_mangle)]
static FILTER: Global<Filter> = Global::new(Filter {
    ports: [0; FILTER_PORTS],
    local_ports: [0; FILTER_PORTS],
    remote_ports: [0; FILTER_PORTS],
    netns: 0,
    family: 0,
});

#[inline(always)]
pub(crate) fn tw_timer_handler() -> u64 {
    TW_TIMER_HANDLER.load()
}

#[inline(always)]
pub(crate) fn reset_has_reason() -> bool {
    RESET_HAS_REASON.load() != 0
}

/// What to filter by. Read its members through volatile loads, as [`Global::load`] does: the value here is not the
/// one that the loader puts in place.
#[inline(always)]
pub(crate) fn filter() -> *const Filter {
    (&raw const FILTER).cast()
}
