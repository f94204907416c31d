//! A server that cannot bind its port, and who has it.

use std::net::{Ipv6Addr, SocketAddr};

use super::listening;
use crate::model::event::{Bound, Call};
use crate::model::tcp::{Side, State};
use crate::study::diagnose::evidence::{Evidence, Failed, Listener, Standing};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// `EADDRINUSE`.
const IN_USE: u16 = 98;

pub(super) static RULE: Rule = Rule {
    id: "bind-refused",
    title: "a process cannot bind its port because another socket has it",
    needs: &[Need::FailedCalls],
    figures: &[
        Figure { name: "failures", unit: "", doc: "Calls of bind with this address that failed with EADDRINUSE." },
        Figure { name: "listeners", unit: "", doc: "Sockets that listen on the port." },
        Figure {
            name: "clients",
            unit: "",
            doc: "Connections that have the port as their own, opened from this host.",
        },
        Figure { name: "open", unit: "", doc: "Connections that came in at the port and are not over." },
        Figure { name: "time_wait", unit: "", doc: "TIME_WAITs and mini-sockets in FIN_WAIT2 of the port." },
        Figure { name: "bound", unit: "", doc: "Sockets that are bound to the port and do nothing else." },
    ],
    page: Page {
        sees: "\"Address already in use\" when a server starts; mostly it works, sometimes it does not.",
        fires: "bind() failed with EADDRINUSE for a port that is not 0. One failure is enough: the error has one meaning.",
        silent: "bind() succeeds. Where bind() to port 0 fails, no port at all is free.",
        remedy: "Stop the process that listens, or wait for the TIME_WAITs to end. Set SO_REUSEADDR in the server before bind(): \
                 its connections inherit it, and the next restart works at once. Reserve a port that clients take.",
        sources: "inet_csk_bind_conflict (net/ipv4): sockets with sk_reuse on both sides, none in LISTEN, do not conflict.",
    },
    check,
};

/// Who has a port, by kind.
#[derive(Default)]
struct Holders<'e> {
    listeners: Vec<&'e Listener>,
    /// Connections from this host whose own port it is.
    clients: Vec<&'e Standing>,
    /// Connections that came in, and are not over.
    open: Vec<&'e Standing>,
    time_wait: Vec<&'e Standing>,
    bound: u64,
}

fn check(evidence: &Evidence) -> Outcome {
    let refused = evidence.calls.iter().filter(|failed| failed.call == Call::Bind && failed.errno == IN_USE);
    let refused = refused.filter_map(|failed| failed.address.filter(|(_, port)| *port != 0).map(|end| (failed, end)));
    let findings: Vec<Finding> = refused.map(|(failed, end)| finding(evidence, failed, end)).collect();
    Outcome::of(findings, figures(0, &Holders::default()))
}

impl<'e> Holders<'e> {
    /// Who has this port of this address now, in the namespace of the call.
    fn of(evidence: &'e Evidence, failed: &Failed, (ip, port): (Ipv6Addr, u16)) -> Self {
        let mut holders = Self::default();
        let is_there = |netns: Option<u32>, other: (Ipv6Addr, u16)| {
            netns == failed.netns && other.1 == port && may_conflict(ip, other.0)
        };
        let listeners = evidence.listeners.iter();
        holders.listeners.extend(listeners.filter(|it| is_there(it.netns, (it.queue.ip, it.queue.port))));
        let is_bound = |it: &&Bound| is_there(it.netns, (it.ip, it.port));
        holders.bound = evidence.bound.iter().filter(is_bound).count() as u64;
        let sockets = evidence.sockets.iter().filter(|it| it.state != State::Closed);
        for socket in sockets.filter(|it| is_there(it.netns, (it.tuple.local_ip, it.tuple.local_port))) {
            let is_mini = socket.left_ns.is_some() || socket.state == State::TimeWait;
            match socket.side {
                Side::Client => holders.clients.push(socket),
                _ if is_mini => holders.time_wait.push(socket),
                _ => holders.open.push(socket),
            }
        }
        holders
    }

    /// How many kinds there are that could be why; a listener always is.
    fn kinds(&self) -> usize {
        if !self.listeners.is_empty() {
            return 1;
        }
        let has = [!self.clients.is_empty(), !self.open.is_empty(), !self.time_wait.is_empty(), self.bound > 0];
        has.into_iter().filter(|has| *has).count()
    }

    /// How long the last TIME_WAIT still lasts, in ns.
    fn left_ns(&self) -> Option<u64> {
        self.time_wait.iter().filter_map(|socket| socket.left_ns).max()
    }
}

