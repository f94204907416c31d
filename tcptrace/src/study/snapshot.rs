//! The sockets of one moment, and their numbers by kind. Pure: sockets in, rows out.

mod ends;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use self::ends::Ends;
use crate::engine::lifecycle::{TIME_WAIT_NS, closer_in, only_listener};
use crate::model::event::Kept;
use crate::model::named;
use crate::model::row::{Entry, Held, Identity, Owner};
use crate::model::socket::{Holding, Socket};
use crate::model::tcp::{OwnerSource, Side, State, Task, Tuple};

named! {
    /// The property that sockets are counted by.
    By {
        /// State.
        State = "state",
        /// State and process.
        Owner = "owner",
        /// State and the end that repeats: the local port, or the remote address and port.
        Remote = "remote",
    }
}

/// The number of sockets of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The property they are counted by.
    pub by: By,
    /// Their state; `None` for a remainder with several states.
    pub state: Option<State>,
    /// `None` if unknown.
    pub total: Option<u64>,
    /// The owners; `None` if unknown.
    pub shares: Option<Shares>,
    /// The process that holds all of them; `None` for sockets without a known owner.
    pub owner: Option<Task>,
    /// False for sockets in an accept queue.
    pub accepted: Option<bool>,
    /// The listener of that queue.
    pub listener: Option<Task>,
    /// By remote: not all of them are held by one and the same process.
    pub several_owners: bool,
    /// For the remainder: how many rows it stands for.
    pub groups: Option<u64>,
    /// By remote: the parts of both ends that all have in common. A differing port is 0, a differing address
    /// unspecified.
    pub ends: Option<Tuple>,
    /// By remote: inode number of the network namespace.
    pub netns: Option<u32>,
}

/// The number of sockets by kind of owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Held by a process.
    pub held: u64,
    /// In an accept queue.
    pub queued: u64,
    /// Orphans: no process holds them any more.
    pub orphan: u64,
    /// Mini-sockets.
    pub mini: u64,
}

impl Shares {
    fn add(&mut self, kept: Kept) {
        *match kept {
            Kept::Held => &mut self.held,
            Kept::Queued => &mut self.queued,
            Kept::Orphan => &mut self.orphan,
            Kept::Mini { .. } => &mut self.mini,
        } += 1;
    }

    fn plus(self, other: Self) -> Self {
        Self {
            held: self.held + other.held,
            queued: self.queued + other.queued,
            orphan: self.orphan + other.orphan,
            mini: self.mini + other.mini,
        }
    }

    fn total(self) -> u64 {
        self.held + self.queued + self.orphan + self.mini
    }

    /// All but the mini-sockets.
    fn full(self) -> u64 {
        self.total() - self.mini
    }
}

/// Local address and process of a listener.
type Listener = (Ipv6Addr, Option<Task>);

#[derive(Debug)]
pub struct Snapshot<H> {
    sockets: Vec<Socket>,
    holder: H,
    /// Listeners by namespace and port.
    listeners: HashMap<(Option<u32>, u16), Vec<Listener>, FixedState>,
}

impl<H: Fn(u32) -> Option<Holding>> Snapshot<H> {
    /// `holder` returns the process that holds an inode number. The kernel may list a socket twice if it changes
    /// meanwhile: the later answer counts.
    pub fn new(mut sockets: Vec<Socket>, holder: H) -> Self {
        // The later one comes first, because `dedup` keeps the first. A connection inherits the cookie of its request.
        sockets.sort_unstable_by_key(|socket| (socket.found.id, socket.is_request, Reverse(socket.found.at)));
        sockets.dedup_by_key(|socket| socket.found.id);
        sockets.sort_unstable_by_key(order);
        let mut listeners: HashMap<_, Vec<_>, _> = HashMap::default();
        for Socket { found, inode, .. } in sockets.iter().filter(|socket| socket.found.state == State::Listen) {
            let task = holder(*inode).map(|holding| holding.task);
            let place = (found.netns, found.tuple.local_port);
            listeners.entry(place).or_default().push((found.tuple.local_ip, task));
        }
        Self { sockets, holder, listeners }
    }

