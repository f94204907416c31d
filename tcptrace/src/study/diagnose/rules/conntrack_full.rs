//! A connection tracking table that is full, or nearly: the kernel drops what would begin a new flow.

use super::counted::{in_window, lacks_time, place};
use super::words::share;
use crate::study::diagnose::evidence::{Evidence, Pair};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// From this share on the table is nearly full: a burst of new flows fills the rest within seconds.
const NEAR: f64 = 0.8;
/// From this share on the kernel looks for entries to remove early (`gc_worker`).
const FULL: f64 = 0.95;
/// How long an entry stays after its connection.
const TIME_WAIT: &str = "net.netfilter.nf_conntrack_tcp_timeout_time_wait";

pub(super) static RULE: Rule = Rule {
    id: "conntrack-full",
    title: "the connection tracking table is full, and new flows are dropped",
    needs: &[Need::Counters],
    figures: &[
        Figure { name: "entries", unit: "", doc: "Entries of the network namespace's table, the most that were seen." },
        Figure { name: "entry_limit", unit: "", doc: "nf_conntrack_max." },
        Figure { name: "used_share", unit: "", doc: "The part of the limit that is used." },
        Figure {
            name: "dropped",
            unit: "",
            doc: "Packets dropped in the window because there was no room for an entry; null for a single look.",
        },
        Figure {
            name: "dropped_early",
            unit: "",
            doc: "Entries of living flows that were removed to make room; null for a single look.",
        },
        Figure {
            name: "insert_failed",
            unit: "",
            doc: "Entries that met another one of the same addresses and ports; null for a single look.",
        },
        Figure { name: "ended", unit: "", doc: "TCP connections of the network namespace that ended in the window." },
    ],
    page: Page {
        sees: "New connections, ping and DNS fail together, and old connections live on.",
        fires: "80 % of nf_conntrack_max are used: a burst fills the rest within seconds. Or packets were dropped (drop), or \
                entries of living flows removed (early_drop), in the window. insert_failed alone is a note: two packets raced \
                for one entry, as DNS clients behind NAT do.",
        silent: "A table with room, and one of a network namespace that tracks nothing.",
        remedy: "Remove what makes so many connections. Raise net.netfilter.nf_conntrack_max in the first network namespace, or \
                 exempt the busy port (NOTRACK), or lower nf_conntrack_tcp_timeout_time_wait.",
        sources: "nf_conntrack_alloc, nf_conntrack_in, early_drop (net/netfilter/nf_conntrack_core.c); \
                  nf_conntrack-sysctl.rst.",
    },
    check,
};

/// The table of a network namespace.
struct Table {
    netns: u32,
    entries: u64,
    limit: u64,
    dropped: u64,
    dropped_early: u64,
    insert_failed: u64,
    /// TCP connections that ended there.
    ended: u64,
    is_counted: bool,
}

fn check(evidence: &Evidence) -> Outcome {
    let mut tables: Vec<_> = evidence.counters.keys().filter_map(|netns| Table::of(evidence, *netns)).collect();
    if tables.is_empty() {
        return Outcome::NotChecked("no connection tracking in any namespace".into());
    }
    tables.sort_by(|one, other| other.share().total_cmp(&one.share()));
    let findings = tables.iter().filter_map(|table| finding(evidence, table)).collect();
    Outcome::of(findings, tables.first().map(Table::figures).unwrap_or_default())
}

impl Table {
    /// `None` where the module is not loaded, or has no limit.
    fn of(evidence: &Evidence, netns: u32) -> Option<Self> {
        let limit = evidence.counters.get(&netns)?.levels.get("conntrack.max").copied()?;
        let grown = |name: &str| evidence.grown(netns, &format!("conntrack.{name}"));
        let insert_failed = grown("insert_failed");
        let pairs = evidence.pairs.iter().filter(|pair| pair.key.netns == Some(netns));
        Some(Self {
            netns,
            entries: evidence.peak(netns, "conntrack.count"),
            limit,
            // The kernel counts an entry that could not be inserted as dropped, too.
            dropped: grown("drop").saturating_sub(insert_failed),
            dropped_early: grown("early_drop"),
            insert_failed,
            ended: pairs.map(Pair::ended).sum(),
            is_counted: lacks_time(evidence).is_none(),
        })
    }

    fn share(&self) -> f64 {
        share(self.entries, self.limit)
    }

    fn drops(&self) -> bool {
        self.dropped + self.dropped_early > 0
    }

    fn figures(&self) -> Figures {
        let counted = |number| if self.is_counted { Value::Count(number) } else { Value::Unknown };
        vec![
            ("entries", Value::Count(self.entries)),
            ("entry_limit", Value::Count(self.limit)),
            ("used_share", Value::Share(self.share())),
            ("dropped", counted(self.dropped)),
            ("dropped_early", counted(self.dropped_early)),
            ("insert_failed", counted(self.insert_failed)),
            ("ended", counted(self.ended)),
        ]
    }

