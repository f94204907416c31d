//! The memory of all TCP sockets is short.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::counted::{Memory, grown_everywhere, in_window, was_short_of_memory};
use super::words::share;
use crate::model::tcp::Task;
use crate::study::diagnose::evidence::Evidence;
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// The setting of the host.
const NAME: &str = "net.ipv4.tcp_mem";
/// What one process must have unread of all, to be named: more than all others together.
const MOST: f64 = 0.5;

pub(super) static RULE: Rule = Rule {
    id: "tcp-memory",
    title: "TCP uses more memory than tcp_mem allows, or drops segments for lack of it",
    needs: &[Need::Counters],
    figures: &[
        Figure {
            name: "used_pages",
            unit: "pages",
            doc: "Memory of all TCP sockets of the host, the most that was seen.",
        },
        Figure { name: "pressure_pages", unit: "pages", doc: "tcp_mem, second value: above it windows are cut." },
        Figure { name: "limit_pages", unit: "pages", doc: "tcp_mem, third value: above it nothing is given." },
        Figure { name: "pressures", unit: "", doc: "TCPMemoryPressures: how often memory became short." },
        Figure { name: "aborted", unit: "", doc: "TCPAbortOnMemory: sockets aborted for memory, or for orphans." },
        Figure { name: "dropped", unit: "", doc: "TCPRcvQDrop: segments for which no receive buffer was left." },
        Figure { name: "unread_bytes", unit: "B", doc: "Bytes in receive queues, of the sockets that were looked at." },
    ],
    page: Page {
        sees: "Transfers become slow on all connections at once; \"TCP: out of memory -- consider tuning tcp_mem\" in the kernel's \
               log.",
        fires: "The memory of TCP is above the second value of tcp_mem, or became so in the window (TCPMemoryPressures). Or \
                sockets were aborted (TCPAbortOnMemory) or segments dropped (TCPRcvQDrop).",
        silent: "Memory below that mark.",
        remedy: "Find out who does not read (never-accepted, close-wait-unread), or who has so many connections. Raise tcp_mem \
                 last.",
        sources: "tcp_enter_memory_pressure, tcp_out_of_memory, __sk_mem_raise_allocated, tcp_data_queue (net/core, net/ipv4).",
    },
    check,
};

fn check(evidence: &Evidence) -> Outcome {
    let memory = Memory::of(evidence);
    let events = dropped(evidence) + grown_everywhere(evidence, "TcpExt.TCPMemoryPressures");
    if memory.is_none() && events == 0 {
        return Outcome::NotChecked(
            "tcp_mem shows in the first network namespace only, and that could not be entered".into(),
        );
    }
    let mut findings = Vec::new();
    if was_short_of_memory(evidence) {
        findings.push(short(evidence, memory));
    } else {
        findings.extend(evidence.counters.keys().filter_map(|netns| drops(evidence, memory, *netns)));
    }
    Outcome::of(findings, figures(evidence, memory, dropped(evidence)))
}

/// Segments of all network namespaces for which no buffer was left.
fn dropped(evidence: &Evidence) -> u64 {
    grown_everywhere(evidence, "TcpExt.TCPRcvQDrop")
}

fn aborted(evidence: &Evidence) -> u64 {
    grown_everywhere(evidence, "TcpExt.TCPAbortOnMemory")
}

fn figures(evidence: &Evidence, memory: Option<Memory>, dropped: u64) -> Figures {
    vec![
        ("used_pages", Value::Count(evidence.peak_of_host("sockstat.TCP.mem"))),
        ("pressure_pages", memory.map(|it| it.pressure).into()),
        ("limit_pages", memory.map(|it| it.limit).into()),
        ("pressures", Value::Count(grown_everywhere(evidence, "TcpExt.TCPMemoryPressures"))),
        ("aborted", Value::Count(aborted(evidence))),
        ("dropped", Value::Count(dropped)),
        ("unread_bytes", Value::Bytes(unread(evidence).0)),
    ]
}

/// Bytes that nobody has read, and who has most of them.
fn unread(evidence: &Evidence) -> (u64, Option<(Task, u64)>) {
    let mut by_task: HashMap<Task, u64, FixedState> = HashMap::default();
    let mut all = 0;
    for socket in &evidence.sockets {
        let bytes = u64::from(socket.recv_queue().unwrap_or(0));
        all += bytes;
        if let Some(task) = socket.task() {
            *by_task.entry(task).or_default() += bytes;
        }
    }
    (all, by_task.into_iter().max_by_key(|(task, bytes)| (*bytes, task.pid)))
}