    /// All sockets, by state, namespace and address.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.sockets.iter().map(|socket| self.entry(socket))
    }

    /// Whether there is a listener on this namespace and local port.
    pub fn is_served(&self, netns: Option<u32>, local_port: u16) -> bool {
        self.listeners.contains_key(&(netns, local_port))
    }

    fn entry(&self, socket: &Socket) -> Entry {
        let found = &socket.found;
        let holding = if socket.inode == 0 { None } else { (self.holder)(socket.inode) };
        let is_queued = found.kept == Kept::Queued;
        let time_wait_left_ns = match found.kept {
            Kept::Mini { due_ns } if found.state == State::TimeWait => Some(due_ns),
            _ => None,
        };
        // The timer may have been extended, so this is a lower bound of the age.
        let of_timer = time_wait_left_ns.and_then(|left| TIME_WAIT_NS.checked_sub(left));
        // The segment that caused the state is the last one received, or an earlier one.
        let quiet = socket.progress.map(|it| u64::from(it.quiet_ms) * 1_000_000);
        let age = of_timer.or(quiet.filter(|_| is_waiting(socket))).filter(|age| *age > 0);
        Entry {
            boot_ns: found.at,
            identity: Identity {
                conn: found.id.number(),
                tuple: found.tuple,
                netns: found.netns,
                uid: found.uid,
                cgroup: found.cgroup,
                interface: found.interface,
                side: if found.state == State::SynSent { Side::Client } else { Side::Unknown },
                owner: holding.map(|holding| Owner { task: holding.task, source: OwnerSource::Scan }),
            },
            state: found.state,
            kept: found.kept,
            closer: closer_in(found.state),
            age: age.map_or(Held::Unknown, Held::AtLeast),
            holding,
            listener: if is_queued { self.listener(found.netns, &found.tuple) } else { None },
            time_wait_left_ns,
            recv_queue: socket.recv_queue,
            send_queue: socket.send_queue,
            timer: socket.timer,
            timer_left_ns: socket.timer_left_ns,
            retransmits: socket.retransmits,
            inode: socket.inode,
            multipath: socket.multipath,
            idle_ns: quiet,
            timestamps: socket.progress.map(|it| it.timestamps),
        }
    }

    fn listener(&self, netns: Option<u32>, tuple: &Tuple) -> Option<Task> {
        only_listener(tuple.local_ip, self.listeners.get(&(netns, tuple.local_port))?)
    }
}

/// Whether it is a full socket in a state that only a received segment can cause.
pub fn is_waiting(socket: &Socket) -> bool {
    let is_mini = matches!(socket.found.kept, Kept::Mini { .. });
    !is_mini && matches!(socket.found.state, State::CloseWait | State::FinWait2 | State::Closing)
}

/// In the order of a connection's life, then by namespace and address.
fn order(socket: &Socket) -> impl Ord + use<> {
    let (found, tuple) = (&socket.found, &socket.found.tuple);
    let state = STATES.iter().position(|state| *state == found.state);
    (state, found.netns, tuple.local_port, tuple.local_ip, tuple.remote_ip, tuple.remote_port)
}

/// The order in which output shows states.
const STATES: [State; 11] = [
    State::Listen,
    State::SynSent,
    State::SynRecv,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::Closing,
    State::TimeWait,
    State::CloseWait,
    State::LastAck,
    State::Closed,
];

/// Whether many sockets in this state indicate trouble.
fn hurts(state: State) -> bool {
    !matches!(state, State::Closed | State::Listen | State::Established)
}

/// Counts sockets by state, owner and end.
#[derive(Debug, Default)]
pub struct Counts {
    states: [Shares; STATES.len()],
    owners: HashMap<(State, Who), Shares, FixedState>,
    ends: Ends,
}

/// Sockets with the same owner count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Process(Task),
    Queue { listener: Option<Task> },
    Nobody,
}

