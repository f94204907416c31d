//! The rows of one connection.

use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::time::Duration;

use serde_json::Value;

use crate::ability::kernel;
use crate::attempt::skip;
use crate::tracer::brief;
use crate::{End, Namespace, TimeWaitClock, Tracer, Witness};

/// Tolerance between the times of an event in two running tracers, and between an event and the test's action.
const SLACK: Duration = Duration::from_millis(100);

/// `TCP_TIMEWAIT_LEN` is 60 s; the timer wheel rounds up by a granularity that depends on CONFIG_HZ.
const TIME_WAIT: std::ops::Range<Duration> = Duration::from_millis(59_900)..Duration::from_secs(65);

/// The rows of one connection from `watch` and `connections`, after the checks that hold for every connection.
#[derive(Debug)]
pub struct Life {
    /// The row of `connections`.
    pub connection: Value,
    /// The rows of `watch`.
    pub transitions: Vec<Value>,
}

impl Namespace {
    /// Waits until both shared tracers have reported the end of this connection.
    pub fn life(&self, end: &End) -> Life {
        self.lives(end, 1).remove(0)
    }

    /// The same for a connection that another process made.
    pub fn foreign_life(&self, end: &End) -> Life {
        Life::find(self, end, 1).remove(0)
    }

    /// Waits for that many connections between the same two ends, in the order in which they ended.
    pub fn lives(&self, end: &End, count: usize) -> Vec<Life> {
        let lives = Life::find(self, end, count);
        for life in &lives {
            life.assert_nobody_elses();
        }
        lives
    }

    /// Waits for a row of the shared `watch` about a connection to this address, from any local port.
    pub fn transition_to(&self, remote: SocketAddr, old: &str, new: &str) -> Value {
        let what = format!("{old} > {new} of a connection to {remote}");
        let wanted = |row: &Value| row["remote"] == remote.to_string() && row["old"] == old && row["new"] == new;
        Tracer::watch().row(self, &what, |row| self.is_new(row) && wanted(row))
    }

    /// Waits for a row of the shared `watch` about that end.
    pub fn transition(&self, end: &End, old: &str, new: &str) -> Value {
        let what = format!("{old} > {new} of {} > {}", end.local, end.remote);
        Tracer::watch().row(self, &what, |row| self.is_about(row, end) && row["old"] == old && row["new"] == new)
    }

    /// The rows of this namespace from the shared `watch` and `connections` so far.
    pub fn told(&self) -> [Vec<Value>; 2] {
        [Tracer::watch(), Tracer::connections()]
            .map(|tracer| tracer.rows_now(self).into_iter().filter(|row| self.is_new(row)).collect())
    }

    /// Whether a row is about this namespace, and not about an older one with the same number.
    pub fn is_new(&self, row: &Value) -> bool {
        row["boot_ns"].as_u64().is_some_and(|ns| ns >= self.since_ns())
    }

    /// Whether a row is about that end.
    pub fn is_about(&self, row: &Value, end: &End) -> bool {
        self.is_new(row) && row["local"] == end.local.to_string() && row["remote"] == end.remote.to_string()
    }
}

impl Life {
    fn find(net: &Namespace, end: &End, count: usize) -> Vec<Self> {
        let what = format!("{count} connections {} > {}", end.local, end.remote);
        let connections = Tracer::connections().rows(net, &what, |rows| {
            let found: Vec<_> = rows.iter().filter(|row| net.is_about(row, end)).cloned().collect();
            (found.len() >= count).then_some(found)
        });
        assert_eq!(connections.len(), count, "{what}, and no more: {connections:#?}");
        connections.into_iter().map(|connection| Self::told(net, connection)).collect()
    }

    fn told(net: &Namespace, connection: Value) -> Self {
        let what = format!("the transitions of {}", brief(&connection));
        let transitions = Tracer::watch().rows(net, &what, |rows| {
            let of_it = |row: &&Value| net.is_new(row) && row["conn"] == connection["conn"];
            let of_socket: Vec<_> = rows.iter().filter(of_it).cloned().collect();
            // A socket can connect again after its connection has ended.
            let mut lives = of_socket.split_inclusive(|row| row["new"] == "CLOSED");
            lives.find(|life| ended_at(life.last(), &connection)).map(<[Value]>::to_vec)
        });
        let life = Self { connection, transitions };
        life.assert_consistent();
        life
    }

    /// The states that it went through, according to the transitions.
    pub fn path(&self) -> String {
        let first = self.transitions[0]["old"].as_str().expect("a state").to_owned();
        self.transitions.iter().fold(first, |path, row| path + " " + row["new"].as_str().expect("a state"))
    }

