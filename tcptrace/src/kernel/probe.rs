//! The kernel side as seen from userspace: loads the programs, attaches what the kernel allows, reads their records.
//!
//! This is the only module that names aya.

mod accepts;
mod btf;
mod cpus;
mod decode;
mod delegation;
#[cfg(feature = "fuzz")]
pub(super) mod fuzz;
mod kernel;
mod layout;
mod load;
mod programs;
mod ring;
mod rings;
mod sockmaps;
mod stand_in;
mod symbols;
mod tracefs;
mod twsk;

use std::path::PathBuf;
use std::time::Duration;

use crate::model::accepts::Accepts;
use crate::model::event::{Event, Losses};
use crate::model::feature::{Feature, Service, Tier};
use ring::Reader;

pub use decode::{Batch, Record, Told};
pub use delegation::alternatives;
pub use ring::{Dropped, Scan};
pub use rings::Plan;
pub use sockmaps::in_sockmaps;

/// Default size of all ring buffers: they hold half a second of 30,000 connections a second.
pub const DEFAULT_RING_BYTES: u32 = 16 << 20;

/// What to attach, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of all ring buffers in bytes, rounded up to a power of two.
    pub ring_bytes: u32,
    /// What the programs filter by.
    pub filter: tcptrace_common::Filter,
    /// When to see accepts.
    pub accepts: Accepts,
    /// See which calls of `bind`, `listen` and `accept` fail. It slows every system call of the machine down a little.
    pub failed_calls: bool,
    /// Use the classic tracepoints only, as on a kernel without BTF.
    pub no_btf: bool,
    /// Go without these, as on a kernel that lacks their hooks.
    pub without: Vec<Feature>,
    /// Load this object instead of the built-in one.
    pub object: Option<PathBuf>,
}

impl Options {
    /// The size of all ring buffers, rounded up.
    fn ring_size(&self) -> u32 {
        self.ring_bytes.max(4096).next_power_of_two()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ring_bytes: DEFAULT_RING_BYTES,
            filter: tcptrace_common::Filter::default(),
            accepts: Accepts::Always,
            failed_calls: false,
            no_btf: false,
            without: Vec::new(),
            object: None,
        }
    }
}

/// Why nothing can be traced.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The object is not one that can be loaded.
    #[error("cannot load the eBPF object {object}: {reason}")]
    Object {
        object: String,
        /// The loader's error.
        reason: String,
    },
    /// State changes cannot be seen, and without them there is nothing to show.
    #[error("cannot attach to inet_sock_set_state: {reason}")]
    NoTransitions {
        /// Why, and what to do.
        reason: String,
        /// How the other features are served, as far as that was tried.
        services: Vec<(Feature, Service)>,
    },
    /// A map of the object is missing or of the wrong kind.
    #[error("cannot open the map {name} of the eBPF object: {reason}")]
    Map {
        name: &'static str,
        /// The loader's error.
        reason: String,
    },
}

/// The attached programs and the way to their records.
pub struct Probe {
    reader: Reader,
    services: Vec<(Feature, Service)>,
    accepts: Accepts,
}

impl Probe {
    /// Loads the programs and attaches those that the kernel allows.
    ///
    /// # Errors
    ///
    /// When the object cannot be loaded, or state changes cannot be seen at all. Any other hook may be missing:
    /// [`Probe::services`] says which, and why.
    pub fn attach(options: &Options) -> Result<Self, ProbeError> {
        let load::Loaded { reader, services, accepts } = load::load(options)?;
        // The kernel's BTF and symbols took some 20 MB, and nothing that large is needed again.
        // SAFETY: it only gives back memory that the allocator has free.
        unsafe { nix::libc::malloc_trim(0) };
        Ok(Self { reader, services, accepts })
    }

    /// What the kernel allowed, by feature.
    pub fn services(&self) -> &[(Feature, Service)] {
        &self.services
    }

    /// Whether cookies identify sockets, not addresses, which the kernel uses again.
    pub fn knows_cookies(&self) -> bool {
        let by_type = |service: &Service| matches!(service, Service::Attached { by: Tier::Btf, .. });
        self.services.iter().any(|(feature, service)| *feature == Feature::Transitions && by_type(service))
    }

    /// Waits until there may be something to read, for at most this long. While idle, the programs wake the reader;
    /// while busy, it waits for a short time.
    pub async fn wait(&mut self, at_most: Duration) {
        self.reader.wait(at_most).await;
    }

