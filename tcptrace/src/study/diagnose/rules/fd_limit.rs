//! A process that has almost as many descriptors as it may have.

use std::collections::BTreeMap;

use super::listening;
use crate::model::tcp::{State, Task};
use crate::study::diagnose::evidence::{Descriptors, Evidence, Failed, Listener, Standing};
use crate::study::diagnose::finding::{Confidence, Figures, Finding, Severity, Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::rule::{Figure, Outcome, Page, Rule};
use crate::study::diagnose::say;

/// From here on a burst can use up the rest.
const NEAR: f64 = 0.8;
/// And from here on anything can.
const VERY_NEAR: f64 = 0.95;
/// The window of a critical forecast: what an on-call needs to act.
const SOON_S: f64 = 600.0;
/// From here on CLOSE_WAITs are what fills them.
const LEAKED: f64 = 0.3;
/// A limit that most servers get along with.
const PLENTY: u64 = 65_536;

pub(super) static RULE: Rule = Rule {
    id: "fd-limit",
    title: "a process is near its limit of open descriptors",
    needs: &[Need::Limits],
    figures: &[
        Figure { name: "descriptors", unit: "", doc: "Open descriptors of the process." },
        Figure { name: "descriptor_limit", unit: "", doc: "Its soft limit (RLIMIT_NOFILE)." },
        Figure { name: "share", unit: "", doc: "The first as a part of the second." },
        Figure {
            name: "growth_per_second",
            unit: "1/s",
            doc: "How many more there are each second; null after one look.",
        },
        Figure {
            name: "accept_failed",
            unit: "",
            doc: "Calls of accept that failed with EMFILE or ENFILE in the window; null where failed calls are not seen.",
        },
        Figure { name: "sockets", unit: "", doc: "TCP connections that the process owns." },
        Figure { name: "close_wait", unit: "", doc: "Of those, the ones in CLOSE_WAIT." },
    ],
    page: Page {
        sees: "\"Too many open files\"; connections are not accepted any more.",
        fires: "A process that owns TCP sockets has 80 % of its soft limit open, or a call of accept failed with EMFILE or \
                ENFILE in the window. Critical when accept failed, from 95 % on, or when the limit is less than 10 minutes \
                away at the present rate.",
        silent: "Descriptors far from the limit.",
        remedy: "Close the leak first, if there is one. Then raise LimitNOFILE of the unit: limits.conf does not reach \
                 services.",
        sources: "proc(5): the size of /proc/PID/fd; alloc_fd (fs/file.c); accept(2).",
    },
    check,
};

/// A process, with what fills its descriptors.
struct Process<'e> {
    pid: u32,
    task: Option<Task>,
    limits: Option<&'e Descriptors>,
    failed: Vec<&'e Failed>,
    sockets: Vec<&'e Standing>,
}

impl Process<'_> {
    fn open(&self) -> Option<u64> {
        self.limits?.last.1.descriptors
    }

    fn limit(&self) -> Option<u64> {
        self.limits?.last.1.soft
    }

    fn share(&self) -> Option<f64> {
        let limit = self.limit()?;
        Some(if limit == 0 { 1.0 } else { self.open()? as f64 / limit as f64 })
    }

    fn failures(&self) -> u64 {
        self.failed.iter().map(|failed| failed.count).sum()
    }

    /// Until the limit is reached, at the present growth; 0 if it is.
    fn seconds_left(&self) -> Option<f64> {
        let room = self.limit()?.saturating_sub(self.open()?);
        if room == 0 {
            return Some(0.0);
        }
        let growth = self.limits?.growth()?;
        (growth > 0.0).then(|| room as f64 / growth)
    }

    fn in_state(&self, state: State) -> u64 {
        self.sockets.iter().filter(|socket| socket.state == state).count() as u64
    }

    /// `nginx[813]`, or its id where no socket has shown its name.
    fn name(&self) -> String {
        self.task.map_or_else(|| format!("process {}", self.pid), say::process)
    }

    fn is_near(&self) -> bool {
        self.failures() > 0 || self.share().is_some_and(|share| share >= NEAR)
    }

    fn severity(&self) -> Severity {
        let is_full = self.failures() > 0 || self.share().is_some_and(|share| share >= VERY_NEAR);
        let is_soon = self.seconds_left().is_some_and(|seconds| seconds < SOON_S);
        if is_full || is_soon { Severity::Critical } else { Severity::Warning }
    }

    /// Whether CLOSE_WAITs are what fills them.
    fn leaks(&self) -> bool {
        self.open().is_some_and(|open| self.in_state(State::CloseWait) as f64 >= LEAKED * open as f64)
    }
}

