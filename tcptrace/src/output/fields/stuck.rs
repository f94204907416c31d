//! The fields of a socket that is stuck.

use crate::model::event::Multipath;
use crate::model::row::Report;
use crate::model::tcp::{State, Task};

use super::{Field, Shape, Value, name};

/// A row about a socket that may be stuck.
pub trait MayBeStuck {
    /// The findings, if it is stuck.
    fn report(&self) -> Option<&Report>;

    /// Whether it was accepted, if known.
    fn accepted(&self) -> Option<bool>;

    /// Its holder and that descriptor.
    fn holder(&self) -> Option<(&Task, u32)> {
        self.report()?.holder.as_ref().map(|(task, fd)| (task, *fd))
    }

    /// Number of its descriptors.
    fn holders(&self) -> Option<u32> {
        self.report()?.holders
    }

    /// The owner of its listener, if it was not accepted.
    fn listener(&self) -> Option<&Task> {
        self.report()?.listener.as_ref()
    }

    /// Whether it is known to be a subflow of an MPTCP connection; `None` when not checked.
    fn is_subflow(&self) -> Option<bool> {
        self.report().map(|report| report.multipath.is_some())
    }

    /// The MPTCP connection of which it is a subflow.
    fn multipath(&self) -> Option<Multipath> {
        self.report()?.multipath
    }
}

impl<R: MayBeStuck> Field<R> {
    pub(super) const HOLDER_PID: Self = Self {
        name: "holder_pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of the holder: a process that has a descriptor of the socket now. The lowest, if there are \
              several; null when none was found.",
        value: |row, _| Value::number(row.holder().map(|(task, _)| task.pid)),
    };
    pub(super) const HOLDER_COMM: Self = Self {
        name: "holder_comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the holder, escaped as in comm; null when none was found.",
        value: |row, _| name(row.holder().map(|(task, _)| task)),
    };
    pub(super) const FD: Self = Self {
        name: "fd",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Descriptor of the socket in the holder; null when no holder was found.",
        value: |row, _| Value::number(row.holder().map(|(_, fd)| fd)),
    };
    pub(super) const HOLDERS: Self = Self {
        name: "holders",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Number of descriptors of the socket; null when not checked.",
        value: |row, _| Value::number(row.holders()),
    };
    pub(super) const ACCEPTED: Self = Self {
        name: "accepted",
        nullable: true,
        unit: "",
        shape: Shape::Bool,
        doc: "False while the connection waits in its listener's accept queue. Null for a client, or when unknown.",
        value: |row, _| row.accepted().map_or(Value::Null, Value::Bool),
    };
    pub(super) const LISTENER_PID: Self = Self {
        name: "listener_pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of the listener's owner, if the connection was not accepted; null when unknown, or when \
              there are several.",
        value: |row, _| Value::number(row.listener().map(|task| task.pid)),
    };
    pub(super) const LISTENER_COMM: Self = Self {
        name: "listener_comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the listener's owner, if the connection was not accepted, escaped as in comm; null when unknown.",
        value: |row, _| name(row.listener()),
    };
    pub(super) const BYTES_UNACKED: Self = Self {
        name: "bytes_unacked",
        nullable: true,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Bytes that the process has written and the peer has not acknowledged, including a FIN; null when not \
              checked.",
        value: |row, _| Value::number(row.report().and_then(|report| Some(report.stalled?.unacked))),
    };
    pub(super) const BYTES_SINCE: Self = Self {
        name: "bytes_since",
        nullable: true,
        unit: "bytes",
        shape: Shape::Number,
        doc: "Bytes received, or acknowledged by the peer, since the first check in this state; null when not checked.",
        value: |row, _| Value::number(row.report().and_then(|report| Some(report.stalled?.bytes_since))),
    };
    pub(super) const MPTCP_SUBFLOW: Self = Self {
        name: "mptcp_subflow",
        nullable: true,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether the socket is known to be a subflow of an MPTCP connection or listener; null when not checked.",
        value: |row, _| row.is_subflow().map_or(Value::Null, Value::Bool),
    };
    pub(super) const MPTCP_TOKEN: Self = Self {
        name: "mptcp_token",
        nullable: true,
        unit: "",
        shape: Shape::Hex,
        doc: "Token of that MPTCP connection on this host, as `ss -M` shows it; null when unknown, or when there is \
              none.",
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
        doc: "State of that MPTCP connection, which can differ from the states of its subflows; null when unknown, or \
              when there is none.",
        value: |row, _| Value::word(row.multipath().and_then(|it| it.state).map(State::as_str)),
    };
}
