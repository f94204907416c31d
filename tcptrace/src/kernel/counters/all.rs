//! All TCP counters of a network namespace, read again and again.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;

use foldhash::fast::FixedState;
use nix::sched::{CloneFlags, setns};

use super::super::namespaces::{Namespace, Namespaces};
use crate::model::counters::{Counters, Values};

/// Names of `Tcp` that stand for a level or for a constant.
const LEVELS: [&str; 5] = ["RtoAlgorithm", "RtoMin", "RtoMax", "MaxConn", "CurrEstab"];

/// Reads the counters of network namespaces again and again. Changes the network namespace of the calling thread, and
/// returns home after each look: a thread that stays would keep the namespace alive.
pub struct Counting {
    home: File,
    /// The only one of interest; 0: all.
    only: u32,
    namespaces: Namespaces,
    is_stale: bool,
    /// Namespaces whose errors were reported.
    unreadable: HashSet<u32, FixedState>,
}

impl Counting {
    /// Prepares to read these, or only one of them, if `only` is not 0. Call it in the thread that looks.
    ///
    /// # Errors
    /// When the own network namespace cannot be opened to return to it.
    pub fn new(namespaces: Namespaces, only: u32) -> io::Result<Self> {
        let home = File::open("/proc/thread-self/ns/net")?;
        Ok(Self { home, only, namespaces, is_stale: false, unreadable: HashSet::default() })
    }

    /// Makes the next look begin with a search for network namespaces.
    pub fn search(&mut self) {
        self.is_stale = true;
    }

    /// Hands over what each namespace shows, with `now` as the clock, while the thread is in it. Returns the namespaces, if it has searched for them:
    /// because it was asked to, or because one was not found where it had been.
    pub fn look(&mut self, now: &dyn Fn() -> u64, mut each: impl FnMut(Counters)) -> Option<&Namespaces> {
        let mut read = HashSet::default();
        let mut has_searched = false;
        loop {
            if std::mem::take(&mut self.is_stale) {
                self.namespaces = Namespaces::find();
                has_searched = true;
            }
            let is_complete = self.read(&mut read, now, &mut each);
            self.return_home();
            if is_complete || has_searched {
                break;
            }
            self.is_stale = true;
        }
        has_searched.then_some(&self.namespaces)
    }

    /// Reads the namespaces not read yet. Returns whether all were where they had been.
    fn read(
        &mut self,
        read: &mut HashSet<u32, FixedState>,
        now: &dyn Fn() -> u64,
        each: &mut impl FnMut(Counters),
    ) -> bool {
        let mut is_complete = true;
        for namespace in self.namespaces.iter() {
            if self.only != 0 && namespace.inode != self.only || read.contains(&namespace.inode) {
                continue;
            }
            match read_one(namespace, now) {
                Ok(Some(counters)) => {
                    read.insert(namespace.inode);
                    each(counters);
                }
                Ok(None) => is_complete = false,
                Err(error) => {
                    read.insert(namespace.inode);
                    if self.unreadable.insert(namespace.inode) {
                        log::warn!("cannot read the counters of network namespace {}: {error}", namespace.inode);
                    }
                }
            }
        }
        is_complete
    }

    fn return_home(&self) {
        if let Err(error) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            log::debug!("cannot return to the own network namespace: {error}");
        }
    }
}

/// `None` if it is no longer where it was.
fn read_one(namespace: &Namespace, now: &dyn Fn() -> u64) -> io::Result<Option<Counters>> {
    if namespace.enter_directly()? { read_here(namespace.inode, now).map(Some) } else { Ok(None) }
}

