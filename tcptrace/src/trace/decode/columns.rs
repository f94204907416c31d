//! From columns to events.

use std::collections::HashSet;
use std::iter;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::columns::{COUNT, IS_IDLE, MOST_SHAPES, Shape, at, more};
use super::super::encode::Described;
use super::super::wire::{self, Body, kind};
use super::{LONGEST_NS, end_facts, interface, known};
use crate::model::event::{Change, EndFacts, Event, Flags, Id, Idle, Mini, MiniEvent, ResetReason, Totals};
use crate::model::stream::Item;
use crate::model::tcp::{Comm, State, Task, Tuple};

/// The columns of a block that are being read.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// Entries that are left.
    left: u32,
    /// Where the rest of each column begins and ends in the block.
    places: [(usize, usize); COUNT],
    before: u64,
    socket_before: u32,
    id_before: u64,
    ports_before: (u16, u16),
    shapes: Vec<Known>,
    ips: Vec<Ipv6Addr>,
    owners: Vec<Owner>,
    tasks: Vec<Task>,
    ends: Vec<EndFacts>,
    sockets: Vec<Socket>,
    skipped: Skipped,
}

/// Events that were read and are not wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Skipped {
    pub(in super::super) events: u32,
    /// Time of the last one.
    pub(in super::super) at: u64,
}

/// How reading columns goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// As many events as wanted were read.
    Enough,
    /// A record comes next.
    Record,
    /// All columns were read.
    Over,
}

/// A shape, and what it means.
#[derive(Clone, Copy, Debug)]
struct Known {
    shape: Shape,
    flags: Option<Flags>,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Change(State, State),
    Destroyed(Option<bool>),
    Accepted,
    ResetSent(ResetReason),
    ResetReceived,
    Mini(State, MiniEvent),
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    netns: u32,
    uid: u32,
    cgroup: u64,
    interface: u32,
    is_address: bool,
}

#[derive(Clone, Copy, Debug)]
struct Socket {
    described: Described,
    address: Option<u64>,
    is_wanted: bool,
}

impl Known {
    fn of(shape: Shape) -> Option<Self> {
        let what = match shape.kind {
            kind::CHANGE => What::Change(wire::state_from(shape.states & 15)?, wire::state_from(shape.states >> 4)?),
            kind::DESTROYED => What::Destroyed(wire::shut_from(shape.number.into())),
            kind::ACCEPTED if shape.more & more::TASK != 0 => What::Accepted,
            // Later versions may add reasons.
            kind::RESET_SENT => What::ResetSent(wire::reason_from(shape.number).unwrap_or_default()),
            kind::RESET_RECEIVED => What::ResetReceived,
            kind::MINI => What::Mini(wire::state_from(shape.states)?, wire::mini_from(shape.number)?),
            _ => return None,
        };
        Some(Self { shape, flags: wire::flags(shape.bits), what })
    }
}

impl Columns {
    /// No columns are left.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// The unwanted events since the last call.
    pub(super) fn skipped(&mut self) -> Skipped {
        std::mem::take(&mut self.skipped)
    }

    pub(super) fn clear(&mut self) {
        self.left = 0;
        (self.before, self.socket_before, self.id_before, self.ports_before) = (0, 0, 0, (0, 0));
        self.shapes.clear();
        self.ips.clear();
        self.owners.clear();
        self.tasks.clear();
        self.ends.clear();
        self.sockets.clear();
    }

    /// Begins to read the columns in this part of a block.
    pub(super) fn open(&mut self, raw: &[u8], from: usize, to: usize) -> Option<()> {
        self.clear();
        let mut head = Body(raw.get(from..to)?);
        let entries = u32::try_from(head.u64()?).ok()?;
        let count = head.u64()?;
        let mut lens = [0_usize; COUNT];
        let mut beyond = 0_usize;
        for place in 0..count {
            let len = usize::try_from(head.u64()?).ok()?;
            match usize::try_from(place).ok().and_then(|place| lens.get_mut(place)) {
                Some(known) => *known = len,
                None => beyond = beyond.checked_add(len)?,
            }
        }
        let mut begin = to - head.0.len();
        for (place, len) in self.places.iter_mut().zip(lens) {
            let end = begin.checked_add(len).filter(|end| *end <= to)?;
            *place = (begin, end);
            begin = end;
        }
        if begin.checked_add(beyond)? != to {
            return None;
        }
        // No entry is without a code.
        let (from, to) = self.places[at::CODE];
        if entries as usize > to - from {
            return None;
        }
        self.read_words(raw)?;
        self.left = entries;
        Some(())
    }

