//! A SYN queue that is full: the kernel answers with SYN cookies, or drops SYNs.

use super::counted::{in_window, lacks_time};
use super::listening;
use super::words::share;
use crate::study::diagnose::evidence::{Evidence, Listener};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So many are no single client that repeats its SYN.
const MANY: u64 = 10;
/// So many cookies come back from clients that are real.
const REAL: f64 = 0.5;
/// And fewer than so many where nobody finishes the handshake.
const NOBODY: f64 = 0.1;
/// Whether cookies are sent: 0 never, 1 when the queue is full, 2 always.
const COOKIES: &str = "net.ipv4.tcp_syncookies";
/// A limit of its own, without cookies.
const BACKLOG: &str = "net.ipv4.tcp_max_syn_backlog";

pub(super) static RULE: Rule = Rule {
    id: "syn-queue-full",
    title: "a SYN queue is full, so that the kernel sends SYN cookies or drops SYNs",
    needs: &[Need::Counters],
    figures: &[
        Figure { name: "full_cookies", unit: "", doc: "TCPReqQFullDoCookies: SYNs answered with a cookie." },
        Figure { name: "full_drops", unit: "", doc: "TCPReqQFullDrop: SYNs dropped because the queue was full." },
        Figure {
            name: "other_drops",
            unit: "",
            doc: "ListenDrops that neither a full accept queue nor a full SYN queue explains.",
        },
        Figure { name: "cookies_sent", unit: "", doc: "SyncookiesSent." },
        Figure { name: "cookies_received", unit: "", doc: "SyncookiesRecv: those that clients have brought back." },
        Figure { name: "most_requests", unit: "", doc: "The most SYN_RECVs of the fullest listener; null: none seen." },
        Figure { name: "queue_limit", unit: "", doc: "Its limit, that of its accept queue, too." },
        Figure { name: "syncookies", unit: "", doc: "The value of tcp_syncookies." },
        Figure { name: "max_syn_backlog", unit: "", doc: "The value of tcp_max_syn_backlog." },
    ],
    page: Page {
        sees: "Sockets in SYN_RECV in numbers, \"possible SYN flooding\" in the kernel's log, connects that take seconds.",
        fires: "TCPReqQFullDoCookies or TCPReqQFullDrop has grown by 10 or more in the window: one client repeats its SYN less \
                often. With tcp_syncookies=2 the first one counts every SYN, and is no sign. With tcp_syncookies=0, 10 drops \
                or more that no full queue explains are those of tcp_max_syn_backlog.",
        silent: "Some in SYN_RECV for milliseconds.",
        remedy: "Clients that come back: raise the backlog of listen() and net.core.somaxconn, which bound this queue, too. A \
                 flood: the cookies do their work; filter upstream.",
        sources: "tcp_conn_request, inet_csk_reqsk_queue_is_full (net/ipv4); RFC 4987.",
    },
    check,
};

/// What a network namespace has counted.
struct Queue<'e> {
    netns: u32,
    cookies: u64,
    drops: u64,
    others: u64,
    sent: u64,
    received: u64,
    mode: Option<i64>,
    fullest: Option<&'e Listener>,
    /// The only listener with requests.
    is_only: bool,
}

fn check(evidence: &Evidence) -> Outcome {
    if let Some(reason) = lacks_time(evidence) {
        return Outcome::NotChecked(reason);
    }
    let queues: Vec<_> = evidence.counters.keys().map(|netns| Queue::of(evidence, *netns)).collect();
    let findings = queues.iter().filter_map(|queue| finding(evidence, queue)).collect();
    let most = queues.iter().max_by_key(|queue| queue.cookies + queue.drops);
    Outcome::of(findings, most.map(|queue| queue.figures(evidence)).unwrap_or_default())
}

impl<'e> Queue<'e> {
    fn of(evidence: &'e Evidence, netns: u32) -> Self {
        let grown = |name: &str| evidence.grown(netns, &format!("TcpExt.{name}"));
        let asked = || evidence.listeners.iter().filter(|it| it.netns == Some(netns) && it.most_requests > 0);
        let part = |it: &Listener| u64::from(it.most_requests) * 1000 / (u64::from(it.queue.limit) + 1);
        let drops = grown("TCPReqQFullDrop");
        Self {
            netns,
            cookies: grown("TCPReqQFullDoCookies"),
            drops,
            others: grown("ListenDrops").saturating_sub(grown("ListenOverflows") + drops),
            sent: grown("SyncookiesSent"),
            received: grown("SyncookiesRecv"),
            mode: evidence.number(Some(netns), COOKIES),
            fullest: asked().max_by_key(|it| part(it)),
            is_only: asked().count() == 1,
        }
    }