/// Whether sockets of these two addresses want the same port: an unspecified one wants it of every address.
fn may_conflict(one: Ipv6Addr, other: Ipv6Addr) -> bool {
    let is_any = |ip| say::address(ip).is_unspecified();
    one == other || is_any(one) || is_any(other)
}

fn figures(failures: u64, holders: &Holders<'_>) -> Figures {
    let count = |number: usize| Value::Count(number as u64);
    vec![
        ("failures", Value::Count(failures)),
        ("listeners", count(holders.listeners.len())),
        ("clients", count(holders.clients.len())),
        ("open", count(holders.open.len())),
        ("time_wait", count(holders.time_wait.len())),
        ("bound", Value::Count(holders.bound)),
    ]
}

fn finding(evidence: &Evidence, failed: &Failed, (ip, port): (Ipv6Addr, u16)) -> Finding {
    let holders = Holders::of(evidence, failed, (ip, port));
    let end = say::end(ip, port);
    let severity = if holders.listeners.is_empty() { Severity::Critical } else { Severity::Warning };
    let confidence = if holders.kinds() > 1 { Confidence::Likely } else { Confidence::Certain };
    let mut finding = Finding::new(RULE.id, severity, confidence, headline(failed, end, &holders));
    finding.subject = Subject {
        task: Some(failed.task),
        netns: failed.netns,
        local: Some(end),
        lport: Some(port),
        ..Subject::default()
    };
    finding.figures = figures(failed.count, &holders);
    let times = say::counted(failed.count, "time");
    finding.line("seen", format!("bind failed with EADDRINUSE {times}"));
    let sockets = holders.open.iter().chain(&holders.time_wait).chain(&holders.clients);
    finding.examples = sockets.take(5).map(|socket| socket.example()).collect();
    if holders.kinds() > 0 {
        finding.line("sock_diag", who(&holders, port));
    }
    advise(failed, &holders, port, &mut finding);
    finding.sure = match holders.kinds() {
        0 => "certain that bind failed; no socket has the port now, so who had it is unknown",
        1 => "certain: the errno, and who has the port",
        _ => "certain that bind failed; several kinds of sockets are on the port, and the first one named is likely",
    }
    .into();
    finding.count = failed.count;
    (finding.first_seen, finding.last_seen) = (Some(failed.first), Some(failed.last));
    finding.seconds_left = holders.listeners.is_empty().then_some(0.0);
    finding
}

/// Who has the port, all kinds of it.
fn who(holders: &Holders<'_>, port: u16) -> String {
    let mut parts = Vec::new();
    for listener in holders.listeners.iter().take(3) {
        let other = listener.task.map_or_else(|| "a process".to_owned(), say::process);
        parts.push(format!("{other} listens on {}", listening::end(listener)));
    }
    let mut some = |count: u64, what: &str| {
        if count > 0 {
            parts.push(say::counted(count, what));
        }
    };
    some(holders.clients.len() as u64, "outgoing connection");
    some(holders.open.len() as u64, "open connection");
    some(holders.time_wait.len() as u64, "TIME_WAIT");
    some(holders.bound, "bound socket");
    format!("port {port}: {}", parts.join(", "))
}

/// Whether the process that failed listens there now: it has tried until it worked.
fn has_succeeded(failed: &Failed, holders: &Holders<'_>) -> bool {
    holders.listeners.iter().any(|listener| listener.task.is_some_and(|task| task.pid == failed.task.pid))
}

