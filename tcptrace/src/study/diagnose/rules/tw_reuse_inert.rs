//! `tcp_tw_reuse` is on and does nothing, for a reason that is found.

use super::words::share;
use crate::model::tcp::{Side, State, Task, TimeWaitEnd};
use crate::study::diagnose::evidence::{Evidence, KeyBudget, Pair, SourceOf, Standings};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::{budgets, say};
use crate::study::ports::{PortSettings, Reuse};

/// From this part of the ports on, reuse would be noticed.
const SHARE: f64 = 0.2;
/// So many tries that took none over are no chance.
const OPENED: u64 = 100;
/// From there on `ports-running-out` fires.
const HALF: f64 = 0.5;

pub(super) static RULE: Rule = Rule {
    id: "tw-reuse-inert",
    title: "tcp_tw_reuse is on and has no effect",
    needs: &[Need::Events, Need::Settings, Need::NoLosses],
    figures: &[
        Figure {
            name: "time_wait_old",
            unit: "",
            doc: "TIME_WAITs older than tcp_tw_reuse_delay, or FIN_WAIT2 mini-sockets.",
        },
        Figure { name: "usable", unit: "", doc: "Local ports that there are." },
        Figure { name: "old_share", unit: "", doc: "The part of those that they take." },
        Figure { name: "opened", unit: "", doc: "Connections that were opened in the window." },
        Figure { name: "reused", unit: "", doc: "TIME_WAITs that connect() took over in the window (TWRecycled)." },
    ],
    page: Page {
        sees: "net.ipv4.tcp_tw_reuse=1 is set, and the TIME_WAITs are still there.",
        fires: "tcp_tw_reuse is 1, TIME_WAITs that are old enough take 20 % or more of the ports of a destination, 100 or more \
                connections to it were opened and none took one over; and the reason is found: no TCP timestamps, bind() \
                before connect(), mini-sockets in FIN_WAIT2, or TIME_WAITs of a listener.",
        silent: "connect() takes TIME_WAITs over; or no reason is found.",
        remedy: "Depends on the reason: net.ipv4.tcp_timestamps=1, IP_BIND_ADDRESS_NO_PORT, a peer that closes, or nothing.",
        sources: "tcp_twsk_unique (net/ipv4/tcp_ipv4.c); tcp_tw_reuse_delay since 6.14.",
    },
    check,
};

/// Why it has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// `tcp_timestamps` is 0.
    TimestampsOff,
    /// The peer does not use them.
    PeerHasNone,
    /// A port is bound before connect().
    Bound,
    /// The mini-sockets wait for the peer's FIN.
    FinWait2,
    /// The TIME_WAITs are a listener's.
    Listener,
}

/// What was compared for one destination, source address or listener.
#[derive(Clone, Copy, Debug)]
struct Compared {
    old: u64,
    usable: u64,
    opened: u64,
    reused: u64,
}

impl Compared {
    fn share(&self) -> f64 {
        share(self.old, self.usable)
    }

    fn fires(&self) -> bool {
        self.share() >= SHARE && self.opened >= OPENED && self.reused == 0
    }

    fn figures(&self) -> Figures {
        vec![
            ("time_wait_old", Value::Count(self.old)),
            ("usable", Value::Count(self.usable)),
            ("old_share", Value::Share(self.share())),
            ("opened", Value::Count(self.opened)),
            ("reused", Value::Count(self.reused)),
        ]
    }
}

/// Whom it does nothing for.
struct Case {
    compared: Compared,
    why: Option<Why>,
    /// `api[4711] → 10.0.0.9:6379`.
    name: String,
    subject: Subject,
    is_short: bool,
}

