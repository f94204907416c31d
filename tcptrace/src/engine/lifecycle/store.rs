//! Storage for live connections: found by key, ordered by when they were last seen, in little memory.
//!
//! Records lie side by side in chunks that never move: growing copies nothing. New records reuse vacant slots. The
//! order is a list through the records, and the index holds only their places.

use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::conn::Conn;
use crate::model::near::near;

/// Records of a chunk, as a power of two.
const CHUNK_BITS: u32 = 10;
const CHUNK: usize = 1 << CHUNK_BITS;

/// Sentinel: no place.
const NONE: u32 = u32::MAX;

/// How many connections fit at most.
pub(super) const MOST: usize = NONE as usize - 1;

/// The place of a connection, as long as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// Connections by key.
#[derive(Debug)]
pub(super) struct Store {
    chunks: Vec<Vec<Slot>>,
    /// Number of slots in the chunks.
    slots: u32,
    index: HashTable<u32>,
    /// The one unseen for longest, and the one seen last.
    first: u32,
    last: u32,
    /// A vacant slot; its `next` is another one.
    vacant: u32,
}

/// A record, or a vacant slot.
#[derive(Debug)]
struct Slot {
    conn: Conn,
    prev: u32,
    next: u32,
}

// With the index, which takes 5 bytes for each of its buckets and is at least 7/16 full, a record takes less than 160
// bytes.
const _: () = assert!(size_of::<Slot>() <= 144);

impl Default for Store {
    fn default() -> Self {
        Self { chunks: Vec::new(), slots: 0, index: HashTable::new(), first: NONE, last: NONE, vacant: NONE }
    }
}

impl Store {
    /// Number of connections.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The place of the connection with this key.
    pub(super) fn find(&self, key: u64) -> Option<Place> {
        let found = self.index.find(hash(key), |place| self.slot(*place).conn.key() == key);
        found.map(|place| Place(*place))
    }

    pub(super) fn contains(&self, key: u64) -> bool {
        self.find(key).is_some()
    }

    pub(super) fn get(&self, key: u64) -> Option<&Conn> {
        self.find(key).map(|place| &self[place])
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut Conn> {
        self.find(key).map(|place| &mut self[place])
    }

    /// All connections, those unseen for longest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Conn> {
        let next = |place: u32| (place != NONE).then_some(place);
        std::iter::successors(next(self.first), move |place| next(self.slot(*place).next))
            .map(|place| &self.slot(place).conn)
    }

    /// All connections, the one seen last first.
    pub(super) fn latest(&self) -> impl Iterator<Item = &Conn> {
        let before = |place: u32| (place != NONE).then_some(place);
        std::iter::successors(before(self.last), move |place| before(self.slot(*place).prev))
            .map(|place| &self.slot(place).conn)
    }

    /// All connections in no order, which takes less time where there are many. Vacant slots are among them, as
    /// connections that are closed.
    pub(super) fn all(&self) -> impl Iterator<Item = &Conn> {
        self.chunks.iter().flatten().map(|slot| &slot.conn)
    }

    /// Reads what is known of a connection, so that it is in the processor's cache when it is needed.
    pub(super) fn touch_memory(&self, key: u64) -> u64 {
        let Some(Place(place)) = self.find(key) else { return 0 };
        let Slot { conn, prev, next } = self.slot(place);
        conn.touch_memory() ^ u64::from(prev ^ next)
    }

    /// Keeps it as the one seen last, and replaces one with the same key.
    pub(super) fn insert(&mut self, conn: Conn) -> Place {
        let place = self.place(conn);
        self.link_last(place);
        Place(place)
    }

    /// The same, when no connection has its key.
    pub(super) fn add(&mut self, conn: Conn) -> Place {
        let place = self.place_new(conn);
        self.link_last(place);
        Place(place)
    }

    /// Keeps it as the one unseen for longest, and replaces one with the same key.
    pub(super) fn insert_first(&mut self, conn: Conn) {
        let place = self.place(conn);
        self.link_first(place);
    }

