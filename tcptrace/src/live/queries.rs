//! Asks the kernel for its sockets and their owners, beside the event stream: in a thread, one question at a time, or by way
//! of the helper.

mod told;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use self::told::Part;
use super::clock::boot_ns;
use super::way::Way;
use crate::kernel::probe::{self, Probe, Scan};
use crate::kernel::{self, Multipaths, Namespaces, Wanted, thread_time};
use crate::model::event::{Event, Flow, Holder, Subflow};
use crate::model::socket::{Progress, Socket};

/// Events in a chunk.
const CHUNK: usize = 1024;
/// Most chunks that wait.
const CHUNKS: usize = 16;
/// Pause before the same question, as a multiple of the CPU time that its answer took: each question uses at most a
/// twentieth of one CPU. On a busy machine, an answer can come much later than that.
const REST: u32 = 20;
/// The same before a look at listening sockets, which never ends: at most a hundredth of one CPU.
const REST_OF_LOOKS: u32 = 100;
/// The shortest pause. It is shorter before a scan for owners, because a reported socket waits for its owner.
const REST_AT_LEAST: Duration = Duration::from_secs(1);
const REST_BEFORE_SCAN: Duration = Duration::from_millis(250);

/// An answer, or a part of one.
pub(super) enum Answer {
    Events(Vec<Event>),
    /// All network namespaces.
    Namespaces(Namespaces),
    /// The sockets whose bytes can bypass TCP.
    InSockmaps(BTreeSet<u64>),
    /// When the look at listening sockets began, and who holds which.
    Listeners(u64, Vec<Event>),
    /// How much CPU time the answer took. It comes last.
    Took(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Which sockets exist?
    Survey,
    /// Which process holds which socket?
    Scan,
    /// Which network namespaces exist?
    Namespaces,
    /// Which sockets are in sockmaps, so that their bytes can bypass TCP?
    Sockmaps,
    /// Which processes hold listening sockets?
    Listeners,
}

/// In the order in which they are asked.
const QUESTIONS: [Question; 5] =
    [Question::Survey, Question::Scan, Question::Namespaces, Question::Sockmaps, Question::Listeners];

/// Asks one question at a time.
pub(super) struct Queries {
    /// Sockets that the filter excludes are ignored.
    filter: tcptrace_common::Filter,
    /// Whether a scan also reports how far the data of connections has come.
    flows: bool,
    /// Whether a survey says more of some sockets than that they exist.
    inspects: bool,
    wanted: [bool; 5],
    /// The earliest time of the next run of each question.
    rested: [Instant; 5],
    /// Requested without a pause, be it while the same question is being answered.
    urgent: [bool; 5],
    running: Option<Running>,
    /// Where the questions go, if this process does not ask the kernel itself.
    way: Option<Way>,
}

/// A question on its way to the helper.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    question: Question,
    flows: bool,
    inspects: bool,
    now: u64,
}

/// The network namespaces of the last search, with the paths that lead there.
pub(super) type LastFound = Arc<Mutex<Namespaces>>;

/// The current question.
struct Running {
    question: Question,
    since: Instant,
    /// How much CPU time its answer took.
    took: Option<Duration>,
    answers: Receiver<Answer>,
}

impl Queries {
    pub(super) fn new(filter: tcptrace_common::Filter) -> Self {
        Self {
            filter,
            flows: false,
            inspects: false,
            wanted: [false; 5],
            rested: [Instant::now(); 5],
            urgent: [false; 5],
            running: None,
            way: None,
        }
    }

    /// Has the helper answer from now on.
    pub(super) fn send_by(&mut self, way: Way) {
        self.way = Some(way);
    }

    /// Makes every scan report how far the data of connections has come.
    pub(super) fn want_flows(&mut self) {
        self.flows = true;
    }

    /// Has every survey say more of some sockets than that they exist.
    pub(super) fn want_inspections(&mut self) {
        self.inspects = true;
    }

    /// Whether this is being asked.
    pub(super) fn is_asking(&self, question: Question) -> bool {
        self.running.as_ref().is_some_and(|running| running.question == question)
    }

    /// Requests a question, after its pause.
    pub(super) fn want(&mut self, question: Question) {
        self.wanted[question as usize] = true;
    }

    /// Requests a question without its pause.
    pub(super) fn want_now(&mut self, question: Question) {
        self.rested[question as usize] = Instant::now();
        self.urgent[question as usize] = true;
        self.want(question);
    }

