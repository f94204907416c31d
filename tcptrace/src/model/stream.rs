//! What a source delivers, the live kernel or a trace: items in order, and facts about the source itself.

use serde::{Deserialize, Serialize};

use super::accepts::Accepts;
use super::counters::Sample;
use super::criteria::{Criteria, Undecided};
use super::event::{Cause, Event, Losses};
use super::facts::{AcceptQueues, Limits, Settings};
use super::feature::Feature;
use super::finding::Finding;
use super::fired::Fired;
use super::labels::Labels;
use super::names::Names;

/// One item from a source: the live kernel or a trace.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// What is recorded, where and how. A trace has it at the beginning, and again from time to time.
    Head(Box<Head>),
    /// What the clocks showed.
    Clocks(Clocks),
    /// A network namespace has a name.
    Namespace {
        /// Its inode number.
        inode: u32,
        name: Box<[u8]>,
    },
    /// A control group has a path.
    Group {
        /// Its id.
        id: u64,
        path: Box<[u8]>,
    },
    /// The container of a control group has names. This follows the path of the group.
    Container {
        /// Id of the group.
        group: u64,
        labels: Box<Labels>,
    },
    /// An interface has a name.
    Interface {
        /// Inode number of its network namespace.
        netns: u32,
        /// Its index.
        index: u32,
        name: Box<[u8]>,
    },
    /// A process is in a control group.
    Process {
        /// Its id, as the kernel side reports it.
        pid: u32,
        /// Id of the group; `None` when it cannot be found any more.
        group: Option<u64>,
    },
    /// Names before this hold for sockets that live now. Every other name comes again when it is mentioned.
    NamesAnew,
    /// Losses since the beginning.
    Losses(Losses),
    /// What an audit found, at the end.
    Audit(Finding),
    /// The file ends here, as it should.
    Ended(Ended),
    /// The kernel's counters in a network namespace.
    Counters(Box<Sample>),
    /// What a network namespace, or the host, is set to.
    Settings(Box<Settings>),
    /// How full the accept queues of a network namespace are.
    AcceptQueues(Box<AcceptQueues>),
    /// How many descriptors processes have, and how many they may have.
    Limits(Box<Limits>),
    /// The flight recorder has written this file by itself, and why. It is in the first block of the file, and again in the
    /// last one: of two files that begin with the same block, readers read that block once.
    Fired(Box<Fired>),
    Event(Event),
}

/// What is recorded, where and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Head {
    /// The program that records, with its version.
    pub program: String,
    /// Name of the host.
    pub host: String,
    /// Its kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Its processor architecture.
    pub machine: String,
    /// Id of the host's boot.
    pub boot_id: String,
    /// When recording began, in ns of Unix time.
    pub started_unix_ns: i64,
    /// Whether cookies identify sockets, not addresses.
    pub knows_cookies: bool,
    /// Whether it asked for the sockets that existed before.
    pub existing: bool,
    /// Whether each of its files ends with an [`Ended`]: a file without one was cut off. Traces of older versions do
    /// not say how they ended.
    pub says_end: bool,
    /// Whether scans for holders of sockets left out some processes.
    pub partial_scans: bool,
    /// Whether it has what only a diagnosis reads: settings, accept queues, limits, and what a survey shows of sockets beyond
    /// that they exist.
    pub facts: bool,
    /// When accepts were watched. Traces of older versions had them watched always.
    pub accepts: Accepts,
    /// What could be measured.
    pub features: Vec<RecordedFeature>,
    /// What readers of the trace are to show. The recording itself only leaves out what the kernel side can filter.
    pub filter: Criteria,
}

impl Head {
    /// Whether it has the resets that sockets send.
    pub fn sees_resets(&self) -> bool {
        self.sees(Feature::ResetSent).unwrap_or(true)
    }

    /// Whether calls that fail are in it.
    pub fn sees_failed_calls(&self) -> bool {
        self.sees(Feature::FailedCalls).unwrap_or(false)
    }

    /// Whether it has the resets that sockets receive.
    pub fn sees_received_resets(&self) -> bool {
        self.sees(Feature::ResetReceived).unwrap_or(true)
    }

