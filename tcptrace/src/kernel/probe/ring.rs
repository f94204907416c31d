//! Reads the ring buffers: asleep until woken while idle, on a timer while busy.

use std::fs::{self, File};
use std::future::poll_fn;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{Iter, ProgramError};
use tcptrace_common::{Head, HolderTail, counter};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ProbeError;
use super::accepts::Accepts;
use super::decode::{Batch, Decoder, warn_of};
use super::kernel;
use super::programs::{HOLDERS, LISTENING, program};
use super::rings::{self, Merge, Plan, Ring};
use super::stand_in::StandIns;
use crate::model::event::{Event, Losses};

/// How long a busy reader waits between two looks. Programs do not announce each record: a wakeup costs more than an
/// event.
const BUSY: Duration = Duration::from_millis(10);

/// The reader sleeps only after it has found the buffer empty twice, this far apart. A program that read "do not wake"
/// just before has submitted its record by the second time.
const SETTLE: Duration = Duration::from_millis(5);

pub(super) struct Reader {
    /// By ring buffer, what tells that a program wants it to be read. Before the ring buffers, which it may not outlive.
    calls: Vec<AsyncFd<RawFd>>,
    rings: Merge<Ring>,
    plan: Plan,
    /// By ring buffer, what did not fit into it by the last count.
    dropped: Vec<Dropped>,
    wake: Array<MapData, u32>,
    counters: PerCpuArray<MapData, [u64; counter::COUNT]>,
    programs: Vec<RawFd>,
    stand_ins: StandIns,
    accepts: Accepts,
    recursion: u64,
    /// Records taken from the ring buffers.
    records: u64,
    decoder: Arc<Decoder>,
    mood: Mood,
    #[cfg(feature = "bpf-log")]
    messages: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    /// Whether descriptors can be walked through.
    can_scan: bool,
    /// Keeps the programs attached.
    ebpf: Ebpf,
}

/// A walk through the descriptors of all processes that has not begun yet. It can take long, and needs a thread of its
/// own.
pub struct Scan {
    walk: File,
    decoder: Arc<Decoder>,
}

/// Records that did not fit into a ring buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Changes of state.
    pub transitions: u64,
    /// Other records.
    pub others: u64,
}

/// How the next record will be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// By looking again soon.
    Busy,
    /// Like `Busy`, but the programs have been asked to wake us, at this time.
    Settling(Instant),
    /// By being woken.
    Asleep,
}

