//! The settings that TCP depends on: what they are, what they really do, and what changing them does.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::evidence::Evidence;
use crate::model::named;

/// A setting.
#[derive(Clone, Copy, Debug)]
struct Setting {
    name: &'static str,
    default: Default,
    /// What it really does.
    effect: &'static str,
    /// What changing it does.
    risk: &'static str,
}

/// What a setting is unless somebody changes it.
#[derive(Clone, Copy, Debug)]
enum Default {
    /// This.
    Is(&'static str),
    /// What the kernel makes of the size of its tables (`tcp_sk_init`): half as many as connections have places there.
    OfTables,
    /// What the kernel computes from the memory of the machine.
    OfMemory,
    /// The kernel does not have it, or only some vendors' do.
    Missing,
}

named! {
    /// Where a value is from.
    Source {
        /// Nobody has changed it.
        Default = "default",
        /// Somebody has.
        Changed = "changed",
        /// The kernel does not have it, or does not show it here.
        Missing = "missing",
        /// The kernel computes it when it boots: nobody knows whether it was changed since.
        Computed = "computed",
    }
}

/// The value of a setting, with what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Inode number of the network namespace; `None`: of the host as a whole.
    pub netns: Option<u32>,
    /// Its name, as `sysctl` has it.
    pub name: &'static str,
    /// Its value; `None`: the kernel does not have it, or does not show it here.
    pub value: Option<String>,
    /// What it is unless somebody changes it; `None`: that is computed, or there is none.
    pub default: Option<Cow<'static, str>>,
    /// Where the value is from.
    pub source: Source,
    /// What it really does.
    pub effect: &'static str,
    /// What changing it does.
    pub risk: &'static str,
}

const fn of(name: &'static str, default: Default, effect: &'static str, risk: &'static str) -> Setting {
    Setting { name, default, effect, risk }
}