    /// Time until the next question; forever while an answer is outstanding, or if no question is requested.
    pub(super) fn rest(&self) -> Duration {
        if self.running.is_some() {
            return Duration::MAX;
        }
        let rests = self.wanted.iter().zip(self.rested).filter(|(wanted, _)| **wanted);
        let now = Instant::now();
        rests.map(|(_, rested)| rested.saturating_duration_since(now)).min().unwrap_or(Duration::MAX)
    }

    /// Asks a requested question if it is due and no other one is running. The returned event belongs before everything
    /// that happens later.
    pub(super) fn ask(&mut self, probe: &mut Probe, now: u64) -> Option<Event> {
        if self.running.is_some() {
            return None;
        }
        let since = Instant::now();
        let is_time = |question: &Question| self.wanted[*question as usize] && self.rested[*question as usize] <= since;
        let question = QUESTIONS.into_iter().find(is_time)?;
        self.wanted[question as usize] = false;
        self.urgent[question as usize] = false;
        let (sender, receiver) = channel(CHUNKS);
        let Self { filter, flows, inspects, .. } = *self;
        let request = Request { question, flows, inspects, now };
        let is_asked = match self.way.clone() {
            Some(way) if way.fate().is_lost() => false,
            Some(way) => in_thread(move || pass_on(&way, &request, &sender)),
            None => answer(request, probe, filter, To::Here(sender)),
        };
        if !is_asked {
            return None;
        }
        self.running = Some(Running { question, since, took: None, answers: receiver });
        match question {
            Question::Survey => Some(Event::SurveyBegun { at: now }),
            Question::Scan => Some(Event::ScanBegun { at: now }),
            Question::Namespaces | Question::Sockmaps | Question::Listeners => None,
        }
    }

    /// Waits for the next part of an answer; forever if no question is running. The answer belongs after everything
    /// that is in the ring buffers when it arrives.
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        let Some(Running { question, since, took, answers }) = &mut self.running else {
            return std::future::pending().await;
        };
        while let Some(answer) = answers.recv().await {
            match answer {
                Answer::Took(time) => *took = Some(time),
                answer => return Some(answer),
            }
        }
        let least = if *question == Question::Scan { REST_BEFORE_SCAN } else { REST_AT_LEAST };
        let took = took.unwrap_or_else(|| since.elapsed());
        let rest = took * if *question == Question::Listeners { REST_OF_LOOKS } else { REST };
        let pause = if self.urgent[*question as usize] { Duration::ZERO } else { rest.max(least) };
        self.rested[*question as usize] = Instant::now() + pause;
        self.running = None;
        None
    }
}

/// Answers a request of the process that follows the kernel, in a thread.
pub(super) fn answer_by(
    way: Way,
    request: Request,
    probe: &mut Probe,
    filter: tcptrace_common::Filter,
    found: &LastFound,
) {
    answer(request, probe, filter, To::There(way, found.clone()));
}

/// Answers in a thread. Returns whether there is one.
fn answer(request: Request, probe: &mut Probe, filter: tcptrace_common::Filter, to: To) -> bool {
    let Request { question, flows, inspects, now } = request;
    let scan = match question {
        Question::Scan => probe.scan(),
        Question::Listeners => probe.look_at_listeners(),
        _ => None,
    };
    let worker = Worker { to, chunk: Vec::new(), filter, flows, inspects };
    in_thread(move || {
        let to = worker.answer(question, scan, now);
        // It is the thread's only work.
        to.send(Answer::Took(thread_time()));
    })
}

fn in_thread(work: impl FnOnce() + Send + 'static) -> bool {
    let spawned = std::thread::Builder::new().name("queries".into()).spawn(work);
    spawned.inspect_err(|error| log::warn!("cannot list the kernel's sockets: cannot start a thread: {error}")).is_ok()
}

/// Passes a question on to the helper, and its answer back.
fn pass_on(way: &Way, request: &Request, to: &Sender<Answer>) {
    let mut next = way.tell(request).and_then(|()| way.hear());
    while let Some(part) = next {
        // The receiver is gone when the program ends.
        let is_passed_on = Answer::from_part(part).is_some_and(|answer| to.blocking_send(answer).is_ok());
        next = if is_passed_on { way.hear() } else { None };
    }
}

/// Where an answer goes.
enum To {
    Here(Sender<Answer>),
    /// To the process that follows the kernel. Namespaces stay here, too.
    There(Way, LastFound),
}

impl To {
    /// The process that asked may have ended.
    fn send(&self, answer: Answer) {
        match self {
            Self::Here(to) => drop(to.blocking_send(answer)),
            Self::There(way, found) => {
                if let Answer::Namespaces(namespaces) = &answer {
                    *found.lock().unwrap_or_else(PoisonError::into_inner) = namespaces.clone();
                }
                drop(way.send(&Part::of(answer)));
            }
        }
    }
}

