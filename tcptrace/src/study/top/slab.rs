//! Sockets by key, in little memory: they lie side by side in chunks that never move, and the index has their places only.

use hashbrown::HashTable;

use super::sockets::{Key, Socket};
use crate::model::near::near;

/// Sockets of a chunk, as a power of two.
const CHUNK_BITS: u32 = 10;
const CHUNK: usize = 1 << CHUNK_BITS;

/// Sockets by key.
#[derive(Debug, Default)]
pub(super) struct Slab {
    chunks: Vec<Vec<Slot>>,
    index: HashTable<u32>,
    /// Places without a socket.
    vacant: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    socket: Option<Socket>,
}

impl Slab {
    pub(super) fn get(&self, key: &Key) -> Option<&Socket> {
        let place = self.index.find(hash(key), |place| slot(&self.chunks, *place).key == *key)?;
        slot(&self.chunks, *place).socket.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Socket> {
        let place = *self.index.find(hash(key), |place| slot(&self.chunks, *place).key == *key)?;
        self.slot_mut(place).socket.as_mut()
    }

    /// The socket with this key: `true` if it is new.
    pub(super) fn get_or_insert_with(&mut self, key: Key, make: impl FnOnce() -> Socket) -> (&mut Socket, bool) {
        let hash = hash(&key);
        let known = self.index.find(hash, |place| slot(&self.chunks, *place).key == key).copied();
        let place = known.unwrap_or_else(|| {
            let place = self.room();
            let chunks = &self.chunks;
            self.index.insert_unique(hash, place, |place| self::hash(&slot(chunks, *place).key));
            place
        });
        let slot = self.slot_mut(place);
        slot.key = key;
        (slot.socket.get_or_insert_with(make), known.is_none())
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Socket> {
        let entry = self.index.find_entry(hash(key), |place| slot(&self.chunks, *place).key == *key);
        let (place, _) = entry.ok()?.remove();
        self.vacant.push(place);
        self.slot_mut(place).socket.take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Socket)> {
        self.chunks.iter().flatten().filter_map(|slot| Some((&slot.key, slot.socket.as_ref()?)))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.iter().map(|(key, _)| key)
    }

    /// A place without a socket.
    fn room(&mut self) -> u32 {
        if let Some(place) = self.vacant.pop() {
            return place;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let Some(chunk) = self.chunks.last_mut() else { return 0 };
        chunk.push(Slot { key: Key::default(), socket: None });
        u32::try_from(before + chunk.len() - 1).unwrap_or(u32::MAX)
    }

    fn slot_mut(&mut self, place: u32) -> &mut Slot {
        &mut self.chunks[place as usize >> CHUNK_BITS][place as usize % CHUNK]
    }
}

fn slot(chunks: &[Vec<Slot>], place: u32) -> &Slot {
    &chunks[place as usize >> CHUNK_BITS][place as usize % CHUNK]
}

fn hash(Key { origin, conn }: &Key) -> u64 {
    near(conn ^ (*origin as u64).rotate_left(48))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::tcp::State;
    use crate::study::report::testing::connection;

    fn socket(since: u64) -> Socket {
        let mut socket = Socket::new(connection(&[]).identity, State::Established);
        socket.since = Some(since);
        socket
    }

    proptest! {
        /// It behaves like a map of keys and versions.
        #[test]
        fn it_is_a_map(acts in proptest::collection::vec((any::<bool>(), 0_usize..2, 0_u64..40), 0..300)) {
            let mut slab = Slab::default();
            let mut model: BTreeMap<Key, u64> = BTreeMap::new();
            for (version, (inserts, origin, conn)) in (0..).zip(acts) {
                let key = Key { origin, conn };
                if inserts {
                    let (kept, is_new) = slab.get_or_insert_with(key, || socket(version));
                    prop_assert_eq!(is_new, !model.contains_key(&key));
                    prop_assert_eq!(kept.since, Some(*model.entry(key).or_insert(version)));
                } else {
                    prop_assert_eq!(slab.remove(&key).and_then(|it| it.since), model.remove(&key));
                }
                let mut all: Vec<_> = slab.iter().map(|(key, it)| (*key, it.since.unwrap_or(0))).collect();
                all.sort_unstable();
                prop_assert_eq!(all, model.iter().map(|(key, since)| (*key, *since)).collect::<Vec<_>>());
                prop_assert_eq!(slab.get(&key).and_then(|it| it.since), model.get(&key).copied());
                prop_assert_eq!(slab.get_mut(&key).map(|it| it.since), model.get(&key).map(|it| Some(*it)));
            }
        }
    }
}
