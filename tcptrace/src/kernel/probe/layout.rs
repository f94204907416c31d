//! The offsets of structure members in the running kernel, from its BTF.

use std::collections::HashMap;

use super::btf::{Btf, Kind, Type};
use crate::model::event::ResetReason;

/// The function that starts the timer of a mini-socket, or gives it more time, and the one that ends a mini-socket.
pub(super) const SCHEDULE: &str = "__inet_twsk_schedule";
pub(super) const KILL: &str = "inet_twsk_kill";
/// The function that gives a process the socket that it accepts.
pub(super) const GRAFT: &str = "security_sock_graft";

/// Which hooks need a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Every program.
    Socket,
    /// Those that follow mini-sockets.
    Mini,
    /// The one that looks into packets.
    Packet,
    /// Those that look up descriptors.
    Files,
    /// No hook: without it a field stays unknown.
    Optional,
}

/// Symbol in the programs, structure, member path, who needs it.
const MEMBERS: &[(&str, &str, &str, Need)] = &[
    ("SOCK_COMMON_FAMILY", "sock_common", "skc_family", Need::Socket),
    ("SOCK_COMMON_STATE", "sock_common", "skc_state", Need::Socket),
    ("SOCK_COMMON_DADDR", "sock_common", "skc_daddr", Need::Socket),
    ("SOCK_COMMON_RCV_SADDR", "sock_common", "skc_rcv_saddr", Need::Socket),
    ("SOCK_COMMON_V6_DADDR", "sock_common", "skc_v6_daddr", Need::Socket),
    ("SOCK_COMMON_V6_RCV_SADDR", "sock_common", "skc_v6_rcv_saddr", Need::Socket),
    ("SOCK_COMMON_DPORT", "sock_common", "skc_dport", Need::Socket),
    ("SOCK_COMMON_NUM", "sock_common", "skc_num", Need::Socket),
    ("SOCK_COMMON_NET", "sock_common", "skc_net", Need::Socket),
    ("SOCK_COMMON_BOUND_DEV_IF", "sock_common", "skc_bound_dev_if", Need::Socket),
    ("SOCK_COMMON_COOKIE", "sock_common", "skc_cookie", Need::Socket),
    ("SOCK_COMMON_FLAGS", "sock_common", "skc_flags", Need::Socket),
    ("NET_INUM", "net", "ns.inum", Need::Socket),
    ("SOCK_ERR", "sock", "sk_err", Need::Socket),
    ("SOCK_SHUTDOWN", "sock", "sk_shutdown", Need::Socket),
    ("SOCK_SOCKET", "sock", "sk_socket", Need::Socket),
    ("SOCK_LINGERTIME", "sock", "sk_lingertime", Need::Socket),
    ("SOCK_UID", "sock", "sk_uid", Need::Socket),
    ("SOCK_PROTOCOL", "sock", "sk_protocol", Need::Files),
    ("TASK_FLAGS", "task_struct", "flags", Need::Socket),
    ("TASK_PID", "task_struct", "pid", Need::Socket),
    ("TASK_TGID", "task_struct", "tgid", Need::Socket),
    ("TASK_GROUP_LEADER", "task_struct", "group_leader", Need::Socket),
    ("TASK_COMM", "task_struct", "comm", Need::Socket),
    ("TASK_FILES", "task_struct", "files", Need::Files),
    ("FILES_FDT", "files_struct", "fdt", Need::Files),
    ("FDTABLE_MAX_FDS", "fdtable", "max_fds", Need::Files),
    ("FDTABLE_FD", "fdtable", "fd", Need::Files),
    ("FILE_PRIVATE_DATA", "file", "private_data", Need::Files),
    ("SOCKET_FILE", "socket", "file", Need::Files),
    ("SOCKET_SK", "socket", "sk", Need::Files),
    ("CGROUP_KN", "cgroup", "kn", Need::Optional),
    ("KERNFS_NODE_ID", "kernfs_node", "id", Need::Optional),
    ("SOCK_CGROUP", "sock", "sk_cgrp_data.cgroup", Need::Optional),
    ("ICSK_ACK_LRCVTIME", "inet_connection_sock", "icsk_ack.lrcvtime", Need::Optional),
    ("TCP_LSNDTIME", "tcp_sock", "lsndtime", Need::Optional),
    ("TCP_RCV_TSTAMP", "tcp_sock", "rcv_tstamp", Need::Optional),
    ("INET_SPORT", "inet_sock", "inet_sport", Need::Socket),
    ("ICSK_RETRANSMITS", "inet_connection_sock", "icsk_retransmits", Need::Socket),
    ("ICSK_PROBES_OUT", "inet_connection_sock", "icsk_probes_out", Need::Socket),
    ("ICSK_USER_TIMEOUT", "inet_connection_sock", "icsk_user_timeout", Need::Socket),
    ("TCP_BYTES_SENT", "tcp_sock", "bytes_sent", Need::Socket),
    ("TCP_BYTES_RECEIVED", "tcp_sock", "bytes_received", Need::Socket),
    ("TCP_TOTAL_RETRANS", "tcp_sock", "total_retrans", Need::Socket),
    ("TCP_SRTT_US", "tcp_sock", "srtt_us", Need::Socket),
    ("TCP_SEGS_OUT", "tcp_sock", "segs_out", Need::Socket),
    ("TCP_RCV_NXT", "tcp_sock", "rcv_nxt", Need::Socket),
    ("TCP_COPIED_SEQ", "tcp_sock", "copied_seq", Need::Socket),
    ("TCP_SND_UNA", "tcp_sock", "snd_una", Need::Socket),
    ("TCP_SND_NXT", "tcp_sock", "snd_nxt", Need::Socket),
    ("TCP_WRITE_SEQ", "tcp_sock", "write_seq", Need::Socket),
    ("TCP_LINGER2", "tcp_sock", "linger2", Need::Socket),
    ("TIMER_EXPIRES", "timer_list", "expires", Need::Mini),
    ("TIMER_FUNCTION", "timer_list", "function", Need::Mini),
    ("TW_TIMER", "inet_timewait_sock", "tw_timer", Need::Mini),
    ("TW_SUBSTATE", "inet_timewait_sock", "tw_substate", Need::Mini),
    ("TW_SPORT", "inet_timewait_sock", "tw_sport", Need::Mini),
    ("SKB_HEAD", "sk_buff", "head", Need::Packet),
    ("SKB_TRANSPORT_HEADER", "sk_buff", "transport_header", Need::Packet),
];

