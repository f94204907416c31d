//! Looks at the kernel's counters, and at settings, accept queues and limits, beside the stream: in a thread that stays, or by
//! way of the helper.

mod parts;

use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::facts::{Facts, Owners, Reading};
use crate::kernel::{self, Namespaces};
use crate::live::clock::boot_ns;
use crate::live::queries::LastFound;
use crate::live::way::Way;
use crate::model::counters::{History, Sample};
use crate::model::stream::Item;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(1);
/// Pause after a slow look, as a multiple of the CPU time that it took: looks use at most a hundredth of one CPU.
const REST: u32 = 100;
/// How often to search for network namespaces if no event comes from an unknown one.
const SEARCH: Duration = Duration::from_secs(10);

/// The result of a look.
#[derive(Default)]
pub(super) struct Look {
    pub(super) samples: Vec<Sample>,
    /// What else is to be told.
    pub(super) facts: Vec<Item>,
    /// Processes that are gone.
    gone: Vec<u32>,
    /// All network namespaces, if the look included a search.
    pub(super) namespaces: Option<Namespaces>,
    /// CPU time.
    took: Duration,
}

/// How to look.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Wish {
    /// Report all counters, not only those that have changed.
    whole: bool,
    /// Search for network namespaces first.
    search: bool,
    facts: Reading,
}

/// Runs the thread that looks.
pub(super) struct Counting {
    wishes: Sender<Wish>,
    /// At most one per wish, so there is never more than one.
    looks: UnboundedReceiver<Look>,
    thread: JoinHandle<()>,
    is_looking: bool,
    /// The wish for the next look.
    wish: Wish,
    due: Instant,
    searched: Instant,
    /// The processes whose limits are read, if facts are wanted.
    owners: Option<Owners>,
    known: std::collections::HashSet<u32, FixedState>,
    /// The last known namespace; the next one is usually the same.
    last: Option<u32>,
}

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// The only network namespace; 0: all.
    pub(super) only: u32,
    /// Settings, accept queues and limits, too.
    pub(super) facts: bool,
    /// `/proc` numbers processes as events do.
    pub(super) knows_pids: bool,
}

