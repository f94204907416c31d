//! The kernel side as seen from userspace: loads the programs, attaches what the kernel allows, reads their records.
//!
//! This is the only module that names aya.

mod decode;
mod kernel;
mod layout;
mod load;
mod ring;
mod sockmaps;
mod stand_in;
mod symbols;
mod tracefs;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::event::{Event, Losses};
use ring::Reader;

pub use ring::Scan;
pub use sockmaps::in_sockmaps;

/// Default size of the ring buffer: holds half a second of 30,000 connections a second.
pub const DEFAULT_RING_BYTES: u32 = 16 << 20;

/// What to attach, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the ring buffer in bytes, rounded up to a power of two.
    pub ring_bytes: u32,
    /// What the programs filter by.
    pub filter: tcptrace_common::Filter,
    /// Use the classic tracepoints only, as on a kernel without BTF.
    pub no_btf: bool,
    /// Load this object instead of the built-in one.
    pub object: Option<PathBuf>,
}

impl Options {
    /// Size of the ring buffer that is made.
    pub fn ring_size(&self) -> u32 {
        self.ring_bytes.max(4096).next_power_of_two()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { ring_bytes: DEFAULT_RING_BYTES, filter: tcptrace_common::Filter::default(), no_btf: false, object: None }
    }
}

/// Why nothing can be traced.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The object is not one that can be loaded.
    #[error("cannot load the eBPF object {object}: {reason}")]
    Object {
        /// Which.
        object: String,
        /// What the loader says.
        reason: String,
    },
    /// The state changes cannot be seen, without which there is nothing to show.
    #[error("cannot attach to inet_sock_set_state: {reason}")]
    NoTransitions {
        /// Why, and what to do.
        reason: String,
        /// How the other features fared, as far as that was tried.
        services: Vec<(Feature, Service)>,
    },
    /// A map of the object is missing or of the wrong kind.
    #[error("cannot open the map {name} of the eBPF object: {reason}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What the loader says.
        reason: String,
    },
}

/// What a hook is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Every change of state.
    Transitions,
    /// The end of a full socket.
    Destroy,
    /// Resets sent.
    ResetSent,
    /// Resets received.
    ResetReceived,
    /// Whether a mini-socket took over, and in which state.
    MiniCreated,
    /// The natural end of TIME_WAIT and orphaned FIN_WAIT2.
    MiniExpired,
    /// Their early end, and by whom.
    MiniKilled,
    /// The FIN that turns an orphan's FIN_WAIT2 into TIME_WAIT, when it comes.
    MiniFin,
    /// Who accepts a connection.
    Accept,
    /// Who has a descriptor of a socket.
    Holders,
}

impl Feature {
    /// Its name in data.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transitions => "transitions",
            Self::Destroy => "destroy",
            Self::ResetSent => "reset_sent",
            Self::ResetReceived => "reset_received",
            Self::MiniCreated => "time_wait_created",
            Self::MiniExpired => "time_wait_expired",
            Self::MiniKilled => "time_wait_killed",
            Self::MiniFin => "fin_wait2_to_time_wait",
            Self::Accept => "accept",
            Self::Holders => "holders",
        }
    }

    /// What it lets tcptrace tell.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Transitions => "every change of state",
            Self::Destroy => "when a socket is really gone",
            Self::ResetSent => "resets sent, and why",
            Self::ResetReceived => "resets received",
            Self::MiniCreated => "entry into TIME_WAIT, or its refusal",
            Self::MiniExpired => "end of TIME_WAIT by its timer",
            Self::MiniKilled => "early end of TIME_WAIT, and by whom",
            Self::MiniFin => "orphan's FIN_WAIT2 turning TIME_WAIT, live",
            Self::Accept => "which process accepts a connection",
            Self::Holders => "which processes hold a socket",
        }
    }
}

/// How a feature is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Attached to this hook.
    Attached {
        /// `tp_btf/…` or `tracepoint/…`.
        hook: String,
    },
    /// Attached to this hook, which shows a part only.
    Partly {
        /// As above.
        hook: String,
        /// What it does not show, and what to do.
        missing: String,
    },
    /// Not attached.
    Unavailable {
        /// Why, and what to do.
        reason: String,
    },
}

impl Service {
    /// Whether it works.
    pub fn is_attached(&self) -> bool {
        matches!(self, Self::Attached { .. } | Self::Partly { .. })
    }

    /// Whether it shows a part only.
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Partly { .. })
    }

    /// The hook, and what it does not show; or why there is none.
    pub fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::Attached { hook } => hook.into(),
            Self::Partly { hook, missing } => format!("{hook}, {missing}").into(),
            Self::Unavailable { reason } => reason.into(),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail())
    }
}

/// The attached programs and the way to their records.
pub struct Probe {
    reader: Reader,
    services: Vec<(Feature, Service)>,
}

impl Probe {
    /// Loads the programs and attaches those that the kernel allows.
    ///
    /// # Errors
    ///
    /// When the object cannot be loaded, or the state changes cannot be seen at all. Every other hook may be missing:
    /// [`Probe::services`] says which, and why.
    pub fn attach(options: &Options) -> Result<Self, ProbeError> {
        let load::Loaded { reader, services } = load::load(options)?;
        // The kernel's BTF and symbols were here, some 20 MB, and nothing so big is needed again.
        // SAFETY: it only gives back memory that the allocator has free.
        unsafe { nix::libc::malloc_trim(0) };
        Ok(Self { reader, services })
    }

    /// What the kernel allowed, feature by feature.
    pub fn services(&self) -> &[(Feature, Service)] {
        &self.services
    }

    /// Whether sockets are told apart by their cookies, and not by addresses that are used again.
    pub fn knows_cookies(&self) -> bool {
        let by_type = |service: &Service| matches!(service, Service::Attached { hook } if hook.starts_with("tp_btf/"));
        self.services.iter().any(|(feature, service)| *feature == Feature::Transitions && by_type(service))
    }

    /// Waits until there may be something to read, at most this long: until woken while idle, for a short while when
    /// busy.
    pub async fn wait(&mut self, at_most: Duration) {
        self.reader.wait(at_most).await;
    }

    /// Hands over up to `at_most` events, and none behind a place in the stream ([`Probe::read`]). Returns whether nothing
    /// is left: then every event from before this call has been handed over.
    pub fn drain(&mut self, at_most: usize, limit: u64, sink: impl FnMut(Event)) -> bool {
        self.reader.drain(at_most, limit, sink)
    }

    /// How far the stream has been read, in bytes of the ring buffer.
    pub fn read(&self) -> u64 {
        self.reader.read()
    }

    /// What was lost since the programs were attached; the recursion misses as of [`Probe::read_recursion`].
    pub fn losses(&mut self) -> Losses {
        self.reader.losses()
    }

    /// Prepares a walk through the descriptors of all processes; `None` where the kernel does not allow it.
    pub fn scan(&mut self) -> Option<Scan> {
        let scan = self.reader.scan()?;
        scan.inspect_err(|error| log::warn!("cannot look who holds which socket: {}", kernel::explain(error))).ok()
    }

    /// Looks how often a program was kept from running because it was running already, and lets others stand in. That
    /// takes a file a program.
    pub fn read_recursion(&mut self) {
        self.reader.read_recursion();
    }
}
