//! From events to columns.

use std::hash::{BuildHasher as _, Hash};
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::super::columns::{COUNT, IS_IDLE, MOST_SHAPES, Shape, at, more};
use super::super::wire::{self, kind};
use super::{Described, Mentioned, UNSET, end_body, hash};
use crate::model::event::{EndFacts, Event, Id, Idle, Mini};
use crate::model::tcp::{Task, Tuple};
use crate::model::transition::Transition;

/// Shapes that were looked up last are found by some bits of a hash.
const RECENT: usize = 1 << RECENT_BITS;
const RECENT_BITS: u32 = 9;

/// The columns of a block.
pub(super) struct Columns {
    columns: [Vec<u8>; COUNT],
    /// Bytes in all columns.
    len: usize,
    entries: u32,
    /// Records since the last event here.
    records: u32,
    before: u64,
    socket_before: u32,
    id_before: u64,
    ports_before: (u16, u16),
    /// The addresses that were described last, and their numbers.
    ips_before: [(Ipv6Addr, u32); 2],
    /// Lowest and highest id of the sockets.
    ids: Option<(u64, u64)>,
    shapes: Vec<Shape>,
    /// The bytes of a shape and its code, by their hash.
    recent: Box<[(u64, u8); RECENT]>,
    sockets: Vec<Known>,
    /// Index into `sockets`. It contains nothing else, so that it fits into the processor's cache.
    index: HashTable<u32>,
    ips: Words<Ipv6Addr>,
    owners: Words<Owner>,
    tasks: Words<Task>,
    ends: Words<End>,
    addresses: Words<u64>,
}