    fn read_words(&mut self, raw: &[u8]) -> Option<()> {
        let of = |column: usize| raw.get(self.places[column].0..self.places[column].1);
        let (shapes, rest) = of(at::SHAPES)?.as_chunks::<8>();
        if !rest.is_empty() || shapes.len() > MOST_SHAPES {
            return None;
        }
        for shape in shapes {
            self.shapes.push(Known::of(Shape::from_bytes(*shape))?);
        }
        let mut ips = of(at::IPS)?;
        while let Some((&len, rest)) = ips.split_first() {
            let (ip, rest) = rest.split_at_checked(len.into())?;
            self.ips.push(match len {
                4 => Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?).to_ipv6_mapped(),
                _ => Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?),
            });
            ips = rest;
        }
        let mut owners = Body(of(at::OWNERS)?);
        while !owners.0.is_empty() {
            let (netns, uid, cgroup) = (owners.u32()?, owners.u32()?, owners.u64()?);
            let (interface, is_address) = (owners.u32()?, owners.u8()? != 0);
            self.owners.push(Owner { netns, uid, cgroup, interface, is_address });
        }
        let mut tasks = Body(of(at::TASKS)?);
        while !tasks.0.is_empty() {
            let (pid, tid) = (tasks.u32()?, tasks.u32()?);
            let (comm, rest) = tasks.0.split_first_chunk::<16>()?;
            tasks.0 = rest;
            self.tasks.push(Task { pid, tid, comm: Comm(*comm) });
        }
        let mut ends = Body(of(at::ENDS)?);
        while !ends.0.is_empty() {
            let end = wire::End {
                bytes_sent: 0,
                bytes_received: 0,
                bytes_unread: ends.u32()?,
                all_retransmits: ends.u32()?,
                srtt_us: None,
                err: ends.u16()?,
                bits: ends.u8()?,
                retransmits: ends.u8()?,
                probes: ends.u8()?,
                mini: ends.u8()?,
                due_ns: ends.u64()?,
            };
            self.ends.push(end_facts(&end)?);
        }
        Some(())
    }

    /// Calls `each` for every description of a socket.
    pub(super) fn each_socket(&mut self, raw: &[u8], mut each: impl FnMut(Id, &Tuple)) {
        let Some(mut cursor) = Cursor::at(raw, &self.places) else { return };
        // Which socket an event is of matters only if any is described again.
        let is_once = self.shapes.iter().all(|known| known.shape.more & more::AGAIN == 0);
        for _ in 0..std::mem::take(&mut self.left) {
            let Some(code) = cursor.byte(at::CODE) else { return };
            let Some(place) = usize::from(code).checked_sub(1) else { continue };
            let Some(Known { shape, .. }) = self.shapes.get(place).copied() else { return };
            let is_told = shape.more & (more::NEW | more::AGAIN) != 0;
            if is_once && !is_told {
                continue;
            }
            let Some(index) = self.socket(shape, None, &mut cursor) else { return };
            if is_told && let Some(Socket { described, .. }) = self.sockets.get(index) {
                each(described.id, &described.tuple);
            }
        }
    }

    /// Appends at most this many events: those of sockets with these cookies, if any are named, and those of sockets
    /// without a cookie.
    pub(super) fn read(
        &mut self,
        raw: &[u8],
        most: usize,
        only: Option<&HashSet<u64>>,
        items: &mut Vec<Item>,
    ) -> Option<Step> {
        let mut cursor = Cursor::at(raw, &self.places)?;
        let mut step = Some(Step::Over);
        let full = items.len().saturating_add(most);
        while self.left > 0 {
            if items.len() >= full {
                step = Some(Step::Enough);
                break;
            }
            self.left -= 1;
            let Some(code) = cursor.byte(at::CODE) else {
                step = None;
                break;
            };
            if code == 0 {
                step = Some(Step::Record);
                break;
            }
            if self.event(code, only, &mut cursor, items).is_none() {
                step = None;
                break;
            }
        }
        cursor.note(&mut self.places);
        step
    }

    /// Appends an event if it is wanted.
    fn event(
        &mut self,
        code: u8,
        only: Option<&HashSet<u64>>,
        cursor: &mut Cursor<'_>,
        items: &mut Vec<Item>,
    ) -> Option<()> {
        let Known { shape, flags, what } = *self.shapes.get(usize::from(code) - 1)?;
        let low = u64::from(cursor.byte(at::TIME_0)?) | u64::from(cursor.byte(at::TIME_1)?) << 8;
        let high = cursor.number(at::TIME_2)?;
        if high >> (u64::BITS - 16) != 0 {
            return None;
        }
        self.before = self.before.wrapping_add_signed(unzigzag(high << 16 | low));
        let at = Some(self.before).filter(|at| *at <= LONGEST_NS)?;
        let index = self.socket(shape, only, cursor)?;
        let address = match shape.more & (more::ADDRESS | more::SAME_ADDRESS) {
            0 => None,
            more::SAME_ADDRESS => Some(self.sockets.get(index)?.address?),
            _ => {
                let address = cursor.address()?;
                self.sockets.get_mut(index)?.address = Some(address);
                Some(address)
            }
        };
        let Socket { described, is_wanted, .. } = *self.sockets.get(index)?;
        if !is_wanted {
            self.skipped = Skipped { events: self.skipped.events.saturating_add(1), at };
            return skip(shape, cursor);
        }
        let id = described.id;
        let event = match what {
            What::Change(old, new) => {
                let idle = if shape.idle & IS_IDLE != 0 { Some(cursor.idle(shape.idle)?) } else { None };
                let task = if shape.more & more::TASK != 0 { Some(self.task(cursor)?) } else { None };
                let end = if shape.more & more::END != 0 { Some(self.end(cursor)?) } else { None };
                let (netns, uid, cgroup) = known(&described, shape.bits);
                // Changes are large: this one is made in its place.
                items.extend(iter::once_with(|| {
                    Item::Event(Event::Change(Change {
                        at,
                        id,
                        address,
                        tuple: described.tuple,
                        netns,
                        uid,
                        cgroup,
                        interface: interface(&described, shape.bits),
                        old,
                        new,
                        flags,
                        idle,
                        task,
                        end,
                    }))
                }));
                return Some(());
            }
            What::Destroyed(shut) => Event::Destroyed { at, id, shut },
            What::Accepted => Event::Accepted { at, id, task: self.task(cursor)? },
            What::ResetSent(reason) => Event::ResetSent { at, id, reason },
            What::ResetReceived => Event::ResetReceived { at, id },
            What::Mini(substate, what) => {
                let due_ns = unzigzag(cursor.number(at::DUE)?);
                if due_ns.unsigned_abs() > LONGEST_NS {
                    return None;
                }
                let (netns, ..) = known(&described, shape.bits);
                Event::Mini(Mini { at, id, tuple: described.tuple, netns, substate, due_ns, what })
            }
        };
        items.push(Item::Event(event));
        Some(())
    }

    /// The index of the socket of an event.
    fn socket(&mut self, shape: Shape, only: Option<&HashSet<u64>>, cursor: &mut Cursor<'_>) -> Option<usize> {
        if shape.more & more::NEW != 0 {
            self.id_before = self.id_before.wrapping_add_signed(unzigzag(cursor.number(at::ID)?));
            let described = self.describe(shape, cursor, self.id_before)?;
            self.socket_before = u32::try_from(self.sockets.len()).ok()?;
            // A later record may still give the cookie of an address.
            let is_wanted = match described.id {
                Id::Cookie(id) => only.is_none_or(|ids| ids.contains(&id)),
                Id::Address(_) => true,
            };
            self.sockets.push(Socket { described, address: None, is_wanted });
            return Some(self.sockets.len() - 1);
        }
        let after = unzigzag(cursor.number(at::SOCKET)?);
        let number = i64::from(self.socket_before).checked_add(after)?;
        self.socket_before = u32::try_from(number).ok()?;
        let index = usize::try_from(number).ok()?;
        if shape.more & more::AGAIN != 0 {
            let id = self.sockets.get(index)?.described.id.number();
            let described = self.describe(shape, cursor, id)?;
            self.sockets.get_mut(index)?.described = described;
        }
        Some(index)
    }

    fn describe(&mut self, shape: Shape, cursor: &mut Cursor<'_>, id: u64) -> Option<Described> {
        let low = u16::try_from(cursor.number(at::PORT_LOW)?).ok()?;
        let high = u16::from_le_bytes([cursor.byte(at::PORT_HIGH_0)?, cursor.byte(at::PORT_HIGH_1)?]);
        let (low_before, high_before) = self.ports_before;
        let (low, high) = (low_before.wrapping_add(unzigzag_16(low)), high_before.wrapping_add(unzigzag_16(high)));
        self.ports_before = (low, high);
        let (local_port, remote_port) = if shape.more & more::SWAPPED == 0 { (low, high) } else { (high, low) };
        let local_ip = *self.ips.get(cursor.index(at::LOCAL_IP)?)?;
        let remote_ip = *self.ips.get(cursor.index(at::REMOTE_IP)?)?;
        let Owner { netns, uid, cgroup, interface, is_address } = *self.owners.get(cursor.index(at::OWNER)?)?;
        let id = if is_address { Id::Address(id) } else { Id::Cookie(id) };
        let tuple = Tuple { local_ip, remote_ip, local_port, remote_port };
        Some(Described { id, tuple, netns, uid, cgroup, interface })
    }

    fn task(&self, cursor: &mut Cursor<'_>) -> Option<Task> {
        self.tasks.get(cursor.index(at::TASK)?).copied()
    }

    fn end(&self, cursor: &mut Cursor<'_>) -> Option<EndFacts> {
        let end = self.ends.get(cursor.index(at::END)?)?;
        let (bytes_sent, bytes_received) = (cursor.number(at::BYTES_SENT)?, cursor.number(at::BYTES_RECEIVED)?);
        let srtt_us = match cursor.number(at::SRTT)?.checked_sub(1) {
            Some(srtt) => Some(u32::try_from(srtt).ok()?),
            None => None,
        };
        Some(EndFacts { totals: Totals { bytes_sent, bytes_received, srtt_us, ..end.totals }, ..*end })
    }
}

