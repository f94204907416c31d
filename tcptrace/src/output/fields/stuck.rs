//! The fields that say what is known of a socket that is stuck.

use crate::event::Multipath;
use crate::lifecycle::Stuck;
use crate::tcp::{State, Task};

use super::{Field, Shape, Value, name};

/// A row about a connection that may be stuck.
pub trait MayBeStuck {
    /// How, if it is.
    fn stuck(&self) -> Option<&Stuck>;
}

/// What happened to a row's socket, or `otherwise`.
pub(super) fn event(stuck: Option<&Stuck>, otherwise: &'static str) -> &'static str {
    match stuck {
        Some(Stuck { released: true, .. }) => "released",
        Some(Stuck { merely_open: true, .. }) => "open",
        Some(_) => "stuck",
        None => otherwise,
    }
}

/// What is known of a socket that is stuck.
impl<R: MayBeStuck> Field<R> {
    pub(super) const HOLDER_PID: Self = Self {
        name: "holder_pid",
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who has a descriptor of it now; the lowest, if there are several; null when nobody was found.",
        value: |row, _| Value::number(holder(row).map(|(task, _)| task.pid)),
    };
    pub(super) const HOLDER_COMM: Self = Self {
        name: "holder_comm",
        unit: "",
        shape: Shape::Name,
        doc: "Name of who has a descriptor of it now, escaped as in comm; null when nobody was found.",
        value: |row, _| name(holder(row).map(|(task, _)| task)),
    };
    pub(super) const FD: Self = Self {
        name: "fd",
        unit: "",
        shape: Shape::Number,
        doc: "The descriptor by which the holder has it; null when nobody was found.",
        value: |row, _| Value::number(holder(row).map(|(_, fd)| *fd)),
    };
    pub(super) const HOLDERS: Self = Self {
        name: "holders",
        unit: "",
        shape: Shape::Number,
        doc: "How many descriptors of it there are; null when nobody looked.",
        value: |row, _| Value::number(row.stuck().and_then(|stuck| stuck.holders)),
    };
    pub(super) const ACCEPTED: Self = Self {
        name: "accepted",
        unit: "",
        shape: Shape::Bool,
        doc: "False when no process has accepted it: it waits in its listener's queue. Null for a client, or when unknown.",
        value: |row, _| row.stuck().and_then(|stuck| stuck.accepted).map_or(Value::Null, Value::Bool),
    };
    pub(super) const LISTENER_PID: Self = Self {
        name: "listener_pid",
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who listens for it, if it was not accepted; null when unknown, or when there are several.",
        value: |row, _| Value::number(listener(row).map(|task| task.pid)),
    };
    pub(super) const LISTENER_COMM: Self = Self {
        name: "listener_comm",
        unit: "",
        shape: Shape::Name,
        doc: "Name of who listens for it, if it was not accepted, escaped as in comm; null when unknown.",
        value: |row, _| name(listener(row)),
    };
    pub(super) const BYTES_UNACKED: Self = Self {
        name: "bytes_unacked",
        unit: "bytes",
        shape: Shape::Number,
        doc: "Bytes that its process has written and the peer has not acknowledged, a FIN among them; null when nobody looked.",
        value: |row, _| Value::number(row.stuck().and_then(|stuck| Some(stuck.stalled?.unacked))),
    };
    pub(super) const BYTES_SINCE: Self = Self {
        name: "bytes_since",
        unit: "bytes",
        shape: Shape::Number,
        doc: "Bytes that were received, or acknowledged by the peer, since the first look at it in this state; null when \
              nobody looked.",
        value: |row, _| Value::number(row.stuck().and_then(|stuck| Some(stuck.stalled?.bytes_since))),
    };
    pub(super) const MPTCP_SUBFLOW: Self = Self {
        name: "mptcp_subflow",
        unit: "",
        shape: Shape::Bool,
        doc: "Whether it is known to be a subflow of an MPTCP connection, or of an MPTCP listener; null when nobody looked.",
        value: |row, _| row.stuck().map_or(Value::Null, |stuck| Value::Bool(stuck.multipath.is_some())),
    };
    pub(super) const MPTCP_TOKEN: Self = Self {
        name: "mptcp_token",
        unit: "",
        shape: Shape::Hex,
        doc: "The token of that MPTCP connection on this host, as ss -M shows it; null when unknown, or when there is none.",
        value: |row, _| {
            multipath(row).and_then(|it| it.token).map_or(Value::Null, |token| Value::Hex(token.get().into()))
        },
    };
    pub(super) const MPTCP_STATE: Self = Self {
        name: "mptcp_state",
        unit: "",
        shape: Shape::Word,
        doc: "The state of that MPTCP connection itself, which can differ from the states of its subflows; null when \
              unknown, or when there is none.",
        value: |row, _| Value::word(multipath(row).and_then(|it| it.state).map(State::as_str)),
    };
}

fn multipath(row: &impl MayBeStuck) -> Option<Multipath> {
    row.stuck()?.multipath
}

fn holder(row: &impl MayBeStuck) -> Option<&(Task, u32)> {
    row.stuck()?.holder.as_ref()
}

fn listener(row: &impl MayBeStuck) -> Option<&Task> {
    row.stuck()?.listener.as_ref()
}