/// What the programs need to know from the kernel's BTF.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Offsets in bytes, by the symbol that takes them.
    pub(super) offsets: Vec<(&'static str, u32)>,
    /// Members that this kernel lacks, with who needs them.
    missing: Vec<(Need, String)>,
    /// Number of arguments of the tracepoints and functions that have changed over time.
    arguments: HashMap<&'static str, usize>,
    /// Meaning of the reasons of resets, by number.
    pub(super) reset_reasons: Vec<ResetReason>,
    /// Where `SO_REUSEADDR` and `SO_REUSEPORT` are.
    pub(super) reuse: Option<ReuseBits>,
}

/// Two bit fields of `struct sock_common` that lie in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReuseBits {
    /// Bits of `skc_reuse`.
    pub(super) address: u8,
    /// Bits of `skc_reuseport`.
    pub(super) port: u8,
}

impl ReuseBits {
    /// With the offset of their byte.
    fn find(btf: &Btf<'_>, sock_common: Type<'_>) -> Option<(u32, Self)> {
        let (at, address) = btf.bits(sock_common, "skc_reuse")?;
        let (_, port) = btf.bits(sock_common, "skc_reuseport").filter(|(its, _)| *its == at)?;
        Some((at, Self { address, port }))
    }
}

impl Layout {
    /// Reads the layout out of raw BTF.
    ///
    /// # Errors
    ///
    /// When the BTF cannot be read.
    pub(super) fn from_btf(raw: &[u8]) -> Result<Self, String> {
        let btf = Btf::read(raw)?;
        let wanted = |name: &[u8]| MEMBERS.iter().any(|(_, structure, ..)| structure.as_bytes() == name);
        let mut structures: HashMap<&[u8], Type<'_>> = HashMap::new();
        for (name, structure) in btf.each(Kind::Structure).filter(|(name, _)| wanted(name)) {
            structures.entry(name).or_insert(structure);
        }
        let mut layout = Self::default();
        for &(symbol, structure, path, need) in MEMBERS {
            let offset = structures.get(structure.as_bytes()).and_then(|structure| btf.offset(*structure, path));
            match offset {
                Some(offset) => layout.offsets.push((symbol, offset)),
                None => layout.missing.push((need, format!("{structure}.{path}"))),
            }
        }
        match structures.get(&b"sock_common"[..]).and_then(|structure| ReuseBits::find(&btf, *structure)) {
            Some((offset, bits)) => {
                layout.offsets.push(("SOCK_COMMON_REUSE", offset));
                layout.reuse = Some(bits);
            }
            None => layout.missing.push((Need::Optional, "sock_common.skc_reuse".to_owned())),
        }
        for name in ["kfree_skb", "tcp_send_reset"] {
            if let Some(count) = tracepoint_arguments(&btf, name) {
                layout.arguments.insert(name, count);
            }
        }
        for name in [SCHEDULE, KILL, GRAFT] {
            if let Some(count) = function_arguments(&btf, name) {
                layout.arguments.insert(name, count);
            }
        }
        layout.reset_reasons = reset_reasons(&btf);
        Ok(layout)
    }

