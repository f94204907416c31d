//! How many sockets are in each state: a look at regular times, in a thread of its own, or by way of the helper.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::way::Way;
use crate::kernel::{Answer, Namespaces, Wanted, survey, thread_time};
use crate::model::tcp::State;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(1);
/// Pause after a slow look, as a multiple of the CPU time that it took: looks use at most a third of a percent of one CPU.
const REST: u32 = 300;
/// How often to search for network namespaces.
const SEARCH: Duration = Duration::from_secs(10);

/// The last count. Dropping it ends the thread after its next look.
#[derive(Debug)]
pub struct Tally(Arc<Mutex<Option<Counted>>>);

type Counted = [u64; State::ALL.len()];

impl Tally {
    /// Counts the sockets in these states, in these network namespaces; in all, if there are none. `way` leads to the helper,
    /// if this process does not count itself.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn begin(states: &[State], only: Vec<u32>, way: Option<Way>) -> io::Result<Self> {
        let latest = Arc::new(Mutex::new(None));
        let theirs = Arc::downgrade(&latest);
        let question = (states.to_vec(), only);
        std::thread::Builder::new().name("tally".into()).spawn(move || {
            let mut counter = Counter::default();
            loop {
                let counted = match &way {
                    Some(way) => way.ask::<Option<(Counted, Duration)>>(&question).flatten(),
                    None => counter.count(&question.0, &question.1),
                };
                let Some(latest) = theirs.upgrade() else { break };
                *latest.lock().unwrap_or_else(PoisonError::into_inner) = counted.map(|(counted, _)| counted);
                drop(latest);
                std::thread::sleep(counted.map_or(PERIOD, |(_, took)| PERIOD.max(took * REST)));
            }
        })?;
        Ok(Self(latest))
    }

    /// How many sockets were in one of the states at the last look; `None` before the first one, and where it failed.
    pub fn of(&self, state: State) -> Option<u64> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(latest.as_ref()?[place(state)])
    }
}

/// Counts for the process that follows the kernel, until it is gone.
pub(super) fn serve(way: &Way) {
    let mut counter = Counter::default();
    way.serve(|(states, only): (Vec<State>, Vec<u32>)| counter.count(&states, &only));
}

/// Counts, in network namespaces that it searches for now and then.
#[derive(Default)]
struct Counter(Option<(Namespaces, Instant)>);

impl Counter {
    /// Also returns how much CPU time it took.
    fn count(&mut self, states: &[State], only: &[u32]) -> Option<(Counted, Duration)> {
        let before = thread_time();
        let is_fresh = |(_, searched): &(Namespaces, Instant)| searched.elapsed() < SEARCH;
        let known = self.0.take().filter(is_fresh);
        let (namespaces, _) = self.0.insert(known.unwrap_or_else(|| (Namespaces::find(), Instant::now())));
        let counted = count(namespaces, Wanted::in_states(states), only)?;
        Some((counted, thread_time().saturating_sub(before)))
    }
}

fn count(namespaces: &Namespaces, wanted: Wanted, only: &[u32]) -> Option<Counted> {
    let mut counted = Counted::default();
    let surveyed = survey(namespaces, only, wanted, true, true, &mut |answer| {
        if let Answer::Socket(socket) = answer {
            counted[place(socket.found.state)] += 1;
        }
    });
    surveyed.inspect_err(|error| log::warn!("cannot count sockets: {error}")).ok().map(|_| counted)
}

fn place(state: State) -> usize {
    State::ALL.iter().position(|known| *known == state).unwrap_or(0)
}
