//! From the records of a block to items.

mod columns;

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::de::DeserializeOwned;

use self::columns::{Columns, Skipped, Step};
use super::encode::Described;
use super::wire::{self, Body, bit, end_bit, kind, socket_bit};
use crate::model::counters::Sample;
use crate::model::event::{
    Birth, Change, EndFacts, Event, FailedCall, Flow, Found, Holder, Id, Inspected, Kept, Mini, Multipath, Subflow,
    Totals,
};
use crate::model::facts::{AcceptQueues, Limits, Settings};
use crate::model::fired::Fired;
use crate::model::stream::Item;
use crate::model::tcp::{Comm, Task, Tuple};

/// Decodes the records of a block. The caller passes the same block with every call.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Where the next record begins.
    at: usize,
    before: u64,
    id_before: u64,
    sockets: Vec<Described>,
    tasks: Vec<Task>,
    columns: Columns,
    /// Where the record of these columns begins.
    columns_at: usize,
    /// The columns go on behind the next record.
    is_record_due: bool,
    /// Events of sockets since they were last asked for.
    events: u32,
}

/// Longest time and duration that a reader accepts, in ns: 36 years.
pub(super) const LONGEST_NS: u64 = 1 << 60;

/// A block with more records in a row that yield no item is invalid: such a block is tiny as a file and slow to read.
const MOST_IN_A_ROW: usize = 1 << 14;

/// An invalid record in a block whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record at byte {at} of the block is invalid")]
pub struct InvalidRecord {
    /// Offset within the block.
    pub at: usize,
}

impl Decoder {
    /// Prepares for another block.
    pub(super) fn restart(&mut self) {
        (self.at, self.before, self.id_before) = (0, 0, 0);
        self.sockets.clear();
        self.tasks.clear();
        self.columns.clear();
        self.is_record_due = false;
    }

    /// Appends at most this many items to `items`; `false` at the end of the block. If cookies are named, events of other
    /// sockets may be left out.
    pub(super) fn next(
        &mut self,
        raw: &[u8],
        most: usize,
        only: Option<&HashSet<u64>>,
        items: &mut Vec<Item>,
    ) -> Result<bool, InvalidRecord> {
        let full = items.len().saturating_add(most);
        let (mut last, mut in_a_row) = (items.len(), 0);
        while items.len() < full {
            if self.columns.is_over() || self.is_record_due {
                if self.at >= raw.len() && !self.is_record_due {
                    return Ok(false);
                }
                let at = self.at;
                let is_valid = self.next_record(raw, items).is_some();
                let is_counted = |item: &&Item| matches!(item, Item::Event(event) if event.id().is_some());
                self.count(items[last..].iter().filter(is_counted).count());
                if !is_valid || in_a_row == MOST_IN_A_ROW {
                    return Err(self.give_up(raw, at));
                }
            } else {
                let step = self.columns.read(raw, full - items.len(), only, items);
                self.count(items.len() - last);
                match step {
                    Some(step) => self.is_record_due = step == Step::Record,
                    None => return Err(self.give_up(raw, self.columns_at)),
                }
            }
            in_a_row = if items.len() > last { 0 } else { in_a_row + 1 };
            last = items.len();
        }
        Ok(true)
    }

    /// Notes events of sockets.
    fn count(&mut self, events: usize) {
        self.events = self.events.saturating_add(u32::try_from(events).unwrap_or(u32::MAX));
    }

    /// How many of the items since the last call are events of sockets.
    pub(super) fn events(&mut self) -> u32 {
        std::mem::take(&mut self.events)
    }

    /// The events since the last call that were left out.
    pub(super) fn skipped(&mut self) -> Skipped {
        self.columns.skipped()
    }

    /// Reads a record.
    fn next_record(&mut self, raw: &[u8], items: &mut Vec<Item>) -> Option<()> {
        let at = self.at;
        let (kind, body) = self.record(raw)?;
        if kind == kind::COLUMNS {
            self.columns_at = at;
            let is_alone = self.columns.is_over() && !self.is_record_due;
            return self.columns.open(raw, self.at - body.len(), self.at).filter(|()| is_alone);
        }
        self.is_record_due &= matches!(kind, kind::SOCKET | kind::TASK);
        self.put(kind, body, items)
    }