fn check(evidence: &Evidence) -> Outcome {
    let is_on = |netns| evidence.number(netns, "net.ipv4.tcp_tw_reuse") == Some(1);
    let keys = evidence.budgets.keys.iter().filter(|key| is_on(key.budget.key.netns));
    let sources = evidence.budgets.sources.iter().filter(|it| is_on(it.netns));
    let servers = evidence.servers().filter(|pair| is_on(pair.key.netns));
    let waits = evidence.standing(|it| it.state == State::TimeWait && it.pair.side == Side::Server);
    let cases: Vec<Case> = keys
        .map(|key| of_key(evidence, key))
        .chain(sources.map(|source| of_source(evidence, source)))
        .chain(servers.filter_map(|pair| of_listener(evidence, pair, &waits)))
        .collect();
    let findings = cases.iter().filter_map(finding).collect();
    let fullest = cases.iter().max_by(|one, other| one.compared.share().total_cmp(&other.compared.share()));
    Outcome::of(findings, fullest.map(|it| it.compared.figures()).unwrap_or_default())
}

/// TIME_WAITs of a network namespace that connect() took over: counted by the kernel, or seen.
fn reused(evidence: &Evidence, netns: Option<u32>) -> u64 {
    let pairs = evidence.pairs.iter().filter(|pair| pair.key.netns == netns);
    let seen: u64 = pairs.map(|pair| pair.time_waits_by(TimeWaitEnd::Reused)).sum();
    netns.map_or(0, |netns| evidence.grown(netns, "TcpExt.TWRecycled")).max(seen)
}

fn of_key(evidence: &Evidence, key: &KeyBudget) -> Case {
    let budget = &key.budget;
    let netns = budget.key.netns;
    let is_off = evidence.number(netns, "net.ipv4.tcp_timestamps") == Some(0);
    let waits_for_fin = share(budget.fin_wait2.into(), budget.usable.into()) >= SHARE;
    let (old, why) = match budget.reuse {
        _ if waits_for_fin && budget.fin_wait2 > key.old_time_waits => (budget.fin_wait2, Some(Why::FinWait2)),
        Reuse::NoTimestamps if is_off => (key.old_time_waits, Some(Why::TimestampsOff)),
        Reuse::NoTimestamps => (key.old_time_waits, Some(Why::PeerHasNone)),
        _ => (key.old_time_waits, None),
    };
    let pairs = || budgets::pairs(evidence, budget);
    let opened = pairs().map(|pair| pair.opened).sum();
    let ends = budget.key.ends();
    let process = pairs().max_by_key(|pair| pair.opened).map(Pair::process);
    let compared = Compared { old: old.into(), usable: budget.usable.into(), opened, reused: reused(evidence, netns) };
    Case {
        compared,
        why,
        name: format!("{} → {}", process.unwrap_or_else(|| ends.local().ip().to_string()), ends.remote()),
        subject: Subject {
            task: pairs().max_by_key(|pair| pair.opened).and_then(Pair::task),
            netns,
            local: Some(ends.local()),
            remote: Some(ends.remote()),
            side: Some(Side::Client),
            ..Subject::default()
        },
        is_short: budget.share >= HALF,
    }
}

fn of_source(evidence: &Evidence, source: &SourceOf) -> Case {
    let budget = &source.budget;
    let binder = evidence.binders.iter().find(|it| it.netns == source.netns && it.ip == budget.source);
    let tasks = binder.map_or(&[][..], |it| &it.tasks);
    let only: Option<Task> = tasks.first().map(|(task, _)| *task).filter(|_| tasks.len() == 1);
    let address = say::address(budget.source);
    let compared = Compared {
        old: budget.time_wait.into(),
        usable: budget.usable.into(),
        opened: binder.map_or(0, |it| it.opened),
        reused: reused(evidence, source.netns),
    };
    Case {
        compared,
        why: Some(Why::Bound),
        name: only.map_or_else(|| address.to_string(), |task| format!("{} from {address}", say::process(task))),
        subject: Subject {
            task: only,
            netns: source.netns,
            local: Some(say::end(budget.source, 0)),
            side: Some(Side::Client),
            ..Subject::default()
        },
        is_short: budget.share >= HALF,
    }
}

/// Its TIME_WAITs take no port, but people count them against the range.
fn of_listener(evidence: &Evidence, pair: &Pair, waits: &Standings<'_>) -> Option<Case> {
    let range = PortSettings::of(evidence.settings.get(&pair.key.netns)?)?.range;
    let compared = Compared {
        old: waits.get(&pair.key).map_or(0, Vec::len) as u64,
        usable: range.count().into(),
        opened: pair.opened,
        reused: reused(evidence, pair.key.netns),
    };
    let name = format!("{} on port {}", pair.process(), pair.key.port);
    Some(Case { compared, why: Some(Why::Listener), name, subject: pair.subject(), is_short: false })
}