/// Reads the counters of the calling thread's network namespace.
pub(super) fn read_here(netns: u32, now: &dyn Fn() -> u64) -> io::Result<Counters> {
    // Counters that a kernel does not have are 0.
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let texts = Texts {
        snmp: fs::read_to_string("/proc/thread-self/net/snmp")?,
        netstat: fs::read_to_string("/proc/thread-self/net/netstat")?,
        sockstat: text("/proc/thread-self/net/sockstat"),
        conntrack: text("/proc/thread-self/net/stat/nf_conntrack"),
        conntrack_count: text("/proc/sys/net/netfilter/nf_conntrack_count"),
        conntrack_max: text("/proc/sys/net/netfilter/nf_conntrack_max"),
    };
    let (counts, levels) = texts.parse();
    Ok(Counters { netns, cookie: super::cookie(), at: now(), counts, levels })
}

/// Reads any texts as files of `/proc`.
#[cfg(feature = "fuzz")]
pub(super) fn read_any(texts: [&str; 6]) -> Counters {
    let [snmp, netstat, sockstat, conntrack, conntrack_count, conntrack_max] = texts.map(str::to_owned);
    let (counts, levels) = Texts { snmp, netstat, sockstat, conntrack, conntrack_count, conntrack_max }.parse();
    Counters { netns: 1, cookie: None, at: 0, counts, levels }
}

/// The files of a network namespace.
#[derive(Debug, Default)]
struct Texts {
    snmp: String,
    netstat: String,
    sockstat: String,
    conntrack: String,
    conntrack_count: String,
    conntrack_max: String,
}

impl Texts {
    /// Counts and levels that are not 0. Skips what it cannot parse.
    fn parse(&self) -> (Values, Values) {
        let (mut counts, mut levels) = (Values::new(), Values::new());
        named(&self.snmp, "Tcp", |name, value| {
            let to = if LEVELS.contains(&name) { &mut levels } else { &mut counts };
            put(to, "Tcp", name, value);
        });
        named(&self.netstat, "TcpExt", |name, value| put(&mut counts, "TcpExt", name, value));
        sockets(&self.sockstat, &mut levels);
        let had_conntrack = !self.conntrack_count.is_empty();
        if had_conntrack {
            tracked(&self.conntrack, &mut counts);
            let number = |text: &str| text.trim().parse().unwrap_or(0);
            put(&mut levels, "conntrack", "count", number(&self.conntrack_count));
            put(&mut levels, "conntrack", "max", number(&self.conntrack_max));
        }
        (counts, levels)
    }
}

/// The names of the counters and of the levels that this kernel has, if it shows them to the calling thread.
pub fn counter_names() -> (Vec<Box<str>>, Vec<Box<str>>) {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (mut counts, mut levels) = (Vec::new(), Vec::new());
    let named = |group: &str, name: &str| format!("{group}.{name}").into_boxed_str();
    for (path, group) in [("/proc/thread-self/net/snmp", "Tcp"), ("/proc/thread-self/net/netstat", "TcpExt")] {
        let text = text(path);
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
        for name in lines.next().unwrap_or_default().split(' ').filter(|name| !name.is_empty()) {
            match LEVELS.contains(&name) {
                // The others are constants.
                true if name == "CurrEstab" => levels.push(named(group, name)),
                true => {}
                false => counts.push(named(group, name)),
            }
        }
    }
    let sockstat = text("/proc/thread-self/net/sockstat");
    if let Some(tcp) = sockstat.lines().find_map(|line| line.strip_prefix("TCP: ")) {
        levels.extend(tcp.split_whitespace().step_by(2).map(|name| named("sockstat.TCP", name)));
    }
    let conntrack = text("/proc/thread-self/net/stat/nf_conntrack");
    let conntrack = conntrack.lines().next().unwrap_or_default();
    counts.extend(conntrack.split_whitespace().filter(|name| *name != "entries").map(|name| named("conntrack", name)));
    if !conntrack.is_empty() {
        levels.extend(["count", "max"].map(|name| named("conntrack", name)));
    }
    (counts, levels)
}

fn put(to: &mut Values, group: &str, name: &str, value: u64) {
    if value > 0 {
        to.insert(format!("{group}.{name}").into(), value);
    }
}