    /// Skips the rest of a block.
    fn give_up(&mut self, raw: &[u8], at: usize) -> InvalidRecord {
        self.at = raw.len();
        self.columns.clear();
        self.is_record_due = false;
        InvalidRecord { at }
    }

    /// Skips everything but the descriptions of sockets, as far as [`Decoder::next`] would read.
    pub(super) fn each_socket(&mut self, raw: &[u8], mut each: impl FnMut(Id, &Tuple)) {
        let mut in_a_row = 0;
        self.columns.each_socket(raw, &mut each);
        while in_a_row < MOST_IN_A_ROW
            && let Some((kind, body)) = self.record(raw)
        {
            if kind == kind::COLUMNS {
                if self.columns.open(raw, self.at - body.len(), self.at).is_none() {
                    break;
                }
                self.columns.each_socket(raw, &mut each);
            }
            in_a_row = if kind::yields_item(kind) { 0 } else { in_a_row + 1 };
            if kind == kind::SOCKET {
                let Some(socket) = self.describe(body).and_then(|index| self.sockets.get(index)) else { break };
                each(socket.id, &socket.tuple);
            }
        }
        self.at = raw.len();
    }

    /// The next record: a kind and a body.
    fn record<'r>(&mut self, raw: &'r [u8]) -> Option<(u8, &'r [u8])> {
        let (&kind, rest) = raw.get(self.at..)?.split_first().filter(|(kind, _)| **kind != kind::NONE)?;
        let mut rest = Body(rest);
        let len = usize::try_from(rest.u64()?).ok()?;
        let (body, rest) = rest.0.split_at_checked(len)?;
        self.at = raw.len() - rest.len();
        Some((kind, body))
    }

    /// Appends the items of a record: none, if the record only describes what follows, or if its kind is unknown.
    fn put(&mut self, kind: u8, body: &[u8], items: &mut Vec<Item>) -> Option<()> {
        let event = match kind {
            kind::SOCKET => return self.describe(body).map(|_| ()),
            kind::TASK => return self.introduce(body).map(|_| ()),
            kind::CHANGE | kind::CHANGE_WITH_ADDRESS | kind::CLOSING => return self.put_change(kind, body, items),
            kind::DESTROYED => {
                let (at, id, _, shut) = self.act(body)?;
                Event::Destroyed { at, id, shut: wire::shut_from(shut) }
            }
            kind::ACCEPTED => {
                let (at, id, task, _) = self.act(body)?;
                Event::Accepted { at, id, task: task? }
            }
            kind::RESET_SENT => {
                let (at, id, _, number) = self.act(body)?;
                // Later versions may add reasons.
                let reason = u8::try_from(number).ok().and_then(wire::reason_from).unwrap_or_default();
                Event::ResetSent { at, id, reason }
            }
            kind::RESET_RECEIVED => {
                let (at, id, ..) = self.act(body)?;
                Event::ResetReceived { at, id }
            }
            kind::BYPASSING => {
                let (at, id, ..) = self.act(body)?;
                Event::Bypassing { at, id }
            }
            kind::MINI => Event::Mini(self.mini(&read(body)?)?),
            kind::FOUND => Event::Found(self.found(&read(body)?)?),
            kind::HOLDER => {
                let wire::Holder { found, task, fd } = read(body)?;
                Event::Holder(Holder { found: self.found(&found)?, task: self.task(task)??, fd })
            }
            kind::INSPECTED => Event::Inspected(self.inspected(read(body)?)?),
            kind::FAILED_CALL => {
                let wire::FailedCall { after, call, errno, task, fd, netns, address } = read(body)?;
                let (at, task) = (self.at(after)?, self.task(task)??);
                // Calls may be added.
                let Some(call) = wire::call_from(call) else { return Some(()) };
                let address = address.map(|(ip, port)| (Ipv6Addr::from(ip), port));
                Event::FailedCall(FailedCall { at, call, errno, task, fd, netns, address })
            }
            kind::FLOW => {
                let wire::Flow { after, socket, acked, received, unacked } = read(body)?;
                let (at, id) = (self.at(after)?, self.socket(socket)?.id);
                Event::Flow(Flow { at, id, acked, received, unacked })
            }
            kind::SUBFLOW => {
                let wire::Subflow { after, socket, token, state } = read(body)?;
                let (at, id) = (self.at(after)?, self.socket(socket)?.id);
                let state = state.map(|number| wire::state_from(number).ok_or(())).transpose().ok()?;
                Event::Subflow(Subflow { at, id, of: Multipath { token, state } })
            }
            kind::LOST => {
                let (mark, rest): (wire::Mark, _) = postcard::take_from_bytes(body).ok()?;
                // Older traces have none, and later versions may add causes.
                let cause = rest.first().copied().and_then(wire::cause_from).unwrap_or_default();
                Event::Lost { at: self.at(mark.after)?, cause, events: mark.number }
            }
            kind::STARTED..=kind::PASSED | kind::ACCEPTS_WATCHED => self.mark(kind, &read(body)?)?,
            _ => return other(kind, body, items),
        };
        items.push(Item::Event(event));
        Some(())
    }

    fn mark(&mut self, kind: u8, mark: &wire::Mark) -> Option<Event> {
        let at = self.at(mark.after)?;
        Some(match kind {
            kind::STARTED => Event::Started { at },
            kind::SURVEY_BEGUN => Event::SurveyBegun { at },
            kind::SURVEYED => Event::Surveyed { at, netns: u32::try_from(mark.number).ok()? },
            kind::SURVEY_ENDED => Event::SurveyEnded { at },
            kind::SCAN_BEGUN => Event::ScanBegun { at },
            kind::SCAN_ENDED => Event::ScanEnded { at },
            kind::SUSPENDED => Event::Suspended { at, ns: length(mark.number)? },
            kind::PASSED => Event::Passed { at },
            kind::ACCEPTS_WATCHED => Event::AcceptsWatched { at, watched: mark.number != 0 },
            _ => return None,
        })
    }

    /// Most events are changes, and changes are large: this one is built in place.
    fn put_change(&mut self, kind: u8, body: &[u8], items: &mut Vec<Item>) -> Option<()> {
        let mut body = Body(body);
        let change = wire::Change::read(&mut body)?;
        let (end, address) = match kind {
            kind::CLOSING => {
                let ((end, address), rest): ((wire::End, Option<u64>), _) = postcard::take_from_bytes(body.0).ok()?;
                body.0 = rest;
                (Some(end_facts(&end)?), address)
            }
            kind::CHANGE_WITH_ADDRESS => (None, Some(body.u64()?)),
            _ => (None, None),
        };
        let wire::IdleAtEnd(idle) = wire::IdleAtEnd::read(&mut body)?;
        let at = self.at(change.after)?;
        let socket = self.socket(change.socket)?;
        let task = self.task(change.task)?;
        let (old, new) = (wire::state_from(change.states & 15)?, wire::state_from(change.states >> 4)?);
        let (netns, uid, cgroup) = known(socket, change.bits);
        items.push(Item::Event(Event::Change(Change {
            at,
            id: socket.id,
            address,
            tuple: socket.tuple,
            netns,
            uid,
            cgroup,
            interface: interface(socket, change.bits),
            old,
            new,
            flags: wire::flags(change.bits),
            idle,
            task,
            end,
        })));
        Some(())
    }

    fn act(&mut self, body: &[u8]) -> Option<(u64, Id, Option<Task>, u32)> {
        let act = wire::Act::read(&mut Body(body))?;
        let at = self.at(act.after)?;
        Some((at, self.socket(act.socket)?.id, self.task(act.task)?, act.number))
    }

    fn mini(&mut self, mini: &wire::Mini) -> Option<Mini> {
        let at = self.at(mini.after)?;
        let socket = self.socket(mini.socket)?;
        let (netns, ..) = known(socket, mini.bits);
        length(mini.due_ns.unsigned_abs())?;
        let what = wire::mini_from(mini.what)?;
        let substate = wire::state_from(mini.substate)?;
        Some(Mini { at, id: socket.id, tuple: socket.tuple, netns, substate, due_ns: mini.due_ns, what })
    }

    fn found(&mut self, found: &wire::Found) -> Option<Found> {
        let at = self.at(found.after)?;
        let socket = self.socket(found.socket)?;
        let (netns, uid, cgroup) = known(socket, found.bits);
        let kept = match found.kept {
            0 => Kept::Held,
            1 => Kept::Queued,
            2 => Kept::Orphan,
            3 => Kept::Mini { due_ns: length(found.due_ns)? },
            _ => return None,
        };
        let interface = interface(socket, found.bits);
        let state = wire::state_from(found.state)?;
        Some(Found { at, id: socket.id, tuple: socket.tuple, netns, uid, cgroup, interface, state, kept })
    }

    fn inspected(&mut self, inspected: wire::Inspected) -> Option<Inspected> {
        Some(Inspected {
            at: self.at(inspected.after)?,
            id: self.socket(inspected.socket)?.id,
            recv_queue: inspected.recv_queue,
            send_queue: inspected.send_queue,
            timer: wire::timer_from(inspected.timer)?,
            timer_left_ns: length(inspected.timer_left_ns)?,
            retransmits: inspected.retransmits,
            idle: inspected.idle.map(Into::into),
            timestamps: inspected.timestamps,
            bind_no_port: inspected.bind_no_port,
            bound: inspected.bound.map(Into::into),
        })
    }

    fn at(&mut self, after: i64) -> Option<u64> {
        self.before = self.before.wrapping_add_signed(after);
        length(self.before)
    }

    fn socket(&self, index: u32) -> Option<&Described> {
        self.sockets.get(usize::try_from(index).ok()?)
    }

    fn task(&self, number: u32) -> Option<Option<Task>> {
        match number.checked_sub(1) {
            None => Some(None),
            Some(index) => self.tasks.get(usize::try_from(index).ok()?).copied().map(Some),
        }
    }

    fn describe(&mut self, body: &[u8]) -> Option<usize> {
        let (socket, rest): (wire::Socket, _) = postcard::take_from_bytes(body).ok()?;
        let (local_ip, remote_ip, rest) = if socket.bits & socket_bit::IPV6 == 0 {
            let ([local, remote], rest): ([[u8; 4]; 2], _) = postcard::take_from_bytes(rest).ok()?;
            (Ipv4Addr::from(local).to_ipv6_mapped(), Ipv4Addr::from(remote).to_ipv6_mapped(), rest)
        } else {
            let ([local, remote], rest): ([[u8; 16]; 2], _) = postcard::take_from_bytes(rest).ok()?;
            (Ipv6Addr::from(local), Ipv6Addr::from(remote), rest)
        };
        let [local_port, remote_port] = socket.ports;
        let number = self.id_before.wrapping_add_signed(socket.id);
        self.id_before = number;
        let is_address = socket.bits & socket_bit::IS_ADDRESS != 0;
        let described = Described {
            id: if is_address { Id::Address(number) } else { Id::Cookie(number) },
            tuple: Tuple { local_ip, remote_ip, local_port, remote_port },
            netns: socket.netns,
            uid: socket.uid,
            cgroup: socket.cgroup,
            // Most sockets have none, and older traces record none.
            interface: if rest.is_empty() { 0 } else { read(rest)? },
        };
        put_at(&mut self.sockets, socket.index, described)
    }

    fn introduce(&mut self, body: &[u8]) -> Option<usize> {
        let wire::Task { index, pid, tid, comm } = read(body)?;
        put_at(&mut self.tasks, index, Task { pid, tid, comm: Comm(comm) })
    }
}

