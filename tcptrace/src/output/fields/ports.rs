//! The fields of port budgets.

use std::net::SocketAddr;

use super::{Field, Shape, Table, Value, name, zone_in};
use crate::model::stream::Context;
use crate::model::tcp::{Task, Tuple, scoped};
use crate::study::ports::{Budget, Forecast, Ranked, Rest};

/// The ports of a destination.
pub static PORTS: Table<Ranked> = Table::new("snapshot --ports", PORTS_FIELDS);

/// The fields of the ports of a destination.
static PORTS_FIELDS: &[Field<Ranked>] = &[
    Field {
        name: "event",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Always `ports`.",
        value: |_, _| Value::Word("ports"),
    },
    Field {
        name: "local",
        nullable: true,
        unit: "address:port",
        shape: Shape::Address,
        doc: "The address from which the connections come, an IPv6 address in brackets, with a port of 0; null in the row \
              that sums up the others.",
        value: |row, context| end(row, context, Tuple::local),
    },
    Field {
        name: "remote",
        nullable: true,
        unit: "address:port",
        shape: Shape::Address,
        doc: "The address and port to which they go, an IPv6 address in brackets; null in the row that sums up the others.",
        value: |row, context| end(row, context, Tuple::remote),
    },
    Field {
        name: "netns",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Inode number of their network namespace; null in the row that sums up the others.",
        value: |row, _| Value::number(one(row).and_then(|it| it.key.netns)),
    },
    Field {
        name: "netns_name",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of that network namespace, as `ip netns` or a container runtime gave it, escaped as in comm; null when it \
              has none.",
        value: |row, context| {
            Value::name(one(row).and_then(|it| it.key.netns).and_then(|netns| context.names.namespace(netns)))
        },
    },
    Field {
        name: "range",
        nullable: true,
        unit: "ports",
        shape: Shape::Number,
        doc: "How many ports ip_local_port_range has; null in the row that sums up the others.",
        value: |row, _| Value::number(one(row).map(|it| it.range)),
    },
    Field {
        name: "reserved",
        nullable: true,
        unit: "ports",
        shape: Shape::Number,
        doc: "How many of them ip_local_reserved_ports keeps from connect(); null in the row that sums up the others.",
        value: |row, _| Value::number(one(row).map(|it| it.reserved)),
    },
    Field {
        name: "blocked",
        nullable: true,
        unit: "ports",
        shape: Shape::Number,
        doc: "How many of the others a listener or another socket has bound, so that connect() does not choose them, whatever \
              the address; null in the row that sums up the others.",
        value: |row, _| Value::number(one(row).map(|it| it.blocked)),
    },
    Field {
        name: "usable",
        nullable: true,
        unit: "ports",
        shape: Shape::Number,
        doc: "How many are left for connect() to choose from: range less reserved and blocked; null in the row that sums up \
              the others.",
        value: |row, _| Value::number(one(row).map(|it| it.usable)),
    },
    Field {
        name: "usable_at_most",
        nullable: true,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether usable may be less: sockets of other destinations may have been bound before they connected, which a \
              single look does not show, or the kernel does not show sockets that are bound and nothing else (before 6.8); \
              null in the row that sums up the others.",
        value: |row, _| one(row).map_or(Value::Null, |it| Value::Bool(it.usable_at_most)),
    },
    Field {
        name: "taken",
        nullable: false,
        unit: "ports",
        shape: Shape::Number,
        doc: "How many of the usable ports this destination takes: the sum of open, fin_wait2 and time_wait.",
        value: |row, _| Value::U64(sum(row, |it| it.taken, |rest| rest.taken)),
    },
    Field {
        name: "open",
        nullable: false,
        unit: "ports",
        shape: Shape::Number,
        doc: "How many of those have a full socket.",
        value: |row, _| Value::U64(sum(row, |it| it.open, |rest| rest.open)),
    },
    Field {
        name: "fin_wait2",
        nullable: false,
        unit: "ports",
        shape: Shape::Number,
        doc: "How many have a mini-socket in FIN_WAIT2, which waits for the peer to close.",
        value: |row, _| Value::U64(sum(row, |it| it.fin_wait2, |rest| rest.fin_wait2)),
    },
    Field {
        name: "time_wait",
        nullable: false,
        unit: "ports",
        shape: Shape::Number,
        doc: "How many have a TIME_WAIT.",
        value: |row, _| Value::U64(sum(row, |it| it.time_wait, |rest| rest.time_wait)),
    },
    Field {
        name: "reusable",
        nullable: true,
        unit: "ports",
        shape: Shape::Number,
        doc: "How many of those TIME_WAITs connect() takes over at once, as far as that is known (reuse); null in the row \
              that sums up the others.",
        value: |row, _| Value::number(one(row).map(|it| it.reusable)),
    },
    Field {
        name: "reuse",
        nullable: true,
        unit: "",
        shape: Shape::Word,
        doc: "Whether connect() takes over old TIME_WAITs: on; off (tcp_tw_reuse is 0); loopback_only (it is 2, and no end is \
              of 127.0.0.0/8 or ::1); no_timestamps (TCP timestamps are off); unknown (it does if the peer uses TCP \
              timestamps); null in the row that sums up the others.",
        value: |row, _| Value::word(one(row).map(|it| it.reuse.as_str())),
    },
    Field {
        name: "free",
        nullable: true,
        unit: "ports",
        shape: Shape::Number,
        doc: "How many ports connect() can have now: usable less taken, and reusable; at most so many where usable_at_most is \
              true; null in the row that sums up the others.",
        value: |row, _| Value::number(one(row).map(|it| it.free)),
    },
    Field {
        name: "share",
        nullable: true,
        unit: "",
        shape: Shape::Real,
        doc: "The part of the usable ports that is not free, from 0 to 1; null in the row that sums up the others.",
        value: |row, _| Value::real(one(row).map(|it| it.share)),
    },
    Field {
        name: "half_taken",
        nullable: true,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether that is half of them or more: connect() tries every other port first, so it then walks through taken \
              ones before it finds one; null in the row that sums up the others.",
        value: |row, _| one(row).map_or(Value::Null, |it| Value::Bool(it.half_walked)),
    },
    Field {
        name: "holds_ns",
        nullable: true,
        unit: "ns",
        shape: Shape::Number,
        doc: "For how long a connection that this side has closed first takes its port: with reuse, tcp_tw_reuse_delay; else \
              its TIME_WAIT; null in the row that sums up the others.",
        value: |row, _| Value::number(one(row).map(|it| it.holds_ns)),
    },
    Field {
        name: "holds_measured",
        nullable: true,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether holds_ns was measured, rather than known from how the kernel works; null in the row that sums up the \
              others.",
        value: |row, _| one(row).map_or(Value::Null, |it| Value::Bool(it.is_measured)),
    },
    Field {
        name: "sustainable_per_second",
        nullable: true,
        unit: "1/s",
        shape: Shape::Real,
        doc: "How many connections a second, each closed by this side first, could be opened for ever beside the open ones; \
              null in the row that sums up the others.",
        value: |row, _| Value::real(one(row).map(|it| it.sustainable)),
    },
    Field {
        name: "rate_per_second",
        nullable: true,
        unit: "1/s",
        shape: Shape::Real,
        doc: "How many such connections were opened a second; null when nobody has counted them, as in a single look.",
        value: |row, _| Value::real(forecast(row).map(|it| it.rate)),
    },
    Field {
        name: "demand",
        nullable: true,
        unit: "ports",
        shape: Shape::Real,
        doc: "How many ports that rate takes in the end; null when the rate is.",
        value: |row, _| Value::real(forecast(row).map(|it| it.demand)),
    },
    Field {
        name: "levels_off_at",
        nullable: true,
        unit: "",
        shape: Shape::Real,
        doc: "The share at which that rate levels off; null when the rate is, or the ports are not enough.",
        value: |row, _| Value::real(forecast(row).and_then(|it| it.levels_off_at)),
    },
    Field {
        name: "seconds_left",
        nullable: true,
        unit: "s",
        shape: Shape::Real,
        doc: "In how many seconds the last port is taken at that rate; null when the rate is, or the ports are enough.",
        value: |row, _| Value::real(forecast(row).and_then(|it| it.seconds_left)),
    },
    Field {
        name: "pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of who has the most of the open ones; null when nobody is known to have any.",
        value: |row, _| Value::number(owner(row).map(|task| task.pid)),
    },
    Field {
        name: "comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of that process, chosen by itself and escaped as in rows of sockets; null when there is none.",
        value: |row, _| name(owner(row)),
    },
    Field {
        name: "several_owners",
        nullable: true,
        unit: "",
        shape: Shape::Bool,
        doc: "Whether other processes have some of them, too; null in the row that sums up the others.",
        value: |row, _| one(row).map_or(Value::Null, |it| Value::Bool(it.owners.known.len() > 1)),
    },
    Field {
        name: "groups",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "How many destinations this row sums up, which are those beyond --top; null in other rows.",
        value: |row, _| match row {
            Ranked::One(_) => Value::Null,
            Ranked::Rest(rest) => Value::U64(rest.groups),
        },
    },
];

fn one(row: &Ranked) -> Option<&Budget> {
    match row {
        Ranked::One(budget) => Some(budget),
        Ranked::Rest(_) => None,
    }
}

fn forecast(row: &Ranked) -> Option<&Forecast> {
    one(row)?.forecast.as_ref()
}

fn owner(row: &Ranked) -> Option<&Task> {
    one(row)?.owners.known.first().map(|(task, _)| task)
}

fn sum(row: &Ranked, of: impl Fn(&Budget) -> u32, of_rest: impl Fn(&Rest) -> u64) -> u64 {
    match row {
        Ranked::One(budget) => of(budget).into(),
        Ranked::Rest(rest) => of_rest(rest),
    }
}

fn end<'r>(row: &'r Ranked, context: &'r Context, of: impl Fn(&Tuple) -> SocketAddr) -> Value<'r> {
    let Some(Budget { key, .. }) = one(row) else { return Value::Null };
    let address = scoped(of(&key.ends()), key.interface);
    zone_in(key.netns, address, context).map_or(Value::Address(address), |zone| Value::Zoned(address, zone))
}