    /// Whether it has every accept from its beginning on.
    pub fn sees_accepts(&self) -> bool {
        self.accepts == Accepts::Always && self.sees(Feature::Accept).unwrap_or(true)
    }

    /// Whether it has the FINs that reach orphans.
    pub fn sees_fins(&self) -> bool {
        self.sees(Feature::MiniFin).unwrap_or(false)
    }

    /// `None` if the trace does not say.
    fn sees(&self, feature: Feature) -> Option<bool> {
        self.features.iter().find(|it| it.feature == feature.as_str()).map(|it| it.available)
    }
}

/// Whether something could be measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedFeature {
    /// Its name, as `check` prints it.
    pub feature: String,
    pub available: bool,
    /// The hook, or why there was none.
    pub detail: String,
}

/// The end of a file of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    pub reason: Reason,
}

/// Why a file of a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Recording was to stop: by a signal, after some time, or with its command.
    Stopped,
    /// It has reached its largest size.
    Full,
    /// Recording continues in the next file.
    Turned,
    /// The flight recorder has written what it kept, and continues.
    Dumped,
    /// Writing failed.
    Failed,
    /// A reason of a later version.
    #[serde(other)]
    Other,
}

/// What the clocks showed at one moment, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// `CLOCK_MONOTONIC`: boot time without what the machine slept.
    pub monotonic_ns: u64,
    /// `CLOCK_REALTIME`, as Unix time.
    pub unix_ns: i64,
}

impl Clocks {
    /// The conversion from boot time to the wall clock.
    pub fn clock(&self) -> Clock {
        Clock { boot_to_unix_ns: self.unix_ns.saturating_sub_unsigned(self.boot_ns) }
    }

    /// How long the machine has slept, in ns.
    pub fn slept_ns(&self) -> u64 {
        self.boot_ns.saturating_sub(self.monotonic_ns)
    }
}

/// The recording that a row comes from: of one host, from one start of `record`.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Number of the recording among those that are read together, from 0.
    pub number: usize,
    /// Name of the host.
    pub host: Box<str>,
    /// Its kernel, as `uname -r` prints it.
    pub kernel: Box<str>,
    /// Id of the host's boot.
    pub boot_id: Box<str>,
    /// What rows leave open: clock and names.
    pub context: Context,
}

/// What was read, apart from rows.
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
    /// Transitions that follow from them, shown or not.
    pub transitions: u64,
    /// Sockets that were still followed at the end.
    pub followed: u64,
    /// Transitions and rows that filters left out, in the kernel and here.
    pub filtered: u64,
    /// Events lost while recording, or with a part of a trace, by cause.
    pub lost: Vec<Lost>,
    /// Rows that filters could not decide.
    pub undecided: Undecided,
    /// Damaged places: where in which file, and what is wrong with it.
    pub damage: Vec<Box<str>>,
    /// Files that end unexpectedly, such as those of a killed recorder: which, and the time of the last event in them,
    /// in ns of Unix time.
    pub cut_off: Vec<(Box<str>, i64)>,
}

/// The end of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    pub summary: Summary,
    pub exit: u8,
}

/// Events lost by one cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    pub cause: Cause,
    /// How many, as far as known.
    pub events: u64,
    /// Whether there may be more.
    pub at_least: bool,
}
/// What rows leave open. The caller of the printers keeps it up to date.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// From boot time to the wall clock.
    pub clock: Clock,
    /// Names of network namespaces, control groups and interfaces.
    pub names: Names,
}
/// Converts `CLOCK_BOOTTIME` to wall-clock time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// `CLOCK_REALTIME` minus `CLOCK_BOOTTIME`, in ns.
    pub boot_to_unix_ns: i64,
}

impl Clock {
    /// The Unix time in ns at this `CLOCK_BOOTTIME` in ns.
    pub fn unix_ns(self, boot_ns: u64) -> i64 {
        i64::try_from(boot_ns).unwrap_or(i64::MAX).saturating_add(self.boot_to_unix_ns)
    }
}