fn check(evidence: &Evidence) -> Outcome {
    let processes = processes(evidence);
    let findings = processes.iter().filter(|it| it.is_near()).map(|it| finding(evidence, it)).collect();
    Outcome::of(findings, processes.first().map(|it| figures(evidence, it)).unwrap_or_default())
}

/// Processes with limits or with failed accepts, the fullest first.
fn processes(evidence: &Evidence) -> Vec<Process<'_>> {
    let mut processes: BTreeMap<u32, Process<'_>> = BTreeMap::new();
    let of = |pid, task| Process { pid, task, limits: None, failed: Vec::new(), sockets: Vec::new() };
    for limits in &evidence.limits {
        processes.entry(limits.pid).or_insert_with(|| of(limits.pid, limits.task)).limits = Some(limits);
    }
    for failed in listening::no_descriptor(evidence) {
        let task = failed.task;
        processes.entry(task.pid).or_insert_with(|| of(task.pid, Some(task))).failed.push(failed);
    }
    for socket in evidence.sockets.iter().filter(|socket| has_descriptor(socket)) {
        if let Some(process) = socket.task().and_then(|task| processes.get_mut(&task.pid)) {
            process.task = process.task.or(socket.task());
            process.sockets.push(socket);
        }
    }
    let mut processes: Vec<_> = processes.into_values().collect();
    let urgency = |it: &Process<'_>| (it.failures() > 0, it.share().unwrap_or(0.0));
    processes.sort_by(|one, other| {
        let (one, other) = (urgency(one), urgency(other));
        other.0.cmp(&one.0).then(other.1.total_cmp(&one.1))
    });
    processes
}

/// Whether its process has a descriptor of it: it was seen, or the state says that nobody has closed it.
fn has_descriptor(socket: &Standing) -> bool {
    socket.fd.is_some() || socket.state.is_unclosed() && socket.accepted != Some(false)
}

fn figures(evidence: &Evidence, process: &Process<'_>) -> Figures {
    let growth = process.limits.and_then(Descriptors::growth);
    vec![
        ("descriptors", process.open().into()),
        ("descriptor_limit", process.limit().into()),
        ("share", process.share().map_or(Value::Unknown, Value::Share)),
        ("growth_per_second", growth.map_or(Value::Unknown, Value::Rate)),
        ("accept_failed", listening::known(evidence, Need::FailedCalls, process.failures())),
        ("sockets", Value::Count(process.sockets.len() as u64)),
        ("close_wait", Value::Count(process.in_state(State::CloseWait))),
    ]
}

fn finding(evidence: &Evidence, process: &Process<'_>) -> Finding {
    let mut finding = Finding::new(RULE.id, process.severity(), Confidence::Certain, headline(evidence, process));
    let netns = process.sockets.first().and_then(|socket| socket.netns);
    let netns = netns.or(process.failed.first().and_then(|failed| failed.netns));
    let listens = |it: &&Listener| it.task.is_some_and(|task| task.pid == process.pid);
    let netns = netns.or_else(|| evidence.listeners.iter().find(listens)?.netns);
    finding.subject = Subject {
        task: process.task,
        cgroup: process.sockets.first().and_then(|socket| socket.cgroup),
        netns,
        ..Subject::default()
    };
    finding.figures = figures(evidence, process);
    if let (Some(open), Some(limit), Some(share)) = (process.open(), process.limit(), process.share()) {
        let (open, limit) = (say::count(open), say::count(limit));
        finding.line("limits", format!("{open} of {limit} descriptors open ({})", say::percent(share)));
    }
    if let Some(text) = filled_by(process) {
        finding.line("sock_diag, /proc", text);
    }
    for failed in &process.failed {
        let (errno, times) = (listening::errno(failed), say::counted(failed.count, "time"));
        finding.line("seen", format!("accept failed with {errno} {times}"));
    }
    advise(process, &mut finding);
    finding.sure = "certain: the kernel's limit, and what is counted against it".into();
    finding.count = process.open().unwrap_or(process.failures());
    finding.seconds_left = if process.failures() > 0 { Some(0.0) } else { process.seconds_left() };
    finding.first_seen = process.failed.iter().map(|failed| failed.first).min();
    finding.last_seen = process.failed.iter().map(|failed| failed.last).max();
    finding.examples = process.sockets.iter().take(5).map(|socket| socket.example()).collect();
    finding
}

