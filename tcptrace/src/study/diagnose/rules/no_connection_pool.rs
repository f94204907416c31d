//! A process that opens a connection for each request.

use super::pool_too_small;
use super::words::{connections_per_second, share};
use crate::model::tcp::{Closer, State};
use crate::study::diagnose::evidence::{Ended, Evidence, KeyBudget, Pair, Spread, Standings};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::{budgets, say};
use crate::study::ports::Reuse;

/// So many short ones are no accident.
const MANY: u64 = 100;
/// 5 a second for 61 s are 305 ports, 1 % of a range: below that nobody is hurt.
const PER_SECOND: f64 = 5.0;
/// With more long ones, there is a pool beside them.
const LONG: f64 = 0.01;
/// From this share on, one side is the one that closes.
const ONE_SIDE: f64 = 0.9;
/// Where this side closes fewer first, most keep no port.
const HALF: f64 = 0.5;
/// Where no port is kept only time is lost, which counts from so many a second on.
const FAST: f64 = 1_000.0;
/// So many processes with a connection each need a pooler, not a pool.
const PROCESSES: usize = 10;
/// How many processes are counted at most.
const MOST_PROCESSES: usize = 256;
/// What lives longer is no connection for one request.
const SHORT_NS: u64 = 1_000_000_000;

pub(super) static RULE: Rule = Rule {
    id: "no-connection-pool",
    title: "a process opens a connection for each request",
    needs: &[Need::Events],
    figures: &[
        Figure { name: "short", unit: "", doc: "Connections that ended after less than 1s in ESTABLISHED." },
        Figure { name: "short_per_second", unit: "1/s", doc: "The same, each second." },
        Figure { name: "long", unit: "", doc: "Connections that were or are in ESTABLISHED for 1s or longer." },
        Figure { name: "established_p50_ns", unit: "ns", doc: "Time in ESTABLISHED, the median." },
        Figure { name: "active_share", unit: "", doc: "The part of the ended ones that the process closed first." },
        Figure { name: "passive_share", unit: "", doc: "The part that the remote end closed first." },
        Figure { name: "bytes_sent_p10", unit: "B", doc: "Bytes sent on each, 10th percentile." },
        Figure { name: "bytes_sent_p90", unit: "B", doc: "The same, 90th percentile." },
        Figure { name: "processes", unit: "", doc: "Processes of that name; 256 at most are counted." },
        Figure { name: "pool", unit: "", doc: "Connections that would do this work: rate times mean time." },
        Figure { name: "taken", unit: "", doc: "Local ports that the destination takes; null when unknown." },
        Figure { name: "usable", unit: "", doc: "Local ports that there are; null when unknown." },
    ],
    page: Page {
        sees: "Thousands of TIME_WAITs with one remote end; a handshake before each request.",
        fires: "In the window, 100 or more connections of a process to one remote end lived for less than 1s, 5 or more a \
                second (5/s for 61s take 1 % of the default port range), and at most 1 % lived longer. If the remote end closes \
                first, no port is kept here: a note below 1,000/s.",
        silent: "A pool of connections that live; health checks (fewer than 5 a second).",
        remedy: "Use the connection pool of the client library, or keep-alive.",
        sources: "RFC 9293 3.6.1: who closes first keeps the TIME_WAIT; 60s (TCP_TIMEWAIT_LEN, net/ipv4/tcp.h).",
    },
    check,
};

/// Which side closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The process: it keeps the ports.
    Active,
    /// The remote end.
    Passive,
    /// Both.
    Mixed,
    /// Mostly neither: resets end them, and no port is kept.
    Neither,
}

/// What a process's connections to one remote end look like.
struct Churn<'e> {
    pair: &'e Pair,
    long: u64,
    kind: Kind,
    bytes: Spread,
    established: Spread,
    budget: Option<&'e KeyBudget>,
}

fn check(evidence: &Evidence) -> Outcome {
    let long = evidence.standing(|it| it.state == State::Established && it.age_ns() >= SHORT_NS);
    let findings = evidence.clients().filter_map(|pair| finding(evidence, pair, &long)).collect();
    let most = evidence.clients().max_by_key(|pair| pair.short);
    Outcome::of(findings, most.map(|pair| Churn::of(evidence, pair, &long).figures(evidence)).unwrap_or_default())
}

/// Ended connections that had been established.
fn begun(pair: &Pair) -> impl Iterator<Item = &Ended> {
    pair.ends.iter().filter(|(_, closer, _)| *closer != Closer::NeverEstablished).map(|(.., ended)| ended)
}

