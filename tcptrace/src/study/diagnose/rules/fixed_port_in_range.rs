//! A listener's port is one of those that the kernel hands out to clients.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;

use crate::model::tcp::Side;
use crate::study::diagnose::evidence::{Evidence, Listener};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;
use crate::study::ports::{PortSet, PortSettings};

/// So many ports of a program are named.
const NAMED: usize = 3;

pub(super) static RULE: Rule = Rule {
    id: "fixed-port-in-range",
    title: "a listener's port may be taken by an outgoing connection while it is down",
    needs: &[Need::Sockets, Need::Settings],
    figures: &[
        Figure {
            name: "in_range",
            unit: "",
            doc: "Ports that a program listens on, and that the kernel hands out to outgoing connections.",
        },
        Figure { name: "lport", unit: "", doc: "The first of them; null for none." },
        Figure {
            name: "came_back",
            unit: "",
            doc: "Of those, the ones that another listener had in the window before.",
        },
        Figure {
            name: "used_by_clients",
            unit: "",
            doc: "Of those, the ones that were a client's local port in the window.",
        },
        Figure { name: "listeners", unit: "", doc: "Ports that it listens on." },
        Figure {
            name: "asked_for",
            unit: "",
            doc: "Of the ports in the range, those that bind() asked for by number, as the kernel says; 0 where it was not \
                  asked.",
        },
    ],
    page: Page {
        sees: "A server that mostly restarts, but sometimes gets \"address already in use\" although it sets SO_REUSEADDR.",
        fires: "A listener has a port of net.ipv4.ip_local_port_range that net.ipv4.ip_local_reserved_ports does not name. It \
                was there before the window and asked for this port by number, or another listener had the port before it. \
                A warning if a client of this host has had the port as its local one.",
        silent: "The port is reserved, or outside the range, or the kernel chose it: the program bound port 0, and takes any.",
        remedy: "Reserve the port: sysctl net.ipv4.ip_local_reserved_ports=PORT. An explicit bind() still gets it.",
        sources: "Documentation/networking/ip-sysctl.rst (ip_local_reserved_ports); inet_csk_bind_conflict (net/ipv4).",
    },
    check,
};

/// What a program listens on in a network namespace.
#[derive(Default)]
struct Program<'e> {
    /// Listeners whose port the kernel hands out, one of each port.
    in_range: BTreeMap<u16, &'e Listener>,
    /// Of those, the ports that another listener has had before.
    came_back: u64,
    /// Of those, the ports that a client has had.
    used: u64,
    /// Of those, the ports that bind() asked for.
    asked_for: u64,
    /// Ports of all its listeners.
    ports: PortSet,
}

fn check(evidence: &Evidence) -> Outcome {
    let settings: HashMap<Option<u32>, PortSettings, FixedState> =
        evidence.settings.iter().filter_map(|(netns, of)| Some((*netns, PortSettings::of(of)?))).collect();
    if settings.is_empty() {
        return Outcome::NotChecked("the range of local ports is unknown".into());
    }
    let programs = programs(evidence, &settings);
    let findings = programs.iter().filter(|it| !it.in_range.is_empty()).map(finding).collect();
    Outcome::of(findings, programs.first().map(figures).unwrap_or_default())
}

/// By the process that listens; those with ports in the range first.
fn programs<'e>(evidence: &'e Evidence, settings: &HashMap<Option<u32>, PortSettings, FixedState>) -> Vec<Program<'e>> {
    let mut programs: BTreeMap<(Option<u32>, Option<u32>), Program<'e>> = BTreeMap::new();
    for listener in &evidence.listeners {
        let Some(of) = settings.get(&listener.netns).or_else(|| settings.get(&None)) else { continue };
        let port = listener.queue.port;
        let program = programs.entry((listener.netns, listener.task.map(|task| task.pid))).or_default();
        program.ports.add(port);
        let is_handed_out = of.range.has(port) && of.reserved.as_ref().is_none_or(|reserved| !reserved.has(port));
        let came_back = evidence.left_ports.contains(&(listener.netns, port));
        // One that did not ask for this port does not miss it when it is taken. A new one may have asked for any.
        let may_want_it = came_back || listener.is_old && listener.queue.autobound != Some(true);
        if !is_handed_out || !may_want_it || program.in_range.insert(port, listener).is_some() {
            continue;
        }
        program.came_back += u64::from(came_back);
        program.asked_for += u64::from(listener.queue.autobound == Some(false));
        program.used += u64::from(is_used(evidence, listener));
    }
    let mut programs: Vec<_> = programs.into_values().collect();
    programs.sort_by_key(|it| std::cmp::Reverse((it.used, it.in_range.len())));
    programs
}

