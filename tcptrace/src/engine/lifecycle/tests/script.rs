//! Lives of connections as short texts.
//!
//! A script is a list of events, separated by `;`, each `MS [other|third|address] WHAT [WORD…]`. WHAT is a change
//! `OLD>NEW`, or `destroy`, `reset REASON`, `receive_reset`, `fin`, `rearmed SUBSTATE`, `expired SUBSTATE`,
//! `killed SUBSTATE WHO`, `embryo`, `accepted task=PID`, `watched`, `unwatched` (accepts are seen, or not), `lost`, `suspended MS`, `advance`; for what is asked of the kernel
//! `survey`, `found STATE [queued|orphan|mini=MS]`, `surveyed`, `survey_end`, `scan`, `holder STATE task=PID fd=N`,
//! `flow acked=N received=N unacked=N`, `subflow STATE` (of an MPTCP connection), `scan_end`. The words of a change set what the kernel
//! shows: `dead done sock rcv snd`, `syn|silent` (it has sent something, or nothing), `task=PID`, `idle=MS`, and at the end
//! `err= unread= retr= probes=`, `linger0 linger2 acked inflight ka ut`, `mini=FIN_WAIT2|TIME_WAIT|none`. With `rst` a
//! reset follows at once.

use std::net::Ipv6Addr;
use std::num::NonZeroU32;

use crate::engine::lifecycle::{Config, Engine};
use crate::model::event::{
    Birth, Cause, Change, EndFacts, Event, Flags, Flow, Found, Holder, Id, Idle, Kept, KilledBy, Mini, MiniEvent,
    Multipath, ResetReason, Subflow,
};
use crate::model::row::{Connection, Held, Report, Row, Stuck, Transition};
use crate::model::tcp::{Comm, End, State, Task, Tuple};

const MS: u64 = 1_000_000;
/// Tracing begins here, so that a script may begin at 0.
const START: u64 = 1_000_000 * MS;
const ADDRESS: u64 = 0xadd;

/// The connections that a script ends.
pub(super) fn play(script: &str) -> Vec<String> {
    connections(&run(script, Config::default()))
}

/// The transitions that a script shows.
pub(super) fn play_rows(script: &str) -> Vec<String> {
    transitions(&run(script, Config::default()))
}

/// The same with scans, and with reports of sockets that have waited for a second.
pub(super) fn play_stuck(script: &str) -> Vec<String> {
    transitions(&run(script, Config { stuck_after: Some(1_000 * MS), scans: true, ..Config::default() }))
}

/// Whether a scan is wanted at the end of a script.
pub(super) fn wants_scan(script: &str) -> bool {
    let mut engine = Engine::new(Config { scans: true, ..Config::default() });
    let mut rows = Vec::new();
    parse(script).iter().for_each(|event| engine.feed(event, &mut rows));
    engine.wants_scan()
}

/// Whether a survey is wanted at the end of a script.
pub(super) fn wants_survey(script: &str) -> bool {
    let mut engine = Engine::new(Config::default());
    let mut rows = Vec::new();
    parse(script).iter().for_each(|event| engine.feed(event, &mut rows));
    engine.wants_survey()
}

/// The connections that are open at the end of a script.
pub(super) fn open(script: &str) -> Vec<String> {
    let mut engine = Engine::new(Config::default());
    let mut rows = Vec::new();
    parse(script).iter().for_each(|event| engine.feed(event, &mut rows));
    rows.clear();
    rows.extend(engine.open());
    connections(&rows)
}

/// Whether the connections that are open at the end of a script were accepted.
pub(super) fn open_with(script: &str, config: Config) -> Vec<Option<bool>> {
    let mut engine = Engine::new(config);
    let mut rows = Vec::new();
    parse(script).iter().for_each(|event| engine.feed(event, &mut rows));
    let accepted = engine.open().map(|row| match row {
        Row::Connection(row) => row.status.accepted(),
        _ => None,
    });
    accepted.collect()
}

/// The reports of stuck sockets.
pub(super) fn stuck_with(script: &str, config: Config) -> Vec<String> {
    transitions(&run(script, config)).into_iter().filter(|row| row.starts_with("stuck")).collect()
}

