//! What the kernel counts in each network namespace.

mod all;

use std::fs;
use std::io;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::{getsockopt_impl, libc, sockopt_impl};

use super::about;
use super::namespaces::{Namespace, Namespaces};
use crate::model::counters::{Counters, Unseen};
use crate::model::finding::{Counter, Reading};

pub use self::all::{Counting, counter_names};

sockopt_impl!(
    /// Identifies a network namespace for as long as the kernel runs (`SO_NETNS_COOKIE`, 5.14 and newer).
    NetnsCookie, GetOnly, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, u64
);

/// Reads the counters of these network namespaces, with `now` as the clock. Skips those that cannot be entered. Changes
/// the network namespace of the calling thread: call it in a thread of its own.
pub fn read_counters(namespaces: &Namespaces, only: &[u32], now: &dyn Fn() -> u64) -> Vec<Reading> {
    let is_wanted = |namespace: &&Namespace| only.is_empty() || only.contains(&namespace.inode);
    let mut readings = Vec::new();
    for namespace in namespaces.iter().filter(is_wanted) {
        match namespace.enter().and_then(|entered| entered.then(|| read_here(namespace.inode, now)).transpose()) {
            Ok(reading) => readings.extend(reading),
            Err(error) => log::warn!("cannot read the counters of network namespace {}: {error}", namespace.inode),
        }
    }
    readings
}

fn read_here(netns: u32, now: &dyn Fn() -> u64) -> io::Result<Reading> {
    let cookie = cookie();
    let from = now();
    let read = |path| fs::read_to_string(path).map_err(about(path));
    let snmp = read("/proc/thread-self/net/snmp")?;
    let netstat = read("/proc/thread-self/net/netstat")?;
    let to = now();
    let values = Counter::ALL.map(|counter| value(&snmp, &netstat, counter));
    let all = all::read_here(netns, now)?;
    let unseen = Unseen::ALL.map(|counter| all.counts.get(counter.key()).copied().unwrap_or(0));
    let embryonic_resets = find(&netstat, "TcpExt", "EmbryonicRsts").unwrap_or(0);
    Ok(Reading { netns, cookie, from, to, values, embryonic_resets, unseen })
}

/// Reads all that the kernel counts of TCP in the network namespace that the calling thread is in, whose inode number is
/// `netns`; with `now` as the clock.
///
/// # Errors
/// When `/proc` does not show it.
pub fn counters_here(netns: u32, now: &dyn Fn() -> u64) -> io::Result<Counters> {
    all::read_here(netns, now)
}

/// Reads any texts as files of `/proc`.
#[cfg(feature = "fuzz")]
pub(super) fn read_any(texts: [&str; 6]) -> Counters {
    let [snmp, netstat, ..] = texts;
    for counter in Counter::ALL {
        value(snmp, netstat, counter);
    }
    all::read_any(texts)
}

/// The cookie of the calling thread's network namespace.
fn cookie() -> Option<u64> {
    // Every socket has it, and sockets of this kind can be made wherever privileges were given up.
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    socket.and_then(|socket| getsockopt(&socket, NetnsCookie)).ok()
}

fn value(snmp: &str, netstat: &str, counter: Counter) -> Option<u64> {
    match counter {
        Counter::ActiveOpens | Counter::PassiveOpens | Counter::AttemptFails | Counter::EstabResets => {
            find(snmp, "Tcp", counter.as_str())
        }
        Counter::Tw => Some(find(netstat, "TcpExt", "TW")? + find(netstat, "TcpExt", "TWKilled")?),
        Counter::TwRecycled | Counter::TwOverflow | Counter::AbortOnTimeout => {
            find(netstat, "TcpExt", counter.as_str())
        }
    }
}

/// A line of names is followed by one of values.
fn find(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = (lines.next()?, lines.next()?);
    let (_, value) = names.split(' ').zip(values.split(' ')).find(|(known, _)| *known == name)?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::kernel::testing::{Named, in_new_namespace};

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens\n\
                        Tcp: 1 -1 3 4\nTcpExt: TW\nTcpExt: 5\n";

    #[test]
    fn only_what_is_there() {
        assert_eq!(find(SNMP, "Tcp", "ActiveOpens"), Some(3));
        assert_eq!(find(SNMP, "Tcp", "MaxConn"), None, "it is no count");
        assert_eq!(find(SNMP, "TcpExt", "TW"), Some(5));
        assert_eq!(find(SNMP, "TcpExt", "TWKilled"), None);
        assert_eq!(find("Tcp: ActiveOpens\n", "Tcp", "ActiveOpens"), None);
        assert_eq!(value(SNMP, "", Counter::Tw), None);
    }

    #[tcptrace_tests::test]
    fn each_namespace_has_its_own() {
        let named = Named::new("counters");
        let (own, readings) = in_new_namespace(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
            let _client = TcpStream::connect(listener.local_addr().expect("its address")).expect("connect");
            let _server = listener.accept().expect("accept");
            let own = Namespaces::own_namespace().expect("its number");
            let only = [own, named.inode()];
            // It does not come back.
            let read = || read_counters(&Namespaces::find(), &only, &|| 7);
            (own, std::thread::scope(|scope| scope.spawn(read).join().expect("no panic")))
        });
        let of = |netns| readings.iter().find(|reading| reading.netns == netns).expect("it was read");
        let (ours, other) = (of(own), of(named.inode()));
        assert_eq!(readings.len(), 2);
        let opens = |reading: &Reading| {
            [Counter::ActiveOpens, Counter::PassiveOpens].map(|counter| reading.values[counter as usize])
        };
        assert_eq!((opens(ours), opens(other)), ([Some(1); 2], [Some(0); 2]));
        assert!(ours.values.iter().all(Option::is_some), "this kernel has all: {ours:?}");
        assert_eq!((ours.from, ours.to), (7, 7));
        assert!(ours.cookie.is_some() && ours.cookie != other.cookie);
    }
}
