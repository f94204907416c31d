//! The fields that identify the connection of a row and its owner.

use super::{Context, Field, Shape, Value, name};
use crate::model::labels::Labels;
use crate::model::names::Group;
use crate::model::row::{Identity, Owner};
use crate::model::tcp::OwnerSource;
use crate::output::render;
use std::net::SocketAddr;

/// A row about a connection.
pub trait Identified {
    fn identity(&self) -> &Identity;

    fn owner(&self) -> Option<&Owner> {
        self.identity().owner.as_ref()
    }
}

impl<R: Identified> Field<R> {
    pub(super) const CONN: Self = Self {
        name: "conn",
        nullable: false,
        unit: "hex",
        shape: Shape::Hex,
        doc: "Id of the connection: the cookie of its socket, which `ss -e` shows as sk:.",
        value: |row, _| Value::Hex(row.identity().conn),
    };
    pub(super) const PROTOCOL: Self = Self {
        name: "protocol",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Always `tcp`.",
        value: |_, _| Value::Word("tcp"),
    };
    pub(super) const FAMILY: Self = Self {
        name: "family",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "ipv4 or ipv6. IPv4-mapped IPv6 addresses count as IPv4 and are printed so.",
        value: |row, _| Value::Word(row.identity().tuple.family()),
    };
    pub(super) const LOCAL: Self = Self {
        name: "local",
        nullable: false,
        unit: "address:port",
        shape: Shape::Address,
        doc: "Local address and port. IPv6 addresses are in brackets; link-local ones carry their interface, if \
              known, by name or index ([fe80::1%eth0]:80). Port 0: the kernel has not chosen one yet.",
        value: |row, context| end(row.identity(), row.identity().local(), context),
    };
    pub(super) const REMOTE: Self = Self {
        name: "remote",
        nullable: false,
        unit: "address:port",
        shape: Shape::Address,
        doc: "Remote address and port, written like local. Port 0: a listener, which has no peer.",
        value: |row, context| end(row.identity(), row.identity().remote(), context),
    };
    pub(super) const NETNS: Self = Self {
        name: "netns",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Inode number of the network namespace, as in /proc/PID/ns/net; null when unknown.",
        value: |row, _| Value::number(row.identity().netns),
    };
    pub(super) const PID: Self = Self {
        name: "pid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Process id of the owner, in the initial pid namespace (snapshot: in that of the mounted /proc); null \
              when unknown.",
        value: |row, _| Value::number(row.owner().map(|owner| owner.task.pid)),
    };
    pub(super) const TID: Self = Self {
        name: "tid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Id of the owner's thread that connected, accepted, listened or closed, in the initial pid namespace; \
              null when unknown.",
        value: |row, _| Value::number(row.owner().map(|owner| owner.task.tid)),
    };
    pub(super) const COMM: Self = Self {
        name: "comm",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the owner, which a process chooses itself. Unprintable parts are escaped: \\x1b for a byte, \
              \\u{202e} \
              for a character, \\\\ for the backslash. In CSV a name that begins like a formula begins with a single \
              quote. Null when unknown.",
        value: |row, _| name(row.owner().map(|owner| &owner.task)),
    };
    pub(super) const UID: Self = Self {
        name: "uid",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "User id of the socket; null when unknown.",
        value: |row, _| Value::number(row.identity().uid),
    };
    pub(super) const CGROUP: Self = Self {
        name: "cgroup",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Path of the socket's control group below the root of the unified hierarchy, escaped as in comm; null when \
              unknown.",
        value: |row, context| Value::name(group(row, context).map(|group| group.path.as_ref())),
    };
    pub(super) const CGROUP_ID: Self = Self {
        name: "cgroup_id",
        nullable: true,
        unit: "",
        shape: Shape::Number,
        doc: "Id of the socket's control group, which is the inode number of its directory; null when unknown.",
        value: |row, _| Value::number(row.identity().cgroup),
    };
    pub(super) const CONTAINER: Self = Self {
        name: "container",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Id of the socket's container, if the path of its control group contains one; null otherwise.",
        value: |row, context| {
            Value::name(group(row, context).and_then(|group| group.container.as_ref()).map(|id| id.as_bytes()))
        },
    };
    pub(super) const UNIT: Self = Self {
        name: "unit",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Innermost systemd unit on the path of the socket's control group (a service, scope, socket, mount or \
              swap; else a slice); null when there is none.",
        value: |row, context| Value::name(group(row, context).and_then(|group| group.unit.as_deref())),
    };
    pub(super) const POD: Self = Self {
        name: "pod",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the pod of the socket's container, from the files of kubelet or the container engine, escaped as \
              in comm; null when it has none, or no file names it.",
        value: |row, context| label(row, context, |labels| labels.pod.as_deref()),
    };
    pub(super) const POD_NAMESPACE: Self = Self {
        name: "pod_namespace",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Namespace of that pod, likewise; null when unknown.",
        value: |row, context| label(row, context, |labels| labels.pod_namespace.as_deref()),
    };
    pub(super) const CONTAINER_NAME: Self = Self {
        name: "container_name",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the socket's container, likewise; null when unknown. Containers of LXC and systemd-nspawn have the \
              name as their id.",
        value: |row, context| label(row, context, |labels| labels.container_name.as_deref()),
    };
    pub(super) const NETNS_NAME: Self = Self {
        name: "netns_name",
        nullable: true,
        unit: "",
        shape: Shape::Name,
        doc: "Name of the network namespace, as given by `ip netns` or a container runtime, escaped as in comm; null \
              when it has none.",
        value: |row, context| Value::name(row.identity().netns.and_then(|netns| context.names.namespace(netns))),
    };
    pub(super) const OWNER_SOURCE: Self = Self {
        name: "owner_source",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "Source of the owner: connect, accept, listen, close (it closed the socket, and its opener is unknown), \
              scan (it was found to hold a descriptor) or unknown.",
        value: |row, _| Value::Word(row.owner().map_or(OwnerSource::Unknown, |owner| owner.source).as_str()),
    };
    pub(super) const SIDE: Self = Self {
        name: "side",
        nullable: false,
        unit: "",
        shape: Shape::Word,
        doc: "client (it connected), server (it came from a listener) or unknown (its opening was not seen).",
        value: |row, _| Value::Word(row.identity().side.as_str()),
    };
}