/// All rows of a script.
pub(super) fn rows(script: &str) -> Vec<Row> {
    run(script, Config::default())
}

fn run(script: &str, config: Config) -> Vec<Row> {
    let mut engine = Engine::new(config);
    let mut rows = Vec::new();
    engine.feed(&Event::Started { at: START }, &mut rows);
    for event in parse(script) {
        engine.feed(&event, &mut rows);
    }
    rows
}

/// The events of a script.
pub(super) fn parse(script: &str) -> Vec<Event> {
    let lines = script.split(';').map(str::trim).filter(|line| !line.is_empty());
    lines.flat_map(|line| std::iter::once(event(line)).chain(reset_after(line))).collect()
}

/// The reset that a process sends when it drops a connection.
fn reset_after(line: &str) -> Option<Event> {
    let Event::Change(Change { at, id, .. }) = event(line) else { return None };
    let is_sent = line.split_whitespace().any(|word| word == "rst");
    is_sent.then_some(Event::ResetSent { at, id, reason: ResetReason::Other })
}

fn event(line: &str) -> Event {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let at = START + words.remove(0).parse::<u64>().expect("ms") * MS;
    let id = match words[0] {
        "other" => Id::Cookie(2),
        "third" => Id::Cookie(3),
        "address" => Id::Address(4),
        _ => Id::Cookie(1),
    };
    if matches!(words[0], "other" | "third" | "address") {
        words.remove(0);
    }
    let what = words.remove(0);
    let substate = || state(words[0]);
    let due_ns = number(&words, "due=").unwrap_or(0) * 1_000_000;
    let mini = |substate, what| Event::Mini(Mini { at, id, tuple: tuple(), netns: Some(1), substate, due_ns, what });
    match what {
        "destroy" => {
            let shut = words.first().map(|word| *word == "shut");
            Event::Destroyed { at, id, shut }
        }
        "reset" => Event::ResetSent { at, id, reason: reason(words[0]) },
        "bypass" => Event::Bypassing { at, id },
        "receive_reset" => Event::ResetReceived { at, id },
        "fin" => mini(State::TimeWait, MiniEvent::Fin),
        "rearmed" => mini(substate(), MiniEvent::Rearmed),
        "expired" => mini(substate(), MiniEvent::Expired),
        "killed" => mini(substate(), MiniEvent::Killed(killer(words[1]))),
        "watched" => Event::AcceptsWatched { at, watched: true },
        "unwatched" => Event::AcceptsWatched { at, watched: false },
        "accepted" => Event::Accepted { at, id, task: pid(&words) },
        "survey" => Event::SurveyBegun { at },
        "found" => Event::Found(found(at, id, &words)),
        "surveyed" => Event::Surveyed { at, netns: 1 },
        "survey_end" => Event::SurveyEnded { at },
        "scan" => Event::ScanBegun { at },
        "holder" => {
            let fd = number(&words, "fd=").map_or(3, |fd| u32::try_from(fd).expect("a descriptor"));
            Event::Holder(Holder { found: found(at, id, &words), task: pid(&words), fd })
        }
        "scan_end" => Event::ScanEnded { at },
        "flow" => {
            let bytes = |word| number(&words, word).map_or(0, i64::unsigned_abs);
            let unacked = u32::try_from(bytes("unacked=")).expect("bytes");
            Event::Flow(Flow { at, id, acked: bytes("acked="), received: bytes("received="), unacked })
        }
        "subflow" => {
            let of = Multipath { token: NonZeroU32::new(0xabc), state: Some(state(words[0])) };
            Event::Subflow(Subflow { at, id, of })
        }
        "lost" => Event::Lost { at, cause: Cause::RingFull, events: 1 },
        "lost_to" => Event::Lost { at, cause: Cause::Unknown, events: 0 },
        "suspended" => Event::Suspended { at, ns: words[0].parse::<u64>().expect("ms") * MS },
        "advance" => Event::Passed { at },
        "embryo" => {
            let change = change(at, Id::Address(ADDRESS), "LISTEN>SYN_RECV", &["noport"]);
            Event::Change(Change { address: Some(ADDRESS), ..change })
        }
        states => Event::Change(change(at, id, states, &words)),
    }
}