    fn figures(&self, evidence: &Evidence) -> Figures {
        let setting = |name| evidence.number(Some(self.netns), name).and_then(|value| u64::try_from(value).ok());
        vec![
            ("full_cookies", Value::Count(self.cookies)),
            ("full_drops", Value::Count(self.drops)),
            ("other_drops", Value::Count(self.others)),
            ("cookies_sent", Value::Count(self.sent)),
            ("cookies_received", Value::Count(self.received)),
            ("most_requests", self.fullest.map(|it| it.most_requests).into()),
            ("queue_limit", self.fullest.map(|it| it.queue.limit).into()),
            ("syncookies", setting(COOKIES).into()),
            ("max_syn_backlog", setting(BACKLOG).into()),
        ]
    }

    /// The listener that it is, and whether that is certain.
    fn culprit(&self) -> Option<(&'e Listener, bool)> {
        let listener = self.fullest?;
        let is_full = listener.most_requests >= listener.queue.limit;
        (is_full || self.is_only).then_some((listener, is_full))
    }

    /// With cookies always, every SYN is answered with one.
    fn sends_always(&self) -> bool {
        self.mode == Some(2)
    }

    fn is_full(&self) -> bool {
        self.cookies >= MANY && !self.sends_always() || self.drops >= MANY
    }

    /// Without cookies, the last quarter of `tcp_max_syn_backlog` is for peers that are known.
    fn is_limited(&self) -> bool {
        self.mode == Some(0) && self.others >= MANY
    }

    /// Who sends the SYNs, as far as cookies tell.
    fn who(&self) -> &'static str {
        match share(self.received, self.sent) {
            _ if self.sent < MANY => "whether the clients are real is unknown",
            share if share >= REAL => "the clients are real, and come faster than they are served",
            share if share < NOBODY => "a flood, or answers do not reach the clients",
            _ => "some clients are real",
        }
    }
}

fn finding(evidence: &Evidence, queue: &Queue<'_>) -> Option<Finding> {
    if !queue.is_full() && !queue.is_limited() {
        return None;
    }
    let loses = queue.drops > 0 || !queue.is_full();
    let severity = if loses { Severity::Critical } else { Severity::Warning };
    let confidence = match queue.culprit() {
        _ if !queue.is_full() => Confidence::Likely,
        Some((_, false)) => Confidence::Likely,
        _ => Confidence::Certain,
    };
    let mut finding = Finding::new(RULE.id, severity, confidence, headline(evidence, queue));
    finding.subject = match queue.culprit() {
        Some((listener, _)) => listening::subject(listener),
        None => Subject { netns: Some(queue.netns), ..Subject::default() },
    };
    finding.figures = queue.figures(evidence);
    finding.count = if queue.is_full() { queue.cookies + queue.drops } else { queue.others };
    finding.seconds_left = loses.then_some(0.0);
    describe(evidence, queue, &mut finding);
    advise(queue, &mut finding);
    Some(finding)
}

fn headline(evidence: &Evidence, queue: &Queue<'_>) -> String {
    let window = in_window(evidence);
    if !queue.is_full() {
        let limit = evidence.setting(Some(queue.netns), BACKLOG).unwrap_or("?");
        let dropped = format!("{} SYNs dropped{window}", say::count(queue.others));
        return format!("tcp_max_syn_backlog={limit} with tcp_syncookies=0: {dropped} although no queue was full");
    }
    let sent = match queue.drops {
        0 => format!("{} SYN cookies sent{window}", say::count(queue.cookies)),
        drops => format!("{} SYNs dropped{window}", say::count(drops)),
    };
    let came = match queue.sent {
        0 => String::new(),
        _ => format!(", {} came back: {}", say::count(queue.received), queue.who()),
    };
    let Some((listener, _)) = queue.culprit() else {
        let full = format!("a SYN queue of netns {} is full: {sent}", queue.netns);
        return say::fitting([format!("{full}{came}"), full]);
    };
    let (end, limit) = (listening::end(listener), say::count(listener.queue.limit));
    let who = listener.task.map_or(String::new(), |task| format!("{}, ", say::process(task)));
    say::fitting([
        format!("SYN queue of {end} ({who}limit {limit}) is full: {sent}{came}"),
        format!("SYN queue of {end} (limit {limit}) is full: {sent}{came}"),
        format!("SYN queue of {end} ({who}limit {limit}) is full: {sent}"),
        format!("SYN queue of {end} (limit {limit}) is full: {sent}"),
        format!("SYN queue of {end} is full: {sent}"),
    ])
}

