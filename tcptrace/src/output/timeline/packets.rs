//! Commands that find the packets of drawn connections in a capture.

use std::net::IpAddr;

use crate::study::timeline::{Group, Item};

/// Packets are looked for this long before and after a life, in ns. A server's socket begins after the SYN, and the
/// clock of another capturing host may differ.
const MARGIN_NS: i64 = 1_000_000_000;

/// For each connection a command of `tshark`, with a title above; nothing for a connection that never had both ports,
/// because it sent no packet.
pub fn packets(groups: &[Group]) -> Vec<String> {
    let commands = groups.iter().filter_map(|group| Some((names(group), filter(group)?)));
    let lines = commands.flat_map(|(names, filter)| {
        [format!("packets of {names}:"), format!("  tshark -r capture.pcap -w part.pcap -Y '{filter}'")]
    });
    lines.collect()
}

fn names(group: &Group) -> String {
    group.items().map(|item| format!("{:x}", item.connection.identity.conn)).collect::<Vec<_>>().join(" and ")
}

/// A display filter of Wireshark. Epoch times need no time zone, and every version understands them.
fn filter(group: &Group) -> Option<String> {
    let identity = &group.first.connection.identity;
    let (local, remote) = (identity.local(), identity.remote());
    if local.port() == 0 || remote.port() == 0 {
        return None;
    }
    let mut all = addresses(local.ip(), remote.ip());
    all.push_str(" && ");
    all.push_str(&both(["tcp.port", "tcp.srcport", "tcp.dstport"], local.port(), remote.port()));
    if group.items().any(|item| item.life.begin_seen) {
        let begin = group.items().map(Item::begin).min()?;
        all.push_str(&format!(" && frame.time_epoch >= {}", seconds(begin.saturating_sub(MARGIN_NS))));
    }
    if group.items().all(|item| !item.life.is_open) {
        let end = group.items().map(Item::end).max()?;
        all.push_str(&format!(" && frame.time_epoch <= {}", seconds(end.saturating_add(MARGIN_NS))));
    }
    Some(all)
}

fn addresses(local: IpAddr, remote: IpAddr) -> String {
    let fields = if local.is_ipv4() { ["ip.addr", "ip.src", "ip.dst"] } else { ["ipv6.addr", "ipv6.src", "ipv6.dst"] };
    both(fields, local, remote)
}

/// One value at each end. `any == a && any == b` matches either direction, but when they are the same, it does not say
/// that both ends have it.
fn both<T: Copy + PartialEq + std::fmt::Display>([any, source, destination]: [&str; 3], one: T, other: T) -> String {
    let [first, second] = if one == other { [source, destination] } else { [any, any] };
    format!("{first} == {one} && {second} == {other}")
}

/// Unix time as Wireshark writes it.
fn seconds(unix_ns: i64) -> String {
    format!("{}.{:09}", unix_ns.div_euclid(1_000_000_000), unix_ns.rem_euclid(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::super::tests::groups;
    use super::*;
    use crate::output::samples::tuple;
    use crate::study::timeline::samples::{client, server, stuck};

    #[test]
    fn both_ends_take_one_command() {
        insta::assert_snapshot!(packets(&groups(&[server(), client()])).join("\n"), @r"
        packets of c and 5:
          tshark -r capture.pcap -w part.pcap -Y 'ip.src == 127.0.0.1 && ip.dst == 127.0.0.1 && tcp.port == 43892 && tcp.port == 7000 && frame.time_epoch >= 1735787045.000000000 && frame.time_epoch <= 1735787067.002000000'
        ");
    }

    /// Its packets may be older than the trace, and newer.
    #[test]
    fn a_life_without_ends_has_no_times() {
        insta::assert_snapshot!(packets(&groups(&[stuck()])).join("\n"), @r"
        packets of bad:
          tshark -r capture.pcap -w part.pcap -Y 'ip.addr == 10.0.0.1 && ip.addr == 10.0.0.2 && tcp.port == 45678 && tcp.port == 443'
        ");
    }

    #[test]
    fn of_ipv6_without_the_interface() {
        let mut connection = stuck();
        (connection.identity.tuple, connection.identity.interface) = (tuple("[fe80::1]:80", "[fe80::2]:80"), 7);
        let printed = packets(&groups(&[connection])).join("\n");
        let expected = "ipv6.addr == fe80::1 && ipv6.addr == fe80::2 && tcp.srcport == 80 && tcp.dstport == 80'";
        assert!(printed.ends_with(expected), "{printed}");
    }

    #[test]
    fn a_connection_without_a_port_sent_nothing() {
        let mut connection = stuck();
        connection.identity.tuple = tuple("10.0.0.1:0", "10.0.0.2:80");
        assert!(packets(&groups(&[connection])).is_empty());
    }
}