fn found(at: u64, id: Id, words: &[&str]) -> Found {
    let due_ns = number(words, "mini=").map(|ms| u64::try_from(ms).expect("ms") * MS);
    let kept = match due_ns {
        Some(due_ns) => Kept::Mini { due_ns },
        None if words.contains(&"queued") => Kept::Queued,
        None if words.contains(&"orphan") => Kept::Orphan,
        None => Kept::Held,
    };
    Found {
        at,
        id,
        tuple: tuple(),
        netns: Some(1),
        uid: Some(0),
        cgroup: None,
        interface: 0,
        state: state(words[0]),
        kept,
    }
}

fn pid(words: &[&str]) -> Task {
    task(u32::try_from(number(words, "task=").expect("task=")).expect("pid"))
}

fn change(at: u64, id: Id, states: &str, words: &[&str]) -> Change {
    let (old, new) = states.split_once('>').expect("OLD>NEW");
    let (old, new) = (state(old), state(new));
    let has = |word| words.contains(&word);
    let is_bare = matches!(id, Id::Address(address) if address != ADDRESS);
    let flags = Flags {
        dead: has("dead"),
        done: has("done"),
        has_socket: has("sock"),
        rcv_shutdown: has("rcv"),
        send_shutdown: has("snd"),
        has_sent: has("syn").then_some(true).or(has("silent").then_some(false)),
        reuse: None,
    };
    Change {
        at,
        id,
        address: has("child").then_some(ADDRESS),
        tuple: Tuple { local_port: if has("noport") { 0 } else { 40_000 }, ..tuple() },
        netns: Some(1),
        uid: Some(0),
        cgroup: None,
        interface: 0,
        old,
        new,
        flags: (!is_bare).then_some(flags),
        idle: number(words, "idle=").map(|ms| Idle { received_ms: u32::try_from(ms).ok(), ..Idle::default() }),
        task: number(words, "task=").map(|pid| task(u32::try_from(pid).expect("pid"))),
        end: (new == State::Closed && !is_bare).then(|| end(words)),
    }
}

fn end(words: &[&str]) -> EndFacts {
    let has = |word| words.contains(&word);
    let small = |word| number(words, word).map_or(0, |value| u8::try_from(value).expect("small"));
    let mut facts = EndFacts {
        err: number(words, "err=").map_or(0, |err| u16::try_from(err).expect("errno")),
        keepalive: has("ka"),
        linger0: has("linger0"),
        linger2_negative: has("linger2"),
        all_acked: has("acked"),
        in_flight: has("inflight"),
        user_timeout: has("ut"),
        retransmits: small("retr="),
        probes: small("probes="),
        mini: match words.iter().find_map(|word| word.strip_prefix("mini=")) {
            None => Birth::NotWatched,
            Some("none") => Birth::None,
            Some(substate) => Birth::Made { substate: state(substate), due_ns: 60_000 * MS },
        },
        ..EndFacts::default()
    };
    facts.totals.bytes_unread = number(words, "unread=").map_or(0, |bytes| u32::try_from(bytes).expect("bytes"));
    facts
}

fn number(words: &[&str], name: &str) -> Option<i64> {
    words.iter().find_map(|word| word.strip_prefix(name)).map(|value| value.parse().expect("a number"))
}

fn state(word: &str) -> State {
    word.parse().expect("a state")
}

fn reason(word: &str) -> ResetReason {
    match word {
        "ABORT_ON_DATA" => ResetReason::AbortOnData,
        "ABORT_ON_CLOSE" => ResetReason::AbortOnClose,
        "KEEPALIVE_TIMEOUT" => ResetReason::KeepaliveTimeout,
        "STATE" => ResetReason::State,
        _ => ResetReason::Other,
    }
}

fn killer(word: &str) -> KilledBy {
    match word {
        "connect" => KilledBy::Connect,
        "segment" => KilledBy::Segment,
        "reset" => KilledBy::Reset,
        "admin" => KilledBy::Admin,
        "netns" => KilledBy::Netns,
        _ => KilledBy::Unknown,
    }
}

