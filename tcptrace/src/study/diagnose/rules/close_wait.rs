//! What the rules about CLOSE_WAIT have in common: the receive queue says where to look.
//!
//! The FIN takes one sequence number, and reading the end of the stream consumes it (`tcp_diag_get_info`): 0 means that the
//! process has read the end, 1 that it has not looked since the peer closed, more that bytes are unread.

use std::collections::BTreeMap;

use crate::model::tcp::{Side, Task};
use crate::study::diagnose::evidence::Standing;
use crate::study::diagnose::finding::{EXAMPLES, Example, Subject};
use crate::study::diagnose::say;

/// Sockets by the process that owns them, the one with the most first; those without one are left out.
pub(super) fn by_process<'e>(sockets: impl Iterator<Item = &'e Standing>) -> Vec<(Task, Vec<&'e Standing>)> {
    let mut by_process: BTreeMap<u32, (Task, Vec<&Standing>)> = BTreeMap::new();
    for socket in sockets {
        let Some(task) = socket.task() else { continue };
        by_process.entry(task.pid).or_insert_with(|| (task, Vec::new())).1.push(socket);
    }
    let mut processes: Vec<_> = by_process.into_values().collect();
    processes.sort_by_key(|(_, sockets)| std::cmp::Reverse(sockets.len()));
    processes
}

/// Whom a finding about these sockets of a process is about.
pub(super) fn subject(task: Task, sockets: &[&Standing]) -> Subject {
    let first = sockets.first();
    let side = first.map(|socket| socket.side).filter(|side| sockets.iter().all(|socket| socket.side == *side));
    let pair = first.map(|socket| socket.pair).filter(|pair| sockets.iter().all(|socket| socket.pair == *pair));
    let netns = first.map(|socket| socket.netns).filter(|netns| sockets.iter().all(|socket| socket.netns == *netns));
    Subject {
        task: Some(task),
        cgroup: first.and_then(|socket| socket.cgroup),
        netns: netns.flatten(),
        remote: pair.filter(|pair| pair.side == Side::Client).map(|pair| say::end(pair.ip, pair.port)),
        lport: pair.filter(|pair| pair.side == Side::Server).map(|pair| pair.port),
        side: side.filter(|side| *side != Side::Unknown),
        ..Subject::default()
    }
}

/// How long the oldest has been in its state at least, in ns.
pub(super) fn oldest_ns(sockets: &[&Standing]) -> u64 {
    sockets.iter().map(|socket| socket.age_ns()).max().unwrap_or(0)
}

/// The oldest ones, as examples.
pub(super) fn examples(sockets: &[&Standing]) -> Vec<Example> {
    let mut oldest = sockets.to_vec();
    oldest.sort_by_key(|socket| std::cmp::Reverse(socket.age_ns()));
    oldest.iter().take(EXAMPLES).map(|socket| socket.example()).collect()
}

/// How many peers are named.
const PEERS: usize = 3;

/// `Recv-Q 0: 340, 1: 8, more: 2, unknown: 1`.
pub(super) fn queues<'e>(sockets: impl Iterator<Item = &'e Standing>) -> String {
    let mut counts = [0_u64; 4];
    for socket in sockets {
        counts[socket.recv_queue().map_or(3, |queue| queue.min(2) as usize)] += 1;
    }
    let named = ["0", "1", "more", "unknown"].iter().zip(counts).filter(|(_, count)| *count > 0);
    let parts: Vec<String> = named.map(|(name, count)| format!("{name}: {}", say::count(count))).collect();
    format!("Recv-Q {}", parts.join(", "))
}

/// `peers: 10.0.0.9:8009 331, 10.0.0.7:8009 17 and 12 more`: by the end that repeats.
pub(super) fn peers<'e>(sockets: impl Iterator<Item = &'e Standing>) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for socket in sockets {
        let is_client = socket.side == Side::Client;
        let (ip, port) = (socket.tuple.remote_ip, socket.tuple.remote_port);
        let peer = if is_client { say::end(ip, port).to_string() } else { say::address(ip).to_string() };
        *counts.entry(peer).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(one, of_one), (other, of_other)| of_other.cmp(of_one).then_with(|| one.cmp(other)));
    let more = counts.len().saturating_sub(PEERS);
    let named: Vec<String> =
        counts.iter().take(PEERS).map(|(peer, count)| format!("{peer} {}", say::count(*count))).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("peers: {}{more}", named.join(", "))
}

/// Where a missing close() usually is, by what kind of program it is.
pub(super) fn language(task: Task) -> &'static str {
    let name = task.comm.bytes();
    let is = |prefix: &str| name.starts_with(prefix.as_bytes());
    if is("java") {
        "Close in every path: try-with-resources for Connection, Statement, ResultSet and response entities"
    } else if is("python") || is("uwsgi") || is("gunicorn") {
        "Close in every path: use `with` (contextlib.closing) for sockets and responses"
    } else if is("node") {
        "Close in every path: handle 'end' and 'error', and call socket.destroy()"
    } else {
        "Find the code path that does not close (an error branch, a lost reference; in Go: defer resp.Body.Close())"
    }
}