/// Whether a client has the port of a listener, or has had it in the window.
fn is_used(evidence: &Evidence, listener: &Listener) -> bool {
    let (netns, port) = (listener.netns, listener.queue.port);
    let has_it = |socket: &crate::study::diagnose::evidence::Standing| {
        socket.side == Side::Client && (socket.netns, socket.tuple.local_port) == (netns, port)
    };
    evidence.client_ports.get(&netns).is_some_and(|ports| ports.has(port)) || evidence.sockets.iter().any(has_it)
}

fn figures(program: &Program<'_>) -> Figures {
    vec![
        ("in_range", Value::Count(program.in_range.len() as u64)),
        ("lport", program.in_range.keys().next().copied().into()),
        ("came_back", Value::Count(program.came_back)),
        ("used_by_clients", Value::Count(program.used)),
        ("listeners", Value::Count(program.ports.count().into())),
        ("asked_for", Value::Count(program.asked_for)),
    ]
}

fn finding(program: &Program<'_>) -> Finding {
    let severity = if program.used > 0 { Severity::Warning } else { Severity::Note };
    let is_asked_for = program.asked_for == program.in_range.len() as u64;
    let confidence = if is_asked_for { Confidence::Certain } else { Confidence::Possible };
    let mut finding = Finding::new(RULE.id, severity, confidence, headline(program));
    let first = program.in_range.values().next();
    let is_one = program.in_range.len() == 1;
    if let Some(listener) = first {
        finding.subject = Subject {
            task: listener.task,
            netns: listener.netns,
            local: Some(say::end(listener.queue.ip, listener.queue.port)).filter(|_| is_one),
            lport: Some(listener.queue.port).filter(|_| is_one),
            side: Some(Side::Server),
            ..Subject::default()
        };
    }
    finding.figures = figures(program);
    finding.count = program.in_range.len() as u64;
    let before = say::counted(program.came_back, "port");
    if program.came_back > 0 {
        finding.line("seen", format!("{before} that another listener had before in the window"));
    }
    match program.used {
        0 => finding.line("seen, sock_diag", "no client of this host has had it as its local port in the window"),
        used => {
            let ports = say::counted(used, "port");
            finding.line("seen, sock_diag", format!("{ports} that a client of this host has had as its local one"));
        }
    }
    finding.why = "connect() takes any free port of the range. While the server is down that can be its own, and then \
                   bind() fails, with SO_REUSEADDR too."
        .into();
    let ports: Vec<String> = program.in_range.keys().take(64).map(u16::to_string).collect();
    finding.remedies.push(format!(
        "sysctl net.ipv4.ip_local_reserved_ports={}, beside those that are reserved already; bind() still gets it",
        ports.join(",")
    ));
    finding.remedies.push("Or give the server a port outside net.ipv4.ip_local_port_range".into());
    finding.sure = match program.came_back {
        _ if is_asked_for => "certain: the kernel hands out the port, and the program asked for it by number",
        0 => {
            "certain that the kernel hands out the port; that the program needs this very port is possible: the same port \
             after a restart would prove it"
        }
        _ => "certain that the kernel hands out the port; that the program needs it is likely: it came back to it",
    }
    .into();
    finding
}