    /// Checks that it was opened as usual, and then went through these states.
    #[track_caller]
    pub fn went(&self, states: &str) -> &Self {
        let opening = match self.connection["side"].as_str() {
            Some("client") => "CLOSED SYN_SENT ESTABLISHED",
            Some("server") => "LISTEN SYN_RECV ESTABLISHED",
            side => panic!("side {side:?}: {self}"),
        };
        self.went_all(&format!("{opening} {states}"))
    }

    /// Checks that it went through exactly these states.
    #[track_caller]
    pub fn went_all(&self, states: &str) -> &Self {
        assert_eq!(self.path(), states, "{self}");
        self
    }

    /// Checks that the row of `connections` has these fields, among others.
    #[track_caller]
    pub fn has(&self, fields: Value) -> &Self {
        let Value::Object(fields) = fields else { panic!("fields, not {fields}") };
        for (name, value) in fields {
            assert_eq!(self.connection[&name], value, "{name}: {self}");
        }
        self
    }

    /// Checks the closer in the rows of both commands.
    #[track_caller]
    pub fn ended(&self, closer: &str, end: &str) -> &Self {
        let last = self.last();
        assert_eq!(
            [&last["closer"], &self.connection["closer"], &self.connection["end"]],
            [closer, closer, end],
            "{self}"
        );
        let reason =
            if last["old"] == "TIME_WAIT" { &self.connection["time_wait_end"] } else { &self.connection["end"] };
        assert!(&last["reason"] == reason || self.connection["time_wait_end"] == "refused", "reason: {self}");
        self
    }

    /// Checks that this process owned it, with this source, in every row from the first that could know.
    #[track_caller]
    pub fn ours_by(&self, source: &str) -> &Self {
        self.owned_by(source, std::process::id())
    }

    /// Checks that that process owned it, with this source, in every row from the first that could know.
    #[track_caller]
    pub fn owned_by(&self, source: &str, pid: u32) -> &Self {
        for row in self.transitions.iter().skip_while(|row| row["pid"].is_null()).chain([&self.connection]) {
            assert_eq!(row["pid"], pid, "{self}");
        }
        assert_eq!(self.connection["owner_source"], source, "{self}");
        self
    }

    /// Checks that that process closed it, in the last row of both commands.
    #[track_caller]
    pub fn closed_by(&self, pid: u32, name: &str) -> &Self {
        for row in [self.last(), &self.connection] {
            assert_eq!([&row["close_pid"], &row["close_comm"]], [&Value::from(pid), &Value::from(name)], "{self}");
        }
        self
    }

    /// Checks that it stayed in a state for that long, in the rows of both commands, without lower bounds.
    #[track_caller]
    pub fn held(&self, state: &str, length: impl RangeBounds<Duration> + std::fmt::Debug) -> &Self {
        let row = self.leaving(state);
        let held =
            Duration::from_nanos(row["held_ns"].as_u64().unwrap_or_else(|| panic!("held_ns of {state}: {self}")));
        assert_eq!(row["held_at_least"], false, "{self}");
        assert!(length.contains(&held), "{state} was held {held:?}, not {length:?}: {self}");
        self
    }

    /// Checks that the socket was an orphan when it left this state.
    #[track_caller]
    pub fn was_orphan_in(&self, state: &str) -> &Self {
        assert_eq!(self.leaving(state)["orphan"], true, "{self}");
        self
    }

    /// Checks that its TIME_WAIT expired.
    #[track_caller]
    pub fn expired(&self) -> &Self {
        self.has(serde_json::json!({"time_wait_end": "expired"})).held("TIME_WAIT", TIME_WAIT)
    }

    /// Checks that its TIME_WAIT expired, after as long as the kernel's tables showed it.
    #[track_caller]
    pub fn waited_out(&self, clock: TimeWaitClock) -> &Self {
        let length = clock.length();
        let precise = length.start().saturating_sub(SLACK)..=*length.end() + SLACK;
        self.expired().held("TIME_WAIT", precise)
    }

    /// Its last transition.
    pub fn last(&self) -> &Value {
        self.transitions.last().expect("a transition")
    }

    /// The transition out of this state.
    #[track_caller]
    pub fn leaving(&self, state: &str) -> &Value {
        let row = self.transitions.iter().find(|row| row["old"] == state);
        row.unwrap_or_else(|| panic!("it never left {state}: {self}"))
    }

