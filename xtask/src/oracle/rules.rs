//! nftables rules for segments: the kinds that are dropped or rejected, by direction.

use super::actor::PORT;
use super::script::Who;

/// Kinds of segments, as bits: those with FIN, with SYN, with RST, and all others.
pub(super) const KINDS: [u32; 4] = [1, 2, 4, 8];

/// The verdict on a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Drop,
    /// Answered with a reset.
    Reject,
    /// Answered with an ICMP error.
    Unreach,
}

impl Verdict {
    /// In the order of the rules.
    pub(super) const ALL: [Self; 3] = [Self::Drop, Self::Reject, Self::Unreach];

    /// The action that sets such a rule.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Unreach => "unreach",
        }
    }

    fn statement(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reject => "reject with tcp reset",
            Self::Unreach => "reject with icmpx type port-unreachable",
        }
    }
}

/// Name of the set with the servers' addresses for such a rule.
pub(super) fn set(end: Who, kind: u32, verdict: Verdict, is_v6: bool) -> String {
    let family = if is_v6 { "_6" } else { "" };
    format!("{}{kind}{}{family}", end.letter(), verdict.name())
}

/// A set of servers' addresses for each end, kind of segments and verdict: the rule matches segments to or from these
/// servers.
pub(super) fn table() -> String {
    let mut sets = String::new();
    let mut chain = String::new();
    for (end, port, address) in [(Who::Server, "dport", "daddr"), (Who::Client, "sport", "saddr")] {
        for kind in KINDS {
            let flags = match kind {
                1 => "fin == fin",
                2 => "syn == syn",
                4 => "rst == rst",
                _ => "(fin|syn|rst) == 0",
            };
            for verdict in Verdict::ALL {
                for (is_v6, ip, of) in [(false, "ip", "ipv4_addr"), (true, "ip6", "ipv6_addr")] {
                    let name = set(end, kind, verdict, is_v6);
                    let statement = verdict.statement();
                    sets += &format!("set {name} {{ type {of}; }}; ");
                    chain += &format!("tcp {port} {PORT} tcp flags & {flags} {ip} {address} @{name} {statement}; ");
                }
            }
        }
    }
    format!("table inet oracle {{ {sets} chain input {{ type filter hook input priority 0; {chain} }}; }}")
}