impl Who {
    fn fill(self, row: Count) -> Count {
        match self {
            Self::Process(task) => Count { owner: Some(task), ..row },
            Self::Queue { listener } => Count { accepted: Some(false), listener, ..row },
            Self::Nobody => row,
        }
    }
}

impl Counts {
    /// Adds a socket. If both of its ends repeat equally often, it counts with the server's end.
    pub fn add(&mut self, socket: &Entry, is_served: bool) {
        if let Some(place) = STATES.iter().position(|state| *state == socket.state) {
            self.states[place].add(socket.kept);
        }
        if !hurts(socket.state) {
            return;
        }
        let who = match (socket.identity.owner, socket.kept) {
            (Some(owner), _) => Who::Process(owner.task),
            (None, Kept::Queued) => Who::Queue { listener: socket.listener },
            _ => Who::Nobody,
        };
        self.owners.entry((socket.state, who)).or_default().add(socket.kept);
        self.ends.add(socket, who, is_served);
    }

    /// All counts by state, then the `top` counts by owner and by end for states that indicate trouble, and the sum of
    /// the others. `allocated` is the number of full sockets in the kernel, if the snapshot lists all sockets but
    /// closed ones.
    pub fn rows(&self, top: usize, allocated: Option<u64>) -> Vec<Count> {
        let full: u64 = self.states.iter().map(|shares| shares.full()).sum();
        let states = STATES.iter().zip(self.states).map(|(state, shares)| match state {
            State::Closed => {
                Count { total: allocated.and_then(|all| all.checked_sub(full)), ..count(By::State, Some(*state)) }
            }
            _ => Count { ..counted(By::State, Some(*state), shares) },
        });
        let owners =
            self.owners.iter().map(|((state, who), shares)| who.fill(counted(By::Owner, Some(*state), *shares)));
        states.chain(most(owners.collect(), top)).chain(most(self.ends.groups(), top)).collect()
    }
}

fn count(by: By, state: Option<State>) -> Count {
    Count {
        by,
        state,
        total: None,
        shares: None,
        owner: None,
        accepted: None,
        listener: None,
        several_owners: false,
        groups: None,
        ends: None,
        netns: None,
    }
}

fn counted(by: By, state: Option<State>, shares: Shares) -> Count {
    Count { total: Some(shares.total()), shares: Some(shares), ..count(by, state) }
}

/// The largest rows, in an order that does not depend on the sequence of counting, and the sum of the others.
fn most(mut rows: Vec<Count>, top: usize) -> Vec<Count> {
    rows.sort_unstable_by_key(|row| {
        let state = STATES.iter().position(|state| Some(*state) == row.state);
        let ends = row.ends.map(|ends| (ends.local_ip, ends.local_port, ends.remote_ip, ends.remote_port));
        let who = (row.owner.map(|task| task.pid), row.listener.map(|task| task.pid));
        (Reverse(row.total), state, who, row.netns, ends)
    });
    let rest = if rows.len() > top && top > 0 { sum(&rows.split_off(top)) } else { None };
    rows.truncate(top);
    rows.extend(rest);
    rows
}

