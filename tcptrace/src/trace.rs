//! Traces: what a recording holds, and what is read from it.

use crate::output::Context;

/// The recording that a row comes from: of one host, from one start of `record`.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Which of the recordings that are read together, from 0.
    pub number: usize,
    /// Name of the host.
    pub host: Box<str>,
    /// Its kernel, as `uname -r` prints it.
    pub kernel: Box<str>,
    /// Id of that boot of it.
    pub boot_id: Box<str>,
    /// What rows leave open: clock and names.
    pub context: Context,
}

/// What was read, rows aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Names of the hosts, each once.
    pub hosts: Vec<Box<str>>,
    /// When the first recording began, in ns of Unix time.
    pub from_unix_ns: i64,
    /// When the last one ended.
    pub to_unix_ns: i64,
    /// Events read.
    pub events: u64,
    /// Transitions that follow from them, whatever is shown of them.
    pub transitions: u64,
    /// Events that were lost while recording, by cause: the cause in words, and how many.
    pub lost: Vec<(Box<str>, u64)>,
    /// Damaged places: where in which file, and what is wrong with it.
    pub damage: Vec<Box<str>>,
}
