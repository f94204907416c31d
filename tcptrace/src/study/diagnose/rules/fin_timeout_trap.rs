//! `tcp_fin_timeout` above 60 does something else than its name says.

use crate::model::tcp::{End, State};
use crate::study::diagnose::evidence::Evidence;
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// The setting.
const NAME: &str = "net.ipv4.tcp_fin_timeout";
/// Up to here it means what it says: the kernel keeps a mini-socket for so long (`TCP_TIMEWAIT_LEN`).
const HONEST: i64 = 60;
/// From so many on that timed out in the window, it does not only look wrong.
const MANY: u64 = 20;

pub(super) static RULE: Rule = Rule {
    id: "fin-timeout-trap",
    title: "tcp_fin_timeout above 60 does not last as long as it says",
    needs: &[Need::Settings],
    figures: &[
        Figure { name: "fin_timeout_s", unit: "s", doc: "The value of tcp_fin_timeout." },
        Figure { name: "effective_ns", unit: "ns", doc: "How long an orphan really stays in FIN_WAIT2 with it." },
        Figure { name: "timed_out", unit: "", doc: "Orphans whose FIN_WAIT2 timed out in the window." },
    ],
    page: Page {
        sees: "Orphans stay in FIN_WAIT2 for a different time than net.ipv4.tcp_fin_timeout says, and cost more memory.",
        fires: "tcp_fin_timeout is above 60 and is not 120. The kernel splits the time at 60s (TCP_TIMEWAIT_LEN): a value v \
                above that makes an orphan wait v - 60 as a full socket and v - 60 again as a mini-socket. 120 gives 120s.",
        silent: "60 or less: the whole time is spent as a mini-socket.",
        remedy: "Set net.ipv4.tcp_fin_timeout to 60 or less.",
        sources: "tcp_rcv_state_process, tcp_keepalive_timer (net/ipv4): tmo = tcp_fin_time - TCP_TIMEWAIT_LEN, twice.",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let mut findings = Vec::new();
    let mut compared = Figures::new();
    for netns in evidence.settings.keys().copied().flatten() {
        let Some(seconds) = evidence.number(Some(netns), NAME) else { continue };
        let timed_out = timed_out(evidence, netns);
        let figures = figures(seconds, timed_out);
        if seconds > HONEST && seconds != 2 * HONEST {
            findings.push(finding(netns, seconds, timed_out, figures));
        } else if compared.is_empty() {
            compared = figures;
        }
    }
    Outcome::of(findings, compared)
}

/// Orphans of a network namespace whose FIN_WAIT2 timed out in the window.
fn timed_out(evidence: &Evidence, netns: u32) -> u64 {
    let pairs = evidence.pairs.iter().filter(|pair| pair.key.netns == Some(netns));
    pairs.map(|pair| pair.ended_by(End::FinWait2Timeout)).sum()
}

/// How long an orphan stays in FIN_WAIT2 with this value.
fn effective_ns(seconds: i64) -> u64 {
    let lasts = if seconds > HONEST { 2 * (seconds - HONEST) } else { seconds };
    u64::try_from(lasts).unwrap_or(0).saturating_mul(1_000_000_000)
}

fn figures(seconds: i64, timed_out: u64) -> Figures {
    vec![
        ("fin_timeout_s", Value::from(u64::try_from(seconds).ok())),
        ("effective_ns", Value::Ns(effective_ns(seconds))),
        ("timed_out", Value::Count(timed_out)),
    ]
}

fn finding(netns: u32, seconds: i64, timed_out: u64, figures: Figures) -> Finding {
    let severity = if timed_out >= MANY { Severity::Warning } else { Severity::Note };
    let effective = say::time(effective_ns(seconds));
    let full = say::time(effective_ns(seconds) / 2);
    let headline =
        format!("tcp_fin_timeout={seconds} means {effective}, and each orphan waits {full} of it as a full socket");
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline);
    finding.subject = Subject { netns: Some(netns), ..Subject::default() };
    finding.line("sysctl", format!("{NAME}={seconds}; 60 or less means what it says, and so does 120"));
    if timed_out > 0 {
        finding.line("seen", format!("{} in {} timed out", say::counted(timed_out, "orphan"), State::FinWait2));
    }
    finding.why =
        "The kernel waits the time above 60s twice: once as a full socket (2.3 KiB), once as a mini-socket (256 B)."
            .into();
    finding.remedies.push(format!("sysctl {NAME}=60"));
    finding.sure = "certain: the kernel's code and the value".into();
    finding.count = timed_out;
    finding.figures = figures;
    finding
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{self, fired, with_settings};
    use super::*;

    #[rstest]
    #[case::default("60", None)]
    #[case::below("30", None)]
    #[case::above_by_one(
        "61",
        Some("tcp_fin_timeout=61 means 2.00s, and each orphan waits 1.00s of it as a full socket")
    )]
    #[case::the_one_that_fits("120", None)]
    #[case::beyond("180", Some("tcp_fin_timeout=180 means 4m00s, and each orphan waits 2m00s of it as a full socket"))]
    #[case::negative("-1", None)]
    fn values(#[case] value: &str, #[case] expected: Option<&str>) {
        let evidence = with_settings(&[(NAME, value)]);
        let findings = fired(&RULE, &evidence);
        assert_eq!(
            findings.iter().map(|it| &*it.headline).collect::<Vec<_>>(),
            expected.into_iter().collect::<Vec<_>>()
        );
    }

    #[rstest]
    #[case::few(19, Severity::Note)]
    #[case::many(20, Severity::Warning)]
    fn severity_is_by_what_timed_out(#[case] timed_out: u64, #[case] expected: Severity) {
        let mut evidence = with_settings(&[(NAME, "90")]);
        evidence.pairs.push(testing::pair_ended(End::FinWait2Timeout, timed_out));
        assert_eq!(fired(&RULE, &evidence)[0].severity, expected);
    }
}
