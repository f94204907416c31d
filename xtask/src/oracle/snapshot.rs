//! Two more witnesses, during the lives. `ss` lists the sockets of a network namespace before and after a `tcptrace
//! snapshot`: a fact in both lists must be in the snapshot. Each list also shows the state of each socket at that time,
//! with which its row must agree.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use super::actor::canonical;
use super::compare::{Compared, TOLERANCE};
use super::log::now;
use super::row::{self, Row};
use super::truth::Range;
use crate::command;

const MS: u64 = 1_000_000;
/// Timers run on a clock of at least 100 Hz, and are read at any moment of a tick.
const STEP: u64 = 20 * MS;
/// Polling takes at most one part in this many of the machine's time.
const SHARE: u32 = 3;

/// Namespaces to poll, one after the other.
pub(super) struct Looker {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Looks>>,
}

/// The results.
#[derive(Default)]
pub(super) struct Looks {
    /// Comparisons of snapshots, by network namespace and life.
    compared: HashMap<(u64, usize), Compared>,
    /// Polled states, by network namespace and cookie.
    polled: HashMap<(u64, u64), Vec<Polled>>,
    /// Number of sockets in both lists that were compared.
    pub(super) sockets: u64,
}

/// The socket was in this state at some moment of this time.
#[derive(Clone, Debug)]
struct Polled {
    state: &'static str,
    during: Range,
}

/// A socket in the words of `ss`.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    line: String,
    state: &'static str,
    queues: [u64; 2],
    local: SocketAddr,
    /// `None` for a listener.
    remote: Option<SocketAddr>,
    inode: u64,
    cookie: u64,
    /// Its timer, the time left in ns, and the number of retries.
    timer: Option<(String, Range, u64)>,
    /// Process ids of its holders, without duplicates.
    pids: Vec<u64>,
    /// Bytes sent and received so far.
    progress: Vec<String>,
}

impl Looker {
    /// Polls these namespaces until it is stopped; each has a path and an inode number.
    pub(super) fn start(tcptrace: &Path, namespaces: Vec<(PathBuf, u64)>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, tcptrace) = (Arc::clone(&is_over), tcptrace.to_owned());
        let thread = thread::spawn(move || look(&tcptrace, &namespaces, &over));
        Self { is_over, thread }
    }

    /// Stops. It holds the network namespaces no longer.
    pub(super) fn stop(self) -> Result<Looks> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the thread that polls sockets panicked"))?
    }
}

fn look(tcptrace: &PathBuf, namespaces: &[(PathBuf, u64)], is_over: &AtomicBool) -> Result<Looks> {
    let mut looks = Looks::default();
    for (path, netns) in namespaces.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let before = list(path)?;
        let mut snapshot = Command::new(tcptrace);
        snapshot.args(["snapshot", "--list", "--format", "json", "--netns", &netns.to_string()]);
        let rows = command::output(&mut snapshot)?;
        let after = list(path)?;
        looks.take(*netns, &before, &rows, &after)?;
        sleep(begun.elapsed() * (SHARE - 1));
    }
    Ok(looks)
}

/// The sockets of a network namespace, and the time of the list.
fn list(path: &Path) -> Result<(Range, HashMap<u64, Seen>)> {
    let path = path.to_owned();
    let list = move || {
        let namespace = File::open(path).context("cannot find the network namespace")?;
        // Only this thread, which ends, enters the namespace.
        setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
        let from = now();
        let listed = command::output(Command::new("ss").args(["-OHtanpei"]))?;
        Ok(((from, now()), listed))
    };
    let listed: Result<(Range, String)> =
        thread::spawn(list).join().map_err(|_| anyhow!("the thread that lists sockets panicked"))?;
    let (during, listed) = listed?;
    Ok((during, listed.lines().filter_map(Seen::parse).map(|seen| (seen.cookie, seen)).collect()))
}