    fn severity(&self) -> Option<Severity> {
        match self.share() {
            _ if self.drops() => Some(Severity::Critical),
            share if share >= FULL => Some(Severity::Critical),
            share if share >= NEAR => Some(Severity::Warning),
            _ => (self.insert_failed > 0).then_some(Severity::Note),
        }
    }
}

fn finding(evidence: &Evidence, table: &Table) -> Option<Finding> {
    let severity = table.severity()?;
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(evidence, table));
    finding.subject = Subject { netns: Some(table.netns), ..Subject::default() };
    finding.figures = table.figures();
    let (entries, limit) = (say::count(table.entries), say::count(table.limit));
    finding.line("/proc", format!("up to {entries} entries; net.netfilter.nf_conntrack_max={limit}"));
    if table.is_counted {
        let [dropped, early, failed] =
            [table.dropped + table.insert_failed, table.dropped_early, table.insert_failed].map(say::count);
        finding
            .line("/proc/net/stat/nf_conntrack", format!("drop {dropped}, early_drop {early}, insert_failed {failed}"));
    }
    if table.ended > 0 {
        finding.line("seen, sysctl", closed(evidence, table));
    }
    if severity == Severity::Note {
        raced(&mut finding);
        finding.count = table.insert_failed;
        return Some(finding);
    }
    advise(&mut finding);
    finding.count = if table.drops() { table.dropped + table.dropped_early } else { table.entries };
    finding.seconds_left = table.drops().then_some(0.0);
    Some(finding)
}

fn closed(evidence: &Evidence, table: &Table) -> String {
    let kept = evidence.number(Some(table.netns), TIME_WAIT).and_then(|seconds| u64::try_from(seconds).ok());
    let kept = kept.map_or(String::new(), |seconds| {
        let time = say::time(seconds.saturating_mul(1_000_000_000));
        format!("; conntrack keeps each for {time} after its end (nf_conntrack_tcp_timeout_time_wait)")
    });
    format!("{} ended here{}{kept}", say::counted(table.ended, "TCP connection"), in_window(evidence))
}

fn headline(evidence: &Evidence, table: &Table) -> String {
    let (place, window) = (place(evidence, table.netns), in_window(evidence));
    let (entries, limit) = (say::count(table.entries), say::count(table.limit));
    if table.dropped > 0 {
        let full = format!("{place}connection tracking is full: {entries} of {limit} entries");
        let dropped = format!("{full}, {} dropped{window}", say::counted(table.dropped, "packet"));
        return say::fitting([format!("{dropped}; ping and DNS are hit too"), dropped, full]);
    }
    if table.dropped_early > 0 {
        let early = say::count(table.dropped_early);
        let full = format!("{place}connection tracking is full: {entries} of {limit} entries");
        return say::fitting([
            format!("{full}, {early} of living flows removed{window}"),
            format!("{full}, {early} removed early{window}"),
            full,
        ]);
    }
    if table.share() >= NEAR {
        let percent = say::percent(table.share());
        return format!("{place}connection tracking is nearly full: {entries} of {limit} entries ({percent})");
    }
    let failed = say::counted(table.insert_failed, "packet");
    format!("{place}connection tracking dropped {failed}{window} that raced for one entry")
}

fn advise(finding: &mut Finding) {
    finding.why =
        "Without room for an entry the kernel drops the packet that would begin the flow. An entry outlives its \
                   connection, and all network namespaces have the same limit, each for itself."
            .into();
    finding.remedies.push("Find what makes so many connections: a missing connection pool, a scan, a flood".into());
    finding.remedies.push(
        "Raise net.netfilter.nf_conntrack_max in the first network namespace (an entry takes a few hundred bytes)"
            .into(),
    );
    finding.remedies.push("Exempt the busy port from tracking (NOTRACK), where no NAT or firewall needs it".into());
    finding.remedies.push(format!("sysctl {TIME_WAIT}=30"));
    finding
        .mistakes
        .push("lower nf_conntrack_tcp_timeout_established below your keepalive: idle connections are cut off".into());
    finding.sure = "certain: the kernel's own count".into();
}