impl Drop for To {
    fn drop(&mut self) {
        if let Self::There(way, _) = self {
            drop(way.send(&Part::End));
        }
    }
}

/// Answers a question in a thread.
struct Worker {
    to: To,
    chunk: Vec<Event>,
    filter: tcptrace_common::Filter,
    flows: bool,
    inspects: bool,
}

impl Worker {
    fn answer(mut self, question: Question, scan: Option<Scan>, now: u64) -> To {
        match (question, scan) {
            (Question::Survey, _) => self.survey(),
            (Question::Scan, Some(scan)) => self.walk(scan),
            (Question::Scan, None) => self.read_proc(),
            (Question::Namespaces, _) => self.send(Answer::Namespaces(Namespaces::find())),
            (Question::Listeners, Some(look)) => {
                let mut holders = Vec::new();
                match look.run(|event| holders.push(event)) {
                    Ok(()) => self.send(Answer::Listeners(now, holders)),
                    Err(error) => log::warn!("cannot look at listening sockets: {error}"),
                }
            }
            (Question::Listeners, None) => {}
            (Question::Sockmaps, _) => match probe::in_sockmaps() {
                Ok(cookies) => self.send(Answer::InSockmaps(cookies)),
                Err(error) => log::debug!("cannot list the sockets in sockmaps: {error}"),
            },
        }
        self.to
    }

    fn survey(&mut self) {
        let wanted = if self.inspects { Wanted::AllAndBound } else { Wanted::All };
        self.sockets(wanted, |worker, answer| match answer {
            // The child of a request that has become a connection meanwhile inherits its cookie.
            kernel::Answer::Socket(socket) if !socket.is_request => worker.report(Event::Found(socket.found)),
            kernel::Answer::Inspected(socket) => worker.report(Event::Inspected(socket.inspected())),
            kernel::Answer::Socket(_) | kernel::Answer::Multipath(_) => {}
            kernel::Answer::Namespace(netns) => worker.report(Event::Surveyed { at: boot_ns().unwrap_or(0), netns }),
        });
        self.end(|at| Event::SurveyEnded { at });
    }

    fn walk(&mut self, scan: Scan) {
        if let Err(error) = scan.run(|event| self.report(event)) {
            log::warn!("cannot read socket owners from /proc: {error}");
        }
        if let Some(subflows) = self.mptcp_inodes() {
            self.look_into_proc(|inode| subflows.contains(&inode));
        }
        self.report_flows();
        self.end(|at| Event::ScanEnded { at });
    }

    /// The inode numbers of the MPTCP sockets that processes hold; their descriptors own the subflows. `None` if there
    /// are none. A walk meets such sockets, and skips them.
    fn mptcp_inodes(&self) -> Option<HashSet<u32>> {
        let (mut inodes, mut are_there) = (HashSet::new(), false);
        let (only, own) = (self.filter.netns, Namespaces::own_namespace());
        let mut here = |netns: Option<u32>| {
            if only == 0 || netns == Some(only) {
                kernel::mptcp(netns, &mut |socket| {
                    are_there = true;
                    inodes.extend((socket.inode != 0).then_some(socket.inode));
                });
            }
        };
        here(own);
        for other in Namespaces::find().iter().filter(|other| Some(other.inode) != own) {
            // The survey already reported a namespace that cannot be entered.
            if (only == 0 || other.inode == only) && other.enter().is_ok_and(|entered| entered) {
                here(Some(other.inode));
            }
        }
        are_there.then_some(inodes)
    }

    /// Finds owners in `/proc` by inode numbers, where the kernel cannot walk.
    fn read_proc(&mut self) {
        self.look_into_proc(|inode| inode != 0);
        self.report_flows();
        self.end(|at| Event::ScanEnded { at });
    }