/// A socket that the reader knows.
struct Known {
    described: Described,
    address: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Owner {
    netns: u32,
    uid: u32,
    cgroup: u64,
    interface: u32,
    is_address: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct End {
    bytes_unread: u32,
    all_retransmits: u32,
    due_ns: u64,
    err: u16,
    bits: u8,
    retransmits: u8,
    probes: u8,
    mini: u8,
}

/// Values that are written once, each with its number.
struct Words<W> {
    words: Vec<W>,
    index: HashTable<u32>,
    last: u32,
}

impl<W> Default for Words<W> {
    fn default() -> Self {
        Self { words: Vec::new(), index: HashTable::new(), last: 0 }
    }
}

impl<W: Copy + Eq + Hash> Words<W> {
    /// The number of a word, and whether it is new. The next one is often the same.
    fn number(&mut self, word: &W) -> (u32, bool) {
        if self.words.get(self.last as usize) == Some(word) {
            return (self.last, false);
        }
        let Self { words, index, last } = self;
        let hash = |word: &W| FixedState::default().hash_one(word);
        let is_it = |number: &u32| words[*number as usize] == *word;
        let next = words.len() as u32;
        let is_new = match index.entry(hash(word), is_it, |number| hash(&words[*number as usize])) {
            Entry::Occupied(entry) => {
                *last = *entry.get();
                false
            }
            Entry::Vacant(entry) => {
                entry.insert(next);
                *last = next;
                true
            }
        };
        if is_new {
            words.push(*word);
        }
        (*last, is_new)
    }

    fn clear(&mut self) {
        self.words.clear();
        self.index.clear();
        self.last = 0;
    }
}

impl Columns {
    pub(super) fn new() -> Self {
        let no_ip = (Ipv6Addr::UNSPECIFIED, u32::MAX);
        Self {
            columns: [const { Vec::new() }; COUNT],
            len: 0,
            entries: 0,
            records: 0,
            before: 0,
            socket_before: 0,
            id_before: 0,
            ports_before: (0, 0),
            ips_before: [no_ip; 2],
            ids: None,
            shapes: Vec::with_capacity(MOST_SHAPES),
            recent: Box::new([(0, 0); RECENT]),
            sockets: Vec::new(),
            index: HashTable::new(),
            ips: Words::default(),
            owners: Words::default(),
            tasks: Words::default(),
            ends: Words::default(),
            addresses: Words::default(),
        }
    }

    /// Length of the record, or a little more.
    pub(super) fn len(&self) -> usize {
        /// Its kind, and all numbers before the columns.
        const HEAD: usize = 8 + 4 * COUNT;
        if self.entries == 0 { 0 } else { HEAD + self.len + self.records as usize }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Lowest and highest id of the sockets.
    pub(super) fn ids(&self) -> Option<(u64, u64)> {
        self.ids
    }

    /// Whether there is room for any other event.
    pub(super) fn has_room(&self) -> bool {
        self.shapes.len() < MOST_SHAPES
    }

    /// Notes that a record comes here that does more than describe.
    pub(super) fn note_record(&mut self) {
        self.records += 1;
    }

    pub(super) fn clear(&mut self) {
        self.columns.iter_mut().for_each(Vec::clear);
        (self.len, self.entries, self.records) = (0, 0, 0);
        (self.before, self.socket_before, self.id_before, self.ports_before) = (0, 0, 0, (0, 0));
        self.ips_before = [(Ipv6Addr::UNSPECIFIED, u32::MAX); 2];
        self.ids = None;
        self.shapes.clear();
        self.recent.fill((0, 0));
        self.sockets.clear();
        self.index.clear();
        self.ips.clear();
        self.owners.clear();
        self.tasks.clear();
        self.ends.clear();
        self.addresses.clear();
    }

    /// Appends the body of the record; nothing if there is no event.
    pub(super) fn body(&self) -> Option<(Vec<u8>, impl Iterator<Item = &[u8]> + Clone)> {
        if self.entries == 0 {
            return None;
        }
        let mut head = Vec::with_capacity(4 * COUNT);
        number(&mut head, self.entries.into());
        number(&mut head, COUNT as u64);
        for column in &self.columns {
            number(&mut head, column.len() as u64);
        }
        Some((head, self.columns.iter().map(Vec::as_slice)))
    }

    /// Appends an event; `false` if its place is in a record.
    pub(super) fn event(&mut self, event: &Event) -> bool {
        if !self.has_room() {
            return false;
        }
        let act = |kind: u8, number: u8| Shape { kind, number, ..Shape::default() };
        match *event {
            Event::Change(ref change) => self.change(change),
            Event::Destroyed { at, id, shut } => {
                self.act(at, id, act(kind::DESTROYED, wire::shut_to(shut) as u8), None);
            }
            Event::Accepted { at, id, task } => self.act(at, id, act(kind::ACCEPTED, 0), Some(task)),
            Event::ResetSent { at, id, reason } => {
                self.act(at, id, act(kind::RESET_SENT, wire::reason_to(reason)), None);
            }
            Event::ResetReceived { at, id } => self.act(at, id, act(kind::RESET_RECEIVED, 0), None),
            Event::Mini(ref mini) => self.mini(mini),
            _ => return false,
        }
        true
    }

    /// Appends a change. The caller makes sure that there is [room](Self::has_room).
    pub(super) fn change(&mut self, change: &impl Transition) {
        let mentioned = Mentioned {
            id: change.id(),
            tuple: Some(change.tuple()),
            netns: change.netns(),
            uid: change.uid(),
            cgroup: change.cgroup(),
            interface: change.interface(),
        };
        let (socket, described) = self.socket(&mentioned);
        let mut shape = Shape {
            kind: kind::CHANGE,
            states: wire::state_to(change.leaves()) | wire::state_to(change.enters()) << 4,
            bits: mentioned.bits() | wire::flag_bits(change.flags()),
            more: described,
            ..Shape::default()
        };
        if let Some(address) = change.address() {
            shape.more |= self.address(socket, address);
        }
        if let Some(idle) = change.idle() {
            shape.idle = self.idle(idle);
        }
        if let Some(task) = change.task() {
            shape.more |= more::TASK;
            self.task(&task);
        }
        if let Some(end) = change.end() {
            shape.more |= more::END;
            self.end(&end);
        }
        self.entry(change.at(), shape);
    }

    fn act(&mut self, at: u64, id: Id, mut shape: Shape, task: Option<Task>) {
        shape.more = self.mere(id);
        if let Some(task) = task {
            shape.more |= more::TASK;
            self.task(&task);
        }
        self.entry(at, shape);
    }

    fn mini(&mut self, mini: &Mini) {
        let Mini { at, id, tuple, netns, substate, due_ns, what } = *mini;
        let mentioned = Mentioned { tuple: Some(tuple), netns, ..Mentioned::only(id) };
        let (_, more) = self.socket(&mentioned);
        self.variable(at::DUE, zigzag(due_ns));
        let (states, number) = (wire::state_to(substate), wire::mini_to(what));
        self.entry(at, Shape { kind: kind::MINI, states, number, bits: mentioned.bits(), more, idle: 0 });
    }

    /// Appends the code of an event and its time.
    fn entry(&mut self, at: u64, shape: Shape) {
        let records = std::mem::take(&mut self.records);
        if records > 0 {
            let len = self.columns[at::CODE].len() + records as usize;
            self.columns[at::CODE].resize(len, 0);
            self.len += records as usize;
        }
        let code = self.code(shape);
        self.byte(at::CODE, code);
        self.entries += records + 1;
        let after = zigzag(at.wrapping_sub(self.before).cast_signed());
        self.before = at;
        self.byte(at::TIME_0, after as u8);
        self.byte(at::TIME_1, (after >> 8) as u8);
        self.variable(at::TIME_2, after >> 16);
    }

    fn code(&mut self, shape: Shape) -> u8 {
        let key = u64::from_le_bytes(shape.to_bytes());
        let place = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - RECENT_BITS)) as usize;
        let (known, code) = self.recent[place];
        if code != 0 && known == key {
            return code;
        }
        let number = self.shapes.iter().position(|known| *known == shape).unwrap_or_else(|| {
            self.shapes.push(shape);
            self.put(at::SHAPES, &shape.to_bytes());
            self.shapes.len() - 1
        });
        let code = number as u8 + 1;
        self.recent[place] = (key, code);
        code
    }

    /// The index of a socket that an event merely mentions, and what the event tells of it.
    fn mere(&mut self, id: Id) -> u16 {
        self.socket(&Mentioned::only(id)).1
    }

    /// The index of a socket. Describes it if the reader does not know it, or knows it differently: the second number says
    /// so.
    fn socket(&mut self, mentioned: &Mentioned) -> (u32, u16) {
        let Mentioned { id, tuple, netns, uid, cgroup, interface } = *mentioned;
        let Self { sockets, index, .. } = self;
        let next = sockets.len() as u32;
        let is_it = |index: &u32| sockets[*index as usize].described.id == id;
        let number = match index.entry(hash(id), is_it, |index| hash(sockets[*index as usize].described.id)) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => *entry.insert(next).get(),
        };
        let last = std::mem::replace(&mut self.socket_before, number);
        let Some(known) = self.sockets.get_mut(number as usize) else {
            let described = Described {
                id,
                tuple: tuple.unwrap_or(UNSET),
                netns: netns.unwrap_or(0),
                uid: uid.unwrap_or(0),
                cgroup: cgroup.unwrap_or(0),
                interface,
            };
            self.sockets.push(Known { described, address: None });
            let id = id.number();
            let after = zigzag(id.wrapping_sub(self.id_before).cast_signed());
            self.id_before = id;
            let (min, max) = self.ids.unwrap_or((id, id));
            self.ids = Some((min.min(id), max.max(id)));
            self.variable(at::ID, after);
            return (number, more::NEW | self.describe(&described));
        };
        let before = &mut known.described;
        let is_same = tuple.is_none_or(|tuple| tuple == before.tuple)
            && netns.is_none_or(|netns| netns == before.netns)
            && uid.is_none_or(|uid| uid == before.uid)
            && cgroup.is_none_or(|cgroup| cgroup == before.cgroup)
            && (interface == 0 || interface == before.interface);
        let mut told = 0;
        if !is_same {
            *before = Described {
                id,
                tuple: tuple.unwrap_or(before.tuple),
                netns: netns.unwrap_or(before.netns),
                uid: uid.unwrap_or(before.uid),
                cgroup: cgroup.unwrap_or(before.cgroup),
                interface: if interface != 0 { interface } else { before.interface },
            };
            let described = *before;
            told = more::AGAIN | self.describe(&described);
        }
        self.variable(at::SOCKET, zigzag(i64::from(number) - i64::from(last)));
        (number, told)
    }

