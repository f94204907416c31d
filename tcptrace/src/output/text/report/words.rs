//! Figures, times and names of a report in words, for text and page alike.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::model::labels::Labels;
use crate::model::row::Held;
use crate::model::tcp::{Comm, End, Side};
use crate::output::{human, sanitise, sanitise_message};
use crate::study::report::{Bin, By, ChurnRow, FiredRow, Group, Report};

/// `1,234,567`.
pub(in crate::output) fn count(number: u64) -> String {
    human::Count(number).to_string()
}

/// `1,234 connections`, `1 connection`.
pub(in crate::output) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `98.7 %`, cut, not rounded: 100 % always means all.
pub(in crate::output) fn percent(share: f64) -> String {
    // A share is a quotient of whole numbers, and may be off in its last digit.
    let thousandths = (share * 1_000.0 + 1e-9).floor() as u64;
    match thousandths {
        0 if share > 0.0 => "<0.1 %".to_owned(),
        0 => "0 %".to_owned(),
        1_000.. => "100 %".to_owned(),
        _ => format!("{}.{} %", thousandths / 10, thousandths % 10),
    }
}

/// `2,702/s`, `4.2/s`, `0.03/s`.
pub(in crate::output) fn rate(per_second: f64) -> String {
    format!("{}/s", number(per_second))
}

/// A number with about three digits.
pub(in crate::output) fn number(number: f64) -> String {
    match number {
        _ if number >= 99.95 => count(number.round() as u64),
        _ if number >= 9.995 => format!("{number:.1}"),
        _ if number == 0.0 => "0".to_owned(),
        _ if number < 0.005 => "<0.01".to_owned(),
        _ => format!("{number:.2}"),
    }
}

/// `1.23ms`, or `-`.
pub(in crate::output) fn duration(ns: Option<u64>) -> String {
    ns.map_or(Held::Unknown, Held::Exactly).to_string()
}

/// A bound of a histogram: `50ms`, `1s`, `2000s`.
pub(in crate::output) fn bound(ns: u64) -> String {
    match ns {
        0 => "0".to_owned(),
        _ if ns >= 1_000_000_000 => format!("{}s", ns / 1_000_000_000),
        _ if ns >= 1_000_000 => format!("{}ms", ns / 1_000_000),
        _ => format!("{}µs", ns / 1_000),
    }
}

/// Bars of a histogram, with `None` for several in a row that are empty.
pub(in crate::output) fn shown_bins(bins: &[Bin]) -> Vec<Option<&Bin>> {
    let mut shown = Vec::new();
    for part in bins.chunk_by(|one, next| one.is_empty() && next.is_empty()) {
        match part {
            [_, _, ..] => shown.push(None),
            _ => shown.extend(part.iter().map(Some)),
        }
    }
    shown
}

/// `1.2K`, or `-`.
pub(in crate::output) fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| human::Bytes(bytes).to_string())
}

/// `HH:MM:SS` in a zone.
pub(in crate::output) fn time(zone: &TimeZone, unix_ns: i64) -> String {
    formatted(zone, unix_ns, "%H:%M:%S")
}

/// From when to when, and for how long: `2025-01-02 03:04:05 to 03:05:07 UTC (1m02s)`.
pub(in crate::output) fn period(zone: &TimeZone, report: &Report) -> String {
    let (from, to) = (report.overview.from_unix_ns, report.overview.to_unix_ns);
    let (first, last) = (formatted(zone, from, "%F"), formatted(zone, to, "%F"));
    let end = if first == last { time(zone, to) } else { format!("{last} {}", time(zone, to)) };
    let zone_name = formatted(zone, to, "%Z");
    let duration = human::Duration(report.overview.duration_ns());
    format!("{first} {} to {end} {zone_name} ({duration})", time(zone, from))
}

fn formatted(zone: &TimeZone, unix_ns: i64, format: &str) -> String {
    let time = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or_default();
    time.to_zoned(zone.clone()).strftime(format).to_string()
}

/// Why the traces were written, if flight recorders wrote them by themselves.
pub(in crate::output) fn fired(zone: &TimeZone, report: &Report) -> Vec<String> {
    let line = |FiredRow { unix_ns, host, fired }: &FiredRow| {
        let what = fired.rule.as_deref().map(|rule| format!("{rule}: ")).unwrap_or_default();
        let what = sanitise_message(&format!("{what}{}", fired.headline)).into_owned();
        let host = if report.hosts.len() > 1 { format!(" on {}", sanitise(host.as_bytes())) } else { String::new() };
        format!("fired at {}{host}: {what}", time(zone, *unix_ns))
    };
    report.fired.iter().map(line).collect()
}