fn headline(program: &Program<'_>) -> String {
    let task = program.in_range.values().find_map(|listener| listener.task);
    let who = task.map_or_else(|| "an unknown process".to_owned(), say::process);
    let named: Vec<String> = program.in_range.keys().take(NAMED).map(u16::to_string).collect();
    let more = match program.in_range.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let ports = if program.in_range.len() == 1 { "port" } else { "ports" };
    let base = format!("{who} listens on {ports} {}{more}", named.join(", "));
    say::fitting([
        format!("{base}, which outgoing connections of this host may take while it is down"),
        format!("{base}, which outgoing connections may take while it is down"),
        format!("{base}, which clients may take while it is down"),
    ])
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rstest::rstest;

    use super::super::testing::{NETNS, fired, listener, standing, with_settings};
    use super::*;
    use crate::model::tcp::State;

    const RANGE: (&str, &str) = ("net.ipv4.ip_local_port_range", "32768 60999");

    /// `redis[12]` has listened on a port since before the window.
    fn evidence(port: u16, reserved: &str) -> Evidence {
        let mut evidence = with_settings(&[RANGE, ("net.ipv4.ip_local_reserved_ports", reserved)]);
        evidence.listeners.push(listener(NETNS, Ipv4Addr::UNSPECIFIED, port));
        evidence
    }

    #[rstest]
    #[case::below_the_first(32_767, "", 0)]
    #[case::the_first(32_768, "", 1)]
    #[case::the_last(60_999, "", 1)]
    #[case::above_the_last(61_000, "", 0)]
    #[case::another_one_is_reserved(50_051, "50052", 1)]
    #[case::reserved(50_051, "50051", 0)]
    #[case::reserved_among_others(50_051, "8080,50000-50100", 0)]
    fn ports(#[case] port: u16, #[case] reserved: &str, #[case] expected: usize) {
        assert_eq!(fired(&RULE, &evidence(port, reserved)).len(), expected);
    }

    #[rstest]
    #[case::it_was_there(true, false, 1)]
    #[case::it_is_new(false, false, 0)]
    #[case::it_came_back(false, true, 1)]
    fn a_new_one_may_have_asked_for_any_port(#[case] is_old: bool, #[case] came_back: bool, #[case] expected: usize) {
        let mut evidence = evidence(50_051, "");
        evidence.listeners[0].is_old = is_old;
        if came_back {
            evidence.left_ports.insert((Some(NETNS), 50_051));
        }
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    /// The kernel chose the port of a listener that bound port 0.
    #[rstest]
    #[case::asked_for(Some(false), false, Some(Confidence::Certain))]
    #[case::chosen(Some(true), false, None)]
    #[case::chosen_and_it_came_back(Some(true), true, Some(Confidence::Possible))]
    #[case::unknown(None, false, Some(Confidence::Possible))]
    fn who_chose_the_port(
        #[case] autobound: Option<bool>,
        #[case] came_back: bool,
        #[case] expected: Option<Confidence>,
    ) {
        let mut evidence = evidence(50_051, "");
        evidence.listeners[0].queue.autobound = autobound;
        if came_back {
            evidence.left_ports.insert((Some(NETNS), 50_051));
        }
        let confidence = fired(&RULE, &evidence).first().map(|finding| finding.confidence);
        assert_eq!(confidence, expected);
    }

    #[rstest]
    #[case::now(50_051, None, Severity::Warning)]
    #[case::in_the_window(40_000, Some(50_051), Severity::Warning)]
    #[case::another_port(50_050, Some(50_052), Severity::Note)]
    fn a_client_has_it(#[case] now: u16, #[case] before: Option<u16>, #[case] expected: Severity) {
        let mut evidence = evidence(50_051, "");
        let mut socket = standing(1, State::Established, 1);
        socket.tuple.local_port = now;
        evidence.sockets.push(socket);
        evidence.client_ports.insert(Some(NETNS), before.into_iter().collect());
        assert_eq!(fired(&RULE, &evidence)[0].severity, expected);
    }

    #[test]
    fn without_a_range_nothing_is_checked() {
        let mut evidence = with_settings(&[]);
        evidence.listeners.push(listener(NETNS, Ipv4Addr::UNSPECIFIED, 50_051));
        assert!(matches!((RULE.check)(&evidence), Outcome::NotChecked(_)));
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &evidence(50_051, ""))[0];
        assert_eq!(
            finding.headline,
            "redis[12] listens on port 50051, which outgoing connections of this host may take while it is down"
        );
        assert_eq!((finding.severity, finding.confidence), (Severity::Note, Confidence::Possible));
        assert!(finding.remedies[0].starts_with("sysctl net.ipv4.ip_local_reserved_ports=50051, "));
    }

    /// A finding a program, whatever the number of its ports and of its addresses.
    #[test]
    fn words_of_several_ports() {
        let mut evidence = evidence(50_051, "");
        let ports = [50_051, 50_052, 50_053, 50_054, 80];
        evidence.listeners.extend(ports.map(|port| listener(NETNS, Ipv4Addr::LOCALHOST, port)));
        let found = fired(&RULE, &evidence);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].headline,
            "redis[12] listens on ports 50051, 50052, 50053 and 1 more, which clients may take while it is down"
        );
        assert_eq!(found[0].figures[4], ("listeners", Value::Count(5)));
    }
}