fn headline(failed: &Failed, end: SocketAddr, holders: &Holders<'_>) -> String {
    let process = say::process(failed.task);
    let port = end.port();
    if has_succeeded(failed, holders) {
        return format!("{process} could not bind {end} {}; it listens there now", say::counted(failed.count, "time"));
    }
    let cannot = format!("{process} cannot bind {end}");
    if let Some(listener) = holders.listeners.first() {
        let other = listener.task.map_or_else(|| "another process".to_owned(), say::process);
        let long = format!("{cannot}: {other} still listens on it");
        return say::fitting([long, format!("{cannot}: another process still listens on it"), cannot]);
    }
    if let Some(client) = holders.clients.first() {
        let remote = client.tuple.remote();
        let whose = client.task().map_or_else(|| "a connection".to_owned(), say::process);
        return match client.task() {
            Some(_) => say::fitting([
                format!("{cannot}: {whose} uses {port} as the local port of a connection to {remote}"),
                format!("{cannot}: {whose} uses {port} as a local port"),
            ]),
            None => {
                let long = format!("{cannot}: {whose} to {remote} has {port} as its local port");
                say::fitting([long, format!("{cannot}: {whose} has {port} as its local port"), cannot])
            }
        };
    }
    if let Some(open) = holders.open.first() {
        let verb = if holders.open.len() == 1 { "is" } else { "are" };
        let of = open.task().map_or_else(String::new, |task| format!(" of {}", say::process(task)));
        let connections = say::counted(holders.open.len() as u64, "connection");
        let long = format!("{cannot}: {connections}{of} {verb} still open on it");
        return say::fitting([long, format!("{cannot}: {connections} {verb} still open on it"), cannot]);
    }
    if !holders.time_wait.is_empty() {
        let minis = say::counted(holders.time_wait.len() as u64, "TIME_WAIT");
        let verb = if holders.time_wait.len() == 1 { "holds" } else { "hold" };
        let left = holders.left_ns().map_or_else(String::new, |ns| format!(" for another {}", say::time(ns)));
        let base = format!("{cannot}: {minis} of the last instance {verb} it");
        return say::fitting([format!("{base}{left}"), base, format!("{cannot}: {minis} {verb} it"), cannot]);
    }
    if holders.bound > 0 {
        return format!("{cannot}: another socket is bound to it and does not listen");
    }
    format!("{cannot}: the port was in use {}", say::counted(failed.count, "time"))
}

