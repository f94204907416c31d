//! The accept queues of a network namespace.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::diag::{self, DiagError, Wanted, dump};
use crate::model::event::Id;
use crate::model::facts::AcceptQueue;
use crate::model::socket::Socket;
use crate::model::tcp::State;

/// Gathers the accept queues of a network namespace from its sockets.
#[derive(Debug, Default)]
pub struct Queues {
    queues: Vec<AcceptQueue>,
    /// Connection requests by the address and port that they came to.
    requests: HashMap<(Ipv6Addr, u16), u32, FixedState>,
}

impl Queues {
    /// Takes a socket in; only listeners and connection requests matter.
    pub fn note(&mut self, socket: &Socket) {
        let tuple = &socket.found.tuple;
        if socket.is_request {
            *self.requests.entry((tuple.local_ip, tuple.local_port)).or_default() += 1;
        } else if let (State::Listen, Id::Cookie(conn)) = (socket.found.state, socket.found.id) {
            let (queued, limit) = (socket.recv_queue, socket.send_queue);
            self.queues.push(AcceptQueue {
                conn,
                ip: tuple.local_ip,
                port: tuple.local_port,
                queued,
                limit,
                requests: None,
                autobound: None,
            });
        }
    }

    /// What there is; with the requests that each listener's address and port have, if those were listed.
    pub fn finish(self, with_requests: bool) -> Vec<AcceptQueue> {
        let Self { mut queues, requests } = self;
        for queue in queues.iter_mut().filter(|_| with_requests) {
            let own = requests.iter().filter(|((ip, port), _)| *port == queue.port && accepts(queue.ip, *ip));
            queue.requests = Some(own.map(|(_, count)| *count).sum());
        }
        queues
    }
}

/// Says of the accept queues of the calling thread's network namespace for which of them the kernel chose the port.
///
/// # Errors
/// What the kernel says.
pub fn note_autobound_here(queues: &mut [AcceptQueue]) -> Result<(), DiagError> {
    let autobound = autobound_here()?;
    queues.iter_mut().for_each(|queue| queue.autobound = Some(autobound.contains(&queue.conn)));
    Ok(())
}

/// Cookies of the listeners in the calling thread's network namespace whose port the kernel chose.
///
/// # Errors
/// What the kernel says.
pub fn autobound_here() -> Result<HashSet<u64>, DiagError> {
    let mut autobound = HashSet::new();
    diag::autobound(&mut |socket| {
        autobound.insert(socket.found.id.number());
    })?;
    Ok(autobound)
}

/// Whether a listener with this address takes what comes to that one.
fn accepts(listener: Ipv6Addr, ip: Ipv6Addr) -> bool {
    match listener.to_ipv4_mapped() {
        Some(ipv4) if ipv4.is_unspecified() => ip.to_ipv4_mapped().is_some(),
        None if listener.is_unspecified() => true,
        _ => listener == ip,
    }
}

/// Lists the accept queues of the network namespace that the calling thread is in. `with_requests`: counts connection
/// requests too, for which the kernel goes through all connections.
///
/// # Errors
/// What the kernel says.
pub fn accept_queues_here(with_requests: bool) -> Result<Vec<AcceptQueue>, DiagError> {
    let mut queues = Queues::default();
    dump(None, Wanted::Listening, true, true, &mut |socket| queues.note(&socket))?;
    // Nobody asks to connect to nobody.
    if with_requests && !queues.queues.is_empty() {
        dump(None, Wanted::Requests, true, true, &mut |socket| queues.note(&socket))?;
    }
    Ok(queues.finish(with_requests))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::thread;
    use std::time::Duration;

    use nix::libc;
    use rstest::rstest;

    use super::*;
    use crate::kernel::testing::in_new_namespace;

    #[rstest]
    #[case("::", "::1", true)]
    #[case("::", "::ffff:127.0.0.1", true)]
    #[case("::ffff:0.0.0.0", "::ffff:127.0.0.1", true)]
    #[case("::ffff:0.0.0.0", "::1", false)]
    #[case("::1", "::1", true)]
    #[case("::ffff:127.0.0.1", "::ffff:127.0.0.2", false)]
    fn a_listener_takes_what_comes_to_its_address(#[case] listener: &str, #[case] ip: &str, #[case] expected: bool) {
        let [listener, ip] = [listener, ip].map(|text| text.parse().expect("an address"));
        assert_eq!(accepts(listener, ip), expected);
    }

    fn wait_for(what: &str, is_it: impl Fn(&AcceptQueue) -> bool) -> AcceptQueue {
        for _ in 0..500 {
            let queues = accept_queues_here(true).expect("list them");
            if let Some(queue) = queues.into_iter().find(&is_it) {
                return queue;
            }
            thread::sleep(Duration::from_millis(10));
        }
        unreachable!("no {what}: {:?}", accept_queues_here(true));
    }

    #[tcptrace_tests::test]
    fn connections_that_wait_are_counted() {
        in_new_namespace(|| {
            assert_eq!(accept_queues_here(true).expect("list them"), []);
            let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
            let address = listener.local_addr().expect("its address");
            let _clients = [(); 3].map(|()| TcpStream::connect(address).expect("connect"));
            let queue = wait_for("queue of 3", |queue| queue.queued == 3);
            assert_eq!((queue.port, queue.requests), (address.port(), Some(0)));
            assert_eq!(queue.ip.to_canonical(), address.ip());
            assert!(queue.limit > 0 && queue.conn != 0);
            assert_eq!(accept_queues_here(false).expect("list them")[0].requests, None);
            listener.accept().expect("accept");
            wait_for("queue of 2", |queue| queue.queued == 2);
        });
    }

    #[tcptrace_tests::test]
    fn the_kernel_says_which_ports_it_chose() {
        in_new_namespace(|| {
            let [fixed, chosen, chosen_v6] = ["127.0.0.1:50051", "127.0.0.1:0", "[::1]:0"]
                .map(|address| TcpListener::bind(address).expect("listen"));
            let mut queues = accept_queues_here(false).expect("list them");
            assert!(queues.iter().all(|queue| queue.autobound.is_none()));
            note_autobound_here(&mut queues).expect("ask");
            let of = |listener: &TcpListener| {
                let port = listener.local_addr().expect("its address").port();
                queues.iter().find(|queue| queue.port == port).expect("it is there").autobound
            };
            assert_eq!([of(&fixed), of(&chosen), of(&chosen_v6)], [Some(false), Some(true), Some(true)]);
        });
    }

    #[tcptrace_tests::test]
    fn requests_are_counted() {
        in_new_namespace(|| {
            let listener = TcpListener::bind("[::]:0").expect("listen");
            let other = TcpListener::bind("[::]:0").expect("listen");
            let seconds = 10_i32;
            let length = size_of::<i32>() as libc::socklen_t;
            // SAFETY: the descriptor is open, and the value as long as the kernel is told.
            let result = unsafe {
                let value = (&raw const seconds).cast();
                libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, length)
            };
            assert_eq!(result, 0);
            let port = listener.local_addr().expect("its address").port();
            // Without data these stay requests.
            let _four = TcpStream::connect(("127.0.0.1", port)).expect("connect");
            let _six = TcpStream::connect(("::1", port)).expect("connect");
            let queue = wait_for("listener with 2 requests", |queue| queue.requests == Some(2));
            assert_eq!((queue.port, queue.queued), (port, 0));
            let other = other.local_addr().expect("its address").port();
            wait_for("listener without", |queue| queue.port == other && queue.requests == Some(0));
        });
    }
}
