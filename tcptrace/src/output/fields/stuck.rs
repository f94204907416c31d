//! The fields that say what is known of a socket that is stuck.

use crate::model::event::Multipath;
use crate::model::row::Report;
use crate::model::tcp::{State, Task};

use super::{Field, Shape, Value, name};

/// A row about a socket that may be stuck.
pub trait MayBeStuck {
    /// What is known of it, if it is.
    fn report(&self) -> Option<&Report>;

    /// Whether it was accepted, where the row says so.
    fn accepted(&self) -> Option<bool>;

    /// Who has it, and by which descriptor.
    fn holder(&self) -> Option<(&Task, u32)> {
        self.report()?.holder.as_ref().map(|(task, fd)| (task, *fd))
    }

    /// How many descriptors of it there are.
    fn holders(&self) -> Option<u32> {
        self.report()?.holders
    }

    /// Who listens for it, if it was not accepted.
    fn listener(&self) -> Option<&Task> {
        self.report()?.listener.as_ref()
    }

    /// Whether it is known to be a subflow of an MPTCP connection; `None` when nobody looked.
    fn is_subflow(&self) -> Option<bool> {
        self.report().map(|report| report.multipath.is_some())
    }

    /// The MPTCP connection of which it is a subflow.
    fn multipath(&self) -> Option<Multipath> {
        self.report()?.multipath
    }
}

/// What is known of a socket that is stuck.
impl<R: MayBeStuck> Field<R> {
    pub(super) const HOLDER_PID: Self = Self {
        name: "holder_pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who has a descriptor of it now; the lowest, if there are several; null when nobody was found.",
        value: |row, _| Value::number(row.holder().map(|(task, _)| task.pid)),
    };
    pub(super) const HOLDER_COMM: Self = Self {
        name: "holder_comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of who has a descriptor of it now, escaped as in comm; null when nobody was found.",
        value: |row, _| name(row.holder().map(|(task, _)| task)),
    };
    pub(super) const FD: Self = Self {
        name: "fd",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "The descriptor by which the holder has it; null when nobody was found.",
        value: |row, _| Value::number(row.holder().map(|(_, fd)| fd)),
    };
    pub(super) const HOLDERS: Self = Self {
        name: "holders",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "How many descriptors of it there are; null when nobody looked.",
        value: |row, _| Value::number(row.holders()),
    };
    pub(super) const ACCEPTED: Self = Self {
        name: "accepted",
        nullable: true,
        unit: "",
        shape: Shape::Bool,
        doc: "False when no process has accepted it: it waits in its listener's queue. Null for a client, or when unknown.",
        value: |row, _| row.accepted().map_or(Value::Null, Value::Bool),
    };
    pub(super) const LISTENER_PID: Self = Self {
        name: "listener_pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who listens for it, if it was not accepted; null when unknown, or when there are several.",
        value: |row, _| Value::number(row.listener().map(|task| task.pid)),
    };
    pub(super) const LISTENER_COMM: Self = Self {
        name: "listener_comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of who listens for it, if it was not accepted, escaped as in comm; null when unknown.",
        value: |row, _| name(row.listener()),
    };
    pub(super) const BYTES_UNACKED: Self = Self {
        name: "bytes_unacked",
        nullable: true,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Bytes that its process has written and the peer has not acknowledged, a FIN among them; null when nobody looked.",
        value: |row, _| Value::number(row.report().and_then(|report| Some(report.stalled?.unacked))),
    };
    pub(super) const BYTES_SINCE: Self = Self {
        name: "bytes_since",
        nullable: true,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Bytes that were received, or acknowledged by the peer, since the first look at it in this state; null when \
              nobody looked.",
        value: |row, _| Value::number(row.report().and_then(|report| Some(report.stalled?.bytes_since))),
    };
    pub(super) const MPTCP_SUBFLOW: Self = Self {
        name: "mptcp_subflow",
        nullable: true,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether it is known to be a subflow of an MPTCP connection, or of an MPTCP listener; null when nobody looked.",
        value: |row, _| row.is_subflow().map_or(Value::Null, Value::Bool),
    };
    pub(super) const MPTCP_TOKEN: Self = Self {
        name: "mptcp_token",
        nullable: true,
        unit: "",
        shape: Shape::Hex,
        doc: "The token of that MPTCP connection on this host, as ss -M shows it; null when unknown, or when there is none.",
        value: |row, _| {
            let token = row.multipath().and_then(|it| it.token);
            token.map_or(Value::Null, |token| Value::Hex(token.get().into()))
        },
    };
    pub(super) const MPTCP_STATE: Self = Self {
        name: "mptcp_state",
        nullable: true,
        unit: "",
        shape: Shape::Word,
        doc: "The state of that MPTCP connection itself, which can differ from the states of its subflows; null when \
              unknown, or when there is none.",
        value: |row, _| Value::word(row.multipath().and_then(|it| it.state).map(State::as_str)),
    };
}
