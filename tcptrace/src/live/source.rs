//! The live kernel as a source of items: events from the ring buffers, answers, names, clocks and losses.

mod accepting;
mod announced;
mod counting;
mod facts;
mod gaps;
mod helper;
mod look;
mod lookups;
mod naming;
mod processes;
mod readings;

use std::collections::BTreeSet;
use std::io;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use self::accepting::Accepting;
use self::counting::{Counting, Look, Scope};
use self::gaps::{Gaps, Marker, Missing};
use self::helper::{Helper, Task};
pub use self::look::{Looked, look};
use self::naming::Naming;
pub(super) use self::readings::Readings;
use super::clock::{self, boot_ns};
use super::queries::{Answer, Queries, Question};
use super::tally::Tally;
use crate::engine::lifecycle::Config;
use crate::kernel::probe::{Batch, Dropped, Options, Probe, Told};
use crate::kernel::{Namespaces, Sandbox, are_all_visible, without_privileges};
use crate::model::accepts::Accepts;
use crate::model::event::{Cause, Event, Id, Losses};
use crate::model::feature::{Feature, Service};
use crate::model::role::caller;
use crate::model::sink::{Sink, Wishes};
use crate::model::stream::{Clocks, Head, Item, RecordedFeature};
use crate::model::tcp::State;
use crate::model::transition::Transition;

/// Longest wait for a survey at the end, and how often to check whether it has ended.
const LAST_SURVEY: Duration = Duration::from_secs(2);
/// The same for one that a diagnosis stands on: on a busy machine, the closer looks and the scan take seconds.
const LAST_FACTS: Duration = Duration::from_secs(5);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// How long to wait for a program that is writing a record.
const LONGEST_STALL: Duration = Duration::from_secs(1);

/// Records that are taken from the ring buffers at a time.
const BATCH: usize = 256;
/// How often the slower loss counters are read.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often they are read once this many bytes have come from the kernel since the last time.
const BUSY_HOUSEKEEPING: Duration = Duration::from_millis(100);
const BUSY_BYTES: u64 = 64 << 10;
/// How far boot time must run ahead of monotonic time to count as sleep, and not as the delay between two reads.
const SLEEP_NS: u64 = 10_000_000;
/// A change of the wall clock beyond this is reported at once.
const STEP_NS: u64 = 1_000_000;
/// How often the clocks are reported in any case.
const CLOCKS_NS: u64 = 10_000_000_000;

pub struct Source {
    /// What asks the kernel, if that is another process.
    helper: Option<Helper>,
    filter: tcptrace_common::Filter,
    probe: Probe,
    queries: Queries,
    naming: Naming,
    /// The sockets that were in sockmaps at the last check.
    in_sockmaps: BTreeSet<u64>,
    /// Surveys and scans that are over.
    surveys: u64,
    scans: u64,
    existing: bool,
    /// Whether `/proc` shows every process.
    sees_all: bool,
    /// What is to be looked at beside the stream; in which network namespace only, if it is not 0; and what looks.
    besides: Besides,
    only: u32,
    counting: Option<Counting>,
    /// Decides when accepts are seen, if they are seen as needed.
    accepting: Option<Accepting>,
    /// The clocks as last reported.
    clocks: Clocks,
    /// How long the machine had slept at the last check.
    slept_ns: u64,
    /// The losses that are marked in the stream.
    losses: Losses,
    /// All losses, as the kernel side counts them, and by ring buffer.
    counted: Losses,
    dropped: Vec<Dropped>,
    /// Where the losses belong in the stream.
    gaps: Gaps,
    /// Time of the last check, and how long the sink had been blocked by its output by then.
    looked_at: (Instant, Duration),
    /// When the slower loss counters were read, and how many bytes had been read by then.
    housekept: (Instant, u64),
    items: Vec<Item>,
    batch: Option<Batch>,
    /// Requests of the sink that have not been passed on.
    asked: Asked,
}

