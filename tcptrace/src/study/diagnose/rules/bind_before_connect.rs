//! A client that binds a port before it connects: its ports are for all destinations together.

use super::words::connections_per_second;
use crate::model::event::Call;
use crate::study::diagnose::evidence::{Binder, Evidence, Failed};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;
use crate::study::ports::SourceBudget;

/// So many are a habit.
const MANY: u64 = 50;
/// With one destination the ports are as many either way.
const DESTINATIONS: usize = 2;
/// From this part of the range on, it shortens what others have.
const SHARE: f64 = 0.1;
/// `EADDRINUSE`.
const IN_USE: u16 = 98;
/// Destinations are counted up to here.
const MOST_DESTINATIONS: usize = 64;

pub(super) static RULE: Rule = Rule {
    id: "bind-before-connect",
    title: "a client binds a port before connect(), so that all destinations share its ports",
    needs: &[Need::Events, Need::Settings],
    figures: &[
        Figure { name: "bound", unit: "", doc: "Connections from one address that were bound before connect()." },
        Figure { name: "destinations", unit: "", doc: "Different destinations of those; 64 at most are counted." },
        Figure { name: "sockets", unit: "", doc: "Ports that such sockets and their TIME_WAITs take now." },
        Figure { name: "usable", unit: "", doc: "Ports of the range that are not reserved." },
        Figure { name: "sockets_share", unit: "", doc: "The part of the usable ones that they take." },
        Figure {
            name: "lacks_no_port",
            unit: "",
            doc: "Whether IP_BIND_ADDRESS_NO_PORT is not set; null when unknown.",
        },
        Figure { name: "refused", unit: "", doc: "bind() of port 0 that failed with EADDRINUSE in the window." },
    ],
    page: Page {
        sees: "EADDRINUSE (\"address already in use\") from a client; ports run out although there are many destinations.",
        fires: "50 or more connections from one source address to 2 or more destinations had a port of the range before \
                connect(), and their sockets and TIME_WAITs take 10 % or more of the range.",
        silent: "IP_BIND_ADDRESS_NO_PORT is set, or there is one destination only: then nothing is lost.",
        remedy: "Set IP_BIND_ADDRESS_NO_PORT before bind() (Linux 4.2 and later), or do not bind where the route picks the \
                 same address.",
        sources: "inet_csk_get_port, inet_csk_find_open_port (net/ipv4/inet_connection_sock.c); tb->fastreuse in \
                  __inet_hash_connect.",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let findings = evidence.binders.iter().filter_map(|binder| finding(evidence, binder)).collect();
    let most = evidence.binders.first();
    Outcome::of(findings, most.map(|binder| figures(evidence, binder)).unwrap_or_default())
}

fn budget<'e>(evidence: &'e Evidence, binder: &Binder) -> Option<&'e SourceBudget> {
    let mut sources = evidence.budgets.sources.iter();
    sources.find(|it| it.netns == binder.netns && it.budget.source == binder.ip).map(|it| &it.budget)
}

fn share(budget: &SourceBudget) -> f64 {
    super::words::share(budget.bound.into(), budget.usable.into())
}

/// Calls of bind() that found no port for this address.
fn refused(evidence: &Evidence, binder: &Binder) -> u64 {
    let is_it = |call: &&Failed| {
        call.call == Call::Bind
            && call.errno == IN_USE
            && call.netns == binder.netns
            && call
                .address
                .is_some_and(|(ip, port)| port == 0 && (ip == binder.ip || ip.to_canonical().is_unspecified()))
    };
    evidence.calls.iter().filter(is_it).map(|call| call.count).sum()
}

fn figures(evidence: &Evidence, binder: &Binder) -> Figures {
    let budget = budget(evidence, binder);
    vec![
        ("bound", Value::Count(binder.opened)),
        ("destinations", Value::Count(binder.destinations as u64)),
        ("sockets", budget.map(|it| it.bound).into()),
        ("usable", budget.map(|it| it.usable).into()),
        ("sockets_share", budget.map_or(Value::Unknown, |it| Value::Share(share(it)))),
        ("lacks_no_port", binder.lacks_no_port.map_or(Value::Unknown, Value::Is)),
        ("refused", Value::Count(refused(evidence, binder))),
    ]
}

