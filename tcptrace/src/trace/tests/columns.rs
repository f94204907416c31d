//! Columns say the same as records, whatever is written and however it is damaged.

use super::*;
use crate::model::transition::Transition;

/// A file with one block for each list of items, as earlier versions wrote it.
fn old_file(blocks: &[Vec<Item>]) -> Vec<u8> {
    let mut encoder = Encoder::new(RECORDING).expect("memory").in_records();
    let mut bytes = Vec::new();
    for items in blocks {
        items.iter().for_each(|item| encoder.push(item).expect("it fits"));
        let mut block = encoder.finish(0).expect("it can be packed");
        let len = FRAME_HEADER + size_of::<BlockHead>();
        let mut head = BlockHead::parse(&block[FRAME_HEADER..len]).expect("a head");
        head.version.set(1);
        block[..len].copy_from_slice(&head.frame());
        bytes.extend(block);
    }
    bytes
}

/// The events of a few sockets, one after the other.
fn lives() -> impl Strategy<Value = Vec<Item>> {
    let life = (changes(), prop::collection::vec((changes(), 0..1_000_u64, any::<bool>()), 1..12));
    let lives = prop::collection::vec(life, 1..8);
    lives.prop_map(|lives| {
        let mut at = 1_000_000;
        let mut items = Vec::new();
        for (first, more) in lives {
            items.push(Item::Event(Event::Change(Change { at, ..first })));
            for (other, after, is_same) in more {
                at += after;
                let Change { id, tuple, netns, uid, address, .. } = first;
                let change =
                    if is_same { Change { id, tuple, netns, uid, address, ..other } } else { Change { id, ..other } };
                items.push(Item::Event(Event::Change(Change { at, ..change })));
            }
            items.push(Item::Event(Event::Destroyed { at, id: first.id, shut: None }));
        }
        items
    })
}

/// The unpacked data of the first block.
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut blocks = Blocks::new(bytes).expect("memory");
    let (_, raw) = blocks.next(|_| true).expect("bytes can be read").expect("a block").expect("it is whole");
    raw.to_vec()
}

/// What a reader of some sockets is to get.
fn wanted(items: &[Item], only: &[u64]) -> Vec<Item> {
    let is_wanted = |item: &&Item| match item {
        Item::Event(event) => !matches!(event.id(), Some(Id::Cookie(id)) if !only.contains(&id)),
        _ => true,
    };
    items.iter().filter(is_wanted).cloned().collect()
}

proptest! {
    #[test]
    fn they_say_what_records_say(blocks in prop::collection::vec(prop_oneof![
        prop::collection::vec(items(), 1..40), lives(),
    ], 1..4)) {
        let (new, new_damage) = read(&file(&blocks));
        let (old, old_damage) = read(&old_file(&blocks));
        prop_assert_eq!((new_damage, old_damage), (vec![], vec![]));
        prop_assert_eq!(&new, &blocks);
        prop_assert_eq!(new, old);
    }

    /// Whoever has only parts of a change writes the same bytes.
    #[test]
    fn changes_in_parts_are_written_like_events(items in prop::collection::vec(items(), 1..60)) {
        let mut encoder = Encoder::new(RECORDING).expect("memory");
        for item in &items {
            match item {
                Item::Event(Event::Change(change)) => encoder.push_change(&Parts(*change)),
                item => encoder.push(item),
            }.expect("it fits");
        }
        prop_assert_eq!(encoder.finish(0).expect("it can be packed"), file(&[items]));
    }

    #[test]
    fn the_events_of_some_sockets_are_read(items in prop_oneof![prop::collection::vec(items(), 1..60), lives()], only in prop::collection::vec(0..5_u64, 0..3)) {
        let raw = unpacked(&file(std::slice::from_ref(&items)));
        let (mut decoder, mut read) = (decode::Decoder::default(), Vec::new());
        let ids = only.iter().copied().collect();
        while decoder.next(&raw, 7, Some(&ids), &mut read) == Ok(true) {}
        // The records between columns are not sifted.
        prop_assert_eq!(wanted(&read, &only), wanted(&items, &only));
        let columns = read.iter().filter(|item| matches!(item, Item::Event(Event::Change(_) | Event::Mini(_))));
        let columns: Vec<_> = columns.cloned().collect();
        prop_assert_eq!(wanted(&columns, &only), columns);
    }

    /// Checksums protect against accidents, and not against people.
    #[test]
    fn no_change_of_bytes_makes_it_panic(items in prop_oneof![prop::collection::vec(items(), 1..60), lives()],
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in prop::option::of(any::<prop::sample::Index>())) {
        let mut raw = unpacked(&file(&[items]));
        for (place, byte) in changes {
            let place = place.index(raw.len());
            raw[place] = byte;
        }
        if let Some(cut) = cut {
            raw.truncate(cut.index(raw.len()));
        }
        let (mut decoder, mut read) = (decode::Decoder::default(), Vec::new());
        while decoder.next(&raw, 7, None, &mut read) == Ok(true) {}
        prop_assert!(read.len() <= raw.len());
        let mut sockets = 0;
        let mut decoder = decode::Decoder::default();
        decoder.each_socket(&raw, |_, _| sockets += 1);
        prop_assert!(sockets <= raw.len());
    }
}

/// A change that can only be asked for its parts.
struct Parts(Change);

impl Transition for Parts {
    fn at(&self) -> u64 {
        self.0.at
    }

    fn id(&self) -> Id {
        self.0.id
    }

    fn address(&self) -> Option<u64> {
        self.0.address
    }

    fn tuple(&self) -> Tuple {
        self.0.tuple
    }

