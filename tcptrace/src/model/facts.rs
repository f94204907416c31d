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
    /// the kernel does not have, or does not show in this namespace, is left out. None: the network namespace is gone.
    pub values: BTreeMap<Box<str>, Box<str>>,
}

/// What files set when the machine boots. A trace does not hold them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingFiles {
    /// Those about TCP, in the order in which they are applied.
    pub lines: Vec<SettingLine>,
    /// Whether the kernel's values are those of the first network namespace, which the files are for.
    pub is_of_host: bool,
}

/// A line of such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingLine {
    /// Path of the file.
    pub file: Box<str>,
    /// Number of the line, from 1 on.
    pub line: u32,
    /// The name that `sysctl` has for the setting.
    pub name: Box<str>,
    /// Its value, each run of white space as one blank.
    pub value: Box<str>,
    /// The value that the kernel has; `None`: it does not have the setting.
    pub kernel: Option<Box<str>>,
    /// Whether no later line sets it.
    pub is_last: bool,
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

impl AcceptQueues {
    /// In parts, each of which is short; none if there is nothing to tell.
    pub fn into_parts(self) -> impl Iterator<Item = Self> {
        const MOST: usize = 1000;
        let Self { at, netns, queues, gone } = self;
        let parts = queues.len().div_ceil(MOST).max(gone.len().div_ceil(MOST));
        (0..parts).map(move |part| {
            let (queues, gone) = (of_part(&queues, part, MOST), of_part(&gone, part, MOST));
            Self { at, netns, queues, gone }
        })
    }
}

fn of_part<T: Copy>(all: &[T], part: usize, most: usize) -> Vec<T> {
    all.chunks(most).nth(part).unwrap_or_default().to_vec()
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
    /// Whether the kernel chose the port: the process bound port 0, or nothing. `None` when unknown, as in older traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autobound: Option<bool>,
}

/// The descriptors of processes that own TCP sockets. JSON in a trace: fields may be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// When they were read, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// Those that have changed since the last look, or all of them at the first one. One of which nothing is known is gone.
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

impl Limit {
    /// Whether the process is gone.
    pub fn is_gone(&self) -> bool {
        *self == Self { pid: self.pid, ..Self::default() }
    }
}
