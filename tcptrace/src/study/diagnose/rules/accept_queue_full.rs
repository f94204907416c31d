//! A listener whose accept queue is full: the kernel drops SYNs and handshakes.

use super::listening;
use crate::study::diagnose::evidence::{Evidence, Listener};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So many clients that had to wait are no accident.
const MANY: u64 = 10;
/// Or such a part of all that came in.
const SHARE: f64 = 0.01;
/// The limit of the limit.
const SOMAXCONN: &str = "net.core.somaxconn";

pub(super) static RULE: Rule = Rule {
    id: "accept-queue-full",
    title: "an accept queue is full, so that the kernel drops SYNs and handshakes",
    needs: &[Need::Counters],
    figures: &[
        Figure { name: "overflows", unit: "", doc: "ListenOverflows of the namespace in the window." },
        Figure { name: "drops", unit: "", doc: "ListenDrops: the same, and what was dropped for other reasons." },
        Figure { name: "passive_opens", unit: "", doc: "PassiveOpens: connections that came in." },
        Figure {
            name: "most_queued",
            unit: "",
            doc: "The longest that the accept queue was seen; null when nobody looked.",
        },
        Figure { name: "queue_limit", unit: "", doc: "How many may wait: one more than this fit." },
        Figure { name: "somaxconn", unit: "", doc: "The value of net.core.somaxconn." },
    ],
    page: Page {
        sees: "Some connects take 1s, 3s or longer; SYNs go unanswered.",
        fires: "ListenOverflows has grown in the window. ListenDrops alone is no sign: it counts every SYN that was refused. \
                Repeated SYNs count again, so the number is not that of clients.",
        silent: "A queue that is not empty, and no overflow.",
        remedy: "Find out why the process does not accept (CPU, blocked threads, descriptors). Then raise its backlog, then \
                 net.core.somaxconn: listen() reads it, so that it takes effect at the next listen().",
        sources: "tcp_conn_request, tcp_v4_syn_recv_sock, sk_acceptq_is_full (net/ipv4): full is more than the limit.",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let mut findings = Vec::new();
    let mut compared = Figures::new();
    for netns in evidence.counters.keys().copied() {
        let fullest = fullest(evidence, netns);
        let figures = figures(evidence, netns, fullest);
        if evidence.grown(netns, "TcpExt.ListenOverflows") > 0 {
            findings.push(finding(evidence, netns, fullest, figures));
        } else if compared.is_empty() {
            compared = figures;
        }
    }
    Outcome::of(findings, compared)
}

/// The listener whose queue was seen full, or came nearest to its limit.
fn fullest(evidence: &Evidence, netns: u32) -> Option<&Listener> {
    let there = evidence.listeners.iter().filter(|listener| listener.netns == Some(netns) && listener.most_queued > 0);
    there.max_by_key(|listener| {
        (is_full(listener), u64::from(listener.most_queued) * 1000 / (u64::from(listener.queue.limit) + 1))
    })
}

fn is_full(listener: &Listener) -> bool {
    listener.most_queued > listener.queue.limit
}

/// The listener that the kernel has dropped for, and whether that is certain.
fn culprit<'e>(evidence: &Evidence, netns: u32, fullest: Option<&'e Listener>) -> Option<(&'e Listener, bool)> {
    let listener = fullest?;
    let others = evidence.listeners.iter().filter(|it| it.netns == Some(netns) && it.most_queued > 0).count();
    match is_full(listener) {
        true => Some((listener, true)),
        false if others == 1 => Some((listener, false)),
        false => None,
    }
}

fn figures(evidence: &Evidence, netns: u32, fullest: Option<&Listener>) -> Figures {
    vec![
        ("overflows", Value::Count(evidence.grown(netns, "TcpExt.ListenOverflows"))),
        ("drops", Value::Count(evidence.grown(netns, "TcpExt.ListenDrops"))),
        ("passive_opens", Value::Count(evidence.grown(netns, "Tcp.PassiveOpens"))),
        ("most_queued", fullest.map(|listener| listener.most_queued).into()),
        ("queue_limit", fullest.map(|listener| listener.queue.limit).into()),
        ("somaxconn", somaxconn(evidence, netns).into()),
    ]
}

fn somaxconn(evidence: &Evidence, netns: u32) -> Option<u64> {
    u64::try_from(evidence.number(Some(netns), SOMAXCONN)?).ok()
}