/// Appends the items of a record that is not an event.
fn other(kind: u8, body: &[u8], items: &mut Vec<Item>) -> Option<()> {
    items.push(match kind {
        kind::HEAD => Item::Head(Box::new(serde_json::from_slice(body).ok()?)),
        kind::LOSSES => Item::Losses(serde_json::from_slice(body).ok()?),
        // Later versions may add counters.
        kind::AUDIT => match serde_json::from_slice(body) {
            Ok(finding) => Item::Audit(finding),
            Err(_) => return Some(()),
        },
        kind::COUNTERS => {
            let sample: Box<Sample> = serde_json::from_slice(body).ok()?;
            length(sample.at.max(sample.since.unwrap_or(0)).max(sample.quiet_until.unwrap_or(0)))?;
            Item::Counters(sample)
        }
        kind::SETTINGS => {
            let settings: Box<Settings> = serde_json::from_slice(body).ok()?;
            length(settings.at)?;
            Item::Settings(settings)
        }
        kind::ACCEPT_QUEUES => {
            let queues: Box<AcceptQueues> = serde_json::from_slice(body).ok()?;
            length(queues.at)?;
            Item::AcceptQueues(queues)
        }
        kind::LIMITS => {
            let limits: Box<Limits> = serde_json::from_slice(body).ok()?;
            length(limits.at)?;
            Item::Limits(limits)
        }
        kind::CLOCKS => Item::Clocks(read(body)?),
        kind::FIRED => {
            let fired: Box<Fired> = serde_json::from_slice(body).ok()?;
            length(fired.at)?;
            Item::Fired(fired)
        }
        kind::ENDED => Item::Ended(serde_json::from_slice(body).ok()?),
        kind::NAMESPACE => {
            let (inode, name) = postcard::take_from_bytes(body).ok()?;
            Item::Namespace { inode, name: name.into() }
        }
        kind::GROUP => {
            let (id, path) = postcard::take_from_bytes(body).ok()?;
            Item::Group { id, path: path.into() }
        }
        kind::CONTAINER => {
            let (group, labels) = postcard::take_from_bytes(body).ok()?;
            Item::Container { group, labels: serde_json::from_slice(labels).ok()? }
        }
        kind::INTERFACE => {
            let ((netns, index), name) = postcard::take_from_bytes(body).ok()?;
            Item::Interface { netns, index, name: name.into() }
        }
        kind::NAMES_ANEW => Item::NamesAnew,
        kind::PROCESS => {
            let (pid, group): (u32, Option<u64>) = read(body)?;
            Item::Process { pid, group }
        }
        _ => return Some(()),
    });
    Some(())
}

