//! Reads the ring buffer: asleep until woken while idle, on a timer while busy.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use aya::programs::{Iter, ProgramError};
use tcptrace_common::{Head, HolderTail, counter};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ProbeError;
use super::accepts::Accepts;
use super::decode::{Batch, Decoder, warn_of};
use super::kernel;
use super::programs::{HOLDERS, LISTENING, program};
use super::stand_in::StandIns;
use crate::model::event::{Event, Losses};

/// How long a busy reader waits between two looks. Programs do not announce each record: a wakeup costs more than an
/// event.
const BUSY: Duration = Duration::from_millis(10);

/// The reader sleeps only after it has found the buffer empty twice, this far apart. A program that read "do not wake"
/// just before has submitted its record by the second time.
const SETTLE: Duration = Duration::from_millis(5);

pub(super) struct Reader {
    ring: AsyncFd<RingBuf<MapData>>,
    wake: Array<MapData, u32>,
    counters: PerCpuArray<MapData, [u64; counter::COUNT]>,
    programs: Vec<RawFd>,
    stand_ins: StandIns,
    accepts: Accepts,
    recursion: u64,
    /// Records taken from the ring buffer.
    records: u64,
    /// Bytes taken from the ring buffer.
    read: u64,
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
        programs: Vec<RawFd>,
        stand_ins: StandIns,
        accepts: Accepts,
        decoder: Decoder,
        can_scan: bool,
    ) -> Result<Self, ProbeError> {
        let ring = RingBuf::try_from(take(&mut ebpf, "EVENTS")?).map_err(|error| bad_map("EVENTS", &error))?;
        // SAFETY: the ring buffer owns its descriptor and never closes or replaces it.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| bad_map("EVENTS", &error.into_parts().1))?;
        let wake = Array::try_from(take(&mut ebpf, "WAKE")?).map_err(|error| bad_map("WAKE", &error))?;
        let counters =
            PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?).map_err(|error| bad_map("COUNTERS", &error))?;
        Ok(Self {
            ring,
            wake,
            counters,
            programs,
            stand_ins,
            accepts,
            recursion: 0,
            records: 0,
            read: 0,
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
                if let Ok(Ok(mut guard)) = tokio::time::timeout(at_most, self.ring.readable()).await {
                    guard.clear_ready();
                }
            }
        }
    }

    pub(super) fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.decoder))
    }

    /// Takes up to `at_most` records in place of those in the batch.
    pub(super) fn fill(&mut self, at_most: usize, limit: u64, batch: &mut Batch) -> bool {
        batch.clear();
        self.take(at_most, limit, |record| batch.push(record))
    }

    pub(super) fn drain(&mut self, at_most: usize, limit: u64, mut sink: impl FnMut(Event)) -> bool {
        let decoder = Arc::clone(&self.decoder);
        self.take(at_most, limit, |record| match decoder.decode(record) {
            Some(event) => sink(event),
            None => warn_of(record),
        })
    }

    fn take(&mut self, at_most: usize, limit: u64, mut each: impl FnMut(&[u8])) -> bool {
        #[cfg(feature = "bpf-log")]
        self.messages.iter_mut().for_each(aya_log::EbpfLogger::flush);
        let ring = self.ring.get_mut();
        let (mut records, mut is_empty) = (0, false);
        while records < at_most && self.read < limit {
            let Some(record) = ring.next() else {
                is_empty = true;
                break;
            };
            records += 1;
            self.read += taken_by(record.len());
            each(&record);
        }
        self.records += records as u64;
        self.mood = match (records, self.mood) {
            (0, _) if !is_empty => Mood::Busy,
            (0, Mood::Busy) => self.ask_to_be_woken(),
            (0, Mood::Settling(since)) if since.elapsed() < SETTLE => self.mood,
            (0, _) => Mood::Asleep,
            _ => Mood::Busy,
        };
        is_empty
    }

    /// Bytes taken from the ring buffer so far.
    pub(super) fn read(&self) -> u64 {
        self.read
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
        let counted = self.counted();
        let by_any = |counter: usize| counted[counter] + counted[counter::STAND_IN + counter];
        Losses {
            ring_full: by_any(counter::LOST_TRANSITIONS),
            ring_full_others: by_any(counter::LOST_OTHERS),
            filtered: by_any(counter::FILTERED),
            recursion: self.recursion,
            output_slow: 0,
            output_slow_others: 0,
            unwritten: 0,
        }
    }

    /// The counters, summed over all CPUs.
    fn counted(&self) -> [u64; counter::COUNT] {
        let mut counted = [0; counter::COUNT];
        match self.counters.get(&0, 0) {
            Ok(per_cpu) => {
                for cpu in per_cpu.iter() {
                    counted.iter_mut().zip(cpu).for_each(|(sum, count)| *sum += count);
                }
            }
            Err(error) => log::warn!("cannot read the loss counters: {}", kernel::explain(&error)),
        }
        counted
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

    pub(super) fn read_recursion(&mut self) {
        // In this order, misses in between are reported the next time.
        let misses: u64 = self.programs.iter().map(|fd| recursion_misses(*fd)).sum();
        let stood_in = self.counted()[counter::STOOD_IN];
        self.recursion = self.recursion.max(misses.saturating_sub(stood_in));
        self.stand_ins.look(self.records, misses, &mut self.ebpf);
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

/// What a record takes up in the ring buffer: a header, and padding (`__bpf_ringbuf_reserve` in
/// `kernel/bpf/ringbuf.c`).
fn taken_by(record: usize) -> u64 {
    (record as u64 + 8).next_multiple_of(8)
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