/// Reads one group: a line of names, then a line of values.
fn named(text: &str, group: &str, mut each: impl FnMut(&str, u64)) {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return };
    for (name, value) in names.split(' ').zip(values.split(' ')) {
        if let Ok(value) = value.parse() {
            each(name, value);
        }
    }
}

/// `TCP: inuse 2 orphan 0`: names and values in turn.
fn sockets(text: &str, to: &mut Values) {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    for (group, rest) in lines.filter(|(group, _)| matches!(*group, "TCP" | "TCP6")) {
        let mut words = rest.split_whitespace();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            put(to, &format!("sockstat.{group}"), name, value.parse().unwrap_or(0));
        }
    }
}

/// A line of names, and one of hexadecimal values for each CPU.
fn tracked(text: &str, to: &mut Values) {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let mut sums = vec![0_u64; names.len()];
    for line in lines {
        for (sum, value) in sums.iter_mut().zip(line.split_whitespace()) {
            *sum = sum.saturating_add(u64::from_str_radix(value, 16).unwrap_or(0));
        }
    }
    // Each line has the number of entries of all CPUs.
    let sums = names.into_iter().zip(sums).filter(|(name, _)| *name != "entries");
    sums.for_each(|(name, sum)| put(to, "conntrack", name, sum));
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rstest::rstest;

    use super::*;
    use crate::kernel::testing::{Named, in_new_namespace};

    fn texts(snmp: &str, netstat: &str, sockstat: &str, conntrack: &str) -> Texts {
        let [snmp, netstat, sockstat, conntrack] = [snmp, netstat, sockstat, conntrack].map(str::to_owned);
        let (conntrack_count, conntrack_max) = ("7\n".to_owned(), "65536\n".to_owned());
        Texts { snmp, netstat, sockstat, conntrack, conntrack_count, conntrack_max }
    }

    fn written(values: &Values) -> String {
        values.iter().map(|(name, value)| format!("{name}={value} ")).collect::<String>().trim_end().to_owned()
    }

    #[rstest]
    #[case::nothing("", "", "", "")]
    #[case::tcp(
        "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens CurrEstab\nTcp: 1 -1 3 0 9\n",
        "",
        "Tcp.ActiveOpens=3",
        "Tcp.CurrEstab=9 Tcp.RtoAlgorithm=1"
    )]
    #[case::names_without_values("Tcp: ActiveOpens\n", "TcpExt: TW\nTcpExt:\n", "", "")]
    #[case::fewer_values("", "TcpExt: TW ListenDrops\nTcpExt: 5\n", "TcpExt.TW=5", "")]
    #[case::more_values("", "TcpExt: TW\nTcpExt: 5 6\nIpExt: TW\nIpExt: 7\n", "TcpExt.TW=5", "")]
    #[case::no_numbers("Tcp: A B C\nTcp: 1x  18446744073709551616\n", "TcpExt: \u{fffd}\nTcpExt: \u{0}\n", "", "")]
    #[case::largest("", "TcpExt: TW\nTcpExt: 18446744073709551615\n", "TcpExt.TW=18446744073709551615", "")]
    fn groups(#[case] snmp: &str, #[case] netstat: &str, #[case] counts: &str, #[case] levels: &str) {
        let texts = Texts { conntrack_count: String::new(), ..texts(snmp, netstat, "", "") };
        let (found, found_levels) = texts.parse();
        assert_eq!((written(&found), written(&found_levels)), (counts.to_owned(), levels.to_owned()));
    }

    #[rstest]
    #[case(
        "TCP: inuse 4 orphan 0 tw 2 alloc 17 mem 1\nUDP: inuse 1\nTCP6: inuse 3\n",
        "sockstat.TCP.alloc=17 sockstat.TCP.inuse=4 sockstat.TCP.mem=1 sockstat.TCP.tw=2 sockstat.TCP6.inuse=3"
    )]
    #[case("TCP: inuse\nTCP: alloc -1 tw\n", "")]
    #[case("TCP:\n: 5\n", "")]
    fn sockstat(#[case] text: &str, #[case] expected: &str) {
        let texts = Texts { conntrack_count: String::new(), ..texts("", "", text, "") };
        assert_eq!(written(&texts.parse().1), expected);
    }

    #[rstest]
    #[case::two_cpus(
        "entries  found drop early_drop\n0000000b  0000000a 00000001 00000000\n0000000b  00000001 000000ff 00000002\n",
        "conntrack.drop=256 conntrack.early_drop=2 conntrack.found=11"
    )]
    #[case::odd("drop\nzz\n00000001 00000002\n\n", "conntrack.drop=1")]
    #[case::empty("", "")]
    fn conntrack(#[case] text: &str, #[case] expected: &str) {
        let (counts, levels) = texts("", "", "", text).parse();
        assert_eq!(written(&counts), expected);
        assert_eq!(written(&levels), "conntrack.count=7 conntrack.max=65536");
        let without = Texts { conntrack_count: String::new(), ..texts("", "", "", text) };
        assert_eq!(without.parse(), Default::default(), "the module is not there");
    }

    /// Whatever a look shows has a name that is known.
    #[tcptrace_tests::test]
    fn names_are_those_that_a_look_shows() {
        in_new_namespace(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
            let _client = TcpStream::connect(listener.local_addr().expect("its address")).expect("connect");
            let here = read_here(1, &|| 7).expect("it can be read");
            let (counts, levels) = counter_names();
            assert!(here.counts.keys().all(|name| counts.contains(name)), "{:?}\n{counts:?}", here.counts);
            let constants = ["Tcp.RtoAlgorithm", "Tcp.RtoMin", "Tcp.RtoMax"];
            let mut shown = here.levels.keys().filter(|name| !constants.contains(&&***name));
            assert!(shown.all(|name| levels.contains(name)), "{:?}\n{levels:?}", here.levels);
            assert!(counts.iter().any(|name| &**name == "TcpExt.ListenOverflows") && counts.len() > 50, "{counts:?}");
        });
    }

    #[tcptrace_tests::test]
    fn each_namespace_has_its_own_and_the_thread_comes_home() {
        let named = Named::new("counting");
        in_new_namespace(|| {
            let own = Namespaces::own_namespace().expect("its number");
            let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
            let _client = TcpStream::connect(listener.local_addr().expect("its address")).expect("connect");
            let mut counting = Counting::new(Namespaces::find(), 0).expect("a way home");
            let mut readings = Vec::new();
            let searched = counting.look(&|| 7, |reading| readings.push(reading)).is_some();
            assert_eq!(Namespaces::own_namespace(), Some(own));
            let of = |netns| readings.iter().find(|reading: &&Counters| reading.netns == netns).expect("it was read");
            let (ours, other) = (of(own), of(named.inode()));
            assert_eq!(
                (ours.at, ours.counts.get("Tcp.ActiveOpens"), ours.levels.get("Tcp.CurrEstab")),
                (7, Some(&1), Some(&2))
            );
            assert_eq!((other.counts.get("Tcp.ActiveOpens"), ours.cookie == other.cookie), (None, false));
            assert!(!searched || readings.len() > 1, "another test's may have gone");

            let mut only = Counting::new(Namespaces::find(), named.inode()).expect("a way home");
            let mut readings = Vec::new();
            only.look(&|| 7, |reading| readings.push(reading.netns));
            assert_eq!(readings, [named.inode()]);
        });
    }

    #[tcptrace_tests::test]
    fn one_that_is_gone_has_others_searched_for() {
        let gone = Named::new("gone");
        in_new_namespace(|| {
            let mut counting = Counting::new(Namespaces::find(), 0).expect("a way home");
            let inode = gone.inode();
            drop(gone);
            let later = Named::new("later");
            let mut readings = Vec::new();
            assert!(counting.look(&|| 7, |reading| readings.push(reading.netns)).is_some());
            assert!(readings.contains(&later.inode()));
            assert!(later.inode() == inode || !readings.contains(&inode));
        });
    }
}