impl Looks {
    fn take(
        &mut self,
        netns: u64,
        (first, before): &(Range, HashMap<u64, Seen>),
        rows: &str,
        (second, after): &(Range, HashMap<u64, Seen>),
    ) -> Result<()> {
        for (during, seen) in [(first, before), (second, after)] {
            for Seen { cookie, state, .. } in seen.values() {
                let polled = Polled { state, during: *during };
                self.polled.entry((netns, *cookie)).or_default().push(polled);
            }
        }
        let mut by_cookie: HashMap<u64, Vec<Value>> = HashMap::new();
        for line in rows.lines() {
            let row: Value = serde_json::from_str(line).with_context(|| format!("tcptrace printed `{line}`"))?;
            ensure!(row["event"] == "socket" && row["netns"] == netns, "a snapshot of {netns} has `{line}` in it");
            let cookie = row["conn"].as_str().and_then(|conn| u64::from_str_radix(conn, 16).ok());
            by_cookie.entry(cookie.with_context(|| format!("no number in `{line}`"))?).or_default().push(row);
        }
        for (cookie, was) in before {
            let Some(is) = after.get(cookie).filter(|is| was.is_still(is)) else { continue };
            let life = [Some(is.local), is.remote].into_iter().flatten().find_map(row::life).unwrap_or(usize::MAX);
            let compared = self.compared.entry((netns, life)).or_default();
            let rows = by_cookie.get(cookie).map_or(&[][..], Vec::as_slice);
            self.sockets += 1;
            compared.value(rows.len() == 1, "snapshot: number of rows", || format!("{}, of {}", rows.len(), is.line));
            if let [row] = rows {
                is.compare(was, [*first, *second], row, compared);
            }
        }
        Ok(())
    }

    /// Adds the comparison of snapshots with a life.
    pub(super) fn add_of_life(&self, compared: &mut Compared, netns: u64, life: usize) {
        if let Some(of_snapshots) = self.compared.get(&(netns, life)) {
            compared.values += of_snapshots.values;
            compared.findings.extend_from_slice(&of_snapshots.findings);
        }
    }

    /// Adds the comparison of rows with polled states.
    pub(super) fn add_of_rows(&self, compared: &mut Compared, rows: &[Row]) {
        for row in rows.iter().filter(|row| row.value["complete"] != false) {
            let cookie = row.value["conn"].as_str().and_then(|conn| u64::from_str_radix(conn, 16).ok());
            let polled = cookie.and_then(|cookie| self.polled.get(&(row.netns, cookie)));
            for Polled { state, during } in polled.into_iter().flatten() {
                let is_so = is_in(row, state, *during);
                compared.value(is_so, "polled state", || format!("{state} in {during:?}, got {}", row.value));
            }
        }
    }
}

/// Whether the row's connection was in that state at some moment of that time.
fn is_in(row: &Row, state: &str, during: Range) -> bool {
    // A request is listed in this state before the connection exists.
    if state == "SYN_RECV" {
        return true;
    }
    let is_clear = row.states().all(|(_, _, at_least)| !at_least);
    let mut begin = row.begun;
    row.states().any(|(name, ns, _)| {
        let end = begin + ns;
        let is_then = begin <= during.1 + TOLERANCE && end + TOLERANCE >= during.0;
        begin = end;
        name == state && (is_then || !is_clear)
    })
}