fn finding(case: &Case) -> Option<Finding> {
    let why = case.why.filter(|_| case.compared.fires())?;
    let severity = if case.is_short { Severity::Warning } else { Severity::Note };
    let confidence = match why {
        Why::TimestampsOff | Why::Listener => Confidence::Certain,
        _ => Confidence::Likely,
    };
    let reason = reason(why);
    let headline = say::fitting([
        format!("tcp_tw_reuse=1 does nothing for {}: {}", case.name, reason.words),
        format!("tcp_tw_reuse=1 does nothing: {}", reason.words),
    ]);
    let mut finding = Finding::new(RULE.id, severity, confidence, headline);
    finding.subject = case.subject.clone();
    finding.figures = case.compared.figures();
    finding.count = case.compared.old;
    let Compared { old, usable, opened, .. } = case.compared;
    finding.line(
        "sock_diag",
        format!(
            "{} old enough, {} of {} ports",
            say::count(old),
            say::percent(case.compared.share()),
            say::count(usable)
        ),
    );
    finding.line("seen", format!("{} opened in the window, none took a TIME_WAIT over", say::count(opened)));
    finding.why = reason.why.into();
    finding.remedies.push(reason.remedy.into());
    finding.sure = match confidence {
        Confidence::Certain => "certain: by the kernel's code and what was counted".into(),
        _ => "likely: nothing was taken over, and the sockets show this reason".into(),
    };
    Some(finding)
}

/// The words for a reason.
struct Reason {
    words: &'static str,
    why: &'static str,
    remedy: &'static str,
}

