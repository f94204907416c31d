//! Decides whether accepts must be seen, where they are seen as needed (`--accept auto`): pure.
//!
//! Where one process alone listens, the connections are its own: who closes them, or holds them, tells the rest. Of several
//! processes, only the call of `accept` shows which one took a connection.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use crate::model::event::Event;
use crate::model::tcp::State;
use crate::model::transition::Transition;

/// Accepts stay seen for so long after a connection whose listener has no known holder.
const HOLDS_NS: u64 = 60_000_000_000;
/// They stay seen at least for so long after they were needed: processes come and go.
const CALMS_NS: u64 = 10_000_000_000;
/// Most places of connections that are remembered between two looks.
const MOST: usize = 65_536;

/// A network namespace, and a port there.
type Place = (u32, u16);

/// Connections that came in, and who can have accepted them.
#[derive(Debug, Default)]
pub(super) struct Accepting {
    /// Where connections came in that no look has explained yet, and when the last one did.
    came: HashMap<Place, u64, FixedState>,
    /// When accepts were needed last, and until when they are needed in any case.
    needed_at: Option<u64>,
    needed_until: u64,
    watched: bool,
}

impl Accepting {
    /// Notes a connection that came in.
    pub(super) fn note(&mut self, change: &impl Transition) {
        let came_in = (change.leaves(), change.enters()) == (State::SynRecv, State::Established);
        let Some(netns) = change.netns().filter(|_| came_in) else { return };
        let place = (netns, change.tuple().local_port);
        if self.came.len() < MOST || self.came.contains_key(&place) {
            self.came.insert(place, change.at());
        }
    }

    /// A look at all listening sockets that began at `begun` has shown these holders. Returns whether accepts are to be
    /// seen from now on, if that changes.
    pub(super) fn look(&mut self, begun: u64, holders: &[Event]) -> Option<bool> {
        let mut processes: HashMap<Place, HashSet<u32, FixedState>, FixedState> = HashMap::default();
        for event in holders {
            let Event::Holder(holder) = event else { continue };
            let Some(netns) = holder.found.netns else { continue };
            processes.entry((netns, holder.found.tuple.local_port)).or_default().insert(holder.task.pid);
        }
        let is_unexplained = self.came.iter().any(|(place, at)| *at < begun && !processes.contains_key(place));
        // What came after the look began can be that of a listener that the look has missed.
        self.came.retain(|_, at| *at >= begun);
        if is_unexplained {
            self.needed_until = begun + HOLDS_NS;
        }
        if processes.values().any(|pids| pids.len() > 1) || begun < self.needed_until {
            self.needed_at = Some(begun);
        }
        let watch = self.needed_at.is_some_and(|at| at == begun || self.watched && begun < at + CALMS_NS);
        (watch != self.watched).then(|| {
            self.watched = watch;
            watch
        })
    }

    /// Accepts are not seen, although they were to be.
    pub(super) fn has_failed(&mut self) {
        self.watched = false;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::model::event::{Change, Found, Holder, Id, Kept};
    use crate::model::tcp::{Comm, Task, Tuple};

    const S: u64 = 1_000_000_000;

    fn tuple(port: u16) -> Tuple {
        let ip = Ipv6Addr::LOCALHOST;
        Tuple { local_ip: ip, remote_ip: ip, local_port: port, remote_port: 0 }
    }

    /// A process holds a listening socket at this port.
    fn holds(conn: u64, port: u16, pid: u32) -> Event {
        let found = Found {
            at: 0,
            id: Id::Cookie(conn),
            tuple: tuple(port),
            netns: Some(7),
            uid: None,
            cgroup: None,
            interface: 0,
            state: State::Listen,
            kept: Kept::Held,
        };
        Event::Holder(Holder { found, task: Task { pid, tid: pid, comm: Comm::from("web") }, fd: 3 })
    }

    fn comes_in(port: u16, at: u64) -> Change {
        Change {
            at,
            id: Id::Cookie(99),
            address: None,
            tuple: tuple(port),
            netns: Some(7),
            uid: None,
            cgroup: None,
            interface: 0,
            old: State::SynRecv,
            new: State::Established,
            flags: None,
            task: None,
            idle: None,
            end: None,
        }
    }

    #[test]
    fn of_one_process_no_accept_is_needed() {
        let mut accepting = Accepting::default();
        accepting.note(&comes_in(80, S));
        // With two descriptors, or with a socket of its own for each thread.
        assert_eq!(accepting.look(2 * S, &[holds(1, 80, 5), holds(1, 80, 5), holds(2, 80, 5), holds(3, 81, 6)]), None);
    }

    #[test]
    fn of_processes_that_share_a_port_it_is_needed() {
        assert_eq!(Accepting::default().look(S, &[holds(1, 80, 5), holds(2, 80, 6)]), Some(true));
    }

    #[test]
    fn of_several_processes_it_is_needed_and_not_any_more_a_while_later() {
        let mut accepting = Accepting::default();
        assert_eq!(accepting.look(S, &[holds(1, 80, 5)]), None);
        let several = [holds(1, 80, 5), holds(1, 80, 6)];
        assert_eq!(accepting.look(2 * S, &several), Some(true));
        assert_eq!(accepting.look(3 * S, &several), None);
        assert_eq!(accepting.look(4 * S, &[holds(1, 80, 6)]), None);
        assert_eq!(accepting.look(13 * S, &[holds(1, 80, 6)]), Some(false));
        assert_eq!(accepting.look(14 * S, &several), Some(true));
    }

    /// An MPTCP listener, one of the kernel's own, one that was closed at once.
    #[test]
    fn a_connection_of_a_listener_that_nobody_holds_needs_it() {
        let mut accepting = Accepting::default();
        accepting.note(&comes_in(80, S));
        assert_eq!(accepting.look(S, &[]), None, "it came after the look");
        assert_eq!(accepting.look(2 * S, &[holds(1, 81, 5)]), Some(true));
        assert_eq!(accepting.look(3 * S, &[]), None);
        assert_eq!(accepting.look(61 * S, &[]), None);
        assert_eq!(accepting.look(80 * S, &[]), Some(false));
    }

    #[test]
    fn what_failed_is_tried_again() {
        let mut accepting = Accepting::default();
        let several = [holds(1, 80, 5), holds(1, 80, 6)];
        assert_eq!(accepting.look(S, &several), Some(true));
        accepting.has_failed();
        assert_eq!(accepting.look(2 * S, &several), Some(true));
    }
}