impl Counting {
    /// Starts the thread and returns its first look. From then on no increase goes unseen. `way` leads to the helper, if this
    /// process does not look itself.
    pub(super) fn begin(namespaces: &Namespaces, scope: Scope, way: Option<Way>) -> Option<(Self, Look)> {
        let Scope { only, facts, knows_pids } = scope;
        let (wishes, wished) = channel();
        let (sender, looks) = unbounded_channel();
        let (first, begun) = channel();
        let known = namespaces.iter().map(|namespace| namespace.inode).collect();
        let namespaces = namespaces.clone();
        let run = move || match way {
            Some(way) => run(|wish| parts::ask(&way, wish), &first, &wished, &sender),
            None => {
                if let Some(mut thread) = Thread::begin(namespaces, only, facts) {
                    run(|wish| Some(thread.look(wish)), &first, &wished, &sender);
                }
            }
        };
        let spawned = std::thread::Builder::new().name("counters".into()).spawn(run);
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                log::warn!("cannot read the kernel's counters: cannot start a thread: {error}");
                return None;
            }
        };
        let look = begun.recv().ok()?;
        let now = Instant::now();
        let due = now + PERIOD.max(look.took * REST);
        let (wish, owners) = (Wish::default(), facts.then(|| Owners::new(now, knows_pids)));
        let counting =
            Self { wishes, looks, thread, is_looking: false, wish, due, searched: now, owners, known, last: None };
        Some((counting, look))
    }

    /// Makes the next look report all counters.
    pub(super) fn want_whole(&mut self) {
        self.wish.whole = true;
    }

    /// Notes that an event came from this network namespace.
    pub(super) fn note(&mut self, netns: u32) {
        if self.last != Some(netns) {
            self.last = Some(netns);
            // A namespace that is not found is not searched for again.
            self.wish.search |= self.known.insert(netns);
        }
    }

    /// This process has sockets.
    pub(super) fn note_process(&mut self, pid: u32) {
        if let Some(owners) = &mut self.owners {
            owners.note(pid);
        }
    }

    /// Time until the next look; forever during a look.
    pub(super) fn rest(&self) -> Duration {
        if self.is_looking { Duration::MAX } else { self.due.saturating_duration_since(Instant::now()) }
    }

    /// Starts a look, if it is due.
    pub(super) fn ask(&mut self) {
        let now = Instant::now();
        if self.is_looking || now < self.due {
            return;
        }
        let mut wish = std::mem::take(&mut self.wish);
        wish.search |= now.duration_since(self.searched) >= SEARCH;
        if let Some(owners) = &mut self.owners {
            wish.facts = owners.next(now);
        }
        self.is_looking = self.wishes.send(wish).is_ok();
        self.due = now + PERIOD;
    }

    /// Waits for the result of a look; forever if none is running.
    pub(super) async fn look(&mut self) -> Look {
        if !self.is_looking {
            return std::future::pending().await;
        }
        let Some(look) = self.looks.recv().await else {
            // The thread has ended, which only a failure can cause.
            self.due = Instant::now() + SEARCH;
            self.is_looking = false;
            return Look::default();
        };
        self.take(&look);
        look
    }

    fn take(&mut self, look: &Look) {
        let now = Instant::now();
        self.is_looking = false;
        if let Some(owners) = &mut self.owners {
            owners.forget(&look.gone);
        }
        self.due = self.due.max(now + look.took * REST);
        if let Some(namespaces) = &look.namespaces {
            self.searched = now;
            self.known = namespaces.iter().map(|namespace| namespace.inode).collect();
            self.last = None;
        }
    }

    /// Takes a last look, and waits for it.
    pub(super) fn finish(self) -> Vec<Look> {
        let Self { wishes, mut looks, thread, mut owners, .. } = self;
        let facts = owners.as_mut().map(Owners::last).unwrap_or_default();
        // If the thread cannot be asked, it has ended.
        let _ = wishes.send(Wish { whole: true, search: false, facts });
        drop(wishes);
        if thread.join().is_err() {
            log::warn!("internal error: the thread that reads the kernel's counters panicked");
        }
        std::iter::from_fn(|| looks.try_recv().ok()).collect()
    }
}

/// Looks once, and then as often as is wished, until there is no look.
fn run(
    mut look: impl FnMut(&Wish) -> Option<Look>,
    first: &Sender<Look>,
    wished: &Receiver<Wish>,
    looks: &UnboundedSender<Look>,
) {
    let begun = look(&Wish { whole: true, search: false, facts: Reading::FIRST });
    if begun.is_none_or(|begun| first.send(begun).is_err()) {
        return;
    }
    while let Ok(wish) = wished.recv() {
        if look(&wish).is_none_or(|look| looks.send(look).is_err()) {
            break;
        }
    }
}

/// Looks for the process that follows the kernel, until it is gone. To begin with, these namespaces are known.
pub(super) fn serve(way: &Way, found: &LastFound, scope: Scope) {
    let known = || found.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(first) = way.take::<Wish>() else { return };
    let namespaces = known().clone();
    let Some(mut thread) = Thread::begin(namespaces, scope.only, scope.facts) else {
        // It does not ask again.
        let _ = parts::send_none(way);
        return;
    };
    let mut next = Ok(first);
    while let Ok(mut wish) = next {
        wish.facts.limit();
        let look = thread.look(&wish);
        if let Some(namespaces) = &look.namespaces {
            *known() = namespaces.clone();
        }
        if parts::send(way, look).is_err() {
            break;
        }
        next = way.take();
    }
}

/// State of the thread.
struct Thread {
    counting: kernel::Counting,
    history: History,
    facts: Option<Facts>,
}

impl Thread {
    fn begin(namespaces: Namespaces, only: u32, facts: bool) -> Option<Self> {
        match kernel::Counting::new(namespaces, only) {
            Ok(counting) => Some(Self { counting, history: History::default(), facts: facts.then(Facts::default) }),
            Err(error) => {
                log::warn!("cannot read the kernel's counters: {error}");
                None
            }
        }
    }

