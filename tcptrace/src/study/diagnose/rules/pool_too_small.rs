//! A pool that closes connections which its process needs again at once.

use super::words::{connections_per_second, share};
use crate::model::tcp::Closer;
use crate::study::diagnose::evidence::{Ended, Evidence, Pair, Spread};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// So many closes are a habit.
const MANY: u64 = 50;
/// And so many a second cost something.
const PER_SECOND: f64 = 1.0;
/// So many of them were followed by an open within a second: the connection was needed again at once.
const REOPENED: f64 = 0.8;
/// A pool keeps some: with none open at times, nothing says that there is one.
const LEAST_OPEN: u64 = 2;
/// They had been used unequally often: without a pool, each carries about as much.
pub(super) const BYTES: u64 = 3;
/// They had lived unequally long: a fixed lifetime makes ages alike.
const AGES: u64 = 5;

pub(super) static RULE: Rule = Rule {
    id: "pool-too-small",
    title: "a pool keeps fewer idle connections than its process uses",
    needs: &[Need::Events],
    figures: &[
        Figure { name: "closed_here", unit: "", doc: "Established connections that the process closed first." },
        Figure { name: "closed_per_second", unit: "1/s", doc: "The same, each second." },
        Figure { name: "reopened_share", unit: "", doc: "The part that another was opened for within a second." },
        Figure { name: "least_open", unit: "", doc: "The fewest that were established at once." },
        Figure { name: "most_open", unit: "", doc: "The most that were established at once." },
        Figure { name: "bytes_sent_p10", unit: "B", doc: "Bytes sent on the closed ones, 10th percentile." },
        Figure { name: "bytes_sent_p90", unit: "B", doc: "The same, 90th percentile." },
        Figure { name: "established_p10_ns", unit: "ns", doc: "Time in ESTABLISHED of those, 10th percentile." },
        Figure { name: "established_p90_ns", unit: "ns", doc: "The same, 90th percentile." },
    ],
    page: Page {
        sees: "A pool is configured, and TIME_WAITs grow all the same; its counter of closed idle connections grows.",
        fires: "A process closed 50 or more connections to one remote end, one a second or more, and opened another within \
                1s for 80 % of them. At least 2 were open at any time, and those that it closed had been reused: the 90th \
                percentile of bytes sent is 3 times the 10th or more, and that of ages 5 times. Connections without a pool \
                carry about the same each; a maximum lifetime makes ages alike.",
        silent: "The pool keeps as many idle connections as the process uses at once.",
        remedy: "Raise the number of idle connections that the pool keeps to the number used at once.",
        sources: "database/sql: maxIdleConns, 2 by default; net/http: MaxIdleConnsPerHost, 2 by default.",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let findings =
        evidence.clients().filter(|pair| fires(evidence, pair)).map(|pair| finding(evidence, pair)).collect();
    let most = evidence.clients().max_by_key(|pair| pair.closed_here);
    Outcome::of(findings, most.map(|pair| figures(evidence, pair)).unwrap_or_default())
}

/// Whether a process's connections to a remote end look so.
pub(super) fn fires(evidence: &Evidence, pair: &Pair) -> bool {
    pair.closed_here >= MANY
        && evidence.about.per_second(pair.closed_here) >= PER_SECOND
        && share(pair.reopened, pair.closed_here) >= REOPENED
        && pair.least_open >= LEAST_OPEN
        && spans(&bytes(pair), BYTES)
        && spans(&ages(pair), AGES)
}

/// Whether the 90th percentile is so many times the 10th.
fn spans(spread: &Spread, times: u64) -> bool {
    let (Some(low), Some(high)) = (spread.percentile(10), spread.percentile(90)) else { return false };
    high >= low.max(1).saturating_mul(times)
}

/// Of those that this side closed.
fn of_closed(pair: &Pair, of: fn(&Ended) -> &Spread) -> Spread {
    let mut all = Spread::default();
    let ends = pair.ends.iter().filter(|(_, closer, _)| matches!(closer, Closer::Active | Closer::ResetLocal));
    ends.for_each(|(.., ended)| all.merge(of(ended)));
    all
}

fn bytes(pair: &Pair) -> Spread {
    of_closed(pair, |ended| &ended.bytes_sent)
}

fn ages(pair: &Pair) -> Spread {
    of_closed(pair, |ended| &ended.established)
}

fn figures(evidence: &Evidence, pair: &Pair) -> Figures {
    let (bytes, ages) = (bytes(pair), ages(pair));
    let size = |hundredths| bytes.percentile(hundredths).map_or(Value::Unknown, Value::Bytes);
    let age = |hundredths| ages.percentile(hundredths).map_or(Value::Unknown, Value::Ns);
    vec![
        ("closed_here", Value::Count(pair.closed_here)),
        ("closed_per_second", Value::Rate(evidence.about.per_second(pair.closed_here))),
        ("reopened_share", Value::Share(share(pair.reopened, pair.closed_here))),
        ("least_open", Value::Count(pair.least_open)),
        ("most_open", Value::Count(pair.most_open)),
        ("bytes_sent_p10", size(10)),
        ("bytes_sent_p90", size(90)),
        ("established_p10_ns", age(10)),
        ("established_p90_ns", age(90)),
    ]
}

fn finding(evidence: &Evidence, pair: &Pair) -> Finding {
    let rate = connections_per_second(evidence, pair.closed_here);
    let (process, remote, most) = (pair.process(), pair.end(), say::count(pair.most_open));
    let headline = say::fitting([
        format!(
            "{process} closes {rate} to {remote} and opens as many again at once: its pool keeps fewer idle than the {most} \
             it uses"
        ),
        format!("{process} closes and reopens {rate} to {remote}: its pool keeps fewer idle than the {most} it uses"),
        format!("{process} closes and reopens {rate} to {remote}: its pool keeps fewer than {most} idle"),
        format!("{process} closes and reopens {rate} to {remote}: its pool is too small"),
    ]);
    let mut finding = Finding::new(RULE.id, Severity::Warning, Confidence::Likely, headline);
    finding.subject = pair.subject();
    finding.figures = figures(evidence, pair);
    finding.count = pair.closed_here;
    finding.examples = pair.examples();
    (finding.first_seen, finding.last_seen) = pair.period();
    describe(pair, &mut finding);
    finding.why =
        "The pool closes a connection that is given back when it has enough idle ones, and the next request has to \
                   open another. Each close leaves a TIME_WAIT here, which takes its port for 61s."
            .into();
    finding.remedies.push(format!(
        "Raise the number of idle connections to at least {most} (Go: SetMaxIdleConns({most}), its default is 2; HikariCP: \
         minimumIdle = maximumPoolSize; Go's http.Transport: MaxIdleConnsPerHost, 2 by default)"
    ));
    finding.mistakes.push(format!("raise the maximum: at most {most} were open at once"));
    finding.sure = format!(
        "likely: {} closes, ages and bytes spread; a short idle timeout would make the ages alike",
        say::count(pair.closed_here)
    );
    finding
}

fn describe(pair: &Pair, finding: &mut Finding) {
    let part = say::percent(share(pair.reopened, pair.closed_here));
    let (closed, least, most) = (say::count(pair.closed_here), say::count(pair.least_open), say::count(pair.most_open));
    finding.line(
        "seen",
        format!("{closed} closed here, {part} of them reopened within 1s; {least} to {most} open at once"),
    );
    let (bytes, ages) = (bytes(pair), ages(pair));
    let percentiles = |spread: &Spread| [10, 50, 90].map(|it| spread.percentile(it).unwrap_or(0));
    let [low, middle, high] = percentiles(&ages).map(say::time);
    finding.line("seen", format!("closed after {low} / {middle} / {high} (p10 / p50 / p90)"));
    let [low, middle, high] = percentiles(&bytes).map(say::bytes);
    finding.line("seen", format!("{low} / {middle} / {high} sent on each: they were used unequally often"));
}

#[cfg(test)]
pub(super) mod tests {
    use rstest::rstest;

    use super::super::testing::{fired, nothing, pooled};
    use super::*;
    use crate::model::tcp::End;

    #[rstest]
    #[case::too_small(|_: &mut Pair| {}, 1)]
    #[case::few(|pair: &mut Pair| (pair.closed_here, pair.reopened) = (49, 49), 0)]
    #[case::just_many(|pair: &mut Pair| (pair.closed_here, pair.reopened) = (50, 50), 1)]
    #[case::not_needed_again(|pair: &mut Pair| pair.reopened = 711, 0)]
    #[case::needed_again(|pair: &mut Pair| pair.reopened = 712, 1)]
    #[case::one_open_at_times(|pair: &mut Pair| pair.least_open = 1, 0)]
    #[case::used_alike(|pair: &mut Pair| pair.ends[0].2.bytes_sent = pooled([100, 299]), 0)]
    #[case::used_unequally(|pair: &mut Pair| pair.ends[0].2.bytes_sent = pooled([100, 310]), 1)]
    #[case::a_lifetime(|pair: &mut Pair| pair.ends[0].2.established = pooled([30_000_000_000, 30_100_000_000]), 0)]
    #[case::closed_by_the_server(|pair: &mut Pair| pair.ends[0].1 = Closer::Passive, 0)]
    fn thresholds(#[case] change: fn(&mut Pair), #[case] expected: usize) {
        let mut evidence = churning();
        change(&mut evidence.pairs[0]);
        assert_eq!(fired(&RULE, &evidence).len(), expected);
    }

    /// A pool of up to 100 with a limit of 10 idle ones, used by 50 workers, as it was measured.
    pub(in crate::study::diagnose) fn churning() -> Evidence {
        use super::super::testing::pair_ended;
        let mut evidence = nothing();
        let mut pair = pair_ended(End::Fin, 890);
        (pair.closed_here, pair.reopened, pair.least_open, pair.most_open) = (890, 880, 27, 39);
        pair.ends[0].2.established = pooled([26_000_000, 250_000_000, 880_000_000]);
        pair.ends[0].2.bytes_sent = pooled([100, 1_100, 3_600]);
        evidence.pairs.push(pair);
        evidence
    }

    #[test]
    fn a_close_a_second_is_needed() {
        let mut evidence = churning();
        (evidence.pairs[0].closed_here, evidence.pairs[0].reopened) = (50, 50);
        evidence.about.traced_ns = 50_000_000_000;
        assert_eq!(fired(&RULE, &evidence).len(), 1);
        evidence.about.traced_ns = 51_000_000_000;
        assert_eq!(fired(&RULE, &evidence).len(), 0);
    }

    #[test]
    fn words() {
        let finding = &fired(&RULE, &churning())[0];
        let expected = "api[4711] closes and reopens 89 connections/s to 10.0.0.9:6379: its pool keeps fewer idle than the 39 it uses";
        assert_eq!(finding.headline, expected);
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Likely));
        assert_eq!(finding.evidence[0].text, "890 closed here, 99 % of them reopened within 1s; 27 to 39 open at once");
        assert_eq!(finding.evidence[1].text, "closed after 26.0ms / 249ms / 880ms (p10 / p50 / p90)");
    }
}