/// Reads the beginning of a body; later readers use the bytes that follow.
fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    postcard::take_from_bytes(body).ok().map(|(value, _)| value)
}

fn length(ns: u64) -> Option<u64> {
    (ns <= LONGEST_NS).then_some(ns)
}

/// Replaces the entry at this index, or appends the next one.
fn put_at<T>(all: &mut Vec<T>, index: u32, one: T) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    if index == all.len() {
        all.push(one);
    } else {
        *all.get_mut(index)? = one;
    }
    Some(index)
}

fn known(socket: &Described, bits: u16) -> (Option<u32>, Option<u32>, Option<u64>) {
    let has = |bit| bits & bit != 0;
    let Described { netns, uid, cgroup, .. } = *socket;
    (has(bit::NETNS).then_some(netns), has(bit::UID).then_some(uid), has(bit::CGROUP).then_some(cgroup))
}

fn interface(socket: &Described, bits: u16) -> u32 {
    if bits & bit::INTERFACE != 0 { socket.interface } else { 0 }
}

fn end_facts(end: &wire::End) -> Option<EndFacts> {
    let has = |bit| end.bits & bit != 0;
    Some(EndFacts {
        totals: Totals {
            bytes_sent: end.bytes_sent,
            bytes_received: end.bytes_received,
            bytes_unread: end.bytes_unread,
            retransmits: end.all_retransmits,
            srtt_us: end.srtt_us,
            ..Totals::default()
        },
        err: end.err,
        keepalive: has(end_bit::KEEPALIVE),
        linger0: has(end_bit::LINGER0),
        linger2_negative: has(end_bit::LINGER2_NEGATIVE),
        all_acked: has(end_bit::ALL_ACKED),
        in_flight: has(end_bit::IN_FLIGHT),
        user_timeout: has(end_bit::USER_TIMEOUT),
        retransmits: end.retransmits,
        probes: end.probes,
        mini: match end.mini {
            0 => Birth::NotWatched,
            1 => Birth::None,
            number => Birth::Made { substate: wire::state_from(number.checked_sub(16)?)?, due_ns: length(end.due_ns)? },
        },
    })
}
