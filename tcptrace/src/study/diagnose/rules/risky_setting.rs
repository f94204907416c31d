//! Settings whose value does harm sooner or later.

use crate::model::event::Timer;
use crate::model::tcp::State;
use crate::study::diagnose::evidence::{Evidence, Standing};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Id, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::{say, settings};

pub(super) static RULE: Rule = Rule {
    id: "risky-setting",
    title: "a setting has a value that does harm sooner or later",
    needs: &[Need::Settings],
    figures: &[
        Figure { name: "value", unit: "", doc: "The first number of the value; null where it is none, or negative." },
        Figure { name: "default", unit: "", doc: "The first number of its default; null where that is unknown." },
        Figure { name: "compared", unit: "", doc: "Values that were compared, of all network namespaces." },
    ],
    page: Page {
        sees: "Nothing yet, or a failure that another finding is about: that one names the setting then.",
        fires: "One of: tcp_timestamps=0; tcp_tw_reuse_delay below 1000 (the slowest tick of a peer's timestamps is 1s); \
                tcp_max_tw_buckets below its default; tcp_abort_on_overflow=1; tcp_syncookies 0 or 2; tcp_fin_timeout below 10; \
                somaxconn below 4096 while a listener has asked for that or more; tcp_retries2 below 8 (RFC 1122: at least \
                100s); tcp_orphan_retries 1 to 3 while FINs are unanswered; tcp_syn_retries of 1; an ip_local_port_range of \
                fewer than 10,000 ports, or one that begins below 1024; tcp_keepalive_time below 60; \
                nf_conntrack_tcp_timeout_established below the keepalive time of connections that use it; \
                nf_conntrack_tcp_timeout_close_wait lowered below the age of a CLOSE_WAIT; a limit in tcp_mem above half of the \
                memory.",
        silent: "Defaults; tcp_rfc1337 either way. tcp_fin_timeout above 60 is fin-timeout-trap.",
        remedy: "Go back to the default, unless you have measured that the value helps.",
        sources: "ip-sysctl.rst and nf_conntrack-sysctl.rst (Documentation/networking); RFC 1122 4.2.3.5, RFC 7323.",
    },
    check,
};

/// A setting, and when it is risky.
struct Risk {
    name: &'static str,
    /// What goes on with such a value, to follow on `name=value`; `None` if it does no harm.
    says: fn(&Evidence, Option<u32>, &str) -> Option<String>,
    /// Rules in whose findings it is named.
    matters_for: &'static [Id],
}

const PORTS: &[Id] = &["ports-exhausted", "ports-running-out", "bind-before-connect"];