/// What each network namespace has for itself.
const OF_NAMESPACE: &[Setting] = &[
    of(
        "net.ipv4.ip_local_port_range",
        Default::Is("32768 60999"),
        "ports for connect() and bind() of port 0: 28,232 for each source address, destination address and port",
        "widen it down to 10240; ends of different parity use all ports best",
    ),
    of(
        "net.ipv4.ip_local_reserved_ports",
        Default::Is(""),
        "ports that the kernel does not choose by itself; bind() of one of them works",
        "safe; for fixed ports inside the range",
    ),
    of(
        "net.ipv4.ip_autobind_reuse",
        Default::Is("0"),
        "lets bind() of port 0 share ports if all have SO_REUSEADDR",
        "for experts",
    ),
    of(
        "net.ipv4.tcp_tw_reuse",
        Default::Is("2"),
        "connect() takes over a TIME_WAIT that is 1s old; 2: only to or from 127.0.0.0/8 and ::1, not the host's other addresses",
        "1 is safe for clients with timestamps; no effect for servers, nor after bind()",
    ),
    of(
        "net.ipv4.tcp_tw_reuse_delay",
        Default::Is("1000"),
        "how old a TIME_WAIT must be for that, in ms (6.14 and newer)",
        "not below the tick of the peer's timestamps",
    ),
    of("net.ipv4.tcp_timestamps", Default::Is("1"), "PAWS and round-trip times; tcp_tw_reuse needs them", "keep 1"),
    of("net.ipv4.tcp_max_tw_buckets", Default::OfTables, "above so many, closes get no TIME_WAIT", "only raise it"),
    of(
        "net.ipv4.tcp_fin_timeout",
        Default::Is("60"),
        "how long an orphan stays in FIN_WAIT2, in seconds; nothing else",
        "10 to 60; a value v above 60 means 2 × (v - 60)",
    ),
    of(
        "net.ipv4.tcp_orphan_retries",
        Default::Is("0"),
        "how often the FIN of an orphan is sent again; 0 means 8",
        "keep 0",
    ),
    of(
        "net.ipv4.tcp_retries2",
        Default::Is("15"),
        "retransmissions until a silent peer is given up: about 15 minutes",
        "use TCP_USER_TIMEOUT in the program instead",
    ),
    of(
        "net.ipv4.tcp_syn_retries",
        Default::Is("6"),
        "when connect() gives up: after about 2m15s; 3: 19s, 2: 7s, 1: 3s",
        "set a connect timeout in the client instead",
    ),
    of(
        "net.ipv4.tcp_syn_linear_timeouts",
        Default::Is("4"),
        "so many SYNs are repeated after 1s each, before the time doubles (6.5 and newer)",
        "set a connect timeout in the client instead",
    ),
    of(
        "net.ipv4.tcp_keepalive_time",
        Default::Is("7200"),
        "seconds without data until the first probe; only of sockets with SO_KEEPALIVE",
        "better for each socket (TCP_KEEPIDLE)",
    ),
    of(
        "net.ipv4.tcp_keepalive_intvl",
        Default::Is("75"),
        "seconds between probes; only of sockets with SO_KEEPALIVE",
        "better for each socket (TCP_KEEPINTVL)",
    ),
    of(
        "net.ipv4.tcp_keepalive_probes",
        Default::Is("9"),
        "probes without an answer until the end; only of sockets with SO_KEEPALIVE",
        "better for each socket (TCP_KEEPCNT)",
    ),
    of("net.ipv4.tcp_syncookies", Default::Is("1"), "answers SYNs by cookie when the SYN queue is full", "keep 1"),
    of(
        "net.ipv4.tcp_max_syn_backlog",
        Default::OfMemory,
        "no effect while tcp_syncookies is on: listen() and somaxconn bound the SYN queue",
        "no effect while tcp_syncookies is on",
    ),
    of(
        "net.core.somaxconn",
        Default::Is("4096"),
        "caps the backlog of listen(): the accept queue and the SYN queue; listen() reads it",
        "raise it, and restart the listeners",
    ),
    of(
        "net.ipv4.tcp_abort_on_overflow",
        Default::Is("0"),
        "1: a full accept queue resets the connection instead of keeping silent",
        "keep 0",
    ),
    of("net.ipv4.tcp_rfc1337", Default::Is("0"), "1: a reset does not end a TIME_WAIT", "either will do"),
    of(
        "net.netfilter.nf_conntrack_max",
        Default::OfMemory,
        "entries of the connection tracking table; sockets do not care",
        "raise it in the first network namespace",
    ),
    of(
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
        Default::Is("120"),
        "seconds that an entry stays after its connection has ended; the socket's TIME_WAIT is its own",
        "30 is enough for most",
    ),
    of(
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
        Default::Is("60"),
        "seconds that the entry of a half-closed connection stays without a packet",
        "not below the longest half-closed connection",
    ),
    of(
        "net.netfilter.nf_conntrack_tcp_timeout_established",
        Default::Is("432000"),
        "seconds that the entry of an idle connection stays",
        "not below the keepalive time of its programs",
    ),
    of("net.ipv4.tcp_tw_recycle", Default::Missing, "nothing: Linux does not have it since 4.12", "delete the line"),
    of(
        "net.ipv4.tcp_tw_timeout",
        Default::Missing,
        "length of TIME_WAIT on kernels of some vendors; Linux does not have it",
        "below 60, late packets can reach a new connection",
    ),
];

/// What the host has once.
const OF_HOST: &[Setting] = &[
    of("net.ipv4.tcp_max_orphans", Default::OfTables, "above so many, orphans are reset", "only raise it"),
    of(
        "net.ipv4.tcp_mem",
        Default::OfMemory,
        "pages for the buffers of all TCP sockets: low, pressure, limit",
        "rarely",
    ),
    of("fs.nr_open", Default::Is("1048576"), "how far RLIMIT_NOFILE of a process may be raised", "rarely"),
    of("fs.file-max", Default::OfMemory, "open files of all processes together", "rarely"),
];