    /// Makes it the one seen last.
    pub(super) fn touch(&mut self, Place(place): Place) {
        if self.last != place {
            self.unlink(place);
            self.link_last(place);
        }
    }

    pub(super) fn remove(&mut self, Place(place): Place) -> Conn {
        if let Ok(entry) = self.index.find_entry(hash_of(self.slot(place)), |other| *other == place) {
            entry.remove();
        }
        self.unlink(place);
        let vacant = std::mem::replace(&mut self.vacant, place);
        let slot = self.slot_mut(place);
        slot.next = vacant;
        std::mem::replace(&mut slot.conn, Conn::VACANT)
    }

    pub(super) fn remove_key(&mut self, key: u64) -> Option<Conn> {
        self.find(key).map(|place| self.remove(place))
    }

    /// Removes the one unseen for longest.
    pub(super) fn pop_first(&mut self) -> Option<Conn> {
        (self.first != NONE).then(|| self.remove(Place(self.first)))
    }

    /// Puts it into a slot that is in the index, but in no list.
    fn place(&mut self, conn: Conn) -> u32 {
        let Some(Place(place)) = self.find(conn.key()) else { return self.place_new(conn) };
        self.unlink(place);
        self.slot_mut(place).conn = conn;
        place
    }

    fn place_new(&mut self, conn: Conn) -> u32 {
        let hash = hash(conn.key());
        let place = self.room();
        self.slot_mut(place).conn = conn;
        let chunks = &self.chunks;
        self.index.insert_unique(hash, place, |place| hash_of(slot(chunks, *place)));
        place
    }

    /// A vacant slot.
    fn room(&mut self) -> u32 {
        if self.vacant != NONE {
            let next = self.slot(self.vacant).next;
            return std::mem::replace(&mut self.vacant, next);
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(Slot { conn: Conn::VACANT, prev: NONE, next: NONE });
        }
        self.slots += 1;
        self.slots - 1
    }

    fn link_last(&mut self, place: u32) {
        let before = std::mem::replace(&mut self.last, place);
        let slot = self.slot_mut(place);
        (slot.prev, slot.next) = (before, NONE);
        match before {
            NONE => self.first = place,
            before => self.slot_mut(before).next = place,
        }
    }

    fn link_first(&mut self, place: u32) {
        let after = std::mem::replace(&mut self.first, place);
        let slot = self.slot_mut(place);
        (slot.prev, slot.next) = (NONE, after);
        match after {
            NONE => self.last = place,
            after => self.slot_mut(after).prev = place,
        }
    }

    fn unlink(&mut self, place: u32) {
        let Slot { prev, next, .. } = *self.slot(place);
        match prev {
            NONE => self.first = next,
            prev => self.slot_mut(prev).next = next,
        }
        match next {
            NONE => self.last = prev,
            next => self.slot_mut(next).prev = prev,
        }
    }

    fn slot(&self, place: u32) -> &Slot {
        slot(&self.chunks, place)
    }

    fn slot_mut(&mut self, place: u32) -> &mut Slot {
        &mut self.chunks[place as usize >> CHUNK_BITS][place as usize % CHUNK]
    }
}

fn slot(chunks: &[Vec<Slot>], place: u32) -> &Slot {
    &chunks[place as usize >> CHUNK_BITS][place as usize % CHUNK]
}

fn hash_of(slot: &Slot) -> u64 {
    hash(slot.conn.key())
}

fn hash(key: u64) -> u64 {
    near(key)
}

impl Index<Place> for Store {
    type Output = Conn;

    fn index(&self, Place(place): Place) -> &Conn {
        &self.slot(place).conn
    }
}

