//! Names that were told, for as long as they need not be told again.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

/// How many ids a generation has before the next one begins.
const MOST: usize = 4096;
/// And how many bytes their names have.
const MOST_BYTES: usize = 4 << 20;
/// Length of the longest name of a file (`NAME_MAX` in `include/uapi/linux/limits.h`).
const LONGEST_NAME: usize = 255;

/// Names told, in two generations: whoever listens may forget a name of the generation before, unless a socket that
/// lives has it.
#[derive(Debug)]
pub(super) struct Told<K> {
    current: Generation<K>,
    previous: Generation<K>,
    /// Length of the current names.
    bytes: usize,
}

/// Ids that were mentioned, with their names if they have any.
type Generation<K> = HashMap<K, Option<Box<[u8]>>, FixedState>;

/// What is known of an id that is mentioned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recalled<'n> {
    /// Whoever listens knows its name, if it has one.
    Known,
    /// The name is to be told again.
    Again(&'n [u8]),
    /// It is to be looked up and [noted](Told::note).
    Unknown,
}

impl<K> Default for Told<K> {
    fn default() -> Self {
        Self { current: HashMap::default(), previous: HashMap::default(), bytes: 0 }
    }
}

impl<K: Copy + Eq + Hash> Told<K> {
    /// Looks for an id that is mentioned. Without a name, it is looked up again once in each generation.
    pub(super) fn recall(&mut self, id: K) -> Recalled<'_> {
        if self.current.contains_key(&id) {
            return Recalled::Known;
        }
        let Some(name) = self.previous.remove(&id).flatten() else { return Recalled::Unknown };
        self.bytes += name.len();
        self.current.entry(id).insert_entry(Some(name)).into_mut().as_deref().map_or(Recalled::Known, Recalled::Again)
    }

    /// Notes the name of an id, or that it has none. Returns whether that name is to be told.
    pub(super) fn note(&mut self, id: K, name: Option<&[u8]>) -> bool {
        let known = self.current.entry(id).or_default();
        let is_new = name.is_some() && known.as_deref() != name;
        if is_new {
            self.bytes += name.map_or(0, <[u8]>::len);
            *known = name.map(Into::into);
        }
        is_new
    }

    /// Whether the next generation should begin. This many ids, named by files, do not count.
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
        /// A socket of this id is seen, and lives from then on, or does not.
        Mention(u8, bool),
        /// Every socket of it ends.
        End(u8),
        /// It gets a name, or another one.
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

    /// Whoever listens, and the sockets that live.
    #[derive(Default)]
    struct Listener {
        names: HashMap<u8, Vec<u8>>,
        live: HashSet<u8>,
    }

    proptest! {
        /// Whoever keeps the names of live sockets only knows every name that is needed.
        #[test]
        fn whoever_listens_knows_what_is_mentioned(acts in prop::collection::vec(act(), 0..200)) {
            let mut told = Told::default();
            let mut listener = Listener::default();
            // Some have no name.
            let mut real: HashMap<u8, Vec<u8>> = (0..8).map(|id| (id, vec![id])).collect();
            for act in acts {
                match act {
                    Act::Mention(id, lives) => {
                        let heard = match told.recall(id) {
                            Recalled::Known => None,
                            Recalled::Again(name) => Some(name.to_vec()),
                            Recalled::Unknown => {
                                let name = real.get(&id);
                                let is_told = told.note(id, name.map(Vec::as_slice));
                                prop_assert_eq!(is_told, name.is_some());
                                name.cloned()
                            }
                        };
                        listener.names.extend(heard.map(|name| (id, name)));
                        if lives {
                            listener.live.insert(id);
                        }
                        prop_assert_eq!(listener.names.get(&id), real.get(&id));
                    }
                    Act::End(id) => {
                        listener.live.remove(&id);
                    }
                    Act::Rename(id) => {
                        let name = [real.get(&id).cloned().unwrap_or_default(), vec![id]].concat();
                        if told.note(id, Some(&name)) {
                            listener.names.insert(id, name.clone());
                        }
                        real.insert(id, name);
                    }
                    Act::Advance => {
                        told.advance();
                        let Listener { names, live } = &mut listener;
                        names.retain(|id, _| live.contains(id));
                    }
                }
                for id in &listener.live {
                    prop_assert_eq!(listener.names.get(id), real.get(id));
                }
                let bytes: usize = told.current.values().flatten().map(|name| name.len()).sum();
                prop_assert!(told.bytes >= bytes);
            }
        }
    }

    #[test]
    fn an_id_without_a_name_is_looked_up_once_in_each_generation() {
        let mut told = Told::default();
        assert_eq!(told.recall(1), Recalled::Unknown);
        assert!(!told.note(1, None));
        assert_eq!(told.recall(1), Recalled::Known);
        told.advance();
        assert_eq!(told.recall(1), Recalled::Unknown);
    }

    #[test]
    fn nothing_is_kept_for_more_than_two_generations() {
        let mut told = Told::default();
        let mut generations = 0;
        for id in 0..10 * MOST {
            if told.is_full(0) {
                told.advance();
                generations += 1;
            }
            assert_eq!(told.recall(id), Recalled::Unknown);
            told.note(id, Some(b"a name"));
            assert!(told.current.len() <= MOST + 1 && told.previous.len() <= MOST + 1);
        }
        assert_eq!(generations, 9);
        told.advance();
        told.note(0, Some(&[b'x'; MOST_BYTES + 1]));
        assert!(told.is_full(0), "few names, but long ones");
    }
}