impl Seen {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [state, receive, send, local, remote, rest @ ..] = &words[..] else { return None };
        let value = |name: &str| rest.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
        let address = |text: &str| text.parse().map(canonical).ok();
        let is_progress = |word: &&&str| ["segs_", "bytes_", "data_segs_"].iter().any(|name| word.starts_with(name));
        let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        let mut pids: Vec<u64> = line.split("pid=").skip(1).filter_map(digits).collect();
        pids.sort_unstable();
        pids.dedup();
        Some(Self {
            line: words.join(" "),
            state: name(state)?,
            queues: [receive.parse().ok()?, send.parse().ok()?],
            local: address(local)?,
            remote: address(remote),
            inode: value("ino")?.parse().ok()?,
            cookie: u64::from_str_radix(value("sk")?, 16).ok()?,
            timer: value("timer").and_then(timer),
            pids,
            progress: rest.iter().filter(is_progress).map(|word| (*word).to_owned()).collect(),
        })
    }

    /// Whether it was unchanged between the two lists; no state comes back.
    fn is_still(&self, later: &Self) -> bool {
        let kind = |seen: &Self| seen.timer.as_ref().map(|(kind, ..)| kind == "timewait");
        (self.state, self.inode, self.local, self.remote) == (later.state, later.inode, later.local, later.remote)
            && kind(self) == kind(later)
    }

    fn is_mini(&self) -> bool {
        self.timer.as_ref().is_some_and(|(kind, ..)| kind == "timewait")
    }

    /// Its holders: a socket closed here is not accepted again, and one that was not accepted cannot be closed.
    fn kept(&self) -> &'static str {
        match self.state {
            _ if self.is_mini() => "mini",
            _ if self.inode != 0 => "held",
            "ESTABLISHED" | "CLOSE_WAIT" | "SYN_RECV" => "queued",
            _ => "orphan",
        }
    }

    /// Compares a row of the snapshot with both lists.
    fn compare(&self, was: &Self, during: [Range; 2], row: &Value, compared: &mut Compared) {
        let mut same = |name: &str, expected: Value| {
            let is_so = row[name] == expected;
            compared.value(is_so, &format!("snapshot: {name}"), || {
                format!("expected {expected}, got {row}, of {}", self.line)
            });
        };
        same("state", self.state.into());
        same("local", self.local.to_string().into());
        if let Some(remote) = self.remote {
            same("remote", remote.to_string().into());
        }
        same("kept", self.kept().into());
        same("inode", Some(self.inode).filter(|inode| *inode != 0).into());
        // A listener has no byte counts, and its queue changes.
        let is_quiet = self.remote.is_some() && (self.queues, &self.progress) == (was.queues, &was.progress);
        if is_quiet {
            same("recv_queue", self.queues[0].into());
            same("send_queue", self.queues[1].into());
        }
        let timers = |seen: &Self| seen.timer.as_ref().map(|(kind, _, retries)| (kind.clone(), *retries));
        if is_quiet && timers(self) == timers(was) {
            same("timer", timers(self).map(|(kind, _)| kind).into());
            same("retransmits", timers(self).map_or(0, |(_, retries)| retries).into());
        }
        if self.pids == was.pids && (!self.pids.is_empty() || self.inode == 0 || row["pid"].is_null()) {
            same("pid", self.pids.first().copied().into());
        } else if self.pids == was.pids {
            // `ss` reads processes one by one, and misses a descriptor that is passed on meanwhile.
            compared.abstain("snapshot: pid of a socket for which `ss` finds no holder", self.line.clone());
        }
        let due = [was, self].map(|seen| seen.timer.as_ref().map(|(_, left, _)| *left));
        if let ([Some(first), Some(second)], true) = (due, self.is_mini()) {
            let at = |during: Range, left: Range| (during.0 + left.0, during.1 + left.1);
            let ends = [at(during[0], first), at(during[1], second)];
            let left = if self.state == "TIME_WAIT" { "time_wait_left_ns" } else { "timer_left_ns" };
            let said = row["boot_ns"].as_u64().zip(row[left].as_u64()).map_or(0, |(at, left)| at + left);
            // A segment between the lists may have restarted the timer.
            let is_so = ends.iter().any(|(least, most)| (least.saturating_sub(STEP)..=most + STEP).contains(&said));
            compared.value(is_so, &format!("snapshot: {left}"), || {
                format!("expected an end in {ends:?}, got {said}: {row}, of {}", self.line)
            });
        }
    }
}

/// A state, as rows print it.
fn name(state: &str) -> Option<&'static str> {
    Some(match state {
        "LISTEN" => "LISTEN",
        "SYN-SENT" => "SYN_SENT",
        "SYN-RECV" => "SYN_RECV",
        "ESTAB" => "ESTABLISHED",
        "FIN-WAIT-1" => "FIN_WAIT1",
        "FIN-WAIT-2" => "FIN_WAIT2",
        "TIME-WAIT" => "TIME_WAIT",
        "CLOSE-WAIT" => "CLOSE_WAIT",
        "LAST-ACK" => "LAST_ACK",
        "CLOSING" => "CLOSING",
        _ => return None,
    })
}