/// The names of the first three hosts, and the number of others.
pub(in crate::output) fn hosts(report: &Report) -> String {
    const SHOWN: usize = 3;
    let mut names: Vec<String> =
        report.hosts.iter().take(SHOWN).map(|host| sanitise(host.as_bytes()).into_owned()).collect();
    if report.hosts.len() > SHOWN {
        names.push(format!("{} more", report.hosts.len() - SHOWN));
    }
    if names.is_empty() { "unknown host".to_owned() } else { names.join(", ") }
}

/// What a report has several of, so that groups must name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::output) struct Apart {
    /// Hosts.
    pub(in crate::output) hosts: bool,
    /// Network namespaces.
    pub(in crate::output) namespaces: bool,
}

impl Apart {
    /// In a report.
    pub(in crate::output) fn of(report: &Report) -> Self {
        let namespaces = report.groups.iter().filter(|row| row.group.by == By::Netns && row.state.is_none());
        Self { hosts: report.hosts.len() > 1, namespaces: namespaces.count() > 1 }
    }
}

/// The name of a group: `curl[42]`, `curl ×12 in web.service`, `10.0.0.2:443`, `port 80`, `3 others`.
pub(in crate::output) fn group(group: &Group, apart: Apart) -> String {
    if let Some(others) = group.others {
        let ending = if others == 1 { "" } else { "s" };
        return format!("{}{} other{ending}", if group.is_partial { "≥" } else { "" }, count(others));
    }
    let name = match group.by {
        By::Process => process(group),
        By::Remote => remote(group),
        By::Lport => {
            let port = group.local_port.map_or("no server port".to_owned(), |port| format!("port {port}"));
            if apart.namespaces && group.netns.is_some() { format!("{port} in {}", netns(group)) } else { port }
        }
        By::Container => place(group).unwrap_or_else(|| "unknown".to_owned()),
        By::Netns => netns(group),
    };
    let host = group.host.as_ref().filter(|_| apart.hosts);
    let partial = if group.is_partial { " (in part)" } else { "" };
    host.map_or(format!("{name}{partial}"), |host| format!("{}: {name}{partial}", sanitise(host.as_bytes())))
}

fn process(group: &Group) -> String {
    let comm = group.comm.as_ref().map(Comm::bytes).filter(|comm| !comm.is_empty());
    let comm = comm.map_or("unknown process".into(), sanitise);
    let number = match (group.pid, group.processes) {
        (Some(pid), _) => format!("[{pid}]"),
        (None, Some(processes)) => {
            format!(" ×{}{}", if group.processes_at_least { "≥" } else { "" }, count(processes))
        }
        (None, None) => String::new(),
    };
    // The root of the hierarchy is no information.
    match place(group).filter(|place| place != "/") {
        Some(place) => format!("{comm}{number} in {place}"),
        None => format!("{comm}{number}"),
    }
}

fn remote(group: &Group) -> String {
    match (group.remote_ip, group.remote()) {
        (Some(ip), Some(remote)) => match (group.remote_zone.as_deref(), group.remote_port) {
            (None, None) => ip.to_string(),
            (None, Some(_)) => remote.to_string(),
            (Some(zone), None) => format!("{ip}%{zone}"),
            (Some(zone), Some(port)) => format!("[{ip}%{zone}]:{port}"),
        },
        _ => "unknown".to_owned(),
    }
}

/// The container, unit or control group.
fn place(group: &Group) -> Option<String> {
    /// Digits of an id that are shown, as container tools do.
    const SHORT_ID: usize = 12;
    if let Some(container) = &group.container {
        if let Some(named) = named(&group.labels) {
            return Some(named);
        }
        let is_id = container.len() == 64 && container.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = if is_id { &container[..SHORT_ID] } else { container };
        return Some(format!("container {}", sanitise(id.as_bytes())));
    }
    let name = group.unit.as_deref().or(group.cgroup.as_deref())?;
    Some(sanitise(name).into_owned())
}