fn headline(evidence: &Evidence, process: &Process<'_>) -> String {
    let name = process.name();
    let open = match (process.open(), process.limit()) {
        (Some(open), Some(limit)) => {
            Some(format!("{name} has {} of {} descriptors open", say::count(open), say::count(limit)))
        }
        _ => None,
    };
    if let Some(failed) = process.failed.first() {
        let window = listening::window(evidence);
        let times = say::counted(process.failures(), "time");
        let errno = listening::errno(failed);
        let cannot = format!("cannot accept: accept failed with {errno} {times}");
        return match open {
            Some(open) => say::fitting([
                format!("{open} and {cannot} in {window}"),
                format!("{open} and {cannot}"),
                format!("{name} {cannot}"),
            ]),
            None => format!("{name} {cannot} in {window}"),
        };
    }
    let open = open.unwrap_or(name);
    let share = process.share().map_or_else(String::new, |share| format!(" ({})", say::percent(share)));
    match process.seconds_left() {
        Some(seconds) if seconds > 0.0 => format!("{open}{share}, the last one in {}", say::seconds(seconds)),
        _ => format!("{open}{share}"),
    }
}

/// `TCP connections 990 (ESTABLISHED 402, CLOSE_WAIT 571, other 17), other descriptors 31`.
fn filled_by(process: &Process<'_>) -> Option<String> {
    let sockets = process.sockets.len() as u64;
    let named = [State::Established, State::CloseWait].map(|state| (state, process.in_state(state)));
    let other = sockets - named.iter().map(|(_, count)| count).sum::<u64>();
    let mut parts: Vec<String> = named
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{state} {}", say::count(*count)))
        .collect();
    if other > 0 {
        parts.push(format!("other {}", say::count(other)));
    }
    let states = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    let rest = process.open()?.saturating_sub(sockets);
    Some(format!("TCP connections {}{states}, other descriptors {}", say::count(sockets), say::count(rest)))
}