/// How many those are.
fn over(pair: &Pair) -> u64 {
    begun(pair).map(|ended| ended.count).sum()
}

impl<'e> Churn<'e> {
    fn of(evidence: &'e Evidence, pair: &'e Pair, long: &Standings<'_>) -> Self {
        let standing = long.get(&pair.key).map_or(0, Vec::len) as u64;
        let ended = over(pair);
        let is_most = |closer| ended > 0 && share(pair.closed_by(closer), ended) >= ONE_SIDE;
        let kind = match (is_most(Closer::Active), is_most(Closer::Passive)) {
            (true, _) => Kind::Active,
            (_, true) => Kind::Passive,
            _ if ended > 0 && share(pair.closed_by(Closer::Active), ended) < HALF => Kind::Neither,
            _ => Kind::Mixed,
        };
        let all = |of: fn(&Ended) -> &Spread| {
            let mut all = Spread::default();
            begun(pair).for_each(|ended| all.merge(of(ended)));
            all
        };
        let (bytes, established) = (all(|it| &it.bytes_sent), all(|it| &it.established));
        Self { pair, long: pair.long + standing, kind, bytes, established, budget: budgets::of_pair(evidence, pair) }
    }

    fn fires(&self, evidence: &Evidence) -> bool {
        let Self { pair, long, .. } = self;
        pair.short >= MANY
            && evidence.about.per_second(pair.short) >= PER_SECOND
            && share(*long, pair.short + long) <= LONG
            && !pool_too_small::fires(evidence, pair)
    }

    /// As much was sent on each: one request.
    fn is_alike(&self) -> bool {
        let [low, high] = [10, 90].map(|it| self.bytes.percentile(it).unwrap_or(0));
        high <= low.max(1).saturating_mul(pool_too_small::BYTES)
    }

    /// Many processes with a connection or two each.
    fn is_by_process(&self) -> bool {
        self.pair.processes >= PROCESSES && self.pair.tasks.first().is_some_and(|(_, count)| *count <= 2)
    }

    /// How many connections at once would do this work.
    fn pool(&self, evidence: &Evidence) -> u64 {
        let mean = self.established.mean().unwrap_or(0) as f64 / 1e9;
        let needed = evidence.about.per_second(self.pair.short) * mean;
        (needed.ceil() as u64).max(1)
    }

    /// `tcp_tw_reuse` lets connect() take a TIME_WAIT of the loopback over after a second.
    /// By default they are; the settings of a new network namespace are not known at once.
    fn is_reused_loopback(&self, evidence: &Evidence) -> bool {
        let key = &self.pair.key;
        say::address(key.ip).is_loopback()
            && evidence.number(key.netns, "net.ipv4.tcp_tw_reuse").is_none_or(|it| it != 0)
    }

    /// Whether TIME_WAITs stay here.
    fn keeps_ports(&self) -> bool {
        matches!(self.kind, Kind::Active | Kind::Mixed)
    }

    fn severity(&self, evidence: &Evidence) -> Severity {
        let costs_little = !self.keeps_ports() || self.is_reused_loopback(evidence);
        let is_slow = evidence.about.per_second(self.pair.short) < FAST;
        if costs_little && is_slow { Severity::Note } else { Severity::Warning }
    }

    fn figures(&self, evidence: &Evidence) -> Figures {
        let Self { pair, .. } = self;
        let ended = over(pair);
        let size = |hundredths| self.bytes.percentile(hundredths).map_or(Value::Unknown, Value::Bytes);
        let budget = self.budget.map(|it| &it.budget);
        vec![
            ("short", Value::Count(pair.short)),
            ("short_per_second", Value::Rate(evidence.about.per_second(pair.short))),
            ("long", Value::Count(self.long)),
            ("established_p50_ns", self.established.percentile(50).map_or(Value::Unknown, Value::Ns)),
            ("active_share", Value::Share(share(pair.closed_by(Closer::Active), ended))),
            ("passive_share", Value::Share(share(pair.closed_by(Closer::Passive), ended))),
            ("bytes_sent_p10", size(10)),
            ("bytes_sent_p90", size(90)),
            ("processes", Value::Count(pair.processes as u64)),
            ("pool", Value::Count(self.pool(evidence))),
            ("taken", budget.map(|it| it.taken).into()),
            ("usable", budget.map(|it| it.usable).into()),
        ]
    }
}