    /// Describes a socket; says which port is the higher one.
    fn describe(&mut self, socket: &Described) -> u16 {
        let Tuple { local_ip, remote_ip, local_port, remote_port } = socket.tuple;
        let (low, high) = (local_port.min(remote_port), local_port.max(remote_port));
        let (low_before, high_before) = std::mem::replace(&mut self.ports_before, (low, high));
        self.variable(at::PORT_LOW, u64::from(zigzag_16(low.wrapping_sub(low_before))));
        let [high_0, high_1] = zigzag_16(high.wrapping_sub(high_before)).to_le_bytes();
        self.byte(at::PORT_HIGH_0, high_0);
        self.byte(at::PORT_HIGH_1, high_1);
        let local = self.ip(local_ip);
        let remote = self.ip(remote_ip);
        self.ips_before = [(local_ip, local), (remote_ip, remote)];
        self.variable(at::LOCAL_IP, local.into());
        self.variable(at::REMOTE_IP, remote.into());
        let Described { netns, uid, cgroup, interface, id, .. } = *socket;
        let owner = Owner { netns, uid, cgroup, interface, is_address: matches!(id, Id::Address(_)) };
        let (number, is_new) = self.owners.number(&owner);
        if is_new {
            self.variable(at::OWNERS, netns.into());
            self.variable(at::OWNERS, uid.into());
            self.variable(at::OWNERS, cgroup);
            self.variable(at::OWNERS, interface.into());
            self.byte(at::OWNERS, owner.is_address.into());
        }
        self.variable(at::OWNER, number.into());
        if local_port > remote_port { more::SWAPPED } else { 0 }
    }