/// The memory of the host is short, or was.
fn short(evidence: &Evidence, memory: Option<Memory>) -> Finding {
    let (aborted, dropped) = (aborted(evidence), dropped(evidence));
    let is_over = memory.is_some_and(|it| it.used > it.limit);
    let severity = if is_over || aborted > 0 { Severity::Critical } else { Severity::Warning };
    let (unread, worst) = unread(evidence);
    let worst = worst.filter(|(_, bytes)| *bytes > 0 && share(*bytes, unread) > MOST);
    let mut finding = Finding::new(RULE.id, severity, Confidence::Certain, headline(evidence, memory, unread, worst));
    finding.subject.task = worst.map(|(task, _)| task);
    finding.figures = figures(evidence, memory, dropped);
    finding.count = aborted + dropped;
    finding.seconds_left = (is_over || aborted > 0).then_some(0.0);
    if let Some(memory) = memory {
        let [used, pressure, limit] = [memory.used, memory.pressure, memory.limit].map(|pages| memory.say(pages));
        finding
            .line("sockstat, sysctl", format!("up to {used}; {NAME}: windows are cut above {pressure}, limit {limit}"));
    }
    count(evidence, &evidence.counters.keys().copied().collect::<Vec<_>>(), &mut finding);
    if unread > 0 {
        let who = worst.map_or(String::new(), |(task, bytes)| {
            format!(", {} of them at {}", say::percent(share(bytes, unread)), say::process(task))
        });
        finding.line("sock_diag", format!("{} wait in receive queues that were looked at{who}", say::bytes(unread)));
    }
    finding.why = "Above the second value of tcp_mem the kernel cuts the windows of all connections; above the third one it drops \
                   segments and aborts sockets."
        .into();
    advise(&mut finding);
    finding.sure = "certain: the kernel's own count".into();
    finding
}

fn headline(evidence: &Evidence, memory: Option<Memory>, unread: u64, worst: Option<(Task, u64)>) -> String {
    let pressures = grown_everywhere(evidence, "TcpExt.TCPMemoryPressures");
    let window = in_window(evidence);
    let Some(memory) = memory.filter(|it| it.is_short()) else {
        let times = say::counted(pressures, "time");
        return format!("memory of TCP became short {times}{window}: the windows of all connections were cut");
    };
    let (used, pressure, limit) = (memory.say(memory.used), memory.say(memory.pressure), memory.say(memory.limit));
    let (much, effect) = if memory.used > memory.limit {
        (format!("TCP uses {used} of buffers, above its limit of {limit}"), "segments are dropped")
    } else {
        (format!("TCP uses {used} of buffers, above the pressure mark of {pressure}"), "windows are cut")
    };
    let base = format!("{much}: {effect}");
    let Some((task, bytes)) = worst else { return base };
    // What queues hold is less than what their buffers take.
    let who = format!("{} of what is unread is at {}", say::percent(share(bytes, unread)), say::process(task));
    say::fitting([format!("{base}; {who}"), format!("{much}; {who}"), base])
}

/// Segments were dropped, or sockets aborted, while memory was not short: one receive buffer was full.
fn drops(evidence: &Evidence, memory: Option<Memory>, netns: u32) -> Option<Finding> {
    let dropped = evidence.grown(netns, "TcpExt.TCPRcvQDrop");
    if dropped == 0 {
        return None;
    }
    let headline = format!(
        "{}{} dropped{}: no room was left in the receive buffer",
        super::counted::place(evidence, netns),
        say::counted(dropped, "received segment"),
        in_window(evidence)
    );
    let mut finding = Finding::new(RULE.id, Severity::Warning, Confidence::Certain, headline);
    finding.subject = Subject { netns: Some(netns), ..Subject::default() };
    finding.figures = figures(evidence, memory, dropped);
    finding.count = dropped;
    count(evidence, &[netns], &mut finding);
    if let Some(memory) = memory {
        let (used, pressure) = (memory.say(memory.used), memory.say(memory.pressure));
        finding.line(
            "sockstat, sysctl",
            format!("memory of TCP is not short: up to {used}, windows are cut above {pressure}"),
        );
    }
    finding.why =
        "A receive buffer whose process does not read fills up, and small segments take more of it than the window \
                   tells the sender. What does not fit is dropped, and sent again."
            .into();
    advise(&mut finding);
    finding.sure =
        "certain that segments were dropped; that one buffer was full, and not the host's memory, is likely".into();
    Some(finding)
}

