//! Connections that never were: short ones on loopback, each with both ends, their owners and a TIME_WAIT of 60 s, which
//! makes 11 transitions; by a few processes, to a few ports, and from a few thousand ephemeral ports.

use std::net::Ipv4Addr;

use tcptrace::model::event::{Birth, Change, EndFacts, Event, Flags, Id, Mini, MiniEvent, Totals};
use tcptrace::model::tcp::{Comm, State, Task, Tuple};

/// In ns.
pub(crate) const MS: u64 = 1_000_000;
const TIME_WAIT_NS: u64 = 60_000 * MS;

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Connection {
    /// Which, from 0.
    pub(crate) number: u64,
    /// When it begins.
    pub(crate) at: u64,
}

impl Connection {
    /// Scattered, but the same each time.
    fn noise(self, below: u64) -> u64 {
        (self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % below
    }

    fn client(self) -> Task {
        let pid = 1000 + (self.noise(20) as u32);
        Task { pid, tid: pid, comm: Comm::from("client") }
    }

    fn server(self) -> Task {
        let pid = 2000 + (self.noise(4) as u32);
        Task { pid, tid: pid, comm: Comm::from("server") }
    }

    fn tuple(self) -> Tuple {
        let ip = |last| Ipv4Addr::new(127, 0, 0, last).to_ipv6_mapped();
        let local_port = 32_768 + (self.number % 28_000) as u16;
        Tuple {
            local_ip: ip(1),
            remote_ip: ip(1 + self.noise(50) as u8),
            local_port,
            remote_port: 8000 + self.noise(8) as u16,
        }
    }

    fn change(self, is_client: bool, after: u64, old: State, new: State) -> Change {
        let id = Id::Cookie(2 * self.number + 1 + u64::from(!is_client));
        Change {
            at: self.at + after + self.noise(5_000),
            id,
            address: None,
            tuple: if is_client { self.tuple() } else { self.tuple().reversed() },
            netns: Some(4_026_531_840),
            uid: Some(1000),
            cgroup: None,
            interface: 0,
            old,
            new,
            flags: Some(Flags { has_socket: true, ..Flags::default() }),
            task: None,
            idle: None,
            end: None,
        }
    }

    fn end(self, mini: Birth) -> EndFacts {
        let totals = Totals {
            bytes_sent: 200 + self.noise(2_000),
            bytes_received: 100 + self.noise(300),
            srtt_us: Some(20 + self.noise(60) as u32),
            ..Totals::default()
        };
        EndFacts { totals, all_acked: true, mini, ..EndFacts::default() }
    }

    /// What happens up to its TIME_WAIT, in order.
    pub(crate) fn life(self) -> Vec<Event> {
        use State::{CloseWait, Closed, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent};
        let (client, server) = (Some(self.client()), Some(self.server()));
        let held = 200_000 + self.noise(100_000);
        let closing = Flags { dead: true, done: true, rcv_shutdown: true, send_shutdown: true, ..Flags::default() };
        let time_wait = Birth::Made { substate: State::TimeWait, due_ns: TIME_WAIT_NS };
        let changes = [
            Change { task: client, ..self.change(true, 0, Closed, SynSent) },
            self.change(false, 20_000, Listen, SynRecv),
            self.change(true, 30_000, SynSent, Established),
            self.change(false, 40_000, SynRecv, Established),
            Change { task: client, ..self.change(true, held, Established, FinWait1) },
            self.change(false, held + 10_000, Established, CloseWait),
            self.change(true, held + 15_000, FinWait1, FinWait2),
            Change { task: server, ..self.change(false, held + 40_000, CloseWait, LastAck) },
            Change {
                flags: Some(closing),
                end: Some(self.end(time_wait)),
                ..self.change(true, held + 50_000, FinWait2, Closed)
            },
            Change {
                flags: Some(closing),
                end: Some(self.end(Birth::None)),
                ..self.change(false, held + 55_000, LastAck, Closed)
            },
        ];
        let mut events: Vec<Event> = changes.into_iter().map(Event::Change).collect();
        let accepted = self.change(false, 60_000, SynRecv, Established);
        events.insert(4, Event::Accepted { at: accepted.at, id: accepted.id, task: self.server() });
        let (gone, left) =
            (self.change(true, held + 60_000, Closed, Closed), self.change(false, held + 65_000, Closed, Closed));
        events.push(Event::Destroyed { at: gone.at, id: gone.id, shut: Some(true) });
        events.push(Event::Destroyed { at: left.at, id: left.id, shut: Some(true) });
        events
    }

    /// When its TIME_WAIT is over.
    pub(crate) fn expires(self) -> u64 {
        self.at + TIME_WAIT_NS + 300_000 + self.noise(4 * MS)
    }

    /// The end of its TIME_WAIT.
    pub(crate) fn expiry(self) -> Event {
        let client = self.change(true, 0, State::Closed, State::Closed);
        let (id, tuple, netns) = (client.id, client.tuple, client.netns);
        let (substate, what) = (State::TimeWait, MiniEvent::Expired);
        Event::Mini(Mini { at: self.expires(), id, tuple, netns, substate, due_ns: 0, what })
    }
}
