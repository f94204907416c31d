//! What a diagnosis finds: data, with the words for it.

use std::net::SocketAddr;

use crate::model::named;
use crate::model::row::Held;
use crate::model::tcp::{Side, State, Task};

named! {
    /// What a finding means for people.
    #[derive(PartialOrd, Ord)]
    Severity {
        /// True and worth knowing, harmless today.
        Note = "note",
        /// A defect that costs, or fails under twice the present load, or leaks without end.
        Warning = "warning",
        /// Something fails now, or will within 10 minutes at the present rate.
        Critical = "critical",
    }
}

named! {
    /// How sure a finding is.
    #[derive(PartialOrd, Ord)]
    Confidence {
        /// Two or more causes fit.
        Possible = "possible",
        /// A pattern that has one usual cause.
        Likely = "likely",
        /// The kernel said so.
        Certain = "certain",
    }
}

/// Examples of a finding, at most.
pub const EXAMPLES: usize = 5;

/// The id of a rule: kebab-case, never used again for another one.
pub type Id = &'static str;

/// A value that a rule compares, by its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// A duration, in ns.
    Ns(u64),
    /// So many a second.
    Rate(f64),
    /// A part of a whole, from 0 to 1.
    Share(f64),
    /// A number of bytes.
    Bytes(u64),
    /// Whether something is so.
    Is(bool),
    /// Nobody knows.
    Unknown,
}

impl<T: Into<u64>> From<Option<T>> for Value {
    fn from(count: Option<T>) -> Self {
        count.map_or(Self::Unknown, |count| Self::Count(count.into()))
    }
}

/// What was compared, by the names that the rule declares, in order.
pub type Figures = Vec<(&'static str, Value)>;

/// A line of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it says: one figure, and what that was compared with.
    pub text: String,
    /// Where it is from: `seen`, `sock_diag`, `/proc/net/netstat`, `sysctl`, `limits`; several are joined by commas.
    pub source: &'static str,
}

/// Whom a finding is about; `None` where it does not apply or is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The process, where it is one.
    pub task: Option<Task>,
    /// Id of its control group.
    pub cgroup: Option<u64>,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// The local end, or as much of it as all have in common.
    pub local: Option<SocketAddr>,
    /// The remote end, likewise.
    pub remote: Option<SocketAddr>,
    /// The port of a listener.
    pub lport: Option<u16>,
    /// Which end it is.
    pub side: Option<Side>,
}

/// A connection that shows what a finding says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its number.
    pub conn: u64,
    /// Its local end.
    pub local: SocketAddr,
    /// Its remote end.
    pub remote: SocketAddr,
    /// Its state; CLOSED when it has ended.
    pub state: State,
    /// How long it has been in that state.
    pub age: Held,
    /// The process that has it.
    pub pid: Option<u32>,
    /// The descriptor.
    pub fd: Option<u32>,
}

/// What a rule has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The rule.
    pub id: Id,
    /// What it means for people.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// What is going on and for whom, in at most 110 columns: it stands alone, and does not advise.
    pub headline: String,
    /// Whom it is about.
    pub subject: Subject,
    /// What was compared.
    pub figures: Figures,
    /// The evidence, in words.
    pub evidence: Vec<Line>,
    /// Why, in two sentences at most.
    pub why: String,
    /// What to do, in the order of how much it helps.
    pub remedies: Vec<String>,
    /// What not to do although people advise it, with its consequence: two at most.
    pub mistakes: Vec<String>,
    /// How sure, in words.
    pub sure: String,
    /// When the first thing that it stands on happened, in ns of `CLOCK_BOOTTIME`.
    pub first_seen: Option<u64>,
    /// When the last one did.
    pub last_seen: Option<u64>,
    /// How many connections, sockets or calls it is about.
    pub count: u64,
    /// In how many seconds something fails, where that can be told.
    pub seconds_left: Option<f64>,
    /// [`EXAMPLES`] at most.
    pub examples: Vec<Example>,
    /// The finding that explains this one.
    pub because_of: Option<Id>,
    /// Findings that this one explains, with their headlines.
    pub explains: Vec<(Id, String)>,
}

impl Finding {
    /// A finding with nothing but a headline, to be filled.
    pub fn new(id: Id, severity: Severity, confidence: Confidence, headline: String) -> Self {
        Self {
            id,
            severity,
            confidence,
            headline,
            subject: Subject::default(),
            figures: Figures::new(),
            evidence: Vec::new(),
            why: String::new(),
            remedies: Vec::new(),
            mistakes: Vec::new(),
            sure: String::new(),
            first_seen: None,
            last_seen: None,
            count: 0,
            seconds_left: None,
            examples: Vec::new(),
            because_of: None,
            explains: Vec::new(),
        }
    }

    /// Whether it is more than a note.
    pub fn is_urgent(&self) -> bool {
        self.severity > Severity::Note
    }

    /// Adds a line of evidence.
    pub fn line(&mut self, source: &'static str, text: impl Into<String>) {
        self.evidence.push(Line { text: text.into(), source });
    }
}