fn raced(finding: &mut Finding) {
    finding.why =
        "Two packets of one flow raced, or NAT gave two flows the same source port: the second entry could not be inserted, and its packet was dropped."
            .into();
    finding
        .remedies
        .push("Where NAT chooses source ports, let it choose at random (nft: masquerade random,fully-random)".into());
    finding.sure = "certain that packets were dropped; the race is the usual reason".into();
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, fired, nothing, pair_ended, with_settings};
    use super::*;
    use crate::model::tcp::End;
    use crate::study::diagnose::evidence::Counted;

    /// A table for a thousand with so many entries, and what was counted.
    fn evidence(entries: u64, dropped: u64, early: u64, failed: u64) -> Evidence {
        let mut evidence = with_settings(&[(TIME_WAIT, "120")]);
        let grown = [
            ("conntrack.drop".into(), dropped),
            ("conntrack.early_drop".into(), early),
            ("conntrack.insert_failed".into(), failed),
        ];
        let levels = [("conntrack.count".into(), entries), ("conntrack.max".into(), 1_000)];
        let (grown, levels): (_, crate::model::counters::Values) = (grown.into(), levels.into());
        evidence.counters.insert(NETNS, Counted { grown, peaks: levels.clone(), levels, ..Counted::default() });
        evidence
    }

    #[rstest]
    #[case::nothing(0, 0, 0, 0, None)]
    #[case::room(799, 0, 0, 0, None)]
    #[case::near(800, 0, 0, 0, Some(Severity::Warning))]
    #[case::nearer(801, 0, 0, 0, Some(Severity::Warning))]
    #[case::not_full(949, 0, 0, 0, Some(Severity::Warning))]
    #[case::full(950, 0, 0, 0, Some(Severity::Critical))]
    #[case::fuller(951, 0, 0, 0, Some(Severity::Critical))]
    #[case::drops(10, 1, 0, 0, Some(Severity::Critical))]
    #[case::removes(10, 0, 1, 0, Some(Severity::Critical))]
    #[case::races(10, 1, 0, 1, Some(Severity::Note))]
    #[case::both(10, 2, 0, 1, Some(Severity::Critical))]
    fn severity(
        #[case] entries: u64,
        #[case] dropped: u64,
        #[case] early: u64,
        #[case] failed: u64,
        #[case] expected: Option<Severity>,
    ) {
        let found = fired(&RULE, &evidence(entries, dropped, early, failed));
        assert_eq!(found.first().map(|it| it.severity), expected);
    }

    #[rstest]
    #[case(
        1_000,
        8_120,
        0,
        0,
        "connection tracking is full: 1,000 of 1,000 entries, 8,120 packets dropped in 10.0s; ping and DNS are hit too"
    )]
    #[case(1_000, 0, 7, 0, "connection tracking is full: 1,000 of 1,000 entries, 7 of living flows removed in 10.0s")]
    #[case(812, 0, 0, 0, "connection tracking is nearly full: 812 of 1,000 entries (81 %)")]
    #[case(5, 3, 0, 3, "connection tracking dropped 3 packets in 10.0s that raced for one entry")]
    fn headlines(
        #[case] entries: u64,
        #[case] dropped: u64,
        #[case] early: u64,
        #[case] failed: u64,
        #[case] expected: &str,
    ) {
        assert_eq!(fired(&RULE, &evidence(entries, dropped, early, failed))[0].headline, expected);
    }

    #[test]
    fn words() {
        let mut evidence = evidence(262_144, 8_120, 0, 20);
        for values in evidence.counters.values_mut().flat_map(|it| [&mut it.levels, &mut it.peaks]) {
            values.insert("conntrack.max".into(), 262_144);
        }
        evidence.counters.insert(4_026_532_000, Counted::default());
        evidence.pairs.push(pair_ended(End::Fin, 7_100));
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "netns 7: connection tracking is full: 262,144 of 262,144 entries, 8,100 packets dropped in 10.0s"
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "up to 262,144 entries; net.netfilter.nf_conntrack_max=262,144",
                "drop 8,120, early_drop 0, insert_failed 20",
                "7,100 TCP connections ended here in 10.0s; conntrack keeps each for 2m00s after its end \
                 (nf_conntrack_tcp_timeout_time_wait)",
            ]
        );
        assert_eq!((finding.count, finding.seconds_left), (8_100, Some(0.0)));
    }

    #[test]
    fn many_that_are_removed_fit() {
        let mut evidence = evidence(4_294_967_295, 0, 4_294_967_295, 0);
        evidence.counters.insert(4_026_532_000, Counted::default());
        let full = "netns 7: connection tracking is full: 4,294,967,295 of 1,000 entries";
        assert_eq!(fired(&RULE, &evidence)[0].headline, format!("{full}, 4,294,967,295 removed early in 10.0s"));
    }

    #[test]
    fn a_host_without_connection_tracking_is_not_checked() {
        let mut evidence = nothing();
        evidence.counters.insert(NETNS, Counted::default());
        assert_eq!(check(&evidence), Outcome::NotChecked("no connection tracking in any namespace".into()));
    }

    /// A single look sees the table, and counts nothing.
    #[test]
    fn one_look_is_enough_for_the_table() {
        let mut evidence = evidence(950, 0, 0, 0);
        evidence.about.traced_ns = 0;
        let finding = &fired(&RULE, &evidence)[0];
        assert!(finding.figures.contains(&("dropped", Value::Unknown)), "{:?}", finding.figures);
        assert_eq!(finding.headline, "connection tracking is nearly full: 950 of 1,000 entries (95 %)");
    }
}