/// Parses `(on,200ms,0)`: the timer, the time left, and the number of retries.
fn timer(text: &str) -> Option<(String, Range, u64)> {
    let mut parts = text.strip_prefix('(')?.strip_suffix(')')?.split(',');
    let (kind, due, retries) = (parts.next()?, parts.next()?, parts.next()?);
    Some((kind.to_owned(), left(due)?, retries.parse().ok()?))
}

/// Parses a time into a range of ns: `1min2sec`, `59sec`, `1.234ms` (which is 1234 ms), `200ms`. `ss` cuts smaller units
/// off.
fn left(text: &str) -> Option<Range> {
    let (minutes, rest) = text.split_once("min").unwrap_or(("0", text));
    let (seconds, ms) = match (rest.strip_suffix("ms"), rest.strip_suffix("sec")) {
        (Some(rest), _) => rest.split_once('.').unwrap_or(("0", rest)),
        (None, Some(seconds)) => (seconds, "0"),
        (None, None) => (if rest.is_empty() { "0" } else { rest }, "0"),
    };
    let (minutes, seconds, ms): (u64, u64, u64) = (minutes.parse().ok()?, seconds.parse().ok()?, ms.parse().ok()?);
    let least = ((minutes * 60 + seconds) * 1_000 + ms) * MS;
    let shown = if minutes > 9 {
        60_000
    } else if minutes > 0 || seconds > 9 {
        1_000
    } else {
        1
    };
    Some((least, least + shown * MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HELD: &str = r#"ESTAB 100 0 [::ffff:127.1.0.3]:7000 [::ffff:127.0.0.1]:54618 users:(("x",pid=9,fd=5),("x",pid=7,fd=5)) timer:(on,200ms,0) ino:16 sk:d2 cgroup:/ <-> ts bytes_received:100 segs_in:3"#;
    const MINI: &str = "TIME-WAIT 0 0 127.0.0.1:54628 127.1.0.3:7000 timer:(timewait,59sec,0) ino:0 sk:d3";

    fn rows() -> [Value; 2] {
        [
            json!({
                "event": "socket", "netns": 4, "conn": "d2", "state": "ESTABLISHED", "local": "127.1.0.3:7000",
                "remote": "127.0.0.1:54618", "kept": "held", "inode": 16, "recv_queue": 100, "send_queue": 0,
                "timer": "on", "retransmits": 0, "pid": 7,
            }),
            json!({
                "event": "socket", "netns": 4, "conn": "d3", "state": "TIME_WAIT", "local": "127.0.0.1:54628",
                "remote": "127.1.0.3:7000", "kept": "mini", "inode": null, "recv_queue": 0, "send_queue": 0,
                "timer": "timewait", "retransmits": 0, "pid": null,
                "boot_ns": 1_000 * MS, "time_wait_left_ns": 59_500 * MS,
            }),
        ]
    }

    /// The differences that a snapshot with these rows shows.
    fn found(before: &[&str], rows: &[Value], after: &[&str]) -> Vec<String> {
        let list = |at: u64, lines: &[&str]| {
            let seen = lines.iter().map(|line| Seen::parse(line).expect("a socket"));
            ((at * MS, (at + 10) * MS), seen.map(|seen| (seen.cookie, seen)).collect())
        };
        let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let mut looks = Looks::default();
        looks.take(4, &list(980, before), &rows, &list(1_010, after)).expect("a snapshot");
        let mut compared = Compared::default();
        looks.add_of_life(&mut compared, 4, 3);
        compared.findings.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn what_both_lists_say_is_in_the_snapshot() {
        let both = [HELD, MINI];
        assert_eq!(found(&both, &rows(), &both), [""; 0]);
        assert_eq!(found(&both, &rows()[..1], &both), ["snapshot: number of rows"]);
        for (row, field, value) in [
            (0, "state", json!("CLOSE_WAIT")),
            (0, "recv_queue", json!(99)),
            (0, "pid", json!(9)),
            (0, "kept", json!("queued")),
            (1, "time_wait_left_ns", json!(58_900 * MS)),
            (1, "time_wait_left_ns", json!(60_100 * MS)),
            (1, "timer", json!("keepalive")),
        ] {
            let mut rows = rows();
            rows[row][field] = value;
            assert_eq!(found(&both, &rows, &both), [format!("snapshot: {field}")]);
        }
    }

    #[test]
    fn what_changes_between_the_lists_is_not_compared() {
        let (closed, read) = (HELD.replace("ESTAB", "FIN-WAIT-1"), HELD.replace("ESTAB 100", "ESTAB 0"));
        let mut rows = rows();
        rows[0]["recv_queue"] = json!(50);
        assert_eq!(found(&[HELD], &rows, &[&read]), [""; 0]);
        assert_eq!(found(&[HELD], &[], &[&closed]), [""; 0]);
        assert_eq!(found(&[HELD], &[], &[]), [""; 0]);
        // The timer was restarted: an end by either list is correct.
        assert_eq!(found(&[&MINI.replace("59", "20")], &rows, &[MINI]), [""; 0]);
        rows[1]["time_wait_left_ns"] = json!(60_030 * MS);
        assert_eq!(found(&[MINI], &rows, &[MINI]), [""; 0]);
    }

    #[test]
    fn who_holds_a_socket_may_have_been_missed() {
        let nobody = HELD.replace(r#"users:(("x",pid=9,fd=5),("x",pid=7,fd=5)) "#, "");
        let mut rows = rows();
        let found = |rows: &[Value]| found(&[&nobody], rows, &[&nobody]);
        assert_eq!(found(&rows), ["snapshot: pid of a socket for which `ss` finds no holder"]);
        rows[0]["pid"] = Value::Null;
        assert_eq!(found(&rows), [""; 0]);
    }

    /// The socket was ESTABLISHED at some moment from 980 to 990 ms, and from 1010 to 1020 ms.
    #[test]
    fn a_state_that_was_polled_is_in_the_row() {
        let list = |at: u64| {
            let seen = Seen::parse(HELD).expect("a socket");
            ((at * MS, (at + 10) * MS), HashMap::from([(seen.cookie, seen)]))
        };
        let mut looks = Looks::default();
        looks.take(4, &list(980), "", &list(1_010)).expect("no snapshot");
        looks.compared.clear();
        let found = |begun_ms: u64, states: Value| {
            let value = json!({ "conn": "d2", "states": states });
            let [local, remote] = ["127.1.0.3:7000", "127.0.0.1:54618"].map(|end| end.parse().expect("an address"));
            let row = Row { netns: 4, value, local, remote, begun: begun_ms * MS };
            let mut compared = Compared::default();
            looks.add_of_rows(&mut compared, &[row]);
            compared.findings.len()
        };
        let stay =
            |state: &str, ms: u64, at_least: bool| json!({ "state": state, "ns": ms * MS, "at_least": at_least });
        let closes_after = |ms| json!([stay("ESTABLISHED", ms, false), stay("CLOSE_WAIT", 500, false)]);
        assert_eq!(found(970, closes_after(60)), 0);
        assert_eq!(found(970, closes_after(30)), 1);
        assert_eq!(found(1_030, closes_after(60)), 2);
        assert_eq!(found(970, json!([stay("CLOSE_WAIT", 500, false)])), 2);
        // The time of its states is unknown.
        assert_eq!(found(1_030, json!([stay("ESTABLISHED", 9, true)])), 0);
    }

    #[test]
    fn times_left_are_read_as_ss_prints_them() {
        for (text, least, most) in [
            ("1min2sec", 62_000, 63_000),
            ("1min", 60_000, 61_000),
            ("59sec", 59_000, 60_000),
            ("2sec", 2_000, 2_001),
            ("1.234ms", 1_234, 1_235),
            ("200ms", 200, 201),
            ("", 0, 1),
        ] {
            assert_eq!(left(text), Some((least * MS, most * MS)), "{text}");
        }
        assert_eq!(left("soon"), None);
    }
}