fn reason(why: Why) -> Reason {
    match why {
        Why::TimestampsOff => Reason {
            words: "tcp_timestamps is 0 here",
            why: "connect() takes a TIME_WAIT over only where TCP timestamps tell old packets from new ones.",
            remedy: "sysctl net.ipv4.tcp_timestamps=1 (the default)",
        },
        Why::PeerHasNone => Reason {
            words: "the peer uses no TCP timestamps",
            why: "connect() takes a TIME_WAIT over only where TCP timestamps tell old packets from new ones; both ends must use \
                  them.",
            remedy: "Turn TCP timestamps on at the peer, and look for a firewall that strips TCP options",
        },
        Why::Bound => Reason {
            words: "a port is bound before connect()",
            why: "bind() takes no TIME_WAIT over; only connect() does, for a port that it chooses itself.",
            remedy: "Set IP_BIND_ADDRESS_NO_PORT before bind(), or drop the bind()",
        },
        Why::FinWait2 => Reason {
            words: "its sockets wait in FIN_WAIT2, not in TIME_WAIT",
            why: "The peer has not closed: connect() takes over sockets in TIME_WAIT only.",
            remedy: "Find out why the peer does not close its end",
        },
        Why::Listener => Reason {
            words: "who listens does not connect",
            why: "tcp_tw_reuse acts on connect(). These TIME_WAITs are on a listening port, where they take no port of anybody.",
            remedy: "Nothing needs to be done",
        },
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, fired, pair, seen, server_key, standing};
    use super::*;
    use crate::model::event::{Inspected, Kept};
    use crate::study::diagnose::evidence::{Budgets, Counted, Spread, Standing};

    /// 100 ports, so many TIME_WAITs of all ages; 100 connections were opened.
    fn inert(time_waits: u64, timestamps: &str) -> Evidence {
        let mut evidence = super::super::ports_running_out::tests::taking(time_waits, 100);
        let values = &mut evidence.settings.get_mut(&Some(NETNS)).expect("some").values;
        values.insert("net.ipv4.tcp_tw_reuse".into(), "1".into());
        values.insert("net.ipv4.tcp_timestamps".into(), timestamps.into());
        // All are old enough but one.
        for socket in evidence.sockets.iter_mut().skip(1) {
            socket.age = crate::model::row::Held::Exactly(1_000_000_000);
        }
        evidence.budgets = Budgets::of(&evidence);
        evidence
    }

    #[rstest]
    #[case::few(20, 100, 0)]
    #[case::a_fifth(21, 100, 1)]
    #[case::few_opened(21, 99, 0)]
    fn thresholds(#[case] time_waits: u64, #[case] opened: u64, #[case] expected: usize) {
        let mut evidence = inert(time_waits, "0");
        evidence.pairs[0].opened = opened;
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    #[test]
    fn what_is_reused_is_not_inert() {
        let mut evidence = inert(50, "0");
        evidence.pairs[0].time_waits.push((TimeWaitEnd::Reused, 1, Spread::default()));
        assert_eq!(fired(&RULE, &evidence), []);
        let mut evidence = inert(50, "0");
        let mut counted = Counted::default();
        counted.grown.insert("TcpExt.TWRecycled".into(), 1);
        evidence.counters.insert(NETNS, counted);
        assert_eq!(fired(&RULE, &evidence), []);
    }

    #[test]
    fn without_a_reason_nothing_is_said() {
        assert_eq!(fired(&RULE, &inert(50, "1")), []);
        let mut evidence = inert(50, "0");
        let values = &mut evidence.settings.get_mut(&Some(NETNS)).expect("some").values;
        values.insert("net.ipv4.tcp_tw_reuse".into(), "2".into());
        assert_eq!(fired(&RULE, &evidence), []);
    }

    #[test]
    fn words_without_timestamps() {
        let finding = &fired(&RULE, &inert(61, "0"))[0];
        let expected = "tcp_tw_reuse=1 does nothing for api[4711] → 10.0.0.9:6379: tcp_timestamps is 0 here";
        assert_eq!(finding.headline, expected);
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Certain));
        assert_eq!(finding.evidence[0].text, "60 old enough, 60 % of 100 ports");
    }

    #[test]
    fn a_peer_without_timestamps() {
        let mut evidence = inert(30, "1");
        evidence.sockets[0].seen = Some(Inspected { timestamps: Some(false), ..seen(0, 0, 0) });
        evidence.budgets = Budgets::of(&evidence);
        let finding = &fired(&RULE, &evidence)[0];
        let expected = "tcp_tw_reuse=1 does nothing for api[4711] → 10.0.0.9:6379: the peer uses no TCP timestamps";
        assert_eq!((&*finding.headline, finding.severity), (expected, Severity::Note));
    }

    #[test]
    fn a_peer_that_does_not_close() {
        let mut evidence = inert(30, "1");
        for socket in &mut evidence.sockets {
            (socket.state, socket.kept) = (State::FinWait2, Some(Kept::Mini { due_ns: 1 }));
        }
        evidence.budgets = Budgets::of(&evidence);
        let finding = &fired(&RULE, &evidence)[0];
        assert!(finding.headline.ends_with("its sockets wait in FIN_WAIT2, not in TIME_WAIT"), "{}", finding.headline);
    }

    #[test]
    fn a_port_that_is_bound() {
        let mut evidence = super::super::bind_before_connect::tests::binding(100, 1, 200);
        let values = &mut evidence.settings.get_mut(&Some(NETNS)).expect("some").values;
        values.insert("net.ipv4.tcp_tw_reuse".into(), "1".into());
        let finding = &fired(&RULE, &evidence)[0];
        let expected = "tcp_tw_reuse=1 does nothing for api[4711] from 10.0.0.1: a port is bound before connect()";
        assert_eq!(finding.headline, expected);
    }

    #[test]
    fn a_listener() {
        let mut evidence = inert(0, "1");
        let of = |conn| Standing { pair: server_key(), side: Side::Server, ..standing(conn, State::TimeWait, 10) };
        evidence.sockets = (0..20).map(of).collect();
        evidence.pairs = vec![Pair { opened: 100, ..pair(server_key()) }];
        evidence.budgets = Budgets::of(&evidence);
        let finding = &fired(&RULE, &evidence)[0];
        let expected = "tcp_tw_reuse=1 does nothing for api[4711] on port 80: who listens does not connect";
        assert_eq!((&*finding.headline, finding.confidence), (expected, Confidence::Certain));
    }
}