    fn assert_nobody_elses(&self) {
        let ours = Value::from(std::process::id());
        for row in self.transitions.iter().chain([&self.connection]) {
            assert!(row["pid"].is_null() || row["pid"] == ours, "another process's: {}\n{self}", brief(row));
            assert_eq!(row["pid"].is_null(), row["owner_source"] == "unknown", "{}\n{self}", brief(row));
        }
    }

    /// Checks what is true of every connection that was seen from its beginning to its end.
    fn assert_consistent(&self) {
        self.expect_visible_turn();
        let complaints = Tracer::connections().complaints();
        assert_eq!(self.connection["complete"], true, "events were lost? {complaints}{self}");
        for pair in self.transitions.windows(2) {
            let [before, after] = pair else { unreachable!("windows of two") };
            assert_eq!(before["new"], after["old"], "a transition is missing: {self}");
            let time = |row: &Value| row["boot_ns"].as_u64().expect("a time");
            let passed = time(after).checked_sub(time(before)).unwrap_or_else(|| panic!("time runs back: {self}"));
            assert_eq!(after["held_ns"], passed, "{}\n{self}", brief(after));
            assert_eq!(after["held_at_least"], false, "{}\n{self}", brief(after));
        }
        for row in &self.transitions {
            for same in ["conn", "netns", "protocol", "family", "remote", "side"] {
                assert_eq!(row[same], self.connection[same], "{same}: {self}");
            }
        }
        self.assert_states_agree();
        self.assert_confirmed();
        let [received, unread] = ["bytes_received", "bytes_unread"].map(|field| self.connection[field].as_u64());
        assert!(unread <= received, "unread bytes that were never received: {self}");
    }

    /// Skips a test that depends on a feature that `tcptrace check` lists as missing before 6.11.
    fn expect_visible_turn(&self) {
        let last = self.last();
        let is_unseen = last["old"] == "TIME_WAIT" && last["orphan"] == true && last["held_at_least"] == true;
        if is_unseen && kernel() < (6, 11) {
            skip("this kernel does not report when an orphan's FIN_WAIT2 turns into TIME_WAIT");
        }
    }

    /// Checks the end of its mini-socket against the witness.
    fn assert_confirmed(&self) {
        let Ok(witness) = Witness::get() else { return };
        let time = |row: &Value| Duration::from_nanos(row["boot_ns"].as_u64().expect("a time"));
        let port = |row: &Value, end: &str| {
            row[end].as_str().and_then(|end| end.rsplit_once(':')?.1.parse().ok()).expect("a port")
        };
        for pair in self.transitions.windows(2) {
            if let [begin, end] = pair
                && [&end["old"], &end["new"]] == ["TIME_WAIT", "CLOSED"]
                && begin["new"] == "TIME_WAIT"
            {
                witness.confirm(port(end, "local"), port(end, "remote"), time(begin), time(end));
            }
        }
    }

    /// Checks that `states` of `connections` agrees with the transitions of `watch`.
    fn assert_states_agree(&self) {
        let stays = self.connection["states"].as_array().expect("states");
        let left = &self.transitions[1..];
        assert_eq!(stays.len(), left.len(), "{self}");
        for (stay, row) in stays.iter().zip(left) {
            assert_eq!([&stay["state"], &stay["at_least"]], [&row["old"], &Value::from(false)], "{self}");
            let ns = [&stay["ns"], &row["held_ns"]].map(|ns| Duration::from_nanos(ns.as_u64().expect("ns")));
            assert!(ns[0].abs_diff(ns[1]) < SLACK, "{}: {ns:?}: {self}", stay["state"]);
        }
        for (field, state) in
            [("established_ns", "ESTABLISHED"), ("close_wait_ns", "CLOSE_WAIT"), ("time_wait_ns", "TIME_WAIT")]
        {
            let stay = stays.iter().find(|stay| stay["state"] == state);
            assert_eq!(self.connection[field], stay.map_or(Value::Null, |stay| stay["ns"].clone()), "{field}: {self}");
        }
    }
}

/// Whether a life ended with this transition, when `connections` reports that the connection ended.
fn ended_at(last: Option<&Value>, connection: &Value) -> bool {
    let time = |row: &Value| Duration::from_nanos(row["boot_ns"].as_u64().expect("a time"));
    let is_same = |row: &Value| row["new"] == "CLOSED" && row["local"] == connection["local"];
    last.is_some_and(|row| is_same(row) && time(row).abs_diff(time(connection)) < SLACK)
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.transitions.iter().chain([&self.connection]).try_for_each(|row| write!(f, "\n{}", brief(row)))
    }
}