fn finding(evidence: &Evidence, netns: u32, fullest: Option<&Listener>, figures: Figures) -> Finding {
    let overflows = evidence.grown(netns, "TcpExt.ListenOverflows");
    let opens = evidence.grown(netns, "Tcp.PassiveOpens");
    let is_bad = overflows >= MANY || overflows as f64 >= SHARE * opens as f64;
    let severity = if is_bad { Severity::Critical } else { Severity::Warning };
    let culprit = culprit(evidence, netns, fullest);
    let confidence = match culprit {
        Some((_, false)) => Confidence::Likely,
        _ => Confidence::Certain,
    };
    let mut finding = Finding::new(RULE.id, severity, confidence, headline(evidence, netns, culprit, overflows));
    finding.subject = match culprit {
        Some((listener, _)) => listening::subject(listener),
        None => Subject { netns: Some(netns), ..Subject::default() },
    };
    finding.figures = figures;
    let drops = evidence.grown(netns, "TcpExt.ListenDrops");
    finding.line(
        "/proc/net/netstat",
        format!(
            "ListenOverflows {}, ListenDrops {}; {} came in",
            say::count(overflows),
            say::count(drops),
            say::counted(opens, "connection")
        ),
    );
    if let Some((listener, _)) = culprit {
        finding.line("sock_diag, sysctl", limits(listener, somaxconn(evidence, netns)));
    }
    advise(evidence, netns, culprit, &mut finding);
    finding.count = overflows;
    finding.seconds_left = is_bad.then_some(0.0);
    finding
}

fn headline(evidence: &Evidence, netns: u32, culprit: Option<(&Listener, bool)>, overflows: u64) -> String {
    let dropped = match overflows {
        1 => "1 SYN or handshake dropped".to_owned(),
        _ => format!("{} SYNs and handshakes dropped", say::count(overflows)),
    };
    let window = listening::window(evidence);
    let Some((listener, is_certain)) = culprit else {
        return format!("a listener of netns {netns} accepts too slowly: {dropped} in {window}");
    };
    let end = listening::end(listener);
    let who = match listener.task {
        Some(task) => format!("{} accepts too slowly on {end}", say::process(task)),
        None => format!("the listener of {end} accepts too slowly"),
    };
    let (most, limit) = (say::count(listener.most_queued), say::count(listener.queue.limit));
    if !is_certain {
        return say::fitting([format!("{who}: {dropped} in {window}"), format!("{who}: {dropped}"), who]);
    }
    say::fitting([
        format!(
            "{who}: {most} connections in a queue for {limit}, {dropped} in {window}; those clients wait 1s and more"
        ),
        format!("{who}: {most} connections in a queue for {limit}, {dropped} in {window}"),
        format!("{who}: {most} in a queue for {limit}, {dropped} in {window}"),
        format!("{who}: {most} in a queue for {limit}, {dropped}"),
        format!("{who}: {dropped} in {window}"),
        format!("{who}: {dropped}"),
        who,
    ])
}

/// What bounds the queue: the kernel takes the smaller one of what `listen()` asks for and `somaxconn`, at that moment.
fn limits(listener: &Listener, somaxconn: Option<u64>) -> String {
    let limit = u64::from(listener.queue.limit);
    let queue = format!("up to {} in the queue, limit {}", say::count(listener.most_queued), say::count(limit));
    match somaxconn {
        Some(most) if limit < most => format!("{queue} as listen() asked, somaxconn {}", say::count(most)),
        Some(most) if limit == most => format!("{queue} as somaxconn: listen() asked for that or more"),
        Some(most) => format!("{queue}, somaxconn {} since", say::count(most)),
        None => queue,
    }
}