fn finding(evidence: &Evidence, pair: &Pair, long: &Standings<'_>) -> Option<Finding> {
    if pair.short < MANY {
        return None;
    }
    let churn = Churn::of(evidence, pair, long);
    if !churn.fires(evidence) {
        return None;
    }
    let is_alike = churn.is_alike();
    let confidence = if is_alike { Confidence::Likely } else { Confidence::Possible };
    let mut finding = Finding::new(RULE.id, churn.severity(evidence), confidence, headline(evidence, &churn));
    finding.subject = pair.subject();
    finding.figures = churn.figures(evidence);
    finding.count = pair.short;
    finding.examples = pair.examples();
    (finding.first_seen, finding.last_seen) = pair.period();
    describe(evidence, &churn, &mut finding);
    advise(&churn, &mut finding);
    let processes = say::counted(pair.processes.max(1) as u64, "process");
    let samples = say::count(pair.short);
    finding.sure = if is_alike {
        format!("certain (counted); that a pool is missing is likely: {processes}, {samples} samples, one request each")
    } else {
        format!(
            "certain (counted); that a pool is missing is possible: {processes}, {samples} samples, bytes sent on each \
             differ. The client's configuration decides"
        )
    };
    Some(finding)
}

fn headline(evidence: &Evidence, churn: &Churn<'_>) -> String {
    let Churn { pair, .. } = churn;
    let rate = connections_per_second(evidence, pair.opened.max(pair.short));
    let each = say::time(churn.established.percentile(50).unwrap_or(0));
    let remote = pair.end();
    if churn.is_by_process() {
        let number = format!("{}{}", if pair.processes >= MOST_PROCESSES { "≥" } else { "" }, pair.processes);
        let comm = pair.tasks.first().map_or_else(String::new, |(task, _)| format!(" of {}", say::comm(task.comm)));
        return say::fitting([
            format!("each of {number} processes{comm} opens one connection to {remote}, {rate} for {each} each"),
            format!("each of {number} processes{comm} opens one connection to {remote}"),
        ]);
    }
    let base = format!("{} opens {rate} to {remote} for {each} each", pair.process());
    let ports = match (churn.kind, churn.budget) {
        (Kind::Neither, _) => String::new(),
        (Kind::Passive, _) => ", and the remote end closes them first".into(),
        (_, Some(KeyBudget { budget, .. })) => {
            format!(": {} of {} local ports are taken", say::count(budget.taken), say::count(budget.usable))
        }
        _ => String::new(),
    };
    say::fitting([format!("{base}{ports}"), base])
}

fn describe(evidence: &Evidence, churn: &Churn<'_>, finding: &mut Finding) {
    let Churn { pair, .. } = churn;
    let ended = over(pair);
    let sums = begun(pair).fold((0, 0), |sum: (u64, u64), it| {
        (sum.0.saturating_add(it.bytes_sent_all), sum.1.saturating_add(it.bytes_received))
    });
    let each = |sum: u64| say::bytes(sum.checked_div(ended).unwrap_or(0));
    let median = say::time(churn.established.percentile(50).unwrap_or(0));
    finding.line(
        "seen",
        format!(
            "{} of {} connections lived < 1s (median {median}; {} sent, {} received on each)",
            say::count(pair.short),
            say::count(pair.short + churn.long),
            each(sums.0),
            each(sums.1),
        ),
    );
    let (active, passive) = (pair.closed_by(Closer::Active), pair.closed_by(Closer::Passive));
    let [active, passive, all] = [active, passive, ended].map(say::count);
    finding.line("seen", format!("of {all} that ended, this side closed {active} first, the remote end {passive}"));
    if churn.keeps_ports()
        && let Some(KeyBudget { budget, .. }) = churn.budget
    {
        budgets::describe(evidence, budget, finding);
    }
    let medians = (pair.spread(State::SynSent).and_then(|it| it.percentile(50)), pair.srtt_us.percentile(50));
    if let (Some(connect), Some(srtt)) = medians {
        let (connect, srtt) = (say::time(connect), say::time(srtt.saturating_mul(1_000)));
        finding.line("seen", format!("a connect takes {connect} (median), a round trip {srtt}"));
    }
    let needed = say::counted(churn.pool(evidence), "connection");
    let keeps = match churn.kind {
        Kind::Passive => {
            "No port is kept here; each request pays for a handshake, and the TIME_WAITs are at the remote end."
        }
        _ => "Whoever closes first keeps the port for 61s.",
    };
    finding.why = format!("{keeps} A pool would do this work with about {needed}.");
}