fn describe(evidence: &Evidence, queue: &Queue<'_>, finding: &mut Finding) {
    let grown = |name: &str| say::count(evidence.grown(queue.netns, &format!("TcpExt.{name}")));
    finding.line(
        "/proc/net/netstat",
        format!(
            "TCPReqQFullDoCookies {}, TCPReqQFullDrop {}, ListenDrops {}, ListenOverflows {}",
            say::count(queue.cookies),
            say::count(queue.drops),
            grown("ListenDrops"),
            grown("ListenOverflows")
        ),
    );
    if queue.sent > 0 {
        let [sent, received, failed] = ["SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed"].map(grown);
        finding.line("/proc/net/netstat", format!("SYN cookies: {sent} sent, {received} came back, {failed} wrong"));
    }
    if let Some(listener) = queue.fullest {
        let (most, limit) = (say::count(listener.most_requests), say::count(listener.queue.limit));
        finding.line("sock_diag", format!("up to {most} in SYN_RECV at {}, limit {limit}", listening::end(listener)));
    }
    let setting = |name| evidence.setting(Some(queue.netns), name).map(|value| format!("{name}={value}"));
    let settings: Vec<_> = [COOKIES, BACKLOG].into_iter().filter_map(setting).collect();
    if !settings.is_empty() {
        finding.line("sysctl", settings.join(", "));
    }
}