    /// Hands over up to `at_most` events, and none beyond a position in the stream of its ring buffer ([`Probe::places`]).
    /// `now` is the time just before the call, in ns of `CLOCK_BOOTTIME`. Returns a time if nothing is left from before
    /// it: `now`, or an earlier one while a program is still writing. Younger events may be left for the next call, so that
    /// those of different CPUs come in order.
    pub fn drain(&mut self, at_most: usize, now: u64, limits: &[u64], sink: impl FnMut(Event)) -> Option<u64> {
        self.reader.drain(at_most, now, limits, sink)
    }

    /// An empty batch for [`Probe::fill`].
    pub fn batch(&self) -> Batch {
        self.reader.batch()
    }

    /// Like [`Probe::drain`], but puts the records into a batch, in place of those in it.
    pub fn fill(&mut self, at_most: usize, now: u64, limits: &[u64], batch: &mut Batch) -> Option<u64> {
        self.reader.fill(at_most, now, limits, batch)
    }

    /// How the memory for ring buffers is divided.
    pub fn plan(&self) -> &Plan {
        self.reader.plan()
    }

    /// How far the stream of each ring buffer has been read, in bytes.
    pub fn places(&self) -> impl Iterator<Item = u64> {
        self.reader.places()
    }

    /// The sum of it.
    pub fn read(&self) -> u64 {
        self.places().sum()
    }

    /// What was lost since the programs were attached; the recursion misses as of [`Probe::read_recursion`].
    pub fn losses(&mut self) -> Losses {
        self.reader.losses()
    }

    /// By ring buffer, what did not fit into it, as of the last [`Probe::losses`].
    pub fn dropped(&self) -> &[Dropped] {
        self.reader.dropped()
    }

    /// Prepares a walk through the descriptors of all processes; `None` where the kernel does not allow it.
    pub fn scan(&mut self) -> Option<Scan> {
        let scan = self.reader.scan()?;
        scan.inspect_err(|error| log::warn!("cannot scan for socket owners: {}", kernel::explain(error))).ok()
    }

    /// When accepts are seen: what was asked for, as far as this kernel allows it.
    pub fn accepts(&self) -> Accepts {
        self.accepts
    }

    /// Prepares a walk through the descriptors of listening sockets; `None` where the kernel does not allow it.
    pub fn look_at_listeners(&mut self) -> Option<Scan> {
        let look = self.reader.look_at_listeners();
        look.inspect_err(|error| log::warn!("cannot look at listening sockets: {}", kernel::explain(error))).ok()
    }

    /// Begins or ends seeing accepts. Returns whether they are seen from now on.
    pub fn watch_accepts(&mut self, watch: bool) -> bool {
        let result = self.reader.watch_accepts(watch);
        let result = result.inspect_err(|error| log::warn!("cannot see accepts: {}", kernel::explain(error)));
        watch && result.is_ok()
    }

    /// Reads how often the kernel did not run a program because it was running already, and attaches stand-ins if
    /// needed. That reads one file per program.
    pub fn read_recursion(&mut self) {
        self.read_recursion_after(self.records());
    }

    /// Does the same where another process reads the ring buffers, and has taken `records` records. Returns how often programs
    /// did not run.
    pub fn read_recursion_after(&mut self, records: u64) -> u64 {
        self.reader.read_recursion(records)
    }

    /// Another process has read that programs did not run so often.
    pub fn note_recursion(&mut self, recursion: u64) {
        self.reader.note_recursion(recursion);
    }

    /// Records taken from the ring buffers so far.
    pub fn records(&self) -> u64 {
        self.reader.records()
    }

    /// Waits until what is being detached is. Until then, another process could get a copy of its descriptor, which would
    /// keep it attached.
    pub fn await_detached(&mut self) {
        self.reader.await_detached();
    }

    /// Leaves what is attached only as needed to another process, which has a copy of all descriptors: a program is
    /// detached once every copy is closed.
    pub fn leave_to_another(&mut self) {
        self.reader.leave_to_another();
    }

    /// What this process does is not to be taken for somebody's, by its number in [`Probe::pid`].
    pub fn leave_out(&mut self, pid: u32) {
        self.reader.leave_out(pid);
    }

    /// The number of the calling process, as the programs see it.
    pub fn pid() -> u32 {
        kernel::own_pid()
    }

    /// Whether the maps can be read.
    pub fn are_maps_open(&self) -> bool {
        self.reader.are_maps_open()
    }
}
