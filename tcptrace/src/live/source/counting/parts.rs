//! A look as messages. What a trace has as JSON is JSON here, too.

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Look, Wish};
use crate::live::way::{Listed, Way};
use crate::model::counters::Sample;
use crate::model::facts::{AcceptQueues, Limits, Settings};
use crate::model::stream::Item;

/// Samples, or other facts, in a message.
const MOST: usize = 64;

/// A part of a look.
#[derive(Debug, Serialize, Deserialize)]
enum Part {
    /// There is no look, and there will be none.
    None,
    /// Of samples.
    Samples(Vec<u8>),
    /// Of [`Fact`].
    Facts(Vec<u8>),
    End {
        gone: Vec<u32>,
        namespaces: Option<Listed>,
        took_ns: u64,
    },
}

/// What a look tells beside counters.
#[derive(Debug, Serialize, Deserialize)]
enum Fact {
    Settings(Box<Settings>),
    AcceptQueues(Box<AcceptQueues>),
    Limits(Box<Limits>),
}

impl Fact {
    fn of(item: Item) -> Option<Self> {
        match item {
            Item::Settings(settings) => Some(Self::Settings(settings)),
            Item::AcceptQueues(queues) => Some(Self::AcceptQueues(queues)),
            Item::Limits(limits) => Some(Self::Limits(limits)),
            _ => None,
        }
    }
}

impl From<Fact> for Item {
    fn from(fact: Fact) -> Self {
        match fact {
            Fact::Settings(settings) => Self::Settings(settings),
            Fact::AcceptQueues(queues) => Self::AcceptQueues(queues),
            Fact::Limits(limits) => Self::Limits(limits),
        }
    }
}

/// Asks the helper to look; `None` if it cannot, or is lost.
pub(super) fn ask(way: &Way, wish: &Wish) -> Option<Look> {
    if way.fate().is_lost() {
        return None;
    }
    way.tell(wish)?;
    let mut look = Look::default();
    loop {
        match way.hear()? {
            Part::None => return None,
            Part::Samples(json) => look.samples.extend(read::<Sample>(way, &json)?),
            Part::Facts(json) => look.facts.extend(read::<Fact>(way, &json)?.into_iter().map(Item::from)),
            Part::End { gone, namespaces, took_ns } => {
                let (namespaces, took) = (namespaces.map(Into::into), Duration::from_nanos(took_ns));
                return Some(Look { gone, namespaces, took, ..look });
            }
        }
    }
}

fn read<T: DeserializeOwned>(way: &Way, json: &[u8]) -> Option<Vec<T>> {
    serde_json::from_slice(json).inspect_err(|_| way.fate().lose()).ok()
}

/// Sends a look.
pub(super) fn send(way: &Way, look: Look) -> io::Result<()> {
    let Look { samples, facts, gone, namespaces, took } = look;
    for samples in samples.chunks(MOST) {
        way.send(&Part::Samples(serde_json::to_vec(samples)?))?;
    }
    let mut facts = facts.into_iter().filter_map(Fact::of).peekable();
    while facts.peek().is_some() {
        let some: Vec<Fact> = facts.by_ref().take(MOST).collect();
        way.send(&Part::Facts(serde_json::to_vec(&some)?))?;
    }
    let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    way.send(&Part::End { gone, namespaces: namespaces.as_ref().map(Listed::from), took_ns })
}

/// Says that there is no look.
pub(super) fn send_none(way: &Way) -> io::Result<()> {
    way.send(&Part::None)
}