fn advise(churn: &Churn<'_>, finding: &mut Finding) {
    let comm = churn.pair.tasks.first().map(|(task, _)| say::comm(task.comm)).unwrap_or_default();
    let remedies = &mut finding.remedies;
    if churn.is_by_process() {
        remedies.push(
            "Put a pooler between (pgbouncer, twemproxy), or keep workers that live longer than a request".into(),
        );
    }
    remedies.push(by_comm(&comm).into());
    if let Some(KeyBudget { budget, timestamps, .. }) = churn.budget
        && churn.keeps_ports()
        && matches!(budget.reuse, Reuse::Off | Reuse::LoopbackOnly)
        && *timestamps == Some(true)
    {
        remedies.push("Until then: sysctl net.ipv4.tcp_tw_reuse=1 (works here: both ends use TCP timestamps)".into());
    }
    finding.mistakes.push("set SO_LINGER to 0: it closes by reset, and data is lost".into());
    finding.mistakes.push("lower tcp_max_tw_buckets: connections then close without a TIME_WAIT".into());
}

/// How a program of this name keeps connections.
fn by_comm(comm: &str) -> &'static str {
    let is = |name: &str| comm.starts_with(name);
    match () {
        () if is("nginx") => {
            "Let nginx keep upstream connections: keepalive in the upstream block, proxy_http_version 1.1, \
             proxy_set_header Connection \"\""
        }
        () if is("php") => "Use persistent connections (PDO::ATTR_PERSISTENT, pconnect)",
        () if is("java") => "Use a pool (HikariCP, one shared HttpClient)",
        () if is("python") || is("gunicorn") || is("uwsgi") => {
            "Use one client for the process (requests.Session, one redis.Redis), which keeps its connections"
        }
        () if is("redis-cli") => {
            "Use one redis-cli for many commands (a pipe), or a client library that keeps its connection"
        }
        () if is("node") => "Use an agent that keeps connections (http.Agent with keepAlive: true)",
        () => {
            "Turn on the client's connection pool, or raise its idle limit to the concurrency (redis-py: one client per \
             process; Go: MaxIdleConnsPerHost)"
        }
    }
}

#[cfg(test)]
pub(in crate::study::diagnose) mod tests {
    use rstest::rstest;

    use super::super::testing::{S, api, client_key, fired, nothing, pair_ended, pooled, standing, with_settings};
    use super::*;
    use crate::model::tcp::{End, Task};
    use crate::study::diagnose::evidence::{Budgets, Stays};

    /// So many short connections, of one request each, that this process closed first.
    pub(in crate::study::diagnose) fn churning(short: u64) -> Evidence {
        let mut evidence = nothing();
        let mut pair = pair_ended(End::Fin, short);
        (pair.short, pair.closed_here) = (short, short);
        let ended = &mut pair.ends[0].2;
        (ended.established, ended.bytes_sent) = (pooled([400_000]), pooled([84]));
        (ended.bytes_sent_all, ended.bytes_received) = (84 * short, 7 * short);
        evidence.pairs.push(pair);
        evidence
    }

