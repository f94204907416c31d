//! What a screen shows at one moment. It knows nothing of the rows that it came from.

use std::net::SocketAddr;
use std::sync::Arc;

use super::series::Second;
use super::sockets::Key;
use crate::model::criteria::Criteria;
use crate::model::facts::AcceptQueue;
use crate::model::row::{Held, Owner};
use crate::model::stream::Lost;
use crate::model::tcp::{Closer, End, State, Task};
use crate::study::counts::levels::Level;
use crate::study::counts::{By, Group};
use crate::study::diagnose::Diagnosis;
use crate::study::{ports, timeline};

/// The order of groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Most sockets first.
    #[default]
    Sockets,
    /// Most connections opened in the last 10 s first.
    Opened,
    /// Most connections failed in the last 10 s first.
    Failed,
    /// Most sockets in ESTABLISHED first.
    Established,
    /// Most sockets in TIME_WAIT first.
    TimeWait,
    /// Most sockets in CLOSE_WAIT first.
    CloseWait,
    /// Most sockets in FIN_WAIT2 first.
    FinWait2,
    /// Oldest CLOSE_WAIT first.
    Oldest,
}

impl Sort {
    /// All orders, as the sort key goes through them.
    pub const ALL: [Self; 8] = [
        Self::Sockets,
        Self::Opened,
        Self::Failed,
        Self::Established,
        Self::TimeWait,
        Self::CloseWait,
        Self::FinWait2,
        Self::Oldest,
    ];
}

/// What a frame is to have.
#[derive(Clone, Debug)]
pub struct Ask {
    pub by: By,
    pub sort: Sort,
    /// Only sockets that match all of these count.
    pub criteria: Vec<Criteria>,
    /// A group or a connection to show in depth.
    pub detail: Detail,
    /// Most rows of a table.
    pub rows: usize,
}

/// What is shown in depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    #[default]
    None,
    /// The connections of a group, by its kind and id.
    Group(By, u64),
    /// One connection.
    Connection(Key),
}

impl Default for Ask {
    fn default() -> Self {
        Self { by: By::default(), sort: Sort::default(), criteria: Vec::new(), detail: Detail::None, rows: 200 }
    }
}

/// Rows, and how many more there are.
#[derive(Clone, Debug)]
pub struct Rows<T> {
    pub rows: Vec<T>,
    pub more: u64,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), more: 0 }
    }
}

/// Everything on one screen.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub host: String,
    /// The time, in ns of Unix time.
    pub unix_ns: i64,
    /// The same, in ns of `CLOCK_BOOTTIME`.
    pub boot_ns: u64,
    /// How long it has been looked at, in ns.
    pub observed_ns: u64,
    /// Whether the sockets that were there before have been found.
    pub is_surveyed: bool,
    /// Sockets now, by index in [`State::ALL`].
    pub states: [u64; State::ALL.len()],
    /// The last seconds, the oldest first.
    pub seconds: Arc<[Second]>,
    pub rates: Rates,
    pub lost: Vec<Lost>,
    pub by: By,
    pub sort: Sort,
    pub groups: Rows<GroupRow>,
    /// The sum of the groups without a row.
    pub others: Level,
    pub waiters: Rows<Waiter>,
    pub ports: Rows<ports::Budget>,
    pub queues: Rows<Queue>,
    pub diagnosis: Arc<Diagnosis>,
    /// The connections of the group that is asked for.
    pub connections: Option<(Group, Rows<Waiter>)>,
    /// The connection that is asked for, with its other end where that is here too; `None` if it is not known.
    pub connection: Option<timeline::Group>,
}

/// Rates of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    pub opened: f64,
    pub ended: f64,
    pub failed: f64,
    /// Ended connections a second by closer, the most frequent first.
    pub closers: Vec<(Closer, f64)>,
    /// Failed connections a second by end, the most frequent first.
    pub failures: Vec<(End, f64)>,
}

/// A group of sockets.
#[derive(Clone, Debug)]
pub struct GroupRow {
    pub id: u64,
    pub group: Group,
    pub level: Level,
    /// Connections opened a second.
    pub opened: f64,
    /// Connections failed a second.
    pub failed: f64,
    /// Its oldest CLOSE_WAIT.
    pub oldest: Held,
    /// The accept queue of a listening port: how many wait, and how many may.
    pub queue: Option<(u64, u64)>,
    /// Of a destination: how many ports are left, and in how many seconds none is.
    pub ports: Option<(u32, Option<f64>)>,
}

/// A socket in a list.
#[derive(Clone, Debug)]
pub struct Waiter {
    pub key: Key,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: State,
    pub age: Held,
    pub owner: Option<Owner>,
    pub fd: Option<u32>,
}

/// An accept queue.
#[derive(Clone, Debug)]
pub struct Queue {
    pub netns: u32,
    pub queue: AcceptQueue,
    /// The process that listens, where a scan has shown it.
    pub task: Option<Task>,
}

impl Queue {
    /// The part of it that is taken. The kernel lets in one more than its limit.
    pub fn share(&self) -> f64 {
        f64::from(self.queue.queued) / (f64::from(self.queue.limit) + 1.0)
    }
}

impl Frame {
    /// Sockets in one state.
    pub fn sockets(&self, state: State) -> u64 {
        self.states[state as usize]
    }

    /// All sockets, listeners left out.
    pub fn total(&self) -> u64 {
        self.states.iter().sum()
    }

    pub fn lost_events(&self) -> u64 {
        self.lost.iter().map(|lost| lost.events).sum()
    }
}
