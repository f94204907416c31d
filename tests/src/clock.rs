//! Measures how long a TIME_WAIT really lasts, from the kernel's own tables.

use std::fs;
use std::ops::RangeInclusive;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Namespace;

/// Interval of polling.
const INTERVAL: Duration = Duration::from_millis(100);
/// Time limit.
const PATIENCE: Duration = Duration::from_secs(100);

/// Watches one TIME_WAIT begin and end, independently of any tracer.
pub struct TimeWaitClock(JoinHandle<RangeInclusive<Duration>>);

impl TimeWaitClock {
    /// Watches the namespace's count of mini-sockets, for a namespace whose only mini-socket is never in FIN_WAIT2.
    /// Cheap.
    pub fn start(_: &Namespace) -> Self {
        Self::watch(|| {
            let text = fs::read_to_string("/proc/thread-self/net/sockstat").expect("read the socket counts");
            let mut words = text.split_whitespace().skip_while(|word| *word != "tw");
            words.nth(1).expect("a count of TIME_WAIT") != "0"
        })
    }

    /// Watches the namespace's socket table for a TIME_WAIT with that local port. Each look walks the kernel's socket
    /// table.
    pub fn of_port(_: &Namespace, port: u16) -> Self {
        let local = format!(":{port:04X} ");
        Self::watch(move || {
            let table = fs::read_to_string("/proc/thread-self/net/tcp").expect("read the socket table");
            table.lines().any(|line| line.get(14..20) == Some(&local) && line.get(34..36) == Some("06"))
        })
    }

    /// The thread starts in the caller's network namespace.
    fn watch(is_there: impl Fn() -> bool + Send + 'static) -> Self {
        let started = Instant::now();
        Self(thread::spawn(move || measure(&is_there, started)))
    }

    /// Lower and upper bound of the TIME_WAIT's duration.
    pub fn length(self) -> RangeInclusive<Duration> {
        self.0.join().expect("watch a TIME_WAIT")
    }
}

fn measure(is_there: &dyn Fn() -> bool, started: Instant) -> RangeInclusive<Duration> {
    let deadline = started + PATIENCE;
    let absent = last_while(false, is_there, started, deadline);
    let present = last_while(true, is_there, absent.other_done, deadline);
    let shortest = present.last_begun - absent.other_done;
    let longest = present.other_done - absent.last_begun;
    shortest..=longest
}

/// When the last look that found it began, and when the first look that did not find it was done.
struct Change {
    last_begun: Instant,
    other_done: Instant,
}

fn last_while(expected: bool, is_there: &dyn Fn() -> bool, since: Instant, deadline: Instant) -> Change {
    let mut last_begun = since;
    loop {
        let begun = Instant::now();
        if is_there() != expected {
            return Change { last_begun, other_done: Instant::now() };
        }
        last_begun = begun;
        assert!(begun < deadline, "the TIME_WAIT did not {}", if expected { "end" } else { "begin" });
        thread::sleep(INTERVAL);
    }
}