    #[rstest]
    #[case::few(99, 1, 0)]
    #[case::many(100, 1, 1)]
    #[case::slow(100, 21, 0)]
    #[case::fast_enough(100, 20, 1)]
    fn rates(#[case] short: u64, #[case] seconds: u64, #[case] expected: usize) {
        let mut evidence = churning(short);
        evidence.about.traced_ns = seconds * S;
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[rstest]
    #[case::one_in_a_hundred(99, 1, 0, 0)]
    #[case::few_long(198, 2, 0, 1)]
    #[case::too_many_long(197, 2, 0, 0)]
    #[case::long_ones_stand(197, 0, 2, 0)]
    fn long_ones(#[case] short: u64, #[case] long: u64, #[case] stand: u64, #[case] expected: usize) {
        let mut evidence = churning(short);
        evidence.pairs[0].long = long;
        evidence.sockets = (0..stand).map(|conn| standing(conn, State::Established, 1)).collect();
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[rstest]
    #[case::the_process(Closer::Active, 4_620, Severity::Warning)]
    #[case::the_server(Closer::Passive, 4_620, Severity::Note)]
    #[case::the_server_often(Closer::Passive, 10_000, Severity::Warning)]
    #[case::by_resets(Closer::ResetLocal, 4_620, Severity::Note)]
    fn severity_is_by_who_closes(#[case] closer: Closer, #[case] short: u64, #[case] expected: Severity) {
        let mut evidence = churning(short);
        evidence.pairs[0].ends[0].1 = closer;
        assert_eq!(fired(&RULE, &evidence)[0].severity, expected);
    }

    #[rstest]
    #[case::reused("2", Severity::Note)]
    #[case::not_reused("0", Severity::Warning)]
    #[case::not_known("", Severity::Note)]
    fn the_loopback_reuses_its_ports(#[case] reuse: &str, #[case] expected: Severity) {
        let mut evidence = churning(4_620);
        if !reuse.is_empty() {
            evidence.settings = with_settings(&[("net.ipv4.tcp_tw_reuse", reuse)]).settings;
        }
        evidence.pairs[0].key.ip = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        assert_eq!(fired(&RULE, &evidence)[0].severity, expected);
    }

    #[rstest]
    #[case::alike([84, 252], Confidence::Likely)]
    #[case::apart([84, 270], Confidence::Possible)]
    fn bytes_tell_how_sure_it_is(#[case] bytes: [u64; 2], #[case] expected: Confidence) {
        let mut evidence = churning(4_620);
        evidence.pairs[0].ends[0].2.bytes_sent = pooled(bytes);
        assert_eq!(fired(&RULE, &evidence)[0].confidence, expected);
    }

    /// What got no port, or no answer, has sent nothing and was closed by nobody.
    #[test]
    fn connects_that_fail_change_nothing() {
        let mut evidence = churning(4_620);
        let failed = Ended { count: 5_000, bytes_sent: pooled([0; 100]), ..Ended::default() };
        evidence.pairs[0].ends.push((End::NoLocalPort, Closer::NeverEstablished, failed));
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!((finding.confidence, finding.figures[4].1), (Confidence::Likely, Value::Share(1.0)));
        let text = "of 4,620 that ended, this side closed 4,620 first, the remote end 0";
        assert_eq!(finding.evidence[1].text, text);
    }

    #[test]
    fn a_pool_that_is_too_small_is_another_thing() {
        let mut evidence = pool_too_small::tests::churning();
        evidence.pairs[0].short = 890;
        assert_eq!(fired(&RULE, &evidence), []);
        evidence.pairs[0].least_open = 1;
        assert_eq!(fired(&RULE, &evidence).len(), 1);
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &churning(4_620))[0];
        assert_eq!(finding.headline, "api[4711] opens 462 connections/s to 10.0.0.9:6379 for 400µs each");
        assert_eq!(
            finding.evidence[0].text,
            "4,620 of 4,620 connections lived < 1s (median 400µs; 84 B sent, 7 B received on each)"
        );
        let why = "Whoever closes first keeps the port for 61s. A pool would do this work with about 1 connection.";
        assert_eq!(finding.why, why);
        assert_eq!(
            finding.sure,
            "certain (counted); that a pool is missing is likely: 1 process, 4,620 samples, one request each"
        );
    }

    #[test]
    fn words_with_ports() {
        let mut evidence = churning(4_620);
        evidence.settings = with_settings(&[("net.ipv4.ip_local_port_range", "32768 60999")]).settings;
        evidence.sockets = (0..300).map(|conn| standing(conn, State::TimeWait, 10)).collect();
        evidence.pairs[0].stays.push((State::TimeWait, Stays { entered: 4_620, ..Stays::default() }));
        evidence.budgets = Budgets::of(&evidence);
        let finding = &fired(&RULE, &evidence)[0];
        let expected =
            "api[4711] opens 462 connections/s to 10.0.0.9:6379 for 400µs each: 300 of 28,232 local ports are taken";
        assert_eq!(finding.headline, expected);
        assert_eq!(finding.evidence[3].text, "demand 462/s × 61.0s (by design) + 0 open = 28,182; sustainable 463/s");
    }

    #[test]
    fn many_processes_need_a_pooler() {
        let mut evidence = churning(461);
        let worker = |pid| (Task { pid, tid: pid, ..api() }, 1);
        (evidence.pairs[0].tasks, evidence.pairs[0].processes) = ((1..17).map(worker).collect(), 256);
        let finding = &fired(&RULE, &evidence)[0];
        let expected =
            "each of ≥256 processes of api opens one connection to 10.0.0.9:6379, 46 connections/s for 400µs each";
        assert_eq!(finding.headline, expected);
        assert!(finding.remedies[0].contains("pooler"));
        assert_eq!(finding.subject.task, None);
        assert_eq!(finding.subject.remote, Some(say::end(client_key().ip, 6379)));
    }
}