fn count(evidence: &Evidence, places: &[u32], finding: &mut Finding) {
    let of = |name: &str| -> u64 {
        let key = format!("TcpExt.{name}");
        places.iter().map(|netns| evidence.grown(*netns, &key)).sum()
    };
    let names = ["TCPMemoryPressures", "TCPAbortOnMemory", "TCPRcvQDrop", "RcvPruned", "PruneCalled"];
    let counts = names.map(|name| (name, of(name))).into_iter().filter(|(_, count)| *count > 0);
    let text: Vec<String> = counts.map(|(name, count)| format!("{name} {}", say::count(count))).collect();
    if !text.is_empty() {
        finding.line("/proc/net/netstat", text.join(", "));
    }
}

fn advise(finding: &mut Finding) {
    finding.remedies.push("Find out who does not read what it receives, or who keeps so many connections".into());
    finding.remedies.push("Give the program smaller buffers (SO_RCVBUF, SO_SNDBUF), or the host more memory".into());
    finding.mistakes.push(format!("raise {NAME} first: data that nobody reads fills it again"));
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, api, fired, nothing, seen, standing};
    use super::*;
    use crate::model::facts::Settings;
    use crate::model::tcp::State;
    use crate::study::diagnose::evidence::{Counted, Standing};

    /// So many pages of 4 KiB are used; windows are cut above 1,000, and 1,500 are the limit.
    fn evidence(used: u64, grown: &[(&str, u64)]) -> Evidence {
        let mut evidence = nothing();
        let values = [(NAME.into(), "750 1000 1500".into()), ("kernel.page_size".into(), "4096".into())].into();
        evidence.settings.insert(None, Settings { values, ..Settings::default() });
        let peaks = [("sockstat.TCP.mem".into(), used)].into();
        let grown = grown.iter().map(|(name, more)| (format!("TcpExt.{name}").into(), *more)).collect();
        evidence.counters.insert(NETNS, Counted { grown, peaks, ..Counted::default() });
        evidence
    }

    #[rstest]
    #[case::little(1, &[], None)]
    #[case::below(999, &[], None)]
    #[case::at_the_mark(1_000, &[], None)]
    #[case::above(1_001, &[], Some(Severity::Warning))]
    #[case::at_the_limit(1_500, &[], Some(Severity::Warning))]
    #[case::beyond(1_501, &[], Some(Severity::Critical))]
    #[case::for_a_moment(1, &[("TCPMemoryPressures", 1)], Some(Severity::Warning))]
    #[case::aborts(1_001, &[("TCPAbortOnMemory", 1)], Some(Severity::Critical))]
    #[case::drops(1, &[("TCPRcvQDrop", 1)], Some(Severity::Warning))]
    #[case::of_orphans(1, &[("TCPAbortOnMemory", 1)], None)]
    fn severity(#[case] used: u64, #[case] grown: &[(&str, u64)], #[case] expected: Option<Severity>) {
        let found = fired(&RULE, &evidence(used, grown));
        assert_eq!(found.first().map(|it| it.severity), expected);
    }

    #[test]
    fn words() {
        let mut evidence = evidence(1_200, &[("TCPMemoryPressures", 2), ("PruneCalled", 40)]);
        let socket =
            |conn, bytes| Standing { seen: Some(seen(conn, bytes, 1)), ..standing(conn, State::Established, 9) };
        evidence.sockets = vec![socket(1, 640), socket(2, 360)];
        evidence.sockets[1].owner = None;
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "TCP uses 4.6 MiB of buffers, above the pressure mark of 3.9 MiB; 64 % of what is unread is at api[4711]"
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "up to 4.6 MiB; net.ipv4.tcp_mem: windows are cut above 3.9 MiB, limit 5.8 MiB",
                "TCPMemoryPressures 2, PruneCalled 40",
                "1000 B wait in receive queues that were looked at, 64 % of them at api[4711]",
            ]
        );
        assert_eq!(finding.subject.task, Some(api()));
        let finding = &fired(&RULE, &tests::evidence(1, &[("TCPRcvQDrop", 12)]))[0];
        assert_eq!(finding.headline, "12 received segments dropped in 10.0s: no room was left in the receive buffer");
        let finding = &fired(&RULE, &tests::evidence(1, &[("TCPMemoryPressures", 1)]))[0];
        assert_eq!(
            finding.headline,
            "memory of TCP became short 1 time in 10.0s: the windows of all connections were cut"
        );
    }

    /// Traces of before do not say how large a page is.
    #[test]
    fn without_the_size_of_a_page_pages_are_told() {
        let mut evidence = evidence(1_501, &[]);
        evidence.settings.values_mut().for_each(|it| drop(it.values.remove("kernel.page_size")));
        assert_eq!(
            fired(&RULE, &evidence)[0].headline,
            "TCP uses 1,501 pages of buffers, above its limit of 1,500 pages: segments are dropped"
        );
        evidence.settings.clear();
        assert!(matches!(check(&evidence), Outcome::NotChecked(_)));
    }
}
