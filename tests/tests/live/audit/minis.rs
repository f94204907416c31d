//! Mini-sockets that two CPUs make, refuse and end at the same time.

use std::hint::spin_loop;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tcptrace_tests::Namespace;
use tcptrace_tests::sockets::{connect, listen};

use super::{audited, close_in_turn};

fn stay_on(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only)).expect("stay on a CPU");
}

/// Gives the namespaces that are made in this one a table of connections of their own, with so many chains. Before 6.1
/// all share one table, and a chain is short.
fn shrink_table(outer: &Namespace, chains: u32) {
    if Path::new("/proc/sys/net/ipv4/tcp_child_ehash_entries").exists() {
        outer.sysctl("ipv4/tcp_child_ehash_entries", &chains.to_string());
    }
}

/// Until as many are made as are allowed, and beyond: those that are refused must be known as refused.
#[test]
fn made_and_refused_on_two_cpus() {
    const EACH: u64 = 300;
    const ALLOWED: u64 = 100;
    let outer = Namespace::enter_unwatched();
    shrink_table(&outer, 4);
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/tcp_max_tw_buckets", &ALLOWED.to_string());
    let counted = audited(&net, || {
        thread::scope(|scope| {
            for cpu in 0..2 {
                scope.spawn(move || {
                    stay_on(cpu);
                    let listener = listen("127.0.0.1");
                    for _ in 0..EACH {
                        let (mut client, mut server) = connect(&listener);
                        close_in_turn(&mut client, &mut server);
                    }
                });
            }
        });
    });
    let count = |name: &str| counted.get(name).copied().unwrap_or(0);
    let [made, refused] = ["TW+TWKilled", "TCPTimeWaitOverflow"].map(count);
    assert_eq!(made + refused, 2 * EACH, "{counted:?}");
    // Each CPU may make one more at the same time as the other. In another try of this, no more are allowed at all.
    assert!(made <= ALLOWED + 1, "{counted:?}");
}

/// One CPU closes a connection while another sends data through it, which ends the mini-socket: sometimes before the full
/// socket is closed.
#[test]
fn ended_at_once_by_another_cpu() {
    const ROUNDS: u64 = 300;
    let net = Namespace::enter_unwatched();
    net.sysctl("ipv4/tcp_fin_timeout", "1");
    let counted = audited(&net, || {
        let listener = listen("127.0.0.1");
        let turn = AtomicU64::new(0);
        let (to_other, from_first) = channel::<TcpStream>();
        let (back, done) = channel::<()>();
        thread::scope(|scope| {
            let turn = &turn;
            scope.spawn(move || {
                stay_on(1);
                for (round, mut server) in (1..).zip(from_first) {
                    back.send(()).expect("a first thread");
                    while turn.load(Ordering::Acquire) < round {
                        spin_loop();
                    }
                    (0..round * 7 % 600).for_each(|_| spin_loop());
                    // It may have been reset already.
                    server.write_all(b"x").ok();
                    drop(server);
                    back.send(()).expect("a first thread");
                }
            });
            stay_on(0);
            for round in 1..=ROUNDS {
                let (mut client, mut server) = connect(&listener);
                to_other.send(server.take()).expect("a second thread");
                done.recv().expect("a second thread");
                turn.store(round, Ordering::Release);
                client.close();
                done.recv().expect("a second thread");
            }
            drop(to_other);
        });
    });
    assert_eq!([counted["ActiveOpens"], counted["PassiveOpens"]], [ROUNDS, ROUNDS], "{counted:?}");
}