    /// Why hooks with this need cannot work, if they cannot.
    pub(super) fn lacks(&self, need: Need) -> Option<String> {
        let missing: Vec<_> =
            self.missing.iter().filter(|(by, _)| *by == need).map(|(_, member)| member.as_str()).collect();
        (!missing.is_empty()).then(|| format!("this kernel's BTF has no {}", missing.join(", ")))
    }

    /// How many arguments a tracepoint or function has.
    pub(super) fn arguments(&self, name: &str) -> usize {
        self.arguments.get(name).copied().unwrap_or(0)
    }
}

/// Arguments of `btf_trace_NAME`, a pointer to a function whose first argument is the tracer's own.
fn tracepoint_arguments(btf: &Btf<'_>, name: &str) -> Option<usize> {
    let typedef = btf.named(Kind::Typedef, &format!("btf_trace_{name}"))?;
    let prototype = btf.target(btf.target(typedef)?)?;
    Btf::parameters(prototype)?.checked_sub(1)
}

fn function_arguments(btf: &Btf<'_>, name: &str) -> Option<usize> {
    Btf::parameters(btf.target(btf.named(Kind::Function, name)?)?)
}

fn reset_reasons(btf: &Btf<'_>) -> Vec<ResetReason> {
    let mut by_number = Vec::new();
    let Some(reasons) = btf.named(Kind::Enumeration, "sk_rst_reason") else { return by_number };
    for (name, number) in btf.variants(reasons) {
        let Ok(number) = u8::try_from(number).map(usize::from) else { continue };
        if by_number.len() <= number {
            by_number.resize(number + 1, ResetReason::Other);
        }
        by_number[number] = match name.strip_prefix(b"SK_RST_REASON_TCP_") {
            Some(b"ABORT_ON_DATA") => ResetReason::AbortOnData,
            Some(b"ABORT_ON_CLOSE") => ResetReason::AbortOnClose,
            Some(b"ABORT_ON_LINGER") => ResetReason::AbortOnLinger,
            Some(b"ABORT_ON_MEMORY") => ResetReason::AbortOnMemory,
            Some(b"KEEPALIVE_TIMEOUT") => ResetReason::KeepaliveTimeout,
            Some(b"STATE" | b"DISCONNECT_WITH_DATA") => ResetReason::State,
            _ => ResetReason::Other,
        };
    }
    by_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_kernel_has_every_member() {
        let Ok(raw) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            // A kernel without BTF has no layout to check.
            return;
        };
        let layout = Layout::from_btf(&raw).expect("the kernel's BTF is readable");
        for need in [Need::Socket, Need::Mini, Need::Packet, Need::Files, Need::Optional] {
            assert_eq!(layout.lacks(need), None);
        }
        assert_eq!([SCHEDULE, KILL, GRAFT].map(|name| layout.arguments(name)), [3, 1, 2]);
        let family = layout.offsets.iter().find(|(symbol, _)| *symbol == "SOCK_COMMON_FAMILY");
        assert_eq!(family.map(|(_, offset)| *offset), Some(16), "skc_family follows addresses, hash and ports");
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(Layout::from_btf(b"not BTF at all").is_err());
        assert!(Layout::from_btf(&[]).is_err());
    }
}