fn advise(queue: &Queue<'_>, finding: &mut Finding) {
    if !queue.is_full() {
        finding.why =
            "Without SYN cookies the kernel keeps the last quarter of tcp_max_syn_backlog for peers that it knows, \
                       and drops the SYNs of others."
                .into();
        finding.remedies.push(format!("sysctl {COOKIES}=1"));
        finding.sure =
            "certain that SYNs were dropped; that tcp_max_syn_backlog is why is likely: ListenDrops counts other \
                        reasons, too"
                .into();
        return;
    }
    finding.why = match queue.drops {
        0 => "A handshake by cookie loses TCP options (window scaling, SACK) where the client sends no timestamps."
            .into(),
        _ => "Without SYN cookies a full queue makes the kernel drop SYNs; the client repeats them after 1s and more."
            .into(),
    };
    let is_flood = queue.sent >= MANY && share(queue.received, queue.sent) < NOBODY;
    let filter = "If it is a flood, filter it upstream: cookies keep the service reachable meanwhile".to_owned();
    let raise =
        "If the clients are real, raise the backlog of listen() and net.core.somaxconn, and restart the listener: \
                 they bound this queue, too"
            .to_owned();
    finding.remedies.extend(if is_flood { [filter, raise] } else { [raise, filter] });
    if queue.mode == Some(0) {
        finding.remedies.push(format!("sysctl {COOKIES}=1"));
    } else {
        finding.mistakes.push("turn tcp_syncookies off: SYNs of real clients are dropped then".into());
        finding.mistakes.push("raise tcp_max_syn_backlog: it has no effect while tcp_syncookies is on".into());
    }
    let whose = match queue.culprit() {
        Some((_, true)) => "",
        Some((_, false)) => "; whose it is, is likely: no other listener had connection requests",
        None => "; whose it is, is unknown",
    };
    finding.sure = match share(queue.received, queue.sent) {
        _ if queue.sent < MANY => format!("certain that it was full{whose}; a flood and many clients look alike"),
        share if share < NOBODY => format!("certain that it was full{whose}; nearly nobody finished a handshake"),
        share if share >= REAL => format!("certain that it was full{whose}; most clients finished their handshakes"),
        _ => format!("certain that it was full{whose}; flood or load is possible, as only some clients came back"),
    };
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, api_listener, fired, long_name, with_settings};
    use super::*;
    use crate::study::diagnose::evidence::Counted;

    /// So much has grown, while so many were seen in SYN_RECV at a listener for 511.
    fn evidence(mode: &str, grown: &[(&str, u64)], requests: u32) -> Evidence {
        let mut evidence = with_settings(&[(COOKIES, mode), (BACKLOG, "8")]);
        let grown = grown.iter().map(|(name, more)| (format!("TcpExt.{name}").into(), *more)).collect();
        evidence.counters.insert(NETNS, Counted { grown, ..Counted::default() });
        evidence.listeners.push(Listener { most_requests: requests, ..api_listener(0, 511) });
        evidence
    }

    #[rstest]
    #[case::nothing("1", &[], None)]
    #[case::few("1", &[("TCPReqQFullDoCookies", 9)], None)]
    #[case::many("1", &[("TCPReqQFullDoCookies", 10)], Some(Severity::Warning))]
    #[case::more("1", &[("TCPReqQFullDoCookies", 11)], Some(Severity::Warning))]
    #[case::always("2", &[("TCPReqQFullDoCookies", 1000)], None)]
    #[case::few_drops("0", &[("TCPReqQFullDrop", 9)], None)]
    #[case::drops("0", &[("TCPReqQFullDrop", 10)], Some(Severity::Critical))]
    #[case::both("1", &[("TCPReqQFullDrop", 1), ("TCPReqQFullDoCookies", 10)], Some(Severity::Critical))]
    #[case::of_the_accept_queue("0", &[("ListenDrops", 100), ("ListenOverflows", 91)], None)]
    #[case::of_the_backlog("0", &[("ListenDrops", 100), ("ListenOverflows", 90)], Some(Severity::Critical))]
    #[case::with_cookies("1", &[("ListenDrops", 100)], None)]
    fn severity(#[case] mode: &str, #[case] grown: &[(&str, u64)], #[case] expected: Option<Severity>) {
        let found = fired(&RULE, &evidence(mode, grown, 512));
        assert_eq!(found.first().map(|it| it.severity), expected);
    }

    #[rstest]
    #[case::seen_full(511, 0, Confidence::Certain, Some(80))]
    #[case::the_only_one(510, 0, Confidence::Likely, Some(80))]
    #[case::of_two(510, 1, Confidence::Certain, None)]
    fn whose_queue_it_is(#[case] most: u32, #[case] other: u32, #[case] sure: Confidence, #[case] port: Option<u16>) {
        let mut evidence = evidence("1", &[("TCPReqQFullDoCookies", 20)], most);
        let mut second = Listener { most_requests: other, ..api_listener(0, 511) };
        (second.queue.conn, second.queue.port) = (99, 443);
        evidence.listeners.push(second);
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!((finding.confidence, finding.subject.lport), (sure, port));
    }

    #[rstest]
    #[case::flood(99, "a flood, or answers do not reach the clients")]
    #[case::mixed(100, "some clients are real")]
    #[case::also_mixed(499, "some clients are real")]
    #[case::load(500, "the clients are real, and come faster than they are served")]
    fn who_sends_them(#[case] received: u64, #[case] expected: &str) {
        let grown = [("TCPReqQFullDoCookies", 1_000), ("SyncookiesSent", 1_000), ("SyncookiesRecv", received)];
        let evidence = evidence("1", &grown, 512);
        assert_eq!(Queue::of(&evidence, NETNS).who(), expected);
    }

    #[test]
    fn words() {
        let grown = [("TCPReqQFullDoCookies", 41_200), ("SyncookiesSent", 41_200), ("SyncookiesRecv", 12)];
        let finding = &fired(&RULE, &evidence("1", &grown, 512))[0];
        assert_eq!(
            finding.headline,
            "SYN queue of 0.0.0.0:80 (api[4711], limit 511) is full: 41,200 SYN cookies sent in 10.0s"
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "TCPReqQFullDoCookies 41,200, TCPReqQFullDrop 0, ListenDrops 0, ListenOverflows 0",
                "SYN cookies: 41,200 sent, 12 came back, 0 wrong",
                "up to 512 in SYN_RECV at 0.0.0.0:80, limit 511",
                "net.ipv4.tcp_syncookies=1, net.ipv4.tcp_max_syn_backlog=8",
            ]
        );
        assert!(finding.remedies[0].starts_with("If it is a flood"), "{:?}", finding.remedies);
    }

    #[test]
    fn without_cookies() {
        let finding = &fired(&RULE, &evidence("0", &[("TCPReqQFullDrop", 55), ("ListenDrops", 55)], 512))[0];
        assert_eq!(
            finding.headline,
            "SYN queue of 0.0.0.0:80 (api[4711], limit 511) is full: 55 SYNs dropped in 10.0s"
        );
        let finding = &fired(&RULE, &evidence("0", &[("ListenDrops", 93)], 7))[0];
        assert_eq!(
            finding.headline,
            "tcp_max_syn_backlog=8 with tcp_syncookies=0: 93 SYNs dropped in 10.0s although no queue was full"
        );
    }

    #[test]
    fn many_of_several_listeners_fit() {
        let grown = ["TCPReqQFullDoCookies", "SyncookiesSent", "SyncookiesRecv"].map(|name| (name, 4_294_967_295));
        let mut evidence = evidence("1", &grown, 5);
        evidence.listeners.push(evidence.listeners[0].clone());
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(finding.headline, "a SYN queue of netns 7 is full: 4,294,967,295 SYN cookies sent in 10.0s");
    }

    #[test]
    fn a_long_name_fits() {
        let mut evidence = evidence("1", &[("TCPReqQFullDoCookies", 4_294_967_295)], 512);
        evidence.listeners[0].task = Some(long_name());
        evidence.listeners[0].queue.ip = "2001:db8:1111:2222:3333:4444:5555:6666".parse().expect("an address");
        fired(&RULE, &evidence);
    }

    #[test]
    fn one_look_counts_nothing() {
        let mut evidence = evidence("1", &[], 512);
        evidence.about.traced_ns = 0;
        assert_eq!(check(&evidence), Outcome::NotChecked("needs time (--duration 10s)".into()));
    }
}