fn end<'c>(identity: &Identity, address: SocketAddr, context: &'c Context) -> Value<'c> {
    zone(identity, address, context).map_or(Value::Address(address), |zone| Value::Zoned(address, zone))
}

/// The name of the interface that a link-local address of a row needs, if it is known.
pub(in crate::output) fn zone<'c>(identity: &Identity, address: SocketAddr, context: &'c Context) -> Option<&'c str> {
    zone_in(identity.netns, address, context)
}

/// The same of a network namespace.
pub(in crate::output) fn zone_in(netns: Option<u32>, address: SocketAddr, context: &Context) -> Option<&str> {
    match address {
        SocketAddr::V6(address) if address.scope_id() != 0 => context.names.interface(netns, address.scope_id()),
        _ => None,
    }
}

/// One of the ends of a row, for people: `[fe80::1%eth0]:80`.
pub(crate) fn address(identity: &Identity, address: SocketAddr, context: &Context) -> String {
    let mut text = Vec::new();
    match zone(identity, address, context) {
        Some(zone) => render::zoned(&mut text, address, zone),
        None => render::address(&mut text, address),
    }
    String::from_utf8(text).unwrap_or_default()
}

fn label<'r>(row: &impl Identified, context: &'r Context, of: impl FnOnce(&'r Labels) -> Option<&'r str>) -> Value<'r> {
    Value::name(group(row, context).and_then(|group| of(&group.labels)).map(str::as_bytes))
}

fn group<'r>(row: &impl Identified, context: &'r Context) -> Option<&'r Group> {
    context.names.group(row.identity().cgroup?)
}