    fn netns(&self) -> Option<u32> {
        self.0.netns
    }

    fn uid(&self) -> Option<u32> {
        self.0.uid
    }

    fn cgroup(&self) -> Option<u64> {
        self.0.cgroup
    }

    fn interface(&self) -> u32 {
        self.0.interface
    }

    fn leaves(&self) -> State {
        self.0.old
    }

    fn enters(&self) -> State {
        self.0.new
    }

    fn flags(&self) -> Option<Flags> {
        self.0.flags
    }

    fn idle(&self) -> Option<Idle> {
        self.0.idle
    }

    fn task(&self) -> Option<Task> {
        self.0.task
    }

    fn end(&self) -> Option<EndFacts> {
        self.0.end
    }
}

/// A code is a byte, so a block has columns for so many kinds of events only: what comes then has records.
#[test]
fn more_kinds_of_events_than_codes() {
    let Some(Item::Event(Event::Change(first))) = sample()[0].first().cloned() else { unreachable!("it is a change") };
    let bits = |number: u32, bit: u32| number & 1 << bit != 0;
    let change = |number: u32| {
        let flags = Flags {
            dead: bits(number, 0),
            done: bits(number, 1),
            has_socket: bits(number, 2),
            rcv_shutdown: bits(number, 3),
            send_shutdown: bits(number, 4),
            ..Flags::default()
        };
        let (old, new) = (State::ALL[number as usize / 32 % 11], State::ALL[number as usize / 352]);
        Item::Event(Event::Change(Change { at: u64::from(number), old, new, flags: Some(flags), ..first }))
    };
    let items: Vec<_> = (0..1_000).map(change).collect();
    let (blocks, damage) = read(&file(&[items.clone(), items.clone()]));
    assert_eq!((blocks, damage), (vec![items.clone(), items], vec![]));
}

/// The body of a record of columns: how many entries, and the columns by their places.
fn columns(entries: u8, columns: &[(usize, &[u8])]) -> Vec<u8> {
    let mut lens = [0; 28];
    columns.iter().for_each(|(place, bytes)| lens[*place] = bytes.len() as u8);
    let all: Vec<u8> = columns.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let body = [&[entries, 28][..], &lens, &all].concat();
    [&[kind::COLUMNS, body.len() as u8][..], &body].concat()
}

const RESET: [u8; 8] = [kind::RESET_RECEIVED, 0, 0, 0, 0, 0, 1, 0];
const AGAIN: [u8; 8] = [kind::RESET_RECEIVED, 0, 0, 0, 0, 0, 0, 0];

#[rstest]
#[case::a_record_that_is_not_there(columns(1, &[(5, &[0])]), 0)]
#[case::more_entries_than_codes(columns(2, &[(5, &[0])]), 0)]
#[case::a_code_without_a_shape(columns(1, &[(5, &[1])]), 0)]
#[case::a_shape_cut_off(columns(1, &[(0, &RESET[..7]), (5, &[1])]), 0)]
#[case::a_shape_of_unknown_kind(columns(1, &[(0, &[200, 0, 0, 0, 0, 0, 0, 0]), (5, &[1])]), 0)]
#[case::an_event_without_a_time(columns(1, &[(0, &RESET), (5, &[1])]), 0)]
#[case::an_address_of_no_family(columns(1, &[(1, &[5, 1, 2, 3, 4, 5]), (5, &[0])]), 0)]
#[case::a_socket_that_nobody_described(columns(1, &[(0, &AGAIN), (5, &[1]), (6, &[2]), (7, &[0]), (8, &[0]), (9, &[0])]), 0)]
#[case::columns_longer_than_the_record([kind::COLUMNS, 4, 1, 2, 9, 9].to_vec(), 0)]
#[case::columns_shorter_than_the_record([kind::COLUMNS, 5, 0, 1, 1, 9, 9].to_vec(), 0)]
#[case::columns_within_columns([columns(1, &[(5, &[0])]), columns(1, &[(5, &[0])])].concat(), 0)]
#[case::the_second_event([
    columns(2, &[(0, &RESET), (1, &[4, 127, 0, 0, 1]), (2, &[0, 0, 0, 0, 0]), (5, &[1, 1]), (6, &[2, 2]), (7, &[0, 0]),
        (8, &[0, 0]), (10, &[2]), (11, &[0]), (12, &[0]), (13, &[0]), (14, &[0]), (15, &[0]), (16, &[0])]),
].concat(), 1)]
fn invalid_columns_are_damage(#[case] raw: Vec<u8>, #[case] events: usize) {
    let passed = [kind::PASSED, 2, 2, 0];
    let (read, damage) = read(&block(&[&passed[..], &raw].concat()));
    assert_eq!(read[0].len(), 1 + events, "earlier items stay: {read:?}");
    assert!(matches!(damage[..], [Damage { what: Wrong::Record(_), .. }]), "{damage:?}");
}

/// A later version may add columns, and records that an entry stands for.
#[test]
fn additions_of_later_versions_to_columns_are_skipped() {
    let body = [&[2, 30][..], &[0; 5], &[2], &[0; 22], &[3, 1], &[0, 0], &[1, 2, 3, 4]].concat();
    let columns = [&[kind::COLUMNS, body.len() as u8][..], &body].concat();
    let raw = [&columns[..], &[200, 1, 7], &[kind::PASSED, 2, 2, 0], &[kind::PASSED, 2, 2, 0]].concat();
    let (read, damage) = read(&block(&raw));
    assert_eq!(damage, []);
    assert_eq!(read, [[1, 2].map(|at| Item::Event(Event::Passed { at }))]);
}