/// Skips what is left of an event.
fn skip(shape: Shape, cursor: &mut Cursor<'_>) -> Option<()> {
    if shape.idle & IS_IDLE != 0 {
        cursor.idle(shape.idle)?;
    }
    if shape.more & more::TASK != 0 {
        cursor.number(at::TASK)?;
    }
    if shape.more & more::END != 0 {
        for column in [at::END, at::BYTES_SENT, at::BYTES_RECEIVED, at::SRTT] {
            cursor.number(column)?;
        }
    }
    if shape.kind == kind::MINI {
        cursor.number(at::DUE)?;
    }
    Some(())
}

/// The rest of each column.
struct Cursor<'r> {
    columns: [&'r [u8]; COUNT],
    /// All addresses.
    addresses: &'r [u8],
}

impl<'r> Cursor<'r> {
    fn at(raw: &'r [u8], places: &[(usize, usize); COUNT]) -> Option<Self> {
        let mut columns = [&raw[..0]; COUNT];
        for (column, (from, to)) in columns.iter_mut().zip(places) {
            *column = raw.get(*from..*to)?;
        }
        Some(Self { columns, addresses: columns[at::ADDRESS] })
    }

    /// Notes where the rest of each column begins.
    fn note(&self, places: &mut [(usize, usize); COUNT]) {
        for (column, (from, to)) in self.columns.iter().zip(places) {
            *from = *to - column.len();
        }
    }