/// What is looked at beside the stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Besides {
    /// Nothing.
    Nothing,
    /// The kernel's counters.
    Counters,
    /// And what only a diagnosis reads: settings, accept queues and limits, and more of sockets than that they exist, to begin
    /// with and in the end.
    Facts,
}

#[derive(Default)]
struct Asked {
    survey: bool,
    scan: bool,
}

impl Source {
    /// Attaches the programs. `processes`: the control groups of processes are told.
    pub fn attach(options: &Options, existing: bool, names: bool, processes: bool, besides: Besides) -> Result<Self> {
        let probe = Probe::attach(options)?;
        let plan = probe.plan();
        log::info!("{} ring buffers of {} KiB", plan.rings, plan.bytes >> 10);
        let mut queries = Queries::new(options.filter);
        if besides == Besides::Facts {
            queries.want_inspections();
        }
        Ok(Self {
            helper: None,
            filter: options.filter,
            sees_all: are_all_visible(),
            queries,
            naming: Naming::new(names, processes),
            in_sockmaps: BTreeSet::new(),
            surveys: 0,
            scans: 0,
            existing: existing && probe.knows_cookies(),
            besides,
            only: options.filter.netns,
            counting: None,
            accepting: (probe.accepts() == Accepts::Auto).then(Accepting::default),
            clocks: Clocks::default(),
            slept_ns: 0,
            losses: Losses::default(),
            counted: Losses::default(),
            dropped: vec![Dropped::default(); plan.rings],
            gaps: Gaps::new(plan.rings, plan.bytes.into()),
            looked_at: (Instant::now(), Duration::ZERO),
            housekept: (Instant::now(), 0),
            items: Vec::new(),
            batch: None,
            asked: Asked::default(),
            probe,
        })
    }

    /// Enters the sandbox. What takes privileges is left to a helper, a process that keeps them and answers a few questions;
    /// these network namespaces have been found. Call this before any thread starts.
    ///
    /// # Errors
    /// When there can be no helper, or it or this process cannot become the user.
    pub fn confine(&mut self, sandbox: Sandbox, namespaces: &Namespaces) -> Result<()> {
        // What is read once is read now: from then on, most files are closed.
        self.head()?;
        let (scope, user) = (self.scope(), sandbox.user());
        let task = Task { probe: &mut self.probe, filter: self.filter, scope, namespaces, user };
        let helper = self.helper.insert(Helper::begin(task)?);
        self.queries.send_by(helper.ways().queries.clone());
        self.naming.send_by(helper.ways().lookups.clone());
        // It also reads the number of CPUs, which is known from then on.
        let (are_open, need_privilege) =
            (self.probe.are_maps_open(), !without_privileges(|| self.probe.are_maps_open()));
        sandbox.reading_maps(are_open && need_privilege).enter_as_user()?;
        helper.listen();
        Ok(())
    }

    fn scope(&self) -> Scope {
        Scope { only: self.only, facts: self.has_facts(), knows_pids: self.sees_all }
    }

    /// Whether the helper has ended before its time: then not everything is known that could be.
    pub fn has_lost_helper(&self) -> bool {
        self.helper.as_ref().is_some_and(Helper::is_lost)
    }

    /// Reads counters for an audit.
    pub fn readings(&self) -> Readings {
        Readings(self.helper.as_ref().map(|helper| helper.ways().readings.clone()))
    }

