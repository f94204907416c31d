//! Names that were announced, for as long as they need no repetition.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

/// Most ids in a generation.
const MOST: usize = 4096;
/// Most bytes of names in a generation.
const MOST_BYTES: usize = 4 << 20;
/// Length of the longest name of a file (`NAME_MAX` in `include/uapi/linux/limits.h`).
const LONGEST_NAME: usize = 255;

/// Announced names, in two generations. A reader may forget a name of the previous generation, unless a live socket
/// uses it.
#[derive(Debug)]
pub(super) struct Announced<K> {
    current: Generation<K>,
    previous: Generation<K>,
    /// Length of the names in the current generation.
    bytes: usize,
}

/// Ids that were mentioned, with their names if they have any.
type Generation<K> = HashMap<K, Option<Box<[u8]>>, FixedState>;

/// What is known of an id that an event mentions.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recalled<'n> {
    /// The reader knows its name, if it has one.
    Known,
    /// The name must be announced again.
    Again(&'n [u8]),
    /// The name must be looked up and [noted](Announced::note).
    Unknown,
}

impl<K> Default for Announced<K> {
    fn default() -> Self {
        Self { current: HashMap::default(), previous: HashMap::default(), bytes: 0 }
    }
}

impl<K: Copy + Eq + Hash> Announced<K> {
    /// Recalls an id that an event mentions. An id without a name is looked up again once in each generation.
    pub(super) fn recall(&mut self, id: K) -> Recalled<'_> {
        if self.current.contains_key(&id) {
            return Recalled::Known;
        }
        let Some(name) = self.previous.remove(&id).flatten() else { return Recalled::Unknown };
        self.bytes += name.len();
        self.current.entry(id).insert_entry(Some(name)).into_mut().as_deref().map_or(Recalled::Known, Recalled::Again)
    }

    /// Notes the name of an id, or that it has none. Returns whether the name must be announced.
    pub(super) fn note(&mut self, id: K, name: Option<&[u8]>) -> bool {
        let known = self.current.entry(id).or_default();
        let is_new = name.is_some() && known.as_deref() != name;
        if is_new {
            self.bytes += name.map_or(0, <[u8]>::len);
            *known = name.map(Into::into);
        }
        is_new
    }

    /// Whether the next generation should begin. `beside` ids with names from files do not count.
    pub(super) fn is_full(&self, beside: usize) -> bool {
        self.current.len() > MOST + beside || self.bytes > MOST_BYTES + beside * LONGEST_NAME
    }

    /// Begins the next generation.
    pub(super) fn advance(&mut self) {
        self.previous = std::mem::take(&mut self.current);
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        /// An event mentions a socket of this id. The flag says whether the socket lives from then on.
        Mention(u8, bool),
        /// Every socket of the id ends.
        End(u8),
        /// The id gets a name, or another one.
        Rename(u8),
        Advance,
    }

    fn act() -> impl Strategy<Value = Act> {
        let id = 0_u8..12;
        prop_oneof![
            6 => (id.clone(), any::<bool>()).prop_map(|(id, lives)| Act::Mention(id, lives)),
            2 => id.clone().prop_map(Act::End),
            1 => id.prop_map(Act::Rename),
            2 => Just(Act::Advance),
        ]
    }

    /// A reader that keeps the names of live sockets.
    #[derive(Default)]
    struct Reader {
        names: HashMap<u8, Vec<u8>>,
        live: HashSet<u8>,
    }

    proptest! {
        /// A reader that keeps only the names of live sockets knows every name that it needs.
        #[test]
        fn a_reader_knows_every_mentioned_name(acts in prop::collection::vec(act(), 0..200)) {
            let mut announced = Announced::default();
            let mut reader = Reader::default();
            // Some ids have no name.
            let mut real: HashMap<u8, Vec<u8>> = (0..8).map(|id| (id, vec![id])).collect();
            for act in acts {
                match act {
                    Act::Mention(id, lives) => {
                        let heard = match announced.recall(id) {
                            Recalled::Known => None,
                            Recalled::Again(name) => Some(name.to_vec()),
                            Recalled::Unknown => {
                                let name = real.get(&id);
                                let is_announced = announced.note(id, name.map(Vec::as_slice));
                                prop_assert_eq!(is_announced, name.is_some());
                                name.cloned()
                            }
                        };
                        reader.names.extend(heard.map(|name| (id, name)));
                        if lives {
                            reader.live.insert(id);
                        }
                        prop_assert_eq!(reader.names.get(&id), real.get(&id));
                    }
                    Act::End(id) => {
                        reader.live.remove(&id);
                    }
                    Act::Rename(id) => {
                        let name = [real.get(&id).cloned().unwrap_or_default(), vec![id]].concat();
                        if announced.note(id, Some(&name)) {
                            reader.names.insert(id, name.clone());
                        }
                        real.insert(id, name);
                    }
                    Act::Advance => {
                        announced.advance();
                        let Reader { names, live } = &mut reader;
                        names.retain(|id, _| live.contains(id));
                    }
                }
                for id in &reader.live {
                    prop_assert_eq!(reader.names.get(id), real.get(id));
                }
                let bytes: usize = announced.current.values().flatten().map(|name| name.len()).sum();
                prop_assert!(announced.bytes >= bytes);
            }
        }
    }

    #[test]
    fn an_id_without_a_name_is_looked_up_once_in_each_generation() {
        let mut announced = Announced::default();
        assert_eq!(announced.recall(1), Recalled::Unknown);
        assert!(!announced.note(1, None));
        assert_eq!(announced.recall(1), Recalled::Known);
        announced.advance();
        assert_eq!(announced.recall(1), Recalled::Unknown);
    }

    #[test]
    fn nothing_is_kept_for_more_than_two_generations() {
        let mut announced = Announced::default();
        let mut generations = 0;
        for id in 0..10 * MOST {
            if announced.is_full(0) {
                announced.advance();
                generations += 1;
            }
            assert_eq!(announced.recall(id), Recalled::Unknown);
            announced.note(id, Some(b"a name"));
            assert!(announced.current.len() <= MOST + 1 && announced.previous.len() <= MOST + 1);
        }
        assert_eq!(generations, 9);
        announced.advance();
        announced.note(0, Some(&[b'x'; MOST_BYTES + 1]));
        assert!(announced.is_full(0), "few names, but long ones");
    }
}