    fn byte(&mut self, column: usize) -> Option<u8> {
        let (&byte, rest) = self.columns[column].split_first()?;
        self.columns[column] = rest;
        Some(byte)
    }

    fn number(&mut self, column: usize) -> Option<u64> {
        if let Some((&byte, rest)) = self.columns[column].split_first()
            && byte < 0x80
        {
            self.columns[column] = rest;
            return Some(byte.into());
        }
        let mut body = Body(self.columns[column]);
        let number = body.u64();
        self.columns[column] = body.0;
        number
    }

    fn index(&mut self, column: usize) -> Option<usize> {
        usize::try_from(self.number(column)?).ok()
    }

    fn address(&mut self) -> Option<u64> {
        let index = self.index(at::WHICH_ADDRESS)?;
        self.addresses.as_chunks::<8>().0.get(index).map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn idle(&mut self, bits: u8) -> Option<Idle> {
        let mut next = |place: u8, column: usize| {
            let is = |bit: u8| bits & bit << place != 0;
            let ms = if is(8) { u32::try_from(self.number(column)?).ok()? } else { 0 };
            Some(is(1).then_some(ms))
        };
        Some(Idle {
            acked_ms: next(0, at::ACKED_MS)?,
            received_ms: next(1, at::RECEIVED_MS)?,
            sent_ms: next(2, at::SENT_MS)?,
        })
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn unzigzag_16(value: u16) -> u16 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}