const LIMIT: Setting = of(
    "RLIMIT_NOFILE",
    Default::Is("1024"),
    "descriptors of a process, the soft limit: the lowest and the highest of those that have sockets",
    "LimitNOFILE= of the unit; limits.conf does not apply to services",
);
const TIME_WAIT: Setting = of(
    "TIME_WAIT",
    Default::Is("60s"),
    "its length, from 60 to 64s; compiled into the kernel (TCP_TIMEWAIT_LEN)",
    "cannot be set",
);

/// Settings of a network namespace whose default does not depend on the machine, with that.
pub(super) fn defaults() -> impl Iterator<Item = (&'static str, &'static str)> {
    OF_NAMESPACE.iter().filter_map(|setting| match setting.default {
        Default::Is(value) => Some((setting.name, value)),
        _ => None,
    })
}

/// The default of a setting, where it does not depend on the machine.
pub(super) fn default_of(name: &str) -> Option<&'static str> {
    defaults().find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// What `tcp_max_tw_buckets` and `tcp_max_orphans` begin with: both are half of the places in the kernel's table of connections,
/// a power of two. Known where two settings agree on one.
pub(super) fn default_of_tables(evidence: &Evidence) -> Option<u64> {
    const ORPHANS: &str = "net.ipv4.tcp_max_orphans";
    const BUCKETS: &str = "net.ipv4.tcp_max_tw_buckets";
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for settings in evidence.settings.values() {
        for name in [ORPHANS, BUCKETS] {
            let value = settings.values.get(name).and_then(|value| value.parse::<u64>().ok());
            if let Some(value) = value.filter(|value| value.is_power_of_two()) {
                *counts.entry(value).or_default() += 1;
            }
        }
    }
    counts
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .max_by_key(|(value, count)| (*count, *value))
        .map(|(value, _)| value)
}

/// The first network namespace: the one that shows settings of the host. A trace of before does not tell which that is; the
/// kernel numbers it before all others.
pub(super) fn first_netns(evidence: &Evidence) -> Option<u32> {
    let told = evidence.number(None, "kernel.first_netns").and_then(|netns| u32::try_from(netns).ok());
    told.or_else(|| evidence.settings.keys().flatten().min().copied())
}

/// The settings of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The network namespaces that they are of, the first one first.
    pub places: Vec<u32>,
    /// Those of the first network namespace and of the host, and of each other one where they differ.
    pub rows: Vec<Row>,
}

impl Settings {
    /// What the evidence says of them.
    pub fn of(evidence: &Evidence) -> Self {
        let Some(first) = first_netns(evidence) else { return Self::default() };
        let tables = default_of_tables(evidence);
        let row = |netns: Option<u32>, setting: &Setting| {
            let values = evidence.settings.get(&netns).map(|settings| &settings.values);
            let value = values.and_then(|values| values.get(setting.name)).map(ToString::to_string);
            finish(netns, setting, value, tables)
        };
        let mut rows: Vec<Row> = OF_NAMESPACE.iter().map(|setting| row(Some(first), setting)).collect();
        let of_first: BTreeMap<&str, Option<String>> = rows.iter().map(|row| (row.name, row.value.clone())).collect();
        rows.extend(OF_HOST.iter().map(|setting| row(None, setting)));
        rows.push(finish(None, &LIMIT, limits(evidence), None));
        rows.push(finish(None, &TIME_WAIT, Some("60s".to_owned()), None));
        let others: Vec<u32> = evidence.settings.keys().flatten().copied().filter(|netns| *netns != first).collect();
        for netns in others.iter().copied() {
            let all = OF_NAMESPACE.iter().map(|setting| row(Some(netns), setting));
            rows.extend(all.filter(|row| of_first.get(row.name) != Some(&row.value)));
        }
        Self { places: [first].into_iter().chain(others).collect(), rows }
    }