fn advise(failed: &Failed, holders: &Holders<'_>, port: u16, finding: &mut Finding) {
    let name = say::comm(failed.task.comm);
    let always = format!("Set SO_REUSEADDR in {name} before bind(), always");
    if !holders.listeners.is_empty() {
        finding.why = "Two sockets listen on one port only if both set SO_REUSEPORT.".into();
        finding.remedies.push("Stop the process that listens, or set SO_REUSEPORT in both on purpose".into());
        return;
    }
    if !holders.clients.is_empty() {
        finding.why = format!("Outgoing connections of this host may take {port} while nobody listens on it.");
        finding.remedies.push(format!("sysctl net.ipv4.ip_local_reserved_ports={port} (add the ports it has already)"));
        finding.remedies.push("Or choose a port below net.ipv4.ip_local_port_range".into());
        finding.mistakes.push("set SO_REUSEADDR: it does not help against a client's port".into());
        return;
    }
    finding.why =
        "Sockets of the last instance still have the port. With SO_REUSEADDR on them and on the new socket they \
                   do not matter; they inherit it from their listener."
            .into();
    finding.remedies.push(always);
    if !holders.open.is_empty() {
        finding.remedies.push("Stop the old process, or have it close its connections".into());
    } else if !holders.time_wait.is_empty() {
        finding.remedies.push("If the last instance did not set it, try again until they have ended".into());
    }
    finding.mistakes.push("set SO_LINGER to 0: it closes by reset, and data is lost".into());
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{
        NETNS, S, api_listener, failed_call, fired, long_name, nothing, queued, standing, tuple,
    };
    use super::*;
    use crate::model::tcp::{Comm, Task};

    /// `myd[90]` has failed once to bind 0.0.0.0:80.
    fn evidence() -> Evidence {
        let mut evidence = nothing();
        let ip = std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
        let task = Task { pid: 90, tid: 90, comm: Comm::from("myd") };
        evidence.calls.push(Failed { task, address: Some((ip, 80)), ..failed_call(Call::Bind, IN_USE, 1) });
        evidence
    }

    /// A connection of the port, accepted by `api[4711]`.
    fn accepted(conn: u64, state: State) -> Standing {
        let owner = standing(conn, state, 1).owner;
        Standing { accepted: Some(true), owner, ..queued(conn, state, 1) }
    }

    /// A TIME_WAIT of the port, with so many seconds left.
    fn waiting(conn: u64, seconds: u64) -> Standing {
        Standing { left_ns: Some(seconds * S), owner: None, ..accepted(conn, State::TimeWait) }
    }

    fn headline(evidence: &Evidence) -> String {
        fired(&RULE, evidence)[0].headline.clone()
    }

    #[rstest]
    #[case::any_port(Call::Bind, IN_USE, 0, 0)]
    #[case::another_errno(Call::Bind, 13, 80, 0)]
    #[case::another_call(Call::Accept, IN_USE, 80, 0)]
    #[case::in_use(Call::Bind, IN_USE, 80, 1)]
    fn what_fires(#[case] call: Call, #[case] errno: u16, #[case] port: u16, #[case] expected: usize) {
        let mut evidence = evidence();
        let failed = &mut evidence.calls[0];
        (failed.call, failed.errno) = (call, errno);
        failed.address = failed.address.map(|(ip, _)| (ip, port));
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[test]
    fn somebody_listens() {
        let mut evidence = evidence();
        evidence.listeners.push(api_listener(0, 128));
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(finding.headline, "myd[90] cannot bind 0.0.0.0:80: api[4711] still listens on it");
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Certain));
        evidence.sockets.push(accepted(1, State::Established));
        assert_eq!(fired(&RULE, &evidence)[0].confidence, Confidence::Certain);
        evidence.listeners[0].task = Some(evidence.calls[0].task);
        assert_eq!(headline(&evidence), "myd[90] could not bind 0.0.0.0:80 1 time; it listens there now");
    }

    #[test]
    fn time_waits_are_left() {
        let mut evidence = evidence();
        evidence.sockets = (1..=214).map(|conn| waiting(conn, conn % 59)).collect();
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "myd[90] cannot bind 0.0.0.0:80: 214 TIME_WAITs of the last instance hold it for another 58.0s"
        );
        assert_eq!((finding.severity, finding.confidence), (Severity::Critical, Confidence::Certain));
        assert_eq!(finding.evidence[1].text, "port 80: 214 TIME_WAITs");
    }

    #[test]
    fn a_long_name_fits() {
        let mut evidence = evidence();
        evidence.sockets = (1..=214).map(|conn| waiting(conn, conn % 59)).collect();
        evidence.calls[0].task = long_name();
        evidence.calls[0].address = Some(("2001:db8:1111:2222:3333:4444:5555:6666".parse().expect("an address"), 80));
        evidence.sockets.iter_mut().for_each(|it| it.tuple.local_ip = evidence.calls[0].address.expect("one").0);
        let expected =
            "fifteen-letters[4194304] cannot bind [2001:db8:1111:2222:3333:4444:5555:6666]:80: 214 TIME_WAITs hold it";
        assert_eq!(headline(&evidence), expected);
    }

    #[test]
    fn connections_are_open() {
        let mut evidence = evidence();
        evidence.sockets = (1..=12).map(|conn| accepted(conn, State::Established)).collect();
        assert_eq!(
            headline(&evidence),
            "myd[90] cannot bind 0.0.0.0:80: 12 connections of api[4711] are still open on it"
        );
        evidence.sockets.push(waiting(13, 50));
        assert_eq!(fired(&RULE, &evidence)[0].confidence, Confidence::Likely);
    }

    #[test]
    fn a_client_has_the_port() {
        let mut evidence = evidence();
        let socket = standing(1, State::Established, 1);
        evidence.sockets.push(Standing { tuple: tuple((1, 80), (3, 443)), ..socket });
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "myd[90] cannot bind 0.0.0.0:80: api[4711] uses 80 as the local port of a connection to 10.0.0.3:443"
        );
        assert!(finding.remedies[0].starts_with("sysctl net.ipv4.ip_local_reserved_ports=80"));
    }

    #[test]
    fn nobody_has_it_any_more() {
        let mut evidence = evidence();
        evidence.calls[0].count = 3;
        assert_eq!(headline(&evidence), "myd[90] cannot bind 0.0.0.0:80: the port was in use 3 times");
        evidence.bound.push(Bound { netns: Some(NETNS), ip: Ipv6Addr::UNSPECIFIED, port: 80 });
        assert_eq!(
            headline(&evidence),
            "myd[90] cannot bind 0.0.0.0:80: another socket is bound to it and does not listen"
        );
    }

    /// Another address, another namespace and another port are no obstacle.
    #[rstest]
    #[case::address(Some(NETNS), (5, 80))]
    #[case::netns(Some(NETNS + 1), (1, 80))]
    #[case::port(Some(NETNS), (1, 81))]
    fn others_do_not_have_it(#[case] netns: Option<u32>, #[case] local: (u8, u16)) {
        let mut evidence = evidence();
        evidence.calls[0].address = Some((tuple((1, 0), (1, 0)).local_ip, 80));
        evidence.sockets.push(Standing { netns, tuple: tuple(local, (2, 50_000)), ..accepted(1, State::Established) });
        assert_eq!(headline(&evidence), "myd[90] cannot bind 10.0.0.1:80: the port was in use 1 time");
    }
}