fn advise(evidence: &Evidence, netns: u32, culprit: Option<(&Listener, bool)>, finding: &mut Finding) {
    finding.why =
        "A full accept queue makes the kernel drop SYNs and the last ACKs of handshakes; the client tries again \
                   after 1s and more."
            .into();
    finding.remedies.push("Find out why the process does not accept: CPU, blocked threads, descriptors".into());
    let is_capped = culprit
        .and_then(|(listener, _)| Some(u64::from(listener.queue.limit) >= somaxconn(evidence, netns)?))
        .unwrap_or(false);
    finding.remedies.push(if is_capped {
        "Raise net.core.somaxconn and the program's backlog, and restart the program: listen() reads them".into()
    } else {
        "Raise the program's backlog; net.core.somaxconn too, before its next listen(), if it asks for more".into()
    });
    finding
        .mistakes
        .push("set tcp_abort_on_overflow=1: it resets handshakes, and SYNs are dropped all the same".into());
    finding.mistakes.push("raise tcp_max_syn_backlog: it has no effect while tcp_syncookies is on".into());
    finding.sure = match culprit {
        Some((_, true)) => "certain: the kernel counted, and the queue was seen full",
        Some((_, false)) => {
            "certain that an accept queue overflowed; that it is this one is likely: no other listener had a queue"
        }
        None => "certain that an accept queue overflowed; no queue was seen full, so whose it is is unknown",
    }
    .into();
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, api_listener, fired, long_name, nothing};
    use super::*;
    use crate::study::diagnose::evidence::Counted;

    /// So many overflows of so many connections, while so many were seen in a queue for 511.
    fn evidence(overflows: u64, opens: u64, most_queued: u32) -> Evidence {
        let mut evidence = nothing();
        let grown = [
            ("TcpExt.ListenOverflows".into(), overflows),
            ("TcpExt.ListenDrops".into(), overflows + 3),
            ("Tcp.PassiveOpens".into(), opens),
        ];
        evidence.counters.insert(NETNS, Counted { grown: grown.into_iter().collect(), ..Counted::default() });
        evidence.listeners.push(api_listener(most_queued, 511));
        evidence
    }

    #[rstest]
    #[case::none(0, 1_000, None)]
    #[case::one(1, 1_000, Some(Severity::Warning))]
    #[case::nine(9, 1_000, Some(Severity::Warning))]
    #[case::a_hundredth(1, 100, Some(Severity::Critical))]
    #[case::less(1, 101, Some(Severity::Warning))]
    #[case::ten(10, 1_000_000, Some(Severity::Critical))]
    fn severity(#[case] overflows: u64, #[case] opens: u64, #[case] expected: Option<Severity>) {
        let findings = fired(&RULE, &evidence(overflows, opens, 512));
        assert_eq!(findings.first().map(|finding| finding.severity), expected);
    }

    #[rstest]
    #[case::seen_full(512, Confidence::Certain, Some(80))]
    #[case::the_only_queue(511, Confidence::Likely, Some(80))]
    #[case::no_queue(0, Confidence::Certain, None)]
    fn whose_queue_it_is(#[case] most: u32, #[case] expected: Confidence, #[case] port: Option<u16>) {
        let finding = &fired(&RULE, &evidence(20, 1_000, most))[0];
        assert_eq!((finding.confidence, finding.subject.lport), (expected, port));
    }

    #[test]
    fn among_two_that_were_not_full_nobody_is_named() {
        let mut evidence = evidence(20, 1_000, 5);
        let mut other = api_listener(4, 511);
        (other.queue.conn, other.queue.port) = (99, 443);
        evidence.listeners.push(other);
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(finding.subject.lport, None);
        assert_eq!(
            finding.headline,
            "a listener of netns 7 accepts too slowly: 20 SYNs and handshakes dropped in 10.0s"
        );
    }

    #[test]
    fn words() {
        let mut evidence = evidence(2_318, 20_000, 512);
        evidence.settings = super::super::testing::with_settings(&[(SOMAXCONN, "4096")]).settings;
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "api[4711] accepts too slowly on 0.0.0.0:80: 512 in a queue for 511, 2,318 SYNs and handshakes dropped in 10.0s"
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "ListenOverflows 2,318, ListenDrops 2,321; 20,000 connections came in",
                "up to 512 in the queue, limit 511 as listen() asked, somaxconn 4,096",
            ]
        );
    }

    #[test]
    fn a_long_name_fits() {
        let mut evidence = evidence(2_318, 20_000, 512);
        evidence.listeners[0].task = Some(long_name());
        evidence.listeners[0].queue.ip = "2001:db8:1111:2222:3333:4444:5555:6666".parse().expect("an address");
        assert_eq!(
            fired(&RULE, &evidence)[0].headline,
            "fifteen-letters[4194304] accepts too slowly on [2001:db8:1111:2222:3333:4444:5555:6666]:80"
        );
    }

    #[rstest]
    #[case(None, "up to 9 in the queue, limit 511")]
    #[case(Some(511), "up to 9 in the queue, limit 511 as somaxconn: listen() asked for that or more")]
    #[case(Some(128), "up to 9 in the queue, limit 511, somaxconn 128 since")]
    fn what_bounds_it(#[case] somaxconn: Option<u64>, #[case] expected: &str) {
        assert_eq!(limits(&api_listener(9, 511), somaxconn), expected);
    }
}