fn advise(process: &Process<'_>, finding: &mut Finding) {
    let leaks = process.leaks();
    finding.why = if leaks {
        "The process keeps connections that its peers have closed, and each takes a descriptor.".into()
    } else {
        "Each socket and each file takes a descriptor. At the limit accept() and open() fail, and connections wait."
            .into()
    };
    if leaks {
        finding.remedies.push("Find the code path that does not close connections in CLOSE_WAIT".into());
        finding.mistakes.push("only raise the limit: CLOSE_WAITs will fill that too".into());
    }
    let limits = process.limits.map(|limits| limits.last.1);
    let wanted = limits.and_then(|limits| limits.soft).map_or(PLENTY, |soft| PLENTY.max(soft.saturating_mul(2)));
    let nginx = match process.task {
        Some(task) if task.comm.bytes() == b"nginx" => format!("; nginx: worker_rlimit_nofile {wanted}"),
        _ => String::new(),
    };
    finding.remedies.push(format!("Set LimitNOFILE={wanted} in its unit (limits.conf does not reach services){nginx}"));
    // Only the soft limit, where the hard one allows it: lowering that one cannot be undone.
    let is_allowed = limits.is_some_and(|limits| limits.hard.is_none_or(|hard| hard >= wanted));
    let colon = if is_allowed { ":" } else { "" };
    finding.remedies.push(format!("Until it restarts: prlimit --pid {} --nofile={wanted}{colon}", process.pid));
    if process.failed.iter().any(|failed| listening::errno(failed) == "ENFILE") {
        finding.remedies.push("ENFILE is the limit of the host: raise fs.file-max".into());
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::testing::{NETNS, S, api, api_listener, failed_call, fired, nothing, standing};
    use super::*;
    use crate::model::event::Call;
    use crate::model::facts::Limit;

    /// `api[4711]` had so many of 1,000 descriptors open at the first look, and so many at the last.
    fn evidence(first: u64, last: u64) -> Evidence {
        let mut evidence = nothing();
        let limit =
            |descriptors| Limit { pid: 4711, descriptors: Some(descriptors), soft: Some(1_000), hard: Some(4_096) };
        let (first, last) = ((1_000 * S, limit(first)), (1_010 * S, limit(last)));
        evidence.limits.push(Descriptors { pid: 4711, task: Some(api()), first, last });
        evidence
    }

    #[rstest]
    #[case::far(799, None)]
    #[case::near(800, Some(Severity::Warning))]
    #[case::nearer(949, Some(Severity::Warning))]
    #[case::almost(950, Some(Severity::Critical))]
    #[case::full(1_000, Some(Severity::Critical))]
    fn shares(#[case] open: u64, #[case] expected: Option<Severity>) {
        let findings = fired(&RULE, &evidence(open, open));
        assert_eq!(findings.first().map(|finding| finding.severity), expected);
    }

    /// 120 are left: 2 more in 10s leave 600s.
    #[rstest]
    #[case::in_ten_minutes(878, Severity::Warning)]
    #[case::sooner(877, Severity::Critical)]
    #[case::fewer(890, Severity::Warning)]
    fn it_is_critical_when_they_run_out_soon(#[case] first: u64, #[case] expected: Severity) {
        assert_eq!(fired(&RULE, &evidence(first, 880))[0].severity, expected);
    }

    /// Limits tell by themselves.
    #[test]
    fn failed_accepts_are_unknown_where_they_are_not_seen() {
        let mut evidence = evidence(990, 996);
        evidence.missing.insert(Need::FailedCalls, "left out by --accept never".into());
        assert_eq!(fired(&RULE, &evidence)[0].figures[4], ("accept_failed", Value::Unknown));
    }

    /// One failed accept says more than any share.
    #[test]
    fn a_failed_accept_is_critical() {
        let mut evidence = evidence(10, 10);
        evidence.calls.push(failed_call(Call::Accept, 24, 1));
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!((finding.severity, finding.seconds_left), (Severity::Critical, Some(0.0)));
    }

    #[rstest]
    #[case::another_call(Call::Bind, 24)]
    #[case::another_error(Call::Accept, 103)]
    fn other_failures_are_not_its_own(#[case] call: Call, #[case] errno: u16) {
        let mut evidence = evidence(10, 10);
        evidence.calls.push(failed_call(call, errno, 50));
        assert_eq!(fired(&RULE, &evidence), []);
    }

    /// One that cannot accept may own no connection.
    #[test]
    fn its_listener_tells_the_namespace() {
        let mut evidence = evidence(950, 950);
        let netns = |evidence: &Evidence| fired(&RULE, evidence)[0].subject.netns;
        assert_eq!(netns(&evidence), None);
        evidence.listeners.push(api_listener(0, 4));
        assert_eq!(netns(&evidence), Some(NETNS));
    }

    #[test]
    fn a_process_without_a_limit_has_none_to_reach() {
        let mut evidence = evidence(5_000, 5_000);
        evidence.limits[0].last.1.soft = None;
        assert_eq!(fired(&RULE, &evidence), []);
    }

    #[test]
    fn words() {
        let mut evidence = evidence(996, 996);
        evidence.calls.push(failed_call(Call::Accept, 24, 88));
        evidence.sockets = (1..=400).map(|conn| standing(conn, State::CloseWait, 90)).collect();
        evidence.sockets.extend((401..=650).map(|conn| standing(conn, State::Established, 90)));
        evidence.sockets.push(standing(651, State::FinWait2, 90));
        let finding = &fired(&RULE, &evidence)[0];
        assert_eq!(
            finding.headline,
            "api[4711] has 996 of 1,000 descriptors open and cannot accept: accept failed with EMFILE 88 times in 10.0s"
        );
        let lines: Vec<_> = finding.evidence.iter().map(|line| &*line.text).collect();
        assert_eq!(
            lines,
            [
                "996 of 1,000 descriptors open (100 %)",
                "TCP connections 651 (ESTABLISHED 250, CLOSE_WAIT 400, other 1), other descriptors 345",
                "accept failed with EMFILE 88 times",
            ]
        );
        assert_eq!(finding.mistakes, ["only raise the limit: CLOSE_WAITs will fill that too"]);
        assert_eq!(
            finding.remedies.last().map(|it| &**it),
            Some("Until it restarts: prlimit --pid 4711 --nofile=65536")
        );
    }

    #[test]
    fn words_of_a_forecast() {
        let finding = &fired(&RULE, &evidence(870, 880))[0];
        assert_eq!(finding.headline, "api[4711] has 880 of 1,000 descriptors open (88 %), the last one in 2m00s");
    }
}