impl IndexMut<Place> for Store {
    fn index_mut(&mut self, Place(place): Place) -> &mut Conn {
        &mut self.slot_mut(place).conn
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn conn(key: u64, gaps: u32) -> Conn {
        let mut conn = Conn::numbered(key);
        conn.gaps = gaps;
        conn
    }

    fn keys(store: &Store) -> Vec<u64> {
        store.iter().map(Conn::key).collect()
    }

    #[test]
    fn the_order_is_that_in_which_they_were_seen() {
        let mut store = Store::default();
        let places = [1, 2, 3].map(|key| store.insert(conn(key, 0)));
        store.touch(places[0]);
        store.insert_first(conn(4, 0));
        assert_eq!(keys(&store), [4, 2, 3, 1]);
        store.touch(places[1]);
        assert_eq!(store.pop_first().map(|conn| conn.key()), Some(4));
        assert_eq!(keys(&store), [3, 1, 2]);
    }

    #[test]
    fn nothing_is_in_an_empty_one() {
        let mut store = Store::default();
        assert!(store.pop_first().is_none() && store.find(0).is_none() && store.iter().next().is_none());
        let place = store.insert(conn(0, 0));
        store.remove(place);
        assert!(store.pop_first().is_none() && store.find(0).is_none() && store.iter().next().is_none());
    }

    #[test]
    fn room_is_used_again() {
        let mut store = Store::default();
        for key in 0..3 * CHUNK as u64 {
            store.insert(conn(key, 0));
            if store.len() > CHUNK {
                store.pop_first();
            }
        }
        assert_eq!((store.len(), store.chunks.len()), (CHUNK, 2));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Insert(u64),
        InsertFirst(u64),
        Touch(u64),
        Remove(u64),
        PopFirst,
    }

    fn act() -> impl Strategy<Value = Act> {
        let key = 0_u64..24;
        prop_oneof![
            4 => key.clone().prop_map(Act::Insert),
            1 => key.clone().prop_map(Act::InsertFirst),
            2 => key.clone().prop_map(Act::Touch),
            2 => key.prop_map(Act::Remove),
            1 => Just(Act::PopFirst),
        ]
    }

    proptest! {
        /// It behaves like a list of keys and versions.
        #[test]
        fn it_is_a_list_and_a_map(acts in proptest::collection::vec(act(), 0..200)) {
            let mut store = Store::default();
            let mut model: Vec<(u64, u32)> = Vec::new();
            for (version, act) in (0_u32..).zip(acts) {
                let place_of = |model: &[(u64, u32)], key| model.iter().position(|(other, _)| *other == key);
                match act {
                    Act::Insert(key) | Act::InsertFirst(key) => {
                        model.retain(|(other, _)| *other != key);
                        if matches!(act, Act::Insert(_)) {
                            store.insert(conn(key, version));
                            model.push((key, version));
                        } else {
                            store.insert_first(conn(key, version));
                            model.insert(0, (key, version));
                        }
                    }
                    Act::Touch(key) => {
                        if let Some(at) = place_of(&model, key) {
                            let one = model.remove(at);
                            model.push(one);
                        }
                        if let Some(place) = store.find(key) {
                            store.touch(place);
                        }
                    }
                    Act::Remove(key) => {
                        let expected = place_of(&model, key).map(|at| model.remove(at));
                        let removed = store.remove_key(key).map(|conn| (conn.key(), conn.gaps));
                        prop_assert_eq!(removed, expected);
                    }
                    Act::PopFirst => {
                        let expected = (!model.is_empty()).then(|| model.remove(0));
                        let removed = store.pop_first().map(|conn| (conn.key(), conn.gaps));
                        prop_assert_eq!(removed, expected);
                    }
                }
                let all: Vec<_> = store.iter().map(|conn| (conn.key(), conn.gaps)).collect();
                prop_assert_eq!(&all, &model);
                prop_assert_eq!(store.len(), model.len());
                let known: HashSet<u64> = model.iter().map(|(key, _)| *key).collect();
                for key in 0..24 {
                    prop_assert_eq!(store.get(key).map(Conn::key), known.contains(&key).then_some(key));
                }
            }
        }
    }
}