impl Reader {
    pub(super) fn new(
        mut ebpf: Ebpf,
        (plan, rings): (Plan, Vec<Ring>),
        programs: Vec<RawFd>,
        stand_ins: StandIns,
        accepts: Accepts,
        decoder: Decoder,
        can_scan: bool,
    ) -> Result<Self, ProbeError> {
        let calls = rings.iter().map(|ring| {
            // SAFETY: the ring buffer owns its descriptor, never closes or replaces it, and is dropped after this.
            unsafe { AsyncFd::register_with_interest(ring.as_raw_fd(), Interest::READABLE) }
                .map_err(|error| bad_map(rings::MAP, &error.into_parts().1))
        });
        let calls = calls.collect::<Result<_, _>>()?;
        let wake = Array::try_from(take(&mut ebpf, "WAKE")?).map_err(|error| bad_map("WAKE", &error))?;
        let counters =
            PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?).map_err(|error| bad_map("COUNTERS", &error))?;
        Ok(Self {
            calls,
            dropped: vec![Dropped::default(); plan.rings],
            rings: Merge::new(rings),
            plan,
            wake,
            counters,
            programs,
            stand_ins,
            accepts,
            recursion: 0,
            records: 0,
            decoder: Arc::new(decoder),
            mood: Mood::Busy,
            #[cfg(feature = "bpf-log")]
            messages: messages(&mut ebpf),
            can_scan,
            ebpf,
        })
    }

    pub(super) async fn wait(&mut self, at_most: Duration) {
        match self.mood {
            Mood::Busy => tokio::time::sleep(BUSY.min(at_most)).await,
            Mood::Settling(_) => tokio::time::sleep(SETTLE.min(at_most)).await,
            Mood::Asleep => {
                // Whatever comes of it, the ring buffers are looked at.
                let _ = tokio::time::timeout(at_most, poll_fn(|context| be_called(&self.calls, context))).await;
            }
        }
    }

    pub(super) fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.decoder))
    }

    /// Takes up to `at_most` records in place of those in the batch.
    pub(super) fn fill(&mut self, at_most: usize, now: u64, limits: &[u64], batch: &mut Batch) -> Option<u64> {
        batch.clear();
        self.take(at_most, now, limits, |record| batch.push(record))
    }

    pub(super) fn drain(
        &mut self,
        at_most: usize,
        now: u64,
        limits: &[u64],
        mut sink: impl FnMut(Event),
    ) -> Option<u64> {
        let decoder = Arc::clone(&self.decoder);
        self.take(at_most, now, limits, |record| match decoder.decode(record) {
            Some(event) => sink(event),
            None => warn_of(record),
        })
    }

    fn take(&mut self, at_most: usize, now: u64, limits: &[u64], each: impl FnMut(&[u8])) -> Option<u64> {
        #[cfg(feature = "bpf-log")]
        self.messages.iter_mut().for_each(aya_log::EbpfLogger::flush);
        let taken = self.rings.take(at_most, now, limits, each);
        self.records += taken.records as u64;
        self.mood = match (taken.records, self.mood) {
            (0, _) if !taken.is_empty => Mood::Busy,
            (0, Mood::Busy) => self.ask_to_be_woken(),
            (0, Mood::Settling(since)) if since.elapsed() < SETTLE => self.mood,
            (0, _) => Mood::Asleep,
            _ => Mood::Busy,
        };
        taken.until
    }

    /// Bytes taken from each ring buffer so far.
    pub(super) fn places(&self) -> impl Iterator<Item = u64> {
        self.rings.places()
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    fn ask_to_be_woken(&mut self) -> Mood {
        match self.wake.set(0, 1, 0) {
            Ok(()) => Mood::Settling(Instant::now()),
            Err(error) => {
                log::warn!("cannot ask the programs for wakeups, polling on a timer instead: {error}");
                Mood::Busy
            }
        }
    }

    pub(super) fn losses(&mut self) -> Losses {
        let Self { counters, plan, dropped, .. } = self;
        let by_any =
            |counted: &[u64; counter::COUNT], counter: usize| counted[counter] + counted[counter::STAND_IN + counter];
        let mut filtered = 0;
        match counters.get(&0, 0) {
            Ok(by_cpu) => {
                dropped.fill(Dropped::default());
                for (counted, ring) in by_cpu.iter().zip(plan.by_cpu()) {
                    filtered += by_any(counted, counter::FILTERED);
                    if let Some(Dropped { transitions, others }) = dropped.get_mut(ring) {
                        *transitions += by_any(counted, counter::LOST_TRANSITIONS);
                        *others += by_any(counted, counter::LOST_OTHERS);
                    }
                }
            }
            Err(error) => warn_of_counters(&error),
        }
        Losses {
            ring_full: dropped.iter().map(|dropped| dropped.transitions).sum(),
            ring_full_others: dropped.iter().map(|dropped| dropped.others).sum(),
            filtered,
            recursion: self.recursion,
            output_slow: 0,
            output_slow_others: 0,
            unwritten: 0,
        }
    }

    /// By ring buffer, what did not fit into it, as of the last [`Reader::losses`].
    pub(super) fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// How often programs stood in for others, on all CPUs.
    fn stood_in(&self) -> u64 {
        match self.counters.get(&0, 0) {
            Ok(by_cpu) => by_cpu.iter().map(|counted| counted[counter::STOOD_IN]).sum(),
            Err(error) => {
                warn_of_counters(&error);
                0
            }
        }
    }

    /// Prepares a walk, at almost no cost.
    pub(super) fn scan(&mut self) -> Option<Result<Scan, ProgramError>> {
        self.can_scan.then(|| self.walk(HOLDERS))
    }

    /// The same for listening sockets, where that program is loaded.
    pub(super) fn look_at_listeners(&mut self) -> Result<Scan, ProgramError> {
        self.walk(LISTENING)
    }

    fn walk(&mut self, name: &str) -> Result<Scan, ProgramError> {
        let walker: &mut Iter = program(&mut self.ebpf, name)?;
        let link = walker.attach()?;
        let walk = walker.take_link(link)?.into_file().map_err(io::Error::other)?;
        Ok(Scan { walk, decoder: Arc::clone(&self.decoder) })
    }

    /// Attaches or detaches what shows accepts.
    pub(super) fn watch_accepts(&mut self, watch: bool) -> Result<(), ProgramError> {
        if watch {
            return self.accepts.come(&mut self.ebpf);
        }
        self.accepts.go(&mut self.ebpf);
        Ok(())
    }

    /// `records`: how many have been taken from the ring buffers.
    pub(super) fn read_recursion(&mut self, records: u64) -> u64 {
        // In this order, misses in between are reported the next time.
        let misses: u64 = self.programs.iter().map(|fd| recursion_misses(*fd)).sum();
        let stood_in = self.stood_in();
        self.note_recursion(misses.saturating_sub(stood_in));
        self.stand_ins.look(records, misses, &mut self.ebpf);
        self.recursion
    }

    pub(super) fn note_recursion(&mut self, recursion: u64) {
        self.recursion = self.recursion.max(recursion);
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Waits for the thread that detaches what shows accepts.
    pub(super) fn await_detached(&mut self) {
        self.accepts.await_going();
    }

    /// Closes what is attached only as needed. Another process has copies.
    pub(super) fn leave_to_another(&mut self) {
        self.stand_ins.leave_to_another(&mut self.ebpf);
    }

    pub(super) fn leave_out(&mut self, pid: u32) {
        // Only a batch or a scan has a copy, and none is there yet.
        match Arc::get_mut(&mut self.decoder) {
            Some(decoder) => decoder.own_pids[1] = pid,
            None => log::warn!("internal error: the records are being read already"),
        }
    }

    pub(super) fn are_maps_open(&self) -> bool {
        self.counters.get(&0, 0).is_ok()
    }
}

impl Scan {
    /// Walks, and hands over an [`Event::Holder`] for every descriptor of a TCP socket, in the order of process ids.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn run(mut self, mut sink: impl FnMut(Event)) -> io::Result<()> {
        let mut records = Vec::new();
        self.walk.read_to_end(&mut records)?;
        records.chunks_exact(HOLDER_RECORD).filter_map(|record| self.decoder.decode(record)).for_each(&mut sink);
        Ok(())
    }
}