    /// The number of an address. The ends of the next socket are often those of the last one.
    fn ip(&mut self, ip: Ipv6Addr) -> u32 {
        for (known, number) in self.ips_before {
            if known == ip && number != u32::MAX {
                return number;
            }
        }
        let (number, is_new) = self.ips.number(&ip);
        if is_new {
            match ip.to_ipv4_mapped() {
                Some(ip) => {
                    self.byte(at::IPS, 4);
                    self.put(at::IPS, &ip.octets());
                }
                None => {
                    self.byte(at::IPS, 16);
                    self.put(at::IPS, &ip.octets());
                }
            }
        }
        number
    }

    fn address(&mut self, socket: u32, address: u64) -> u16 {
        if let Some(known) = self.sockets.get_mut(socket as usize)
            && known.address.replace(address) == Some(address)
        {
            return more::SAME_ADDRESS;
        }
        let (number, is_new) = self.addresses.number(&address);
        if is_new {
            self.put(at::ADDRESS, &address.to_le_bytes());
        }
        self.variable(at::WHICH_ADDRESS, number.into());
        more::ADDRESS
    }

    fn idle(&mut self, idle: Idle) -> u8 {
        let Idle { acked_ms, received_ms, sent_ms } = idle;
        let all = [(at::ACKED_MS, acked_ms), (at::RECEIVED_MS, received_ms), (at::SENT_MS, sent_ms)];
        let mut bits = IS_IDLE;
        for (place, (column, ms)) in all.into_iter().enumerate() {
            let Some(ms) = ms else { continue };
            bits |= 1 << place;
            if ms != 0 {
                bits |= 8 << place;
                self.variable(column, ms.into());
            }
        }
        bits
    }

    fn task(&mut self, task: &Task) {
        let (number, is_new) = self.tasks.number(task);
        if is_new {
            self.variable(at::TASKS, task.pid.into());
            self.variable(at::TASKS, task.tid.into());
            self.put(at::TASKS, &task.comm.0);
        }
        self.variable(at::TASK, number.into());
    }

    fn end(&mut self, end: &EndFacts) {
        let wire::End { bytes_sent, bytes_received, bytes_unread, all_retransmits, srtt_us, .. } = end_body(end);
        let wire::End { err, bits, retransmits, probes, mini, due_ns, .. } = end_body(end);
        let (number, is_new) =
            self.ends.number(&End { bytes_unread, all_retransmits, due_ns, err, bits, retransmits, probes, mini });
        if is_new {
            let numbers = [bytes_unread.into(), all_retransmits.into(), err.into()];
            numbers.into_iter().for_each(|number| self.variable(at::ENDS, number));
            self.put(at::ENDS, &[bits, retransmits, probes, mini]);
            self.variable(at::ENDS, due_ns);
        }
        self.variable(at::END, number.into());
        self.variable(at::BYTES_SENT, bytes_sent);
        self.variable(at::BYTES_RECEIVED, bytes_received);
        self.variable(at::SRTT, srtt_us.map_or(0, |srtt| u64::from(srtt) + 1));
    }

    fn byte(&mut self, column: usize, byte: u8) {
        self.columns[column].push(byte);
        self.len += 1;
    }

    fn put(&mut self, column: usize, bytes: &[u8]) {
        self.columns[column].extend_from_slice(bytes);
        self.len += bytes.len();
    }

    fn variable(&mut self, column: usize, value: u64) {
        self.len += number(&mut self.columns[column], value);
    }
}

/// Appends a number of variable length, as postcard does. Returns its length.
fn number(to: &mut Vec<u8>, mut value: u64) -> usize {
    let mut len = 1;
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
        len += 1;
    }
    to.push(value as u8);
    len
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn zigzag_16(value: u16) -> u16 {
    let value = value.cast_signed();
    (value << 1 ^ value >> 15).cast_unsigned()
}