pub(super) fn task(pid: u32) -> Task {
    Task { pid, tid: pid, comm: Comm::from("test") }
}

pub(super) fn tuple() -> Tuple {
    let loopback = Ipv6Addr::LOCALHOST;
    Tuple { local_ip: loopback, remote_ip: loopback, local_port: 40_000, remote_port: 80 }
}

/// The transitions among rows, one a line: states, held, closer, reason, orphan.
pub(super) fn transitions(rows: &[Row]) -> Vec<String> {
    let transitions = rows.iter().filter_map(|row| match row {
        Row::Transition(row) => Some(row),
        Row::Connection(_) | Row::Loss(_) | Row::Audit(_) | Row::Counter(_) => None,
    });
    let line = |row: &Transition| {
        match &row.stuck {
            Some(Stuck::Waiting(report)) => return stuck_line("stuck", row, report),
            Some(Stuck::Released { accepted }) => {
                return stuck_line("released", row, &Report { accepted: *accepted, ..Report::default() });
            }
            None => {}
        }
        let mut words = vec![format!("{}>{}", row.old, row.new), held(row.held)];
        words.extend(row.closer.map(|closer| closer.to_string()));
        words.extend(row.reason.map(|reason| reason.as_str().to_owned()));
        words.extend(row.orphan.then(|| "orphan".to_owned()));
        words.join(" ")
    };
    transitions.map(line).collect()
}

fn stuck_line(what: &str, row: &Transition, stuck: &Report) -> String {
    let mut words = vec![what.to_owned(), row.new.to_string(), held(row.held)];
    words.extend(row.reason.map(|reason| reason.as_str().to_owned()));
    words.extend(stuck.holder.map(|(task, fd)| format!("held_by={}:{fd}", task.pid)));
    words.extend(stuck.holders.map(|holders| format!("holders={holders}")));
    words.extend(stuck.accepted.map(|accepted| format!("accepted={accepted}")));
    words.extend(stuck.listener.map(|task| format!("listener={}", task.pid)));
    words.extend(stuck.multipath.and_then(|it| it.state).map(|state| format!("mptcp={state}")));
    words.extend(stuck.stalled.map(|it| format!("unacked={} since={}", it.unacked, it.bytes_since)));
    words.join(" ")
}

/// The losses among rows, one a line: time, cause, count.
pub(super) fn losses(rows: &[Row]) -> Vec<String> {
    let losses = rows.iter().filter_map(|row| if let Row::Loss(row) = row { Some(row) } else { None });
    losses.map(|row| format!("{} {} {:?}", (row.boot_ns - START) / MS, row.cause.as_str(), row.count)).collect()
}

/// The connections among rows, one a line.
pub(super) fn connections(rows: &[Row]) -> Vec<String> {
    rows.iter()
        .filter_map(|row| match row {
            Row::Connection(row) => Some(connection(row)),
            Row::Transition(_) | Row::Loss(_) | Row::Audit(_) | Row::Counter(_) => None,
        })
        .collect()
}

fn connection(row: &Connection) -> String {
    let mut words = vec![row.identity.side.to_string(), row.closer.to_string()];
    words.push(row.end().unwrap_or(End::Unknown).to_string());
    words.extend(row.time_wait_end().map(|end| format!("tw={end}")));
    let owner = row.identity.owner;
    words.extend(owner.map(|owner| format!("owner={}/{}", owner.task.pid, owner.source)));
    let closer = row.closed_by.filter(|task| owner.is_none_or(|owner| owner.task.pid != task.pid));
    words.extend(closer.map(|task| format!("closed_by={}", task.pid)));
    words.extend((!row.complete).then(|| "incomplete".to_owned()));
    words.push("|".into());
    words.extend(row.stays.iter().map(|stay| format!("{} {}", stay.state, held(stay.held))));
    words.join(" ")
}

fn held(held: Held) -> String {
    match held {
        Held::Unknown => "-".into(),
        Held::AtLeast(ns) => format!("≥{}", ns / MS),
        Held::Exactly(ns) => (ns / MS).to_string(),
    }
}