    /// Counts the sockets in these states, in these network namespaces; in all, if there are none.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn tally(&self, states: &[State], only: Vec<u32>) -> io::Result<Tally> {
        Tally::begin(states, only, self.helper.as_ref().map(|helper| helper.ways().tally.clone()))
    }

    /// Makes every scan report how far the data of connections has come.
    pub fn want_flows(&mut self) {
        self.queries.want_flows();
    }

    fn has_facts(&self) -> bool {
        self.besides == Besides::Facts
    }

    /// Whether cookies identify sockets.
    pub fn knows_cookies(&self) -> bool {
        self.probe.knows_cookies()
    }

    /// Whether a feature is available.
    pub fn has(&self, feature: Feature) -> bool {
        self.probe.services().iter().any(|(served, service)| *served == feature && service.is_attached())
    }

    /// Whether every accept is seen.
    pub fn sees_accepts(&self) -> bool {
        self.probe.accepts() == Accepts::Always && self.has(Feature::Accept)
    }

    /// Whether a scan cannot see all processes.
    pub fn scans_in_part(&self) -> bool {
        !self.sees_all
    }

    /// What an engine can rely on, because this source sees it; the rest is as in `config`.
    #[must_use]
    pub fn engine_config(&self, config: Config) -> Config {
        Config {
            scans: self.knows_cookies(),
            partial_scans: self.scans_in_part(),
            resets: self.has(Feature::ResetSent),
            received_resets: self.has(Feature::ResetReceived),
            fins: self.has(Feature::MiniFin),
            accepts: self.sees_accepts(),
            ..config
        }
    }

    /// The purpose of each feature that is unavailable.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        let services = self.probe.services().iter();
        services
            .filter(|(_, service)| matches!(service, Service::Unavailable { .. }))
            .map(|(feature, _)| feature.purpose())
    }

    /// Describes the source for a recording.
    pub fn head(&self) -> Result<Head> {
        let features = self.probe.services().iter().map(|(feature, service)| RecordedFeature {
            feature: feature.as_str().to_owned(),
            available: service.is_attached(),
            detail: service.detail().into_owned(),
        });
        Ok(Head {
            knows_cookies: self.knows_cookies(),
            existing: self.existing,
            partial_scans: self.scans_in_part(),
            facts: self.has_facts(),
            accepts: self.probe.accepts(),
            features: features.collect(),
            ..head_of()?
        })
    }

    /// Passes on the first items. From here on no event goes unseen.
    pub fn begin(&mut self, namespaces: &Namespaces, sink: &mut impl Sink) -> Result<()> {
        self.read_clocks()?;
        self.naming.name_namespaces(namespaces, &mut self.items);
        self.items.push(Item::Event(Event::Started { at: boot_ns()? }));
        if self.besides != Besides::Nothing
            && let Some((counting, look)) = Counting::begin(
                namespaces,
                self.scope(),
                self.helper.as_ref().map(|helper| helper.ways().counting.clone()),
            )
        {
            self.counting = Some(counting);
            self.push_look(look);
        }
        if self.existing {
            self.queries.want(Question::Survey);
            self.queries.want(Question::Scan);
        }
        self.hand_over(sink)
    }

    /// Passes on items until `until` is ready. Returns `None` if the sink stops before that.
    pub async fn follow<T>(&mut self, sink: &mut impl Sink, until: impl Future<Output = T>) -> Result<Option<T>> {
        let mut until = pin!(until);
        loop {
            let wait = self.longest_wait(sink)?;
            let (answer, look) = tokio::select! {
                biased;
                result = &mut until => return Ok(Some(result)),
                () = self.probe.wait(wait) => (None, None),
                answer = self.queries.answer() => (answer, None),
                look = next_look(&mut self.counting) => (None, Some(look)),
            };
            // Answers are older than events that are still to come, and younger than those just read.
            if answer.is_some() {
                self.take_in_all(boot_ns()?, sink).await?;
            } else {
                self.take_in(sink)?;
            }
            match answer {
                Some(Answer::Events(events)) => events.into_iter().for_each(|event| self.push(event)),
                Some(Answer::InSockmaps(cookies)) => self.note_sockmaps(cookies)?,
                Some(Answer::Listeners(begun, holders)) => self.note_listeners(begun, &holders)?,
                Some(Answer::Namespaces(namespaces)) => self.naming.name_namespaces(&namespaces, &mut self.items),
                Some(Answer::Took(_)) | None => {}
            }
            if let Some(look) = look {
                self.push_look(look);
            }
            self.pass_on_requests(sink)?;
            if !self.items.is_empty() {
                self.hand_over(sink)?;
                sink.settle(boot_ns()?)?;
            }
            if self.hear(sink).stop {
                return Ok(None);
            }
        }
    }

    /// Asks which sockets are still there, if the sink misses some, or if facts are wanted, before nothing more comes. What
    /// one survey did not find is gone only if the next one does not find it either.
    pub(super) async fn look_for_missing(&mut self, sink: &mut impl Sink) -> Result<()> {
        let now = boot_ns()?;
        self.take_in(sink)?;
        self.items.push(Item::Event(Event::Passed { at: now }));
        self.hand_over(sink)?;
        for is_first in [true, false] {
            let wishes = self.hear(sink);
            let wants_all = is_first && self.has_facts();
            if !self.existing
                || self.has_lost_helper()
                || !(wishes.missing || wants_all || is_first && sink.misses_any())
            {
                break;
            }
            // One that began before may have missed the end.
            let running = |question| u64::from(wants_all && self.queries.is_asking(question));
            let surveys = self.surveys + 1 + running(Question::Survey);
            let scans = self.scans + if wants_all { 1 + running(Question::Scan) } else { 0 };
            self.queries.want_now(Question::Survey);
            if wants_all {
                self.queries.want_now(Question::Scan);
            }
            let (begun, longest) = (Instant::now(), if wants_all { LAST_FACTS } else { LAST_SURVEY });
            let is_waiting = |source: &Self| {
                (source.surveys < surveys || source.scans < scans)
                    && begun.elapsed() < longest
                    && !source.has_lost_helper()
            };
            while is_waiting(self) && !self.hear(sink).stop {
                self.follow(sink, tokio::time::sleep(LAST_LOOK)).await?;
            }
        }
        Ok(())
    }

    /// Passes on everything that is left.
    pub fn finish(&mut self, sink: &mut impl Sink) -> Result<()> {
        self.read_recursion();
        self.take_in(sink)?;
        for look in self.counting.take().map(Counting::finish).into_iter().flatten() {
            self.push_look(look);
        }
        self.items.push(Item::Losses(self.losses));
        self.items.push(Item::Event(Event::Passed { at: boot_ns()? }));
        self.hand_over(sink)?;
        sink.settle(boot_ns()?)
    }

    /// The current wishes of the sink. Requests stay until they are passed on.
    fn hear(&mut self, sink: &mut impl Sink) -> Wishes {
        let wishes = sink.wishes();
        self.asked.survey |= wishes.survey;
        self.asked.scan |= wishes.scan;
        wishes
    }

    fn read_recursion(&mut self) {
        let Self { helper, probe, .. } = self;
        match helper {
            None => probe.read_recursion(),
            Some(helper) => {
                if let Some(recursion) = helper.read_recursion(probe.records()) {
                    probe.note_recursion(recursion);
                }
            }
        }
    }

    /// How long the source can wait for events.
    fn longest_wait(&mut self, sink: &mut impl Sink) -> Result<Duration> {
        let wishes = self.hear(sink);
        let deadline = wishes.deadline.into_iter().chain(wishes.settle_by).min().unwrap_or(u64::MAX);
        let look = self.counting.as_ref().map_or(Duration::MAX, Counting::rest);
        let wait = Duration::from_nanos(deadline.saturating_sub(boot_ns()?)).min(self.queries.rest()).min(look);
        Ok(wait.clamp(Duration::from_millis(1), HOUSEKEEPING))
    }

    /// Passes on everything from before this time. What is younger than a record that is being written waits for it; that takes
    /// long if the CPU is taken from the program that writes it.
    async fn take_in_all(&mut self, at: u64, sink: &mut impl Sink) -> Result<()> {
        let begun = Instant::now();
        while self.take_in(sink)? < at && begun.elapsed() < LONGEST_STALL {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Passes on what was in the ring buffers before the call. Returns a time: nothing from before it is left.
    pub fn take_in(&mut self, sink: &mut impl Sink) -> Result<u64> {
        let (kept_at, kept_read) = self.housekept;
        let is_busy = self.probe.read() - kept_read >= BUSY_BYTES;
        if kept_at.elapsed() >= if is_busy { BUSY_HOUSEKEEPING } else { HOUSEKEEPING } {
            self.housekept = (Instant::now(), self.probe.read());
            self.read_recursion();
        }
        self.read_clocks()?;
        let mut is_first_end = true;
        loop {
            let before = boot_ns()?;
            let blocked = self.hear(sink).blocked;
            let until = if sink.wants_changes() {
                self.pass_batch(before, blocked, sink)?
            } else {
                self.take_batch(before, blocked)?
            };
            self.hand_over(sink)?;
            let Some(until) = until else { continue };
            // What was lost just now ends with what has come just now.
            if std::mem::take(&mut is_first_end) && self.gaps.is_open() {
                continue;
            }
            if self.hear(sink).deadline.is_some_and(|deadline| deadline <= until) {
                sink.take(&[Item::Event(Event::Passed { at: until })])?;
            }
            sink.settle(until)?;
            return Ok(until);
        }
    }

    /// Takes one batch from the ring buffers. `before` is the time just before. Returns a time if nothing is left from
    /// before it.
    fn take_batch(&mut self, before: u64, blocked: Duration) -> Result<Option<u64>> {
        let first = self.items.len();
        let markers = self.gaps.pass(None);
        let Self { probe, items, naming, queries, counting, accepting, gaps, .. } = self;
        let until = probe.drain(BATCH, before, gaps.limits(), |event| {
            if let Event::Change(change) = &event {
                heed(change, counting, accepting);
            }
            if let (Some(counting), Some(pid)) = (&mut *counting, event.process()) {
                counting.note_process(pid);
            }
            naming.learn(&event, queries, items);
            items.push(Item::Event(event));
        });
        let now = boot_ns()?;
        let event = |item: &Item| if let Item::Event(event) = item { Some(event.at()) } else { None };
        let begun = self.items[first..].iter().find_map(event).unwrap_or(now);
        self.mark(markers, begun, first);
        self.look_at_losses(blocked, begun, first)?;
        if until.is_some() {
            let markers = self.gaps.pass(until);
            self.mark(markers, now, self.items.len());
        }
        Ok(until)
    }

    /// Passes on one batch from the ring buffers, without making events of changes. Otherwise as [`Source::take_batch`].
    fn pass_batch(&mut self, before: u64, blocked: Duration, sink: &mut impl Sink) -> Result<Option<u64>> {
        let first = self.items.len();
        let markers = self.gaps.pass(None);
        let mut batch = self.batch.take().unwrap_or_else(|| self.probe.batch());
        let until = self.probe.fill(BATCH, before, self.gaps.limits(), &mut batch);
        let now = boot_ns()?;
        let begun = batch.first_at().unwrap_or(now);
        self.mark(markers, begun, first);
        self.look_at_losses(blocked, begun, first)?;
        for told in batch.records() {
            match told {
                Told::Change(change) => self.pass_change(&change, sink)?,
                Told::Other(event) => self.take_event(event),
            }
        }
        self.batch = Some(batch);
        if until.is_some() {
            let markers = self.gaps.pass(until);
            self.mark(markers, now, self.items.len());
        }
        Ok(until)
    }

    fn pass_change(&mut self, change: &impl Transition, sink: &mut impl Sink) -> Result<()> {
        let process = caller(change);
        heed(change, &mut self.counting, &mut self.accepting);
        if let (Some(counting), Some(pid)) = (&mut self.counting, process) {
            counting.note_process(pid);
        }
        self.naming.learn_of_change(change, process, &mut self.queries, &mut self.items);
        self.hand_over(sink)?;
        sink.take_change(change)
    }

    fn take_event(&mut self, event: Event) {
        if let (Some(counting), Some(pid)) = (&mut self.counting, event.process()) {
            counting.note_process(pid);
        }
        self.naming.learn(&event, &mut self.queries, &mut self.items);
        self.items.push(Item::Event(event));
    }

    /// Notes losses since the last check. Events that no ring buffer dropped were lost among the events from `first` on.
    fn look_at_losses(&mut self, blocked: Duration, at: u64, first: usize) -> Result<()> {
        let (looked_at, blocked_before) = std::mem::replace(&mut self.looked_at, (Instant::now(), blocked));
        let counted = self.probe.losses();
        let before = std::mem::replace(&mut self.counted, counted);
        self.losses.filtered = self.losses.filtered.max(counted.filtered);
        if counted.recursion > before.recursion {
            self.gaps.begin_here(boot_ns()?);
            let missed = Missing { transitions: counted.recursion - before.recursion, others: 0 };
            self.mark([Marker::From(Cause::Recursion, missed)], at, first);
        }
        if (counted.ring_full, counted.ring_full_others) != (before.ring_full, before.ring_full_others) {
            // Output blocked the reader for most of the time.
            let is_output_slow = blocked.saturating_sub(blocked_before) * 2 >= looked_at.elapsed();
            self.note_dropped(if is_output_slow { Cause::OutputSlow } else { Cause::RingFull })?;
        }
        self.gaps.looked_at(self.probe.places());
        Ok(())
    }

    /// Notes what ring buffers have dropped since the last check.
    fn note_dropped(&mut self, cause: Cause) -> Result<()> {
        let now = boot_ns()?;
        let rings = self.probe.dropped().iter().zip(&mut self.dropped).zip(self.probe.places());
        for (ring, ((dropped, before), read)) in rings.enumerate() {
            let before = std::mem::replace(before, *dropped);
            let missing = Missing {
                transitions: dropped.transitions.saturating_sub(before.transitions),
                others: dropped.others.saturating_sub(before.others),
            };
            if missing != Missing::default() {
                self.gaps.note_dropped(ring, cause, missing, read, now);
            }
        }
        Ok(())
    }

    /// Inserts losses before the item at `place`.
    fn mark(&mut self, markers: impl IntoIterator<Item = Marker>, at: u64, place: usize) {
        let mut items = Vec::new();
        for marker in markers {
            match marker {
                Marker::From(cause, missing) => {
                    match cause {
                        Cause::Recursion => self.losses.recursion += missing.sum(),
                        _ => self.losses.drop(cause, missing.transitions, missing.others),
                    }
                    items.push(Item::Event(Event::Lost { at, cause, events: missing.sum() }));
                    items.push(Item::Losses(self.losses));
                }
                Marker::To => {
                    items.push(Item::Event(Event::Lost { at, cause: Cause::Unknown, events: 0 }));
                    if self.knows_cookies() {
                        self.queries.want(Question::Survey);
                    }
                }
            }
        }
        self.items.splice(place..place, items);
    }

    fn push(&mut self, event: Event) {
        self.surveys += u64::from(matches!(event, Event::SurveyEnded { .. }));
        self.scans += u64::from(matches!(event, Event::ScanEnded { .. }));
        self.take_event(event);
    }

    fn hand_over(&mut self, sink: &mut impl Sink) -> Result<()> {
        if !self.items.is_empty() {
            sink.take(&self.items)?;
            self.items.clear();
        }
        Ok(())
    }

    /// Reports the sockets that are new in sockmaps.
    fn note_sockmaps(&mut self, cookies: BTreeSet<u64>) -> Result<()> {
        let at = boot_ns()?;
        for cookie in cookies.difference(&std::mem::take(&mut self.in_sockmaps)) {
            self.push(Event::Bypassing { at, id: Id::Cookie(*cookie) });
        }
        self.in_sockmaps = cookies;
        Ok(())
    }

    /// Sees accepts from now on, or no more, as the holders of listening sockets demand.
    fn note_listeners(&mut self, begun: u64, holders: &[Event]) -> Result<()> {
        let Some(accepting) = &mut self.accepting else { return Ok(()) };
        let Some(watch) = accepting.look(begun, holders) else { return Ok(()) };
        // What happens until they are no longer seen counts as not seen.
        let before = boot_ns()?;
        let watched = match &self.helper {
            Some(helper) => helper.watch_accepts(watch),
            None => self.probe.watch_accepts(watch),
        };
        if watch && !watched {
            accepting.has_failed();
            return Ok(());
        }
        let at = if watched { boot_ns()? } else { before };
        log::info!("accepts are {}", if watched { "seen from now on" } else { "not seen any more" });
        self.items.push(Item::Event(Event::AcceptsWatched { at, watched }));
        Ok(())
    }

    /// Passes on the requests of the sink, if they are due.
    fn pass_on_requests(&mut self, sink: &mut impl Sink) -> Result<()> {
        let is_missing = self.hear(sink).missing;
        let wants_survey = std::mem::take(&mut self.asked.survey);
        if self.existing && wants_survey {
            self.queries.want(Question::Survey);
            self.queries.want(Question::Scan);
        }
        if self.existing && is_missing {
            self.queries.want(Question::Survey);
        }
        if let Some(counting) = &mut self.counting {
            if wants_survey {
                counting.want_whole();
            }
            counting.ask();
        }
        if self.knows_cookies() {
            self.queries.want(Question::Sockmaps);
        }
        if self.accepting.is_some() {
            self.queries.want(Question::Listeners);
        }
        if std::mem::take(&mut self.asked.scan) {
            self.queries.want(Question::Scan);
        }
        if let Some(begun) = self.queries.ask(&mut self.probe, boot_ns()?) {
            self.items.push(Item::Event(begun));
        }
        Ok(())
    }

    fn push_look(&mut self, look: Look) {
        if let Some(namespaces) = &look.namespaces {
            self.naming.name_namespaces(namespaces, &mut self.items);
        }
        self.items.extend(look.samples.into_iter().map(|sample| Item::Counters(Box::new(sample))));
        self.items.extend(look.facts);
    }

    fn read_clocks(&mut self) -> Result<()> {
        let now = clock::read_all()?;
        if self.clocks != Clocks::default() && now.slept_ns() > self.slept_ns + SLEEP_NS {
            let ns = now.slept_ns() - self.slept_ns;
            self.items.push(Item::Event(Event::Suspended { at: now.boot_ns, ns }));
        }
        self.slept_ns = now.slept_ns();
        let step = now.clock().boot_to_unix_ns.abs_diff(self.clocks.clock().boot_to_unix_ns);
        if step > STEP_NS || now.boot_ns > self.clocks.boot_ns + CLOCKS_NS {
            self.clocks = now;
            self.items.push(Item::Clocks(now));
        }
        Ok(())
    }
}

/// Shows a change to whoever looks at namespaces and listeners, however it is passed on.
fn heed(change: &impl Transition, counting: &mut Option<Counting>, accepting: &mut Option<Accepting>) {
    if let (Some(counting), Some(netns)) = (counting, change.netns()) {
        counting.note(netns);
    }
    accepting.iter_mut().for_each(|accepting| accepting.note(change));
}

/// What is known of this host and this moment.
fn head_of() -> Result<Head> {
    let system = nix::sys::utsname::uname()?;
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    Ok(Head {
        program: format!("tcptrace {}", env!("CARGO_PKG_VERSION")),
        host: text(system.nodename()),
        kernel: text(system.release()),
        machine: text(system.machine()),
        boot_id: boot_id().to_owned(),
        started_unix_ns: clock::read_all()?.unix_ns,
        ..Head::default()
    })
}

/// Read once.
fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    ID.get_or_init(read)
}

/// Waits for the result of a look; forever if no thread looks.
async fn next_look(counting: &mut Option<Counting>) -> Look {
    match counting {
        Some(counting) => counting.look().await,
        None => std::future::pending().await,
    }
}