/// Waits until any of them is called, and hears all calls.
fn be_called(calls: &[AsyncFd<RawFd>], context: &mut Context<'_>) -> Poll<()> {
    let mut result = Poll::Pending;
    for call in calls {
        // Without the event loop nothing can be heard: then it is looked at on time.
        if let Poll::Ready(Ok(mut guard)) = call.poll_read_ready(context) {
            guard.clear_ready();
            result = Poll::Ready(());
        }
    }
    result
}

fn warn_of_counters(error: &aya::maps::MapError) {
    log::warn!("cannot read the loss counters: {}", kernel::explain(error));
}

/// Length of a record of the walk.
const HOLDER_RECORD: usize = size_of::<Head>() + size_of::<HolderTail>();

/// How often the kernel did not run a program because it was running already on that CPU. The kernel shows this only in
/// the descriptor's `fdinfo` (since 5.12).
fn recursion_misses(program: RawFd) -> u64 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{program}")).unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|misses| misses.trim().parse().ok())
        .unwrap_or(0)
}

/// The programs' own messages, which only an object built with `bpf-log` has.
#[cfg(feature = "bpf-log")]
fn messages(ebpf: &mut Ebpf) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
    aya_log::EbpfLogger::init(ebpf).inspect_err(|error| log::warn!("cannot show the programs' messages: {error}")).ok()
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, ProbeError> {
    ebpf.take_map(name).ok_or_else(|| ProbeError::Map { name, reason: "the object has no such map".into() })
}

fn bad_map(name: &'static str, error: &dyn std::error::Error) -> ProbeError {
    ProbeError::Map { name, reason: error.to_string() }
}