/// A pod as `kubectl` takes it, and its container; else the name of the container.
fn named(labels: &Labels) -> Option<String> {
    let clean = |name: &str| sanitise(name.as_bytes()).into_owned();
    let container = labels.container_name.as_deref().map(|name| format!("container {}", clean(name)));
    let Some(pod) = &labels.pod else { return container };
    let namespace = labels.pod_namespace.as_deref().map(|name| clean(name) + "/").unwrap_or_default();
    let container = container.map(|container| format!(" {container}")).unwrap_or_default();
    Some(format!("pod {namespace}{}{container}", clean(pod)))
}

fn netns(group: &Group) -> String {
    match (group.netns, &group.netns_name) {
        (_, Some(name)) => sanitise(name).into_owned(),
        (Some(inode), None) => format!("netns {inode}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// Both ends: `curl[42] → 10.0.0.2:443`, `nginx[80] port 80 ← 10.0.0.1`.
pub(in crate::output) fn ends(row: &ChurnRow, apart: Apart) -> String {
    let process = group(&row.group, apart);
    if row.group.others.is_some() {
        return process;
    }
    match (row.side, row.group.local_port) {
        (Side::Server, Some(port)) => format!("{process} port {port} ← {}", remote(&row.group)),
        _ => format!("{process} → {}", remote(&row.group)),
    }
}

/// The meaning of an end in a few words.
pub(in crate::output) fn meaning(end: End) -> &'static str {
    match end {
        End::Fin => "closed by FINs in both directions",
        End::FinWait2Timeout => "the peer never closed its side",
        End::Refused => "the peer answered the SYN with a reset",
        End::ConnectTimeout => "the peer did not answer the SYN",
        End::RetransmitTimeout => "the peer stopped acknowledging",
        End::KeepaliveTimeout => "the peer left keepalive probes unanswered",
        End::UserTimeout => "TCP_USER_TIMEOUT ran out",
        End::ResetReceived => "the peer sent a reset",
        End::ResetUnreadData => "closed here with received data unread, so a reset was sent",
        End::ResetLinger0 => "closed here with SO_LINGER 0, so a reset was sent",
        End::ResetDataAfterClose => "data arrived after the close, so a reset was sent",
        End::ResetOther => "a reset was sent for another reason",
        End::Disconnected => "disconnected by its process",
        End::NoLocalPort => "no local port was left",
        End::Unreachable => "the network reported the peer as unreachable",
        End::ClosedWhileConnecting => "closed before it was established",
        End::NeverAccepted => "the listener was closed before accepting it",
        End::OrphanKilled => "the kernel killed it after its process had closed it",
        End::Killed => "destroyed by an administrator",
        End::Unknown => "its end was not seen",
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0.0, "0 %")]
    #[case(0.0004, "<0.1 %")]
    #[case(0.29, "29.0 %")]
    #[case(0.99996, "99.9 %")]
    #[case(1.0, "100 %")]
    fn shares(#[case] share: f64, #[case] expected: &str) {
        assert_eq!(percent(share), expected);
    }

    #[rstest]
    #[case(0.0, "0")]
    #[case(0.001, "<0.01")]
    #[case(0.034, "0.03")]
    #[case(9.999, "10.0")]
    #[case(99.96, "100")]
    #[case(2_702.4, "2,702")]
    fn numbers(#[case] value: f64, #[case] expected: &str) {
        assert_eq!(number(value), expected);
    }

    #[rstest]
    #[case::a_pod(["web-5d9", "shop", "nginx"], "pod shop/web-5d9 container nginx")]
    #[case::its_sandbox(["web-5d9", "shop", ""], "pod shop/web-5d9")]
    #[case::no_pod(["", "", "web"], "container web")]
    #[case::no_name(["", "", ""], "container 0123456789ab")]
    #[case::a_steering_name(["", "", "\u{1b}[2J"], "container \\x1b[2J")]
    fn a_container_is_called(#[case] names: [&str; 3], #[case] expected: &str) {
        let [pod, pod_namespace, container_name] = names.map(|name| (!name.is_empty()).then(|| name.into()));
        let group = Group {
            container: Some("0123456789abcdef".repeat(4).into()),
            labels: Labels { pod, pod_namespace, container_name },
            ..Group::default()
        };
        assert_eq!(place(&group).as_deref(), Some(expected));
    }
}