/// The sum of these rows.
fn sum(rows: &[Count]) -> Option<Count> {
    let first = rows.first()?;
    let state = first.state.filter(|_| rows.iter().all(|row| row.state == first.state));
    let shares = rows.iter().filter_map(|row| row.shares).fold(Shares::default(), Shares::plus);
    Some(Count { groups: Some(rows.len() as u64), ..counted(first.by, state, shares) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::model::event::{Found, Id};
    use crate::model::socket::{Progress, Timer};
    use crate::model::tcp::Comm;

    const NETNS: Option<u32> = Some(9);

    fn tuple(local: (&str, u16), remote: (&str, u16)) -> Tuple {
        let ip = |text: &str| text.parse().expect("an address");
        Tuple { local_ip: ip(local.0), local_port: local.1, remote_ip: ip(remote.0), remote_port: remote.1 }
    }

    /// Found at a time equal to its cookie; if held, the cookie is also its inode number.
    fn socket(cookie: u64, state: State, kept: Kept, tuple: Tuple) -> Socket {
        let found = Found {
            at: cookie,
            id: Id::Cookie(cookie),
            tuple,
            netns: NETNS,
            uid: None,
            cgroup: None,
            interface: 0,
            state,
            kept,
        };
        Socket {
            found,
            inode: if kept == Kept::Held { u32::try_from(cookie).expect("small") } else { 0 },
            recv_queue: 0,
            send_queue: 0,
            timer: Timer::None,
            timer_left_ns: 0,
            retransmits: 0,
            bind_no_port: None,
            is_request: false,
            progress: None,
            multipath: None,
        }
    }

    fn listener(cookie: u64, ip: &str) -> Socket {
        socket(cookie, State::Listen, Kept::Held, tuple((ip, 80), ("::", 0)))
    }

    fn server(cookie: u64, state: State, kept: Kept) -> Socket {
        socket(cookie, state, kept, tuple(("::1", 80), ("::2", 4_000)))
    }

    /// Process 50 holds 1 to 10, 51 the next ten, and so on.
    fn holding(inode: u32) -> Option<Holding> {
        let pid = 50 + (inode - 1) / 10;
        Some(Holding { task: Task { pid, tid: pid, comm: Comm::from("test") }, fd: inode, count: 1 })
    }

    fn counts(sockets: Vec<Socket>) -> Counts {
        let snapshot = Snapshot::new(sockets, holding);
        let mut counts = Counts::default();
        for entry in snapshot.entries() {
            counts.add(&entry, snapshot.is_served(entry.identity.netns, entry.identity.tuple.local_port));
        }
        counts
    }

    #[rstest]
    #[case::bound_to_the_address(&[(1, "::1")], Some(50))]
    #[case::bound_to_any(&[(1, "::")], Some(50))]
    #[case::bound_to_another(&[(1, "::3")], None)]
    #[case::the_more_precise_one(&[(1, "::"), (11, "::1")], Some(51))]
    #[case::one_process_twice(&[(1, "::1"), (2, "::1")], Some(50))]
    #[case::two_processes(&[(1, "::1"), (11, "::1")], None)]
    fn who_listens(#[case] listeners: &[(u64, &str)], #[case] expected: Option<u32>) {
        let mut sockets = vec![server(100, State::CloseWait, Kept::Queued)];
        sockets.extend(listeners.iter().map(|(cookie, ip)| listener(*cookie, ip)));
        let snapshot = Snapshot::new(sockets, holding);
        let queued = snapshot.entries().find(|entry| entry.kept == Kept::Queued).expect("it is there");
        assert_eq!(queued.listener.map(|task| task.pid), expected);
        assert_eq!((queued.identity.owner, queued.kept), (None, Kept::Queued));
    }

    #[test]
    fn what_is_named_twice_counts_once_as_it_was_last() {
        let before = server(7, State::FinWait2, Kept::Held);
        let mut after = server(7, State::TimeWait, Kept::Mini { due_ns: 20_000_000_000 });
        after.found.at = 8;
        let entries: Vec<_> = Snapshot::new(vec![before, after, before], holding).entries().collect();
        assert_eq!(entries.len(), 1);
        let entry = entries[0];
        assert_eq!((entry.state, entry.age), (State::TimeWait, Held::AtLeast(40_000_000_000)));
        assert_eq!(entry.time_wait_left_ns, Some(20_000_000_000));
    }

    #[test]
    fn a_connection_takes_the_place_of_its_request() {
        let request = Socket { is_request: true, ..server(7, State::SynRecv, Kept::Queued) };
        let mut child = server(7, State::Established, Kept::Queued);
        child.found.at = 1;
        let states: Vec<_> = Snapshot::new(vec![request, child], holding).entries().map(|entry| entry.state).collect();
        assert_eq!(states, [State::Established]);
    }

    #[test]
    fn a_time_wait_that_has_just_begun_has_no_known_age() {
        let young = server(7, State::TimeWait, Kept::Mini { due_ns: TIME_WAIT_NS });
        let entry = Snapshot::new(vec![young], holding).entries().next().expect("it is there");
        assert_eq!(entry.age, Held::Unknown);
    }

    /// The last segment may have come after the one that caused the state.
    #[rstest]
    #[case::brought_there_by_a_segment(State::CloseWait, Kept::Held, Held::AtLeast(1_500_000_000))]
    #[case::orphan(State::FinWait2, Kept::Orphan, Held::AtLeast(1_500_000_000))]
    #[case::brought_there_by_its_process(State::LastAck, Kept::Orphan, Held::Unknown)]
    fn the_last_segment_bounds_the_age(#[case] state: State, #[case] kept: Kept, #[case] expected: Held) {
        let progress =
            Some(Progress { acked: 1, received: 1, quiet_ms: 1_500, received_ms: 0, sent_ms: 0, timestamps: false });
        let socket = Socket { progress, ..server(7, state, kept) };
        let entry = Snapshot::new(vec![socket], holding).entries().next().expect("it is there");
        assert_eq!(entry.age, expected);
    }

    #[test]
    fn counted_by_state_owner_and_remote_end() {
        let client = |cookie, port| {
            let kept = Kept::Mini { due_ns: 1 };
            socket(cookie, State::TimeWait, kept, tuple(("::1", port), ("::2", 443)))
        };
        let rows = counts(vec![
            listener(1, "::"),
            server(2, State::CloseWait, Kept::Held),
            server(3, State::CloseWait, Kept::Held),
            server(11, State::CloseWait, Kept::Held),
            server(21, State::CloseWait, Kept::Queued),
            server(22, State::Established, Kept::Held),
            server(23, State::LastAck, Kept::Orphan),
            client(31, 1_000),
            client(32, 1_001),
            client(33, 1_002),
        ])
        .rows(2, Some(20));

        let of = |by| rows.iter().filter(move |row| row.by == by);
        let states: Vec<_> =
            of(By::State).filter(|row| row.total != Some(0)).map(|row| (row.state, row.total)).collect();
        let expected = [
            (State::Listen, 1),
            (State::Established, 1),
            (State::TimeWait, 3),
            (State::CloseWait, 4),
            (State::LastAck, 1),
            (State::Closed, 13),
        ];
        assert_eq!(states, expected.map(|(state, total)| (Some(state), Some(total))));
        let shares = of(By::State).find(|row| row.state == Some(State::CloseWait)).and_then(|row| row.shares);
        assert_eq!(shares, Some(Shares { held: 3, queued: 1, orphan: 0, mini: 0 }));

        let owners: Vec<_> =
            of(By::Owner).map(|row| (row.state, row.total, row.owner.map(|task| task.pid), row.groups)).collect();
        let [mini, leaked, rest] = [
            (Some(State::TimeWait), Some(3), None, None),
            (Some(State::CloseWait), Some(2), Some(50), None),
            (None, Some(3), None, Some(3)),
        ];
        assert_eq!(owners, [mini, leaked, rest]);
        let ends: Vec<_> = of(By::Remote).map(|row| (row.state, row.total, row.ends, row.groups)).collect();
        let served = (Some(State::CloseWait), Some(4), Some(tuple(("::1", 80), ("::2", 4_000))), None);
        let called = (Some(State::TimeWait), Some(3), Some(tuple(("::1", 0), ("::2", 443))), None);
        assert_eq!(ends, [served, called, (Some(State::LastAck), Some(1), None, Some(1))]);
    }

    fn by_end(sockets: Vec<Socket>, top: usize) -> Vec<Count> {
        counts(sockets).rows(top, None).into_iter().filter(|row| row.by == By::Remote).collect()
    }

    fn time_wait(cookie: u64, local: (&str, u16), remote: (&str, u16)) -> Socket {
        socket(cookie, State::TimeWait, Kept::Mini { due_ns: 1 }, tuple(local, remote))
    }

    /// The server is gone, and its 917 mini-sockets remain.
    #[test]
    fn a_port_that_repeats_is_one_group_without_a_listener() {
        let served = |at: u16| time_wait(at.into(), ("::ffff:10.0.0.1", 8_081), ("::ffff:10.0.0.2", 20_000 + at));
        let called = |at: u16| time_wait(at.into(), ("::ffff:10.0.0.1", 20_000 + at), ("::ffff:10.0.0.3", 443));
        let rows = by_end((1..918).map(served).chain((1_000..1_020).map(called)).collect(), 10);
        let groups: Vec<_> = rows.iter().map(|row| (row.total, row.ends, row.groups)).collect();
        let served = (Some(917), Some(tuple(("::ffff:10.0.0.1", 8_081), ("::ffff:10.0.0.2", 0))), None);
        let called = (Some(20), Some(tuple(("::ffff:10.0.0.1", 0), ("::ffff:10.0.0.3", 443))), None);
        assert_eq!(groups, [served, called]);
    }

    #[rstest]
    #[case::of_ipv4("::ffff:10.0.0.9", "::ffff:0.0.0.0")]
    #[case::of_both("::9", "::")]
    fn what_differs_in_a_group_is_not_shown(#[case] other: &str, #[case] expected: &str) {
        let one = time_wait(1, ("::ffff:10.0.0.1", 80), ("::ffff:10.0.0.2", 4_000));
        let rows = by_end(vec![one, time_wait(2, (other, 80), (other, 4_000))], 1);
        assert_eq!(
            rows.iter().map(|row| row.ends).collect::<Vec<_>>(),
            [Some(tuple((expected, 80), (expected, 4_000)))]
        );
    }

    /// Many processes accept on one port.
    #[test]
    fn a_group_names_its_owner_if_all_have_the_same() {
        let rows = |cookies: [u64; 2]| {
            let mut sockets = vec![listener(1, "::")];
            sockets.extend(cookies.map(|cookie| server(cookie, State::CloseWait, Kept::Held)));
            let rows = by_end(sockets, 1);
            rows.iter().map(|row| (row.total, row.owner.map(|task| task.pid), row.several_owners)).collect::<Vec<_>>()
        };
        assert_eq!(rows([2, 3]), [(Some(2), Some(50), false)]);
        assert_eq!(rows([2, 11]), [(Some(2), None, true)]);
    }

    #[test]
    fn an_address_counts_where_no_port_repeats() {
        let scan = (1..4).map(|at| time_wait(at.into(), ("::1", 10 + at), ("::2", 20 + at)));
        let rows = by_end(scan.collect(), 1);
        assert_eq!(
            rows.iter().map(|row| (row.total, row.ends)).collect::<Vec<_>>(),
            [(Some(3), Some(tuple(("::1", 0), ("::2", 0))))]
        );
    }

    proptest! {
        /// For any grouping, and any number of rows.
        #[test]
        fn no_socket_is_left_out(ports in prop::collection::vec((1_u16..9, 1_u16..9, 0_usize..2), 0..60), top in 1_usize..9) {
            let states = [State::TimeWait, State::FinWait2];
            let sockets = (1..).zip(&ports).map(|(cookie, (local, remote, state))| {
                let ends = tuple(("::1", *local), ("::2", *remote));
                socket(cookie, states[*state], Kept::Mini { due_ns: 1 }, ends)
            });
            let rows = counts(sockets.collect()).rows(top, None);
            for by in [By::Owner, By::Remote] {
                let rows: Vec<_> = rows.iter().filter(|row| row.by == by).collect();
                prop_assert_eq!(rows.iter().filter_map(|row| row.total).sum::<u64>(), ports.len() as u64);
                prop_assert!(rows.len() <= top + 1 && rows.iter().take(top).all(|row| row.groups.is_none()));
            }
        }
    }

    #[test]
    fn closed_sockets_are_not_counted_when_others_may_be_missing() {
        let closed = |allocated| {
            let rows = counts(vec![listener(1, "::"), listener(2, "::1")]).rows(0, allocated);
            rows.iter().find(|row| row.state == Some(State::Closed)).and_then(|row| row.total)
        };
        assert_eq!([closed(None), closed(Some(2)), closed(Some(5)), closed(Some(1))], [None, Some(0), Some(3), None]);
    }
}