const RISKS: &[Risk] = &[
    Risk {
        name: "net.ipv4.tcp_timestamps",
        says: |_, _, value| (value == "0").then(|| "switches off PAWS and tcp_tw_reuse for all connections".into()),
        matters_for: &["tw-reuse-inert", "ports-exhausted", "ports-running-out"],
    },
    Risk {
        name: "net.ipv4.tcp_tw_reuse_delay",
        says: |_, _, value| {
            is_below(value, 1000).then(|| "is shorter than the tick of some timestamps: old data can get in".into())
        },
        matters_for: &[],
    },
    Risk { name: "net.ipv4.tcp_max_tw_buckets", says: buckets, matters_for: &["time-wait-refused"] },
    Risk {
        name: "net.ipv4.tcp_abort_on_overflow",
        says: |_, _, value| {
            (value != "0").then(|| "resets clients when an accept queue is full, instead of waiting".into())
        },
        matters_for: &["accept-queue-full", "never-accepted", "connect-refused", "reset-by-peer"],
    },
    Risk { name: "net.ipv4.tcp_syncookies", says: cookies, matters_for: &["syn-queue-full"] },
    Risk {
        name: "net.ipv4.tcp_fin_timeout",
        says: |_, _, value| {
            is_below(value, 10).then(|| "resets peers that close, or send their last data, later".into())
        },
        matters_for: &["peer-does-not-close"],
    },
    Risk {
        name: "net.core.somaxconn",
        says: somaxconn,
        matters_for: &["accept-queue-full", "syn-queue-full", "never-accepted"],
    },
    Risk { name: "net.ipv4.tcp_retries2", says: retries, matters_for: &["dead-peer"] },
    Risk {
        name: "net.ipv4.tcp_orphan_retries",
        says: orphan_retries,
        matters_for: &["fin-unanswered", "orphans-near-limit"],
    },
    Risk {
        name: "net.ipv4.tcp_syn_retries",
        says: |_, _, value| is_below(value, 2).then(|| "lets connect() give up after about 3s".into()),
        matters_for: &["connect-timeout"],
    },
    Risk { name: "net.ipv4.ip_local_port_range", says: port_range, matters_for: PORTS },
    Risk {
        name: "net.ipv4.tcp_keepalive_time",
        says: |_, _, value| {
            is_below(value, 60).then(|| "probes idle connections so often that a short outage ends them".into())
        },
        matters_for: &["dead-peer"],
    },
    Risk {
        name: "net.netfilter.nf_conntrack_tcp_timeout_established",
        says: forgets_idle,
        matters_for: &["reset-by-peer", "dead-peer", "conntrack-full"],
    },
    Risk {
        name: "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
        says: forgets_half_closed,
        matters_for: &["close-wait-leak", "close-wait-unread"],
    },
    Risk { name: "net.ipv4.tcp_mem", says: memory, matters_for: &["tcp-memory"] },
];

fn number(value: &str) -> Option<i64> {
    value.split_whitespace().next()?.parse().ok()
}

fn is_below(value: &str, least: i64) -> bool {
    number(value).is_some_and(|value| value < least)
}

fn standing(evidence: &Evidence, netns: Option<u32>) -> impl Iterator<Item = &Standing> {
    evidence.sockets.iter().filter(move |socket| socket.netns == netns)
}

fn buckets(evidence: &Evidence, _: Option<u32>, value: &str) -> Option<String> {
    let default = settings::default_of_tables(evidence)?;
    let is_lower = number(value)? < i64::try_from(default).ok()?;
    is_lower.then(|| format!("is below the default of {}: above it closes get no TIME_WAIT", say::count(default)))
}

fn cookies(_: &Evidence, _: Option<u32>, value: &str) -> Option<String> {
    match value {
        "0" => Some("drops SYNs when a SYN queue is full".into()),
        "2" => Some("answers every SYN by cookie, which loses TCP options".into()),
        _ => None,
    }
}

/// `listen()` takes the smaller one of what it is asked for and this.
fn somaxconn(evidence: &Evidence, netns: Option<u32>, value: &str) -> Option<String> {
    let most = number(value).filter(|most| *most < 4096)?;
    let mut there = evidence.listeners.iter().filter(|it| it.netns == netns);
    let capped = there.find(|it| i64::from(it.queue.limit) == most)?;
    Some(format!("caps the queue of port {}, which has asked for that or more", capped.queue.port))
}

fn retries(_: &Evidence, _: Option<u32>, value: &str) -> Option<String> {
    /// With 8, the kernel waits for longer than RFC 1122 demands.
    const LEAST: i64 = 8;
    let retries = number(value).filter(|retries| *retries < LEAST)?;
    // From 200ms on, which is the shortest, each wait is twice as long as the one before.
    let waits = (2_u64 << u32::try_from(retries).unwrap_or(0)) - 1;
    let time = say::seconds(waits as f64 * 0.2);
    Some(format!("gives up on a silent peer after about {time}: RFC 1122 wants 100s at least"))
}

fn orphan_retries(evidence: &Evidence, netns: Option<u32>, value: &str) -> Option<String> {
    number(value).filter(|retries| (1..=3).contains(retries))?;
    let waits = |it: &&Standing| {
        matches!(it.state, State::FinWait1 | State::LastAck | State::Closing)
            && it.seen.is_some_and(|seen| seen.retransmits > 0)
    };
    let count = standing(evidence, netns).filter(waits).count() as u64;
    let are = say::counted(count, "connection");
    (count > 0).then(|| format!("gives up closed connections early, and {are} had a FIN unanswered"))
}