    /// The same of these network namespaces only, if there are any; the first of those is told in full.
    #[must_use]
    pub fn only_of(self, wanted: &[u32]) -> Self {
        let Some(old) = self.places.first().copied().filter(|_| !wanted.is_empty()) else { return self };
        let places: Vec<u32> = self.places.iter().copied().filter(|netns| wanted.contains(netns)).collect();
        let own = |netns: u32, name: &str| self.rows.iter().find(|row| row.netns == Some(netns) && row.name == name);
        let row = |netns: u32, of_old: &Row| match own(netns, of_old.name) {
            Some(row) => row.clone(),
            None => Row { netns: Some(netns), ..of_old.clone() },
        };
        let all = || self.rows.iter().filter(|row| row.netns == Some(old));
        let mut rows = Vec::new();
        if let Some(first) = places.first().copied() {
            rows.extend(all().map(|of_old| row(first, of_old)));
            rows.extend(self.rows.iter().filter(|row| row.netns.is_none()).cloned());
            for netns in places.iter().copied().skip(1) {
                let differs = |of_old: &&Row| row(netns, of_old).value != row(first, of_old).value;
                rows.extend(all().filter(differs).map(|of_old| row(netns, of_old)));
            }
        }
        Self { places, rows }
    }
}

fn finish(netns: Option<u32>, setting: &Setting, value: Option<String>, tables: Option<u64>) -> Row {
    let default = match setting.default {
        Default::Is(default) => Some(Cow::Borrowed(default)),
        Default::OfTables => tables.map(|tables| Cow::Owned(tables.to_string())),
        Default::OfMemory | Default::Missing => None,
    };
    let source = match (&value, &default) {
        (None, _) => Source::Missing,
        (Some(value), Some(default)) if value == default => Source::Default,
        (Some(_), Some(_)) => Source::Changed,
        (Some(_), None) if matches!(setting.default, Default::Missing) => Source::Changed,
        (Some(_), None) => Source::Computed,
    };
    let Setting { name, effect, risk, .. } = *setting;
    Row { netns, name, value, default, source, effect, risk }
}

