//! Which of the sockets that a network namespace has are looked at more closely, and how.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::super::diag::{Wanted, dump, inspect};
use super::Answer;
use crate::model::event::{Found, Kept, Timer};
use crate::model::socket::Socket;
use crate::model::tcp::State;

/// Most kinds of connections in a network namespace of which a few are looked at.
const MOST_KINDS: usize = 1024;
/// Most connections of a kind that are looked at: the first one, and others that may be idle.
const MOST_OF_KIND: usize = 8;

/// Looks at the sockets of one network namespace. The kernel locks each socket whose progress it shows: few are worth that.
pub(super) struct Inspection {
    is_wanted: bool,
    /// There are some of which one end has closed.
    has_lingering: bool,
    served_ports: HashSet<u16, FixedState>,
    kinds: HashMap<Kind, Chosen, FixedState>,
}

/// Those of a kind that are looked at.
#[derive(Default)]
struct Chosen {
    count: usize,
    /// Sockets that were listed without their progress, to be asked for again.
    again: Vec<Found>,
}

/// What connections have in common: the port that serves them here, or the end that they lead to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    To(Ipv6Addr, u16),
    Served(u16),
}

impl Inspection {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            is_wanted: matches!(wanted, Wanted::AllAndBound | Wanted::AllAndBoundAndPaths),
            has_lingering: false,
            served_ports: HashSet::default(),
            kinds: HashMap::default(),
        }
    }

    /// Hands over a socket as it was listed.
    pub(super) fn take(&mut self, socket: Socket, sink: &mut dyn FnMut(Answer)) {
        if !socket.is_bound_only() {
            sink(Answer::Socket(socket));
        }
        if self.is_wanted && self.note(&socket) {
            sink(Answer::Inspected(socket));
        }
    }

    /// Whether it shows all that is of interest.
    fn note(&mut self, socket: &Socket) -> bool {
        let found = &socket.found;
        if socket.is_request || matches!(found.kept, Kept::Mini { .. }) {
            return false;
        }
        let is_complete = socket.progress.is_some();
        let is_busy = socket.recv_queue > 0 || socket.send_queue > 0 || socket.retransmits > 0;
        match found.state {
            State::Closed | State::SynSent => true,
            // The kernel lists these first.
            State::Listen => {
                self.served_ports.insert(found.tuple.local_port);
                true
            }
            State::FinWait1 | State::FinWait2 | State::CloseWait | State::Closing | State::LastAck => {
                self.has_lingering |= !is_complete;
                is_complete
            }
            State::Established => {
                // No timer runs: it has nothing to send, and nobody asks whether its peer is still there.
                let may_be_idle = !is_busy && socket.timer == Timer::None;
                let is_chosen = self.is_chosen_of_kind(found, is_complete, may_be_idle);
                if is_chosen { is_complete } else { is_busy }
            }
            State::SynRecv | State::TimeWait => is_busy,
        }
    }

    /// Whether it is the first of its kind, or one of the first that may be idle.
    fn is_chosen_of_kind(&mut self, found: &Found, is_complete: bool, may_be_idle: bool) -> bool {
        let tuple = &found.tuple;
        let is_served = self.served_ports.contains(&tuple.local_port);
        let kind =
            if is_served { Kind::Served(tuple.local_port) } else { Kind::To(tuple.remote_ip, tuple.remote_port) };
        let is_full = self.kinds.len() >= MOST_KINDS;
        let chosen = match self.kinds.entry(kind) {
            Entry::Vacant(_) if is_full => return false,
            Entry::Vacant(entry) => entry.insert(Chosen::default()),
            Entry::Occupied(entry) if may_be_idle && entry.get().count < MOST_OF_KIND => entry.into_mut(),
            Entry::Occupied(_) => return false,
        };
        chosen.count += 1;
        chosen.again.extend((!is_complete).then_some(*found));
        true
    }

    /// Asks again for those that did not show everything. Changes meanwhile do no harm: each says when it was looked at.
    pub(super) fn finish(self, netns: Option<u32>, ipv4: bool, ipv6: bool, sink: &mut dyn FnMut(Answer)) {
        if !self.is_wanted {
            return;
        }
        let mut tell = |socket: Socket| {
            if socket.progress.is_some() {
                sink(Answer::Inspected(socket));
            }
        };
        let listed =
            if self.has_lingering { dump(netns, Wanted::Lingering, ipv4, ipv6, &mut tell).map(drop) } else { Ok(()) };
        if let Err(error) = listed.and_then(|()| inspect(self.kinds.values().flat_map(|it| &it.again), &mut tell)) {
            log::debug!("some sockets could not be looked at more closely: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};

    use super::super::survey;
    use super::*;
    use crate::kernel::Namespaces;
    use crate::kernel::testing::in_new_namespace;
    use crate::model::event::{Bound, Inspected};

    /// What is shown of the sockets of this namespace: those that are named, and more of some.
    fn look() -> (Vec<Socket>, Vec<Inspected>) {
        let own = Namespaces::own_namespace().expect("its number");
        let (mut sockets, mut inspected) = (Vec::new(), Vec::new());
        let mut take = |answer| match answer {
            Answer::Socket(socket) => sockets.push(socket),
            Answer::Inspected(socket) => inspected.push(socket.inspected()),
            Answer::Multipath(_) | Answer::Namespace(_) => {}
        };
        let namespaces = Namespaces::default();
        survey(&namespaces, &[own], Wanted::AllAndBound, true, true, &mut take).expect("list them");
        (sockets, inspected)
    }

    /// Waits until this is shown of a socket in this state on this port.
    fn wait_for(state: State, port: u16, is_it: impl Fn(&Inspected) -> bool) -> Inspected {
        for _ in 0..500 {
            let (sockets, inspected) = look();
            let is_in_state = |socket: &&Socket| socket.found.state == state && socket.found.tuple.local_port == port;
            let socket = sockets.iter().find(is_in_state);
            let found = inspected.iter().find(|it| socket.is_some_and(|socket| socket.found.id == it.id) && is_it(it));
            if let Some(found) = found {
                return *found;
            }
            thread::sleep(Duration::from_millis(10));
        }
        unreachable!("no such {state:?}: {:#?}", look());
    }

    #[tcptrace_tests::test]
    fn what_waits_shows_for_how_long_and_for_what() {
        in_new_namespace(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
            let port = listener.local_addr().expect("its address").port();
            let clients = [(); 3].map(|()| TcpStream::connect(("127.0.0.1", port)).expect("connect"));
            let queue = wait_for(State::Listen, port, |it| it.recv_queue == 3);
            assert!(queue.send_queue > 0 && queue.idle.is_none() && queue.bound.is_none());
            clients[0].shutdown(Shutdown::Write).expect("shut down");
            let waiting = wait_for(State::CloseWait, port, |it| {
                it.idle.and_then(|idle| idle.acked_ms).is_some_and(|age| age >= 20)
            });
            assert_eq!((waiting.recv_queue, waiting.timestamps), (1, Some(true)), "the FIN");
            let own = clients[0].local_addr().expect("its address").port();
            let closing = wait_for(State::FinWait2, own, |it| it.idle.is_some());
            assert_eq!(closing.bind_no_port, Some(false));
            drop(clients);
        });
    }

    #[tcptrace_tests::test]
    fn some_of_each_kind_of_connections_are_looked_at() {
        const MANY: usize = MOST_OF_KIND + 3;
        in_new_namespace(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
            let port = listener.local_addr().expect("its address").port();
            let clients = [(); MANY].map(|()| TcpStream::connect(("127.0.0.1", port)).expect("connect"));
            let _servers = [(); MANY].map(|()| listener.accept().expect("accept"));
            let (sockets, inspected) = look();
            let of = |it: &&Inspected| sockets.iter().find(|socket| socket.found.id == it.id).map(|it| it.found.state);
            let complete: Vec<_> = inspected.iter().filter(|it| it.timestamps == Some(true)).collect();
            assert_eq!(complete.len(), 2 * MOST_OF_KIND, "of the clients and of the servers: {inspected:#?}");
            assert!(complete.iter().all(|it| of(it) == Some(State::Established)));
            assert_eq!(inspected.len(), 2 * MOST_OF_KIND + 1, "and the listener");
            drop(clients);
        });
    }

    #[tcptrace_tests::test]
    fn one_that_is_bound_and_nothing_else_is_shown_and_not_named() {
        in_new_namespace(|| {
            let family = AddressFamily::Inet;
            let make = || socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
            let (idle, late) = (make(), make());
            setsockopt(&late, sockopt::IpBindAddressNoPort, &true).expect("set it");
            let address = |port| SockaddrIn::new(127, 0, 0, 3, port);
            let bind = |socket: &std::os::fd::OwnedFd, port| {
                bind(std::os::fd::AsRawFd::as_raw_fd(socket), &address(port)).expect("bind");
            };
            bind(&idle, 1234);
            bind(&late, 0);
            let (sockets, inspected) = look();
            assert_eq!(sockets, []);
            let ip = std::net::Ipv4Addr::new(127, 0, 0, 3).to_ipv6_mapped();
            let bound = Bound { ip, port: 1234, netns: Namespaces::own_namespace() };
            let bounds: Vec<_> = inspected.iter().map(|it| (it.bound, it.bind_no_port)).collect();
            // Older kernels do not list it.
            assert!(bounds.is_empty() || bounds == [(Some(bound), Some(false))], "{inspected:#?}");
        });
    }
}