fn port_range(_: &Evidence, _: Option<u32>, value: &str) -> Option<String> {
    let mut ends = value.split_whitespace().map(str::parse::<u32>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    let ports = (last + 1).saturating_sub(first);
    match first {
        _ if ports < 10_000 => Some(format!("has {} for each destination", say::counted(u64::from(ports), "port"))),
        ..1024 => Some("begins below 1024: connect() can take the port of a service".into()),
        _ => None,
    }
}

fn forgets_idle(evidence: &Evidence, netns: Option<u32>, value: &str) -> Option<String> {
    let timeout = number(value).filter(|timeout| *timeout < 7200)?;
    let keepalive = evidence.number(netns, "net.ipv4.tcp_keepalive_time").filter(|keepalive| *keepalive > timeout)?;
    let is_kept =
        |it: &Standing| it.state == State::Established && it.seen.is_some_and(|seen| seen.timer == Timer::Keepalive);
    let has_users = standing(evidence, netns).any(is_kept);
    has_users.then(|| format!("forgets connections before their keepalive (tcp_keepalive_time={keepalive})"))
}

fn forgets_half_closed(evidence: &Evidence, netns: Option<u32>, value: &str) -> Option<String> {
    // The default is short, too, and no sign of anything.
    let timeout = number(value).filter(|timeout| *timeout < 60)?;
    let ages = standing(evidence, netns).filter(|it| it.state == State::CloseWait).map(Standing::age_ns);
    let oldest = ages.max().filter(|age| i128::from(*age) > i128::from(timeout) * 1_000_000_000)?;
    Some(format!("forgets connections in CLOSE_WAIT, of which one is {} old", say::time(oldest)))
}

fn memory(evidence: &Evidence, _: Option<u32>, value: &str) -> Option<String> {
    let fact = |name| evidence.number(None, name).and_then(|number| u64::try_from(number).ok());
    let (page, all) = (fact("kernel.page_size")?, fact("kernel.memory")?);
    let limit = value.split_whitespace().nth(2)?.parse::<u64>().ok()?.saturating_mul(page);
    let (limit_text, all_text) = (say::bytes(limit), say::bytes(all));
    (limit > all / 2).then(|| format!("lets buffers of TCP take {limit_text} of {all_text} of memory"))
}

fn check(evidence: &Evidence) -> Outcome {
    let mut findings = Vec::new();
    let mut compared = 0;
    for (netns, settings) in &evidence.settings {
        for risk in RISKS {
            let Some(value) = settings.values.get(risk.name) else { continue };
            compared += 1;
            let says = (risk.says)(evidence, *netns, value);
            findings.extend(says.map(|says| finding(evidence, risk, *netns, value, &says)));
        }
    }
    findings.iter_mut().for_each(|finding| finding.figures.push(("compared", Value::Count(compared))));
    let nothing = vec![("value", Value::Unknown), ("default", Value::Unknown), ("compared", Value::Count(compared))];
    Outcome::of(findings, nothing)
}

fn finding(evidence: &Evidence, risk: &Risk, netns: Option<u32>, value: &str, says: &str) -> Finding {
    let several = evidence.settings.keys().flatten().count() > 1;
    let place = netns.filter(|_| several).map_or(String::new(), |netns| format!("netns {netns}: "));
    let sentence = format!("{}={value} {says}", short(risk.name));
    let headline = say::fitting([format!("{place}{sentence}"), sentence]);
    let mut finding = Finding::new(RULE.id, Severity::Note, Confidence::Certain, headline);
    finding.subject = Subject { netns, ..Subject::default() };
    let default = settings::default_of(risk.name).map(str::to_owned);
    let computed = || settings::default_of_tables(evidence).filter(|_| risk.name == "net.ipv4.tcp_max_tw_buckets");
    let default = default.or_else(|| computed().map(|default| default.to_string()));
    finding.figures = figures(value, default.as_deref());
    let text = default.as_ref().map_or(String::new(), |default| format!("; default {default}"));
    finding.line("sysctl", format!("{}={value}{text}", risk.name));
    finding.remedies.extend(default.map(|default| format!("sysctl {}={}", risk.name, quoted(&default))));
    finding.sure = "certain of the value; that it does harm here is possible".into();
    finding.count = 1;
    finding
}

fn figures(value: &str, default: Option<&str>) -> Figures {
    let of = |text: &str| number(text).and_then(|number| u64::try_from(number).ok());
    vec![("value", of(value).into()), ("default", default.and_then(of).into())]
}

/// A name as people say it.
fn short(name: &str) -> &str {
    ["net.ipv4.", "net.netfilter."].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

/// For a shell.
fn quoted(value: &str) -> String {
    if value.contains(' ') { format!("\"{value}\"") } else { value.to_owned() }
}

/// Names settings in the findings that they matter for: those are said once.
pub(in crate::study::diagnose) fn name_in(findings: &mut [Finding]) {
    for place in 0..findings.len() {
        let Some((risk, sentence)) = findings.get(place).and_then(named) else { continue };
        let netns = findings[place].subject.netns;
        let mut named_in = None;
        for finding in findings.iter_mut() {
            let matters = risk.matters_for.contains(&finding.id) && finding.because_of.is_none();
            if matters && (netns.is_none() || finding.subject.netns.is_none_or(|it| Some(it) == netns)) {
                finding.why.push_str(&format!(" {sentence}."));
                named_in = named_in.or(Some(finding.id));
            }
        }
        findings[place].because_of = named_in;
    }
}

/// The setting that a finding of this rule is about, and its sentence.
fn named(finding: &Finding) -> Option<(&'static Risk, String)> {
    let line = finding.evidence.first().filter(|_| finding.id == RULE.id)?;
    let is_it = |risk: &&Risk| line.text.strip_prefix(risk.name).is_some_and(|rest| rest.starts_with('='));
    let risk = RISKS.iter().find(is_it)?;
    let start = finding.headline.find(short(risk.name))?;
    Some((risk, finding.headline.get(start..)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{self, NETNS, api_listener, fired, nothing, seen, with_settings};
    use super::*;
    use crate::model::facts::Settings;

    fn headlines(evidence: &Evidence) -> Vec<String> {
        fired(&RULE, evidence).into_iter().map(|finding| finding.headline).collect()
    }

    #[rstest]
    #[case("tcp_timestamps", "1", None)]
    #[case("tcp_timestamps", "0", Some("tcp_timestamps=0 switches off PAWS and tcp_tw_reuse for all connections"))]
    #[case("tcp_tw_reuse_delay", "1000", None)]
    #[case(
        "tcp_tw_reuse_delay",
        "999",
        Some("tcp_tw_reuse_delay=999 is shorter than the tick of some timestamps: old data can get in")
    )]
    #[case("tcp_abort_on_overflow", "0", None)]
    #[case(
        "tcp_abort_on_overflow",
        "1",
        Some("tcp_abort_on_overflow=1 resets clients when an accept queue is full, instead of waiting")
    )]
    #[case("tcp_syncookies", "1", None)]
    #[case("tcp_syncookies", "0", Some("tcp_syncookies=0 drops SYNs when a SYN queue is full"))]
    #[case("tcp_syncookies", "2", Some("tcp_syncookies=2 answers every SYN by cookie, which loses TCP options"))]
    #[case("tcp_fin_timeout", "10", None)]
    #[case("tcp_fin_timeout", "9", Some("tcp_fin_timeout=9 resets peers that close, or send their last data, later"))]
    #[case("tcp_fin_timeout", "-1", Some("tcp_fin_timeout=-1 resets peers that close, or send their last data, later"))]
    #[case("tcp_retries2", "8", None)]
    #[case(
        "tcp_retries2",
        "7",
        Some("tcp_retries2=7 gives up on a silent peer after about 51.0s: RFC 1122 wants 100s at least")
    )]
    #[case(
        "tcp_retries2",
        "3",
        Some("tcp_retries2=3 gives up on a silent peer after about 3.0s: RFC 1122 wants 100s at least")
    )]
    #[case("tcp_syn_retries", "2", None)]
    #[case("tcp_syn_retries", "1", Some("tcp_syn_retries=1 lets connect() give up after about 3s"))]
    #[case("ip_local_port_range", "30000 39999", None)]
    #[case(
        "ip_local_port_range",
        "30000 39998",
        Some("ip_local_port_range=30000 39998 has 9,999 ports for each destination")
    )]
    #[case("ip_local_port_range", "1024 65535", None)]
    #[case(
        "ip_local_port_range",
        "1023 65535",
        Some("ip_local_port_range=1023 65535 begins below 1024: connect() can take the port of a service")
    )]
    #[case("tcp_keepalive_time", "60", None)]
    #[case(
        "tcp_keepalive_time",
        "59",
        Some("tcp_keepalive_time=59 probes idle connections so often that a short outage ends them")
    )]
    #[case("tcp_rfc1337", "1", None)]
    fn values(#[case] name: &str, #[case] value: &str, #[case] expected: Option<&str>) {
        let found = headlines(&with_settings(&[(&format!("net.ipv4.{name}"), value)]));
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }

    #[rstest]
    #[case::default("131072", None)]
    #[case::raised("131073", None)]
    #[case::lowered(
        "131071",
        Some("tcp_max_tw_buckets=131071 is below the default of 131,072: above it closes get no TIME_WAIT")
    )]
    fn buckets_of_this_memory(#[case] value: &str, #[case] expected: Option<&str>) {
        let mut evidence = with_settings(&[("net.ipv4.tcp_max_tw_buckets", value)]);
        let values = |name: &str| [(name.into(), "131072".into())].into();
        let host = Settings { values: values("net.ipv4.tcp_max_orphans"), ..Settings::default() };
        let other = Settings { values: values("net.ipv4.tcp_max_tw_buckets"), ..Settings::default() };
        evidence.settings.extend([(None, host), (Some(NETNS + 1), other)]);
        let expected = expected.map(|text| format!("netns 7: {text}"));
        assert_eq!(headlines(&evidence), expected.into_iter().collect::<Vec<_>>());
    }

    #[rstest]
    #[case::asked_for_less("128", 127, false)]
    #[case::capped("128", 128, true)]
    #[case::asked_before("128", 129, false)]
    #[case::as_large_as_the_default("4096", 4096, false)]
    #[case::just_smaller("4095", 4095, true)]
    fn listeners_are_capped(#[case] value: &str, #[case] limit: u32, #[case] fires: bool) {
        let mut evidence = with_settings(&[("net.core.somaxconn", value)]);
        evidence.listeners.push(api_listener(0, limit));
        let expected =
            format!("net.core.somaxconn={value} caps the queue of port 80, which has asked for that or more");
        assert_eq!(headlines(&evidence), Vec::from_iter(fires.then_some(expected)));
    }

    #[rstest]
    #[case::default("0", 1, false)]
    #[case::few("1", 1, true)]
    #[case::nearly("3", 1, true)]
    #[case::enough("4", 1, false)]
    #[case::all_are_answered("1", 0, false)]
    fn fins_are_unanswered(#[case] value: &str, #[case] retransmits: u8, #[case] fires: bool) {
        let mut evidence = with_settings(&[("net.ipv4.tcp_orphan_retries", value)]);
        let seen = crate::model::event::Inspected { retransmits, ..seen(1, 0, 1) };
        evidence.sockets.push(Standing { seen: Some(seen), ..testing::standing(1, State::FinWait1, 2) });
        let expected = format!(
            "tcp_orphan_retries={value} gives up closed connections early, and 1 connection had a FIN unanswered"
        );
        assert_eq!(headlines(&evidence), Vec::from_iter(fires.then_some(expected)));
    }

    #[rstest]
    #[case::longer("7200", Timer::Keepalive, false)]
    #[case::shorter("7199", Timer::Keepalive, true)]
    #[case::nobody_uses_it("7199", Timer::None, false)]
    fn idle_connections_are_forgotten(#[case] value: &str, #[case] timer: Timer, #[case] fires: bool) {
        let name = "net.netfilter.nf_conntrack_tcp_timeout_established";
        let mut evidence = with_settings(&[(name, value), ("net.ipv4.tcp_keepalive_time", "7200")]);
        let seen = crate::model::event::Inspected { timer, ..seen(1, 0, 1) };
        evidence.sockets.push(Standing { seen: Some(seen), ..testing::standing(1, State::Established, 2) });
        let expected = format!(
            "nf_conntrack_tcp_timeout_established={value} forgets connections before their keepalive (tcp_keepalive_time=7200)"
        );
        assert_eq!(headlines(&evidence), Vec::from_iter(fires.then_some(expected)));
    }

    #[rstest]
    #[case::default("60", 100, false)]
    #[case::lowered("59", 60, true)]
    #[case::still_known("59", 59, false)]
    fn half_closed_connections_are_forgotten(#[case] value: &str, #[case] age: u64, #[case] fires: bool) {
        let mut evidence = with_settings(&[("net.netfilter.nf_conntrack_tcp_timeout_close_wait", value)]);
        evidence.sockets.push(testing::standing(1, State::CloseWait, age));
        assert_eq!(!headlines(&evidence).is_empty(), fires);
    }

    #[rstest]
    #[case::half("1 2 1000", false)]
    #[case::more("1 2 1001", true)]
    fn buffers_take_most_of_the_memory(#[case] value: &str, #[case] fires: bool) {
        let mut evidence = nothing();
        let values = [("net.ipv4.tcp_mem", value), ("kernel.page_size", "4096"), ("kernel.memory", "8192000")];
        let values = values.map(|(name, value)| (name.into(), value.into())).into();
        evidence.settings.insert(None, Settings { values, ..Settings::default() });
        let expected = "tcp_mem=1 2 1001 lets buffers of TCP take 3.9 MiB of 7.8 MiB of memory".to_owned();
        assert_eq!(headlines(&evidence), Vec::from_iter(fires.then_some(expected)));
    }

    /// What the settings table calls a default is none of these.
    #[test]
    fn defaults_are_fine() {
        let defaults: Vec<_> = settings::defaults().collect();
        let mut evidence = with_settings(&defaults);
        evidence.listeners.push(api_listener(0, 4096));
        evidence.sockets.push(testing::standing(1, State::CloseWait, 100_000));
        assert_eq!(headlines(&evidence), Vec::<String>::new());
    }

    #[rstest]
    #[case::of_the_namespace("syn-queue-full", Some(NETNS), true)]
    #[case::of_another_namespace("syn-queue-full", Some(NETNS + 1), false)]
    #[case::of_another_kind("fd-limit", Some(NETNS), false)]
    fn it_is_named_where_it_matters(#[case] id: Id, #[case] netns: Option<u32>, #[case] expected: bool) {
        let mut findings = fired(&RULE, &with_settings(&[("net.ipv4.tcp_syncookies", "0")]));
        let mut other = Finding::new(id, Severity::Critical, Confidence::Certain, "full".into());
        (other.subject.netns, other.why) = (netns, "It is full.".into());
        findings.push(other);
        name_in(&mut findings);
        assert_eq!(findings[0].because_of, Some(id).filter(|_| expected));
        let more = if expected { " tcp_syncookies=0 drops SYNs when a SYN queue is full." } else { "" };
        assert_eq!(findings[1].why, format!("It is full.{more}"));
    }
}