/// The lowest and the highest limit of descriptors.
fn limits(evidence: &Evidence) -> Option<String> {
    let soft = || evidence.limits.iter().filter_map(|it| it.last.1.soft);
    let (low, high) = (soft().min()?, soft().max()?);
    Some(if low == high { low.to_string() } else { format!("{low} {high}") })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rstest::rstest;

    use super::super::rules::testing::{NETNS, nothing, with_settings};
    use super::*;
    use crate::model::facts::{self, Limit};
    use crate::study::diagnose::evidence::Descriptors;

    fn add(evidence: &mut Evidence, netns: Option<u32>, values: &[(&str, &str)]) {
        let values = values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        evidence.settings.insert(netns, facts::Settings { netns, values, ..facts::Settings::default() });
    }

    fn shown(rows: &[Row]) -> Vec<String> {
        let text = |row: &Row| {
            let netns = row.netns.map_or("host".into(), |netns| netns.to_string());
            let (value, default) = (row.value.as_deref().unwrap_or("-"), row.default.as_deref().unwrap_or("-"));
            format!("{netns} {} {value} {default} {}", row.name, row.source.as_str())
        };
        rows.iter().map(text).collect()
    }

    #[test]
    fn names_are_unique_and_words_are_there() {
        let all: Vec<_> = OF_NAMESPACE.iter().chain(OF_HOST).chain([&LIMIT, &TIME_WAIT]).collect();
        let names: HashSet<_> = all.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|setting| !setting.effect.is_empty() && !setting.risk.is_empty()));
    }

    #[test]
    fn others_are_shown_where_they_differ() {
        let mut evidence = with_settings(&[
            ("net.ipv4.tcp_fin_timeout", "60"),
            ("net.ipv4.tcp_max_tw_buckets", "131072"),
            ("net.ipv4.tcp_max_syn_backlog", "512"),
        ]);
        add(
            &mut evidence,
            Some(NETNS + 1),
            &[("net.ipv4.tcp_fin_timeout", "30"), ("net.ipv4.tcp_max_syn_backlog", "512")],
        );
        add(&mut evidence, None, &[("net.ipv4.tcp_max_orphans", "131072"), ("kernel.first_netns", "7")]);
        let limit = |soft| Limit { pid: 1, descriptors: None, soft: Some(soft), hard: None };
        let of = |soft| Descriptors { pid: 1, task: None, first: (0, limit(soft)), last: (0, limit(soft)) };
        evidence.limits = vec![of(1024), of(65_536)];
        let all = Settings::of(&evidence);
        let rows = shown(&all.rows);
        for row in [
            "7 net.ipv4.tcp_fin_timeout 60 60 default",
            "7 net.ipv4.tcp_max_tw_buckets 131072 131072 default",
            "7 net.ipv4.tcp_max_syn_backlog 512 - computed",
            "7 net.ipv4.tcp_tw_recycle - - missing",
            "host net.ipv4.tcp_max_orphans 131072 131072 default",
            "host RLIMIT_NOFILE 1024 65536 1024 changed",
            "host TIME_WAIT 60s 60s default",
            "8 net.ipv4.tcp_fin_timeout 30 60 changed",
            "8 net.ipv4.tcp_max_tw_buckets - 131072 missing",
        ] {
            assert!(rows.iter().any(|shown| shown == row), "no {row} in {rows:#?}");
        }
        assert_eq!(rows.iter().filter(|row| row.starts_with("8 ")).count(), 2, "{rows:#?}");
        assert_eq!(Settings::of(&nothing()), Settings::default());

        let other = all.clone().only_of(&[NETNS + 1]);
        let rows = shown(&other.rows);
        assert_eq!((other.places, rows.len()), (vec![NETNS + 1], OF_NAMESPACE.len() + OF_HOST.len() + 2));
        for row in ["8 net.ipv4.tcp_fin_timeout 30 60 changed", "8 net.ipv4.tcp_max_syn_backlog 512 - computed"] {
            assert!(rows.iter().any(|shown| shown == row), "no {row} in {rows:#?}");
        }
        assert_eq!(all.clone().only_of(&[NETNS, NETNS + 1]), all);
        assert_eq!(all.clone().only_of(&[99]), Settings::default());
        assert_eq!(all.clone().only_of(&[]), all);
    }

    #[rstest]
    #[case::agree("131072", &["131072"], Some(131_072))]
    #[case::most_agree("131072", &["131072", "8192"], Some(131_072))]
    #[case::no_two("131072", &["8192"], None)]
    #[case::no_power("131072", &["9000", "9000"], None)]
    fn what_tables_begin_with(#[case] orphans: &str, #[case] buckets: &[&str], #[case] expected: Option<u64>) {
        let mut evidence = nothing();
        add(&mut evidence, None, &[("net.ipv4.tcp_max_orphans", orphans)]);
        for (netns, buckets) in (1..).zip(buckets) {
            add(&mut evidence, Some(netns), &[("net.ipv4.tcp_max_tw_buckets", buckets)]);
        }
        assert_eq!(default_of_tables(&evidence), expected);
    }

    /// Where no trace tells, the one that the kernel made first.
    #[test]
    fn the_first_namespace_has_the_lowest_number() {
        let mut evidence = with_settings(&[]);
        add(&mut evidence, Some(9), &[]);
        assert_eq!(first_netns(&evidence), Some(NETNS));
        add(&mut evidence, None, &[("kernel.first_netns", "9")]);
        assert_eq!(first_netns(&evidence), Some(9));
        assert_eq!(first_netns(&nothing()), None);
    }
}
