//! Which listener a connection belongs to, and what findings call it.

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::FixedState;

use crate::model::event::Call;
use crate::model::tcp::Task;
use crate::study::diagnose::evidence::{Evidence, Failed, Listener, Standing};
use crate::study::diagnose::finding::{Subject, Value};
use crate::study::diagnose::need::Need;
use crate::study::diagnose::say;

/// `EMFILE`: the process has as many descriptors as it may have; `ENFILE`: the host has.
const EMFILE: u16 = 24;
const ENFILE: u16 = 23;

/// The listeners of each port.
pub(super) struct Listeners<'e> {
    by_port: HashMap<(Option<u32>, u16), Vec<&'e Listener>, FixedState>,
}

impl<'e> Listeners<'e> {
    pub(super) fn new(evidence: &'e Evidence) -> Self {
        let mut by_port: HashMap<_, Vec<&Listener>, FixedState> = HashMap::default();
        for listener in &evidence.listeners {
            by_port.entry((listener.netns, listener.queue.port)).or_default().push(listener);
        }
        Self { by_port }
    }

    /// The listener that a connection came in at: the kernel prefers one of the address over one of all addresses.
    pub(super) fn of(&self, socket: &Standing) -> Option<&'e Listener> {
        let there = self.by_port.get(&(socket.netns, socket.tuple.local_port))?;
        let exact = there.iter().find(|listener| listener.queue.ip == socket.tuple.local_ip);
        let of_all = || there.iter().find(|listener| say::address(listener.queue.ip).is_unspecified());
        exact.or_else(of_all).copied()
    }
}

/// Its address and port.
pub(super) fn end(listener: &Listener) -> SocketAddr {
    say::end(listener.queue.ip, listener.queue.port)
}

/// Whom a finding about it is about.
pub(super) fn subject(listener: &Listener) -> Subject {
    Subject {
        task: listener.task,
        netns: listener.netns,
        local: Some(end(listener)),
        lport: Some(listener.queue.port),
        ..Subject::default()
    }
}

/// Calls of `accept` that failed because no descriptor was left.
pub(super) fn failed_accepts(evidence: &Evidence, task: Task) -> impl Iterator<Item = &Failed> {
    no_descriptor(evidence).filter(move |failed| failed.task.pid == task.pid)
}

/// The same of every process.
pub(super) fn no_descriptor(evidence: &Evidence) -> impl Iterator<Item = &Failed> {
    evidence.calls.iter().filter(|failed| failed.call == Call::Accept && matches!(failed.errno, EMFILE | ENFILE))
}

/// A count, where the evidence for it is there.
pub(super) fn known(evidence: &Evidence, need: Need, count: u64) -> Value {
    if evidence.lacks(need).is_some() { Value::Unknown } else { Value::Count(count) }
}

/// The name of one of those two.
pub(super) fn errno(failed: &Failed) -> &'static str {
    if failed.errno == ENFILE { "ENFILE" } else { "EMFILE" }
}

/// How long the window is, in words.
pub(super) fn window(evidence: &Evidence) -> String {
    say::time(evidence.about.to.saturating_sub(evidence.about.from)).to_string()
}