    fn look_into_proc(&mut self, wanted: impl Fn(u32) -> bool) {
        let (mut found_at, mut inodes) = (Vec::new(), HashSet::new());
        let mut multipaths = Multipaths::default();
        self.sockets(Wanted::AllAndPaths, |worker, answer| match answer {
            kernel::Answer::Socket(socket) => {
                if let Some(of) = multipaths.of(&socket) {
                    worker.report(Event::Subflow(Subflow { at: socket.found.at, id: socket.found.id, of }));
                }
                if wanted(socket.inode) {
                    found_at.push((socket.inode, socket.found));
                    inodes.insert(socket.inode);
                }
            }
            kernel::Answer::Multipath(socket) => multipaths.note(&socket),
            kernel::Answer::Inspected(_) | kernel::Answer::Namespace(_) => {}
        });
        if !kernel::are_all_visible() {
            // In this PID namespace, the process ids in `/proc` differ from those in events.
            return;
        }
        match kernel::holders(|inode| inodes.contains(&inode), |_| false) {
            Ok(holders) => {
                for (inode, found) in found_at {
                    let Some(holding) = holders.of(inode) else { continue };
                    let holder = Event::Holder(Holder { found, task: holding.task, fd: holding.fd });
                    (0..holding.count).for_each(|_| self.report(holder));
                }
            }
            Err(error) => log::warn!("cannot read socket owners from /proc: {error}"),
        }
    }

    fn report_flows(&mut self) {
        if !self.flows {
            return;
        }
        self.sockets(Wanted::Flowing, |worker, answer| {
            if let kernel::Answer::Socket(Socket { found, send_queue: unacked, progress: Some(progress), .. }) = answer
            {
                let Progress { acked, received, .. } = progress;
                worker.report(Event::Flow(Flow { at: found.at, id: found.id, acked, received, unacked }));
            }
        });
    }

    /// Calls `each` for the wanted sockets that pass the filter.
    fn sockets(&mut self, wanted: Wanted, mut each: impl FnMut(&mut Self, kernel::Answer)) {
        let filter = self.filter;
        let only: &[u32] = if filter.netns == 0 { &[] } else { &[filter.netns] };
        // The dump of IPv6 sockets includes those with IPv4-mapped addresses.
        let namespaces = Namespaces::find();
        let surveyed = kernel::survey(&namespaces, only, wanted, filter.family != 6, true, &mut |answer| {
            let passes = match &answer {
                kernel::Answer::Socket(socket) | kernel::Answer::Inspected(socket) => {
                    let (tuple, netns) = (&socket.found.tuple, socket.found.netns.unwrap_or(0));
                    filter.wants(netns, tuple.is_ipv4(), tuple.local_port, tuple.remote_port)
                }
                kernel::Answer::Multipath(_) | kernel::Answer::Namespace(_) => true,
            };
            if passes {
                each(self, answer);
            }
        });
        match surveyed {
            Ok(coverage) => {
                for (netns, reason) in coverage.unreadable {
                    log::warn!("cannot list the existing sockets of network namespace {netns}: {reason}");
                }
                self.send(Answer::Namespaces(namespaces));
            }
            Err(error) => log::warn!("cannot list the existing sockets: {error}"),
        }
    }

    fn report(&mut self, event: Event) {
        self.chunk.push(event);
        if self.chunk.len() >= CHUNK {
            self.hand_over();
        }
    }

    fn end(&mut self, event: impl FnOnce(u64) -> Event) {
        self.chunk.push(event(boot_ns().unwrap_or(0)));
        self.hand_over();
    }

    fn hand_over(&mut self) {
        let chunk = std::mem::take(&mut self.chunk);
        self.send(Answer::Events(chunk));
    }

    fn send(&self, answer: Answer) {
        self.to.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer that is outstanding took three seconds, and this much CPU time.
    fn slow(took: Option<Duration>) -> Queries {
        let mut queries = Queries::new(tcptrace_common::Filter::default());
        let since = Instant::now().checked_sub(Duration::from_secs(3)).expect("a machine that runs for so long");
        let (sender, answers) = channel(1);
        took.into_iter().for_each(|took| sender.try_send(Answer::Took(took)).expect("room"));
        queries.running = Some(Running { question: Question::Survey, since, took: None, answers });
        queries
    }

    fn end(queries: &mut Queries) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert!(runtime.block_on(queries.answer()).is_none());
    }

    #[test]
    fn what_is_wanted_now_does_not_wait_for_the_pause_of_what_runs() {
        let mut queries = slow(None);
        queries.want_now(Question::Survey);
        end(&mut queries);
        assert_eq!(queries.rest(), Duration::ZERO);
    }

    #[test]
    fn what_is_wanted_waits_for_the_pause() {
        let mut queries = slow(None);
        queries.want(Question::Survey);
        end(&mut queries);
        assert!(queries.rest() > Duration::from_secs(59));
    }

    #[test]
    fn the_pause_is_short_after_what_took_little_cpu_time() {
        let mut queries = slow(Some(Duration::from_millis(100)));
        queries.want(Question::Survey);
        end(&mut queries);
        let rest = queries.rest();
        assert!(rest > Duration::from_secs(1) && rest <= Duration::from_secs(2), "{rest:?}");
    }
}