fn finding(evidence: &Evidence, binder: &Binder) -> Option<Finding> {
    let budget = budget(evidence, binder)?;
    if binder.opened < MANY || binder.destinations < DESTINATIONS || share(budget) < SHARE {
        return None;
    }
    let refused = refused(evidence, binder);
    let severity = if refused > 0 { Severity::Critical } else { Severity::Warning };
    let is_certain = binder.lacks_no_port == Some(true);
    let confidence = if is_certain { Confidence::Certain } else { Confidence::Likely };
    let mut finding = Finding::new(RULE.id, severity, confidence, headline(binder, budget));
    let only = binder.tasks.first().filter(|_| binder.tasks.len() == 1);
    finding.subject = Subject {
        task: only.map(|(task, _)| *task),
        netns: binder.netns,
        local: Some(say::end(binder.ip, 0)),
        side: Some(crate::model::tcp::Side::Client),
        ..Subject::default()
    };
    finding.figures = figures(evidence, binder);
    finding.count = binder.opened;
    let rate = connections_per_second(evidence, binder.opened);
    let destinations = destinations(binder);
    finding.line(
        "seen",
        format!(
            "{} connections ({rate}) to {destinations} destinations had a port before connect()",
            say::count(binder.opened)
        ),
    );
    finding.line(
        "sysctl, sock_diag",
        format!(
            "they take {} of {} ports ({}); bind() has {} left for this address",
            say::count(budget.bound),
            say::count(budget.usable),
            say::percent(share(budget)),
            say::count(budget.free)
        ),
    );
    if refused > 0 {
        finding.line("seen", format!("bind() failed {refused} times with EADDRINUSE"));
        finding.seconds_left = Some(0.0);
    }
    finding.why =
        "bind() without IP_BIND_ADDRESS_NO_PORT must find a port that is free for every destination. While such a \
                   socket or its TIME_WAIT is there, no other connect() may use the port either."
            .into();
    finding.remedies.push(
        "Set IP_BIND_ADDRESS_NO_PORT before bind() (Linux 4.2; Go: net.Dialer.Control; Envoy: a socket option of the cluster)"
            .into(),
    );
    finding.remedies.push("Drop the bind() where the route picks the same source address".into());
    finding.mistakes.push("set SO_REUSEADDR on the client: it has no effect on connect()".into());
    finding.mistakes.push("set tcp_tw_reuse: it has no effect on bind()".into());
    finding.sure = if is_certain {
        "certain: the sockets had a port before connect(), and IP_BIND_ADDRESS_NO_PORT is not set".into()
    } else {
        "certain that ports were bound before connect(); that the option is missing is likely: the program may want a fixed \
         port"
            .into()
    };
    Some(finding)
}

fn destinations(binder: &Binder) -> String {
    let more = if binder.destinations >= MOST_DESTINATIONS { "≥" } else { "" };
    format!("{more}{}", binder.destinations)
}

fn headline(binder: &Binder, budget: &SourceBudget) -> String {
    let process = match binder.tasks.first() {
        None => "an unknown process".to_owned(),
        Some((task, _)) if binder.tasks.len() == 1 => say::process(*task),
        Some((task, _)) if binder.tasks.iter().all(|(other, _)| other.comm == task.comm) => {
            format!("{} ({} processes)", say::comm(task.comm), binder.tasks.len())
        }
        Some((task, _)) => format!("{} and others", say::process(*task)),
    };
    let (ip, ports, all) = (say::address(binder.ip), say::count(budget.usable), destinations(binder));
    say::fitting([
        format!(
            "{process} binds a port before each connect: {ip} has {ports} ports for all {all} destinations together instead of for each"
        ),
        format!(
            "{process} binds a port before each connect: {ip} has {ports} ports for all {all} destinations together"
        ),
        format!("{process} binds a port before each connect: {ports} ports for all {all} destinations together"),
    ])
}

#[cfg(test)]
pub(in crate::study::diagnose) mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, api, fired, standing, tuple, with_settings};
    use super::*;
    use crate::model::tcp::State;
    use crate::study::diagnose::evidence::Budgets;

    /// 1,000 ports; so many sockets that were bound, of so many connections, to so many destinations.
    pub(in crate::study::diagnose) fn binding(opened: u64, destinations: usize, sockets: u64) -> Evidence {
        let mut evidence = with_settings(&[("net.ipv4.ip_local_port_range", "40000 40999")]);
        evidence.sockets = (0..sockets).map(|conn| standing(conn, State::TimeWait, 10)).collect();
        evidence.bound_first = (0..sockets).map(|conn| (conn, true)).collect();
        evidence.binders.push(Binder {
            netns: Some(NETNS),
            ip: tuple((1, 0), (9, 0)).local_ip,
            opened,
            destinations,
            tasks: vec![(api(), opened)],
            lacks_no_port: None,
        });
        evidence.budgets = Budgets::of(&evidence);
        evidence
    }

    #[rstest]
    #[case::few(49, 2, 100, 0)]
    #[case::many(50, 2, 100, 1)]
    #[case::one_destination(50, 1, 100, 0)]
    #[case::few_ports(50, 2, 99, 0)]
    fn thresholds(#[case] opened: u64, #[case] destinations: usize, #[case] sockets: u64, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &binding(opened, destinations, sockets)).len(), expected);
    }

    #[rstest]
    #[case::unknown(None, Confidence::Likely)]
    #[case::set_somewhere(Some(false), Confidence::Likely)]
    #[case::not_set(Some(true), Confidence::Certain)]
    fn the_option_is_seen(#[case] lacks: Option<bool>, #[case] expected: Confidence) {
        let mut evidence = binding(50, 2, 100);
        evidence.binders[0].lacks_no_port = lacks;
        assert_eq!(fired(&RULE, &evidence)[0].confidence, expected);
    }

    #[test]
    fn a_bind_that_fails_is_critical() {
        let mut evidence = binding(50, 2, 100);
        let call = |port, errno| Failed {
            call: Call::Bind,
            errno,
            task: api(),
            netns: Some(NETNS),
            address: Some((tuple((1, 0), (9, 0)).local_ip, port)),
            count: 7,
            first: 0,
            last: 0,
        };
        evidence.calls = vec![call(80, IN_USE), call(0, 13)];
        assert_eq!(fired(&RULE, &evidence)[0].severity, Severity::Warning);
        evidence.calls.push(call(0, IN_USE));
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!((finding.severity, finding.figures[6].1), (Severity::Critical, Value::Count(7)));
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &binding(500, 10, 400))[0];
        let expected =
            "api[4711] binds a port before each connect: 10.0.0.1 has 1,000 ports for all 10 destinations together";
        assert_eq!(finding.headline, expected);
        assert_eq!(
            finding.evidence[1].text,
            "they take 400 of 1,000 ports (40 %); bind() has 600 left for this address"
        );
    }
}
