//! What only a look at the host shows, and no event: settings, accept queues and limits.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

/// The settings of a network namespace, or of the host. JSON in a trace: fields may be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// When they were read, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Inode number of the network namespace; `None`: of the host as a whole.
    pub netns: Option<u32>,
    /// Values by the name that `sysctl` has for them, as the kernel prints them, each run of white space as one blank. What
    /// the kernel does not have, or does not show in this namespace, is left out.
    pub values: BTreeMap<Box<str>, Box<str>>,
}

/// The accept queues of a network namespace. JSON in a trace: fields may be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AcceptQueues {
    /// When they were looked at, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Those that have changed since the last look, or all of them at the first one.
    pub queues: Vec<AcceptQueue>,
    /// Cookies of listeners that are gone since.
    pub gone: Vec<u64>,
}

/// The accept queue of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptQueue {
    /// Cookie of the listener.
    pub conn: u64,
    /// Its address; IPv4 as IPv4-mapped IPv6.
    pub ip: Ipv6Addr,
    /// Its port.
    pub port: u16,
    /// Connections that wait to be accepted.
    pub queued: u32,
    /// How many may wait: one more than this fit.
    pub limit: u32,
    /// Connection requests (SYN_RECV) that are not established yet; `None` when unknown.
    pub requests: Option<u32>,
}

/// The descriptors of processes that own TCP sockets. JSON in a trace: fields may be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// When they were read, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Those that have changed since the last look, or all of them at the first one.
    pub processes: Vec<Limit>,
}

/// The descriptors of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limit {
    /// Process id.
    pub pid: u32,
    /// Open descriptors of any kind; `None` when they cannot be counted.
    pub descriptors: Option<u64>,
    /// How many it may have (`RLIMIT_NOFILE`, soft); `None`: no limit, or unknown.
    pub soft: Option<u64>,
    /// How far it may raise that; `None`: no limit, or unknown.
    pub hard: Option<u64>,
}