    fn look(&mut self, wish: &Wish) -> Look {
        let before = kernel::thread_time();
        let Self { counting, history, facts } = self;
        if wish.search {
            counting.search();
        }
        let mut samples = Vec::new();
        let now = || boot_ns().unwrap_or(0);
        if let Some(facts) = facts {
            facts.begin(&wish.facts, now());
        }
        let found = counting.look(&now, |reading| {
            if let Some(facts) = facts {
                facts.look_here(reading.netns, &now);
            }
            history.take(reading, wish.whole, &mut samples);
        });
        let all = found.map(|found| found.iter().map(|namespace| namespace.inode).collect());
        history.end_look(all.as_ref());
        let (facts, gone) = facts.as_mut().map(|facts| facts.end(&wish.facts, &now, all.as_ref())).unwrap_or_default();
        Look { samples, facts, gone, namespaces: found.cloned(), took: kernel::thread_time().saturating_sub(before) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::way::Fate;

    #[tcptrace_tests::test]
    fn it_looks_when_it_is_time_and_once_more_at_the_end() {
        tcptrace_tests::ability::need_root();
        let namespaces = Namespaces::find();
        let own = Namespaces::own_namespace().expect("its number");
        let scope = Scope { only: own, facts: false, knows_pids: true };
        let (mut counting, first) = Counting::begin(&namespaces, scope, None).expect("a thread");
        let sampled = |look: &Look| look.samples.iter().map(|sample| (sample.netns, sample.whole)).collect::<Vec<_>>();
        assert_eq!(sampled(&first), [(own, true)]);
        counting.ask();
        assert!(!counting.is_looking, "a look has just ended");
        let rest = counting.rest();
        assert!(rest > Duration::ZERO && rest <= PERIOD.max(first.took * REST), "{rest:?}");
        counting.note(own);
        assert!(!counting.wish.search, "it is known");
        counting.note(1);
        assert!(std::mem::take(&mut counting.wish.search));
        counting.note(own);
        counting.note(1);
        assert!(!counting.wish.search, "it was noted before");
        let looks = counting.finish();
        assert_eq!(looks.len(), 1);
        assert_eq!(sampled(&looks[0]).last(), Some(&(own, true)));
    }

    #[tcptrace_tests::test]
    fn the_helper_sees_the_same() {
        tcptrace_tests::ability::need_root();
        let (namespaces, own) = (Namespaces::find(), Namespaces::own_namespace().expect("its number"));
        let scope = Scope { only: own, facts: true, knows_pids: true };
        let fate = Fate::default();
        let (ours, theirs) = Way::pair(&fate).expect("a pair");
        let found = LastFound::default();
        *found.lock().expect("no thread has panicked") = namespaces.clone();
        let served = {
            let found = found.clone();
            std::thread::spawn(move || serve(&theirs, &found, scope))
        };
        let (mut counting, first) = Counting::begin(&namespaces, scope, Some(ours.clone())).expect("a thread");
        assert_eq!(first.samples.iter().map(|sample| (sample.netns, sample.whole)).collect::<Vec<_>>(), [(own, true)]);
        let of_settings = |item: &Item| matches!(item, Item::Settings(settings) if settings.netns == Some(own));
        assert!(first.facts.iter().any(of_settings), "{:?}", first.facts);
        *found.lock().expect("no thread has panicked") = Namespaces::default();
        counting.wish.search = true;
        counting.due = Instant::now();
        counting.ask();
        let looks = counting.finish();
        assert_eq!(looks.len(), 2);
        let searched = looks[0].namespaces.as_ref().expect("it has searched");
        assert!(searched.iter().any(|namespace| namespace.inode == own));
        assert!(found.lock().expect("no thread has panicked").iter().any(|namespace| namespace.inode == own));
        ours.shut();
        served.join().expect("it ends");
        assert!(!fate.is_lost());
    }
}
