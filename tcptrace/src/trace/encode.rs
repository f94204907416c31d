//! From items to a block.

mod append;
mod columns;

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::io;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

pub use self::append::append;
use self::columns::Columns;
use super::block::{BlockHead, LONGEST, MAGIC, VERSION, flag};
use super::wire::{self, bit, kind, socket_bit};
use crate::model::event::{
    Birth, Change, EndFacts, Event, FailedCall, Flow, Found, Id, Inspected, Kept, Mini, Multipath, Subflow,
};
use crate::model::stream::Item;
use crate::model::tcp::{Task, Tuple};
use crate::model::transition::Transition;

/// Compression level. A higher one costs several times the CPU for a few percent.
const LEVEL: i32 = 1;

/// Longest body of a record of fixed form.
const LONGEST_BODY: usize = 160;

/// Longest event: its socket, its task and the event itself, each with its kind and length.
const LONGEST_EVENT: usize = 3 * (LONGEST_BODY + 3);

/// Packs items into blocks.
pub struct Encoder {
    compressor: Compressor<'static>,
    recording: [u8; 16],
    block: u64,
    /// Its blocks belong to one file alone.
    is_beside: bool,
    /// The frequent events.
    columns: Columns,
    /// Every event has a record, as in earlier versions.
    #[cfg(test)]
    is_in_records: bool,
    /// The records of everything else.
    raw: Vec<u8>,
    /// Body of the record that is being written.
    body: [u8; LONGEST_BODY],
    events: u32,
    /// The block contains more than events of sockets.
    has_more: bool,
    /// Time of the first and last event.
    period: Option<(u64, u64)>,
    before: u64,
    ids: Option<(u64, u64)>,
    id_before: u64,
    /// The last description of each socket.
    sockets: Vec<Described>,
    /// Index into `sockets`. It contains nothing else, so that it fits into the processor's cache.
    index: HashTable<u32>,
    tasks: HashMap<Task, u32, FixedState>,
    /// The previous task; the next one is usually the same.
    task: Option<(Task, u32)>,
}

/// Writes the body of a record byte by byte: the pieces are too short for a copy to pay off.
struct Body<'b> {
    bytes: &'b mut [u8; LONGEST_BODY],
    len: usize,
}

impl Flavor for Body<'_> {
    type Output = usize;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        *self.bytes.get_mut(self.len).ok_or(postcard::Error::SerializeBufferFull)? = byte;
        self.len += 1;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<usize> {
        Ok(self.len)
    }
}

/// The description of a socket that a reader has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) id: Id,
    pub(super) tuple: Tuple,
    pub(super) netns: u32,
    pub(super) uid: u32,
    pub(super) cgroup: u64,
    /// 0 if unknown.
    pub(super) interface: u32,
}

/// The description of its socket that an event implies.
struct Mentioned {
    id: Id,
    tuple: Option<Tuple>,
    netns: Option<u32>,
    uid: Option<u32>,
    cgroup: Option<u64>,
    interface: u32,
}

impl Mentioned {
    fn only(id: Id) -> Self {
        Self { id, tuple: None, netns: None, uid: None, cgroup: None, interface: 0 }
    }

    fn bits(&self) -> u16 {
        let bit = |is_known: bool, bit: u16| if is_known { bit } else { 0 };
        bit(self.netns.is_some(), bit::NETNS)
            | bit(self.uid.is_some(), bit::UID)
            | bit(self.cgroup.is_some(), bit::CGROUP)
            | bit(self.interface != 0, bit::INTERFACE)
    }
}

impl Encoder {
    /// Starts a recording with this id.
    ///
    /// # Errors
    /// When there is no memory for packing.
    pub fn new(recording: [u8; 16]) -> io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self {
            compressor,
            recording,
            block: 0,
            is_beside: false,
            columns: Columns::new(),
            #[cfg(test)]
            is_in_records: false,
            raw: Vec::with_capacity(LONGEST / 2),
            body: [0; LONGEST_BODY],
            events: 0,
            has_more: false,
            period: None,
            before: 0,
            ids: None,
            id_before: 0,
            sockets: Vec::new(),
            index: HashTable::new(),
            tasks: HashMap::default(),
            task: None,
        })
    }

    /// Continues a recording at the block with this number.
    ///
    /// # Errors
    /// When there is no memory for packing.
    pub fn resume(recording: [u8; 16], block: u64) -> io::Result<Self> {
        Ok(Self { block, ..Self::new(recording)? })
    }

    /// From here on, the blocks belong to one file alone and use no block number of the recording.
    #[must_use]
    pub fn beside(self) -> Self {
        Self { is_beside: true, ..self }
    }

    /// Writes blocks as earlier versions did.
    #[cfg(test)]
    pub(super) fn in_records(self) -> Self {
        Self { is_in_records: true, ..self }
    }

    /// The id of the recording, and the number of the current block.
    pub fn position(&self) -> ([u8; 16], u64) {
        (self.recording, self.block)
    }

    /// Length of the current block, unpacked.
    pub fn len(&self) -> usize {
        self.raw.len() + self.columns.len()
    }

    /// Whether the current block is empty.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty() && self.columns.is_empty()
    }

    /// Events of sockets in the current block.
    pub fn events(&self) -> u32 {
        self.events
    }

    /// Appends an item. Damage costs whole blocks, so the caller should [finish](Encoder::finish) a block long before
    /// it has [`LONGEST`] bytes.
    ///
    /// # Errors
    /// When the item fits into no block ([`FileTooLarge`](io::ErrorKind::FileTooLarge)), or not into this one
    /// ([`StorageFull`](io::ErrorKind::StorageFull)), which the caller should finish first. The item is left out.
    pub fn push(&mut self, item: &Item) -> io::Result<()> {
        if self.len() + LONGEST_EVENT > LONGEST {
            return Err(full());
        }
        self.has_more |=
            !matches!(item, Item::Event(event) if event.id().is_some() || matches!(event, Event::Passed { .. }));
        if let Item::Event(event) = item {
            self.event(event);
            return Ok(());
        }
        self.other(item)?;
        self.columns.note_record();
        Ok(())
    }

    /// Appends a change, as [`push`](Self::push) does.
    ///
    /// # Errors
    /// When it does not fit into this block, which the caller should finish first. It is left out.
    pub fn push_change(&mut self, change: &impl Transition) -> io::Result<()> {
        if self.len() + LONGEST_EVENT > LONGEST {
            return Err(full());
        }
        if !self.columns.has_room() {
            self.event(&Event::Change(change.change()));
            return Ok(());
        }
        self.events = self.events.saturating_add(1);
        self.reach(change.at());
        self.columns.change(change);
        Ok(())
    }

    fn other(&mut self, item: &Item) -> io::Result<()> {
        match item {
            // It has its place in the columns, or a record that the caller made.
            Item::Event(_) => Ok(()),
            Item::Head(head) => self.json(kind::HEAD, &**head),
            Item::Losses(losses) => self.json(kind::LOSSES, losses),
            Item::Audit(finding) => self.json(kind::AUDIT, finding),
            Item::Ended(ended) => self.json(kind::ENDED, ended),
            Item::Counters(sample) => self.json(kind::COUNTERS, &**sample),
            Item::Settings(settings) => self.json(kind::SETTINGS, &**settings),
            Item::AcceptQueues(queues) => self.json(kind::ACCEPT_QUEUES, &**queues),
            Item::Limits(limits) => self.json(kind::LIMITS, &**limits),
            Item::Fired(fired) => self.json(kind::FIRED, &**fired),
            Item::Clocks(clocks) => {
                self.record(kind::CLOCKS, clocks);
                Ok(())
            }
            Item::Namespace { inode, name } => self.named(kind::NAMESPACE, u64::from(*inode), name),
            Item::Group { id, path } => self.named(kind::GROUP, *id, path),
            Item::Container { group, labels } => {
                self.named(kind::CONTAINER, *group, &serde_json::to_vec(labels).map_err(io::Error::other)?)
            }
            Item::Interface { netns, index, name } => self.interface(*netns, *index, name),
            Item::NamesAnew => self.long(kind::NAMES_ANEW, &[]),
            Item::Process { pid, group } => {
                self.record(kind::PROCESS, &(pid, group));
                Ok(())
            }
        }
    }

    /// Packs the block and starts the next one. An empty block yields no bytes.
    ///
    /// # Errors
    /// When it cannot be packed, or no reader would accept it. The block is lost then.
    pub fn finish(&mut self, file: u32) -> io::Result<Vec<u8>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        self.join();
        let packed = if self.raw.len() > LONGEST { Err(full()) } else { self.compressor.compress(&self.raw) };
        let (first_at, last_at) = self.period.unwrap_or_default();
        let ids = self.ids.into_iter().chain(self.columns.ids());
        let (min_id, max_id) = ids.fold((u64::MAX, 0), |(min, max), (low, high)| (min.min(low), max.max(high)));
        let mut head = BlockHead {
            magic: MAGIC,
            checksum: U32::ZERO,
            version: U16::new(VERSION),
            flags: U16::new(if self.has_more { flag::MORE } else { 0 } | if self.is_beside { flag::BESIDE } else { 0 }),
            recording: self.recording,
            file: U32::new(file),
            events: U32::new(self.events),
            block: U64::new(self.block),
            first_at: U64::new(first_at),
            last_at: U64::new(last_at),
            min_id: U64::new(min_id),
            max_id: U64::new(max_id),
            raw_len: U32::new(u32::try_from(self.raw.len()).unwrap_or(u32::MAX)),
            data_len: U32::ZERO,
        };
        self.block += 1;
        self.clear();
        let packed = packed?;
        head.data_len = U32::new(u32::try_from(packed.len()).unwrap_or(u32::MAX));
        let mut block = Vec::with_capacity(size_of::<BlockHead>() + 8 + packed.len());
        block.extend_from_slice(&head.frame());
        block.extend_from_slice(&packed);
        Ok(block)
    }

    /// The last blocks, this many, will not be written: the next block takes the number of the first of them.
    pub fn take_back(&mut self, blocks: u64) {
        self.block = self.block.saturating_sub(blocks);
    }

    /// Puts the columns before the records.
    fn join(&mut self) {
        let Some((head, columns)) = self.columns.body() else { return };
        let records = std::mem::take(&mut self.raw);
        let len: usize = head.len() + columns.clone().map(<[u8]>::len).sum::<usize>();
        self.raw.reserve(records.len() + len + 16);
        let mut buffer = [0; 10];
        self.raw.push(kind::COLUMNS);
        self.raw.extend_from_slice(postcard::to_slice(&(len as u64), &mut buffer).map_or(&[][..], |len| len));
        self.raw.extend_from_slice(&head);
        columns.for_each(|column| self.raw.extend_from_slice(column));
        self.raw.extend_from_slice(&records);
    }

    fn clear(&mut self) {
        self.columns.clear();
        self.raw.clear();
        self.events = 0;
        self.has_more = false;
        self.period = None;
        self.before = 0;
        self.ids = None;
        self.id_before = 0;
        self.sockets.clear();
        self.index.clear();
        self.tasks.clear();
        self.task = None;
    }

    fn reach(&mut self, at: u64) {
        let (first, last) = self.period.unwrap_or((at, at));
        self.period = Some((first.min(at), last.max(at)));
    }

    fn event(&mut self, event: &Event) {
        self.events = self.events.saturating_add(u32::from(event.id().is_some()));
        self.reach(event.at());
        #[cfg(test)]
        let is_in_columns = !self.is_in_records && self.columns.event(event);
        #[cfg(not(test))]
        let is_in_columns = self.columns.event(event);
        if !is_in_columns {
            self.record_of(event);
            self.columns.note_record();
        }
    }

    /// Writes the record of an event that is not in columns.
    fn record_of(&mut self, event: &Event) {
        let at = event.at();
        match *event {
            Event::Change(ref change) => self.change(change),
            Event::Destroyed { id, shut, .. } => self.act(kind::DESTROYED, at, id, None, wire::shut_to(shut)),
            Event::Accepted { id, task, .. } => self.act(kind::ACCEPTED, at, id, Some(task), 0),
            Event::ResetSent { id, reason, .. } => {
                self.act(kind::RESET_SENT, at, id, None, u32::from(wire::reason_to(reason)));
            }
            Event::ResetReceived { id, .. } => self.act(kind::RESET_RECEIVED, at, id, None, 0),
            Event::Bypassing { id, .. } => self.act(kind::BYPASSING, at, id, None, 0),
            Event::Mini(ref mini) => self.mini(mini),
            Event::Found(ref found) => {
                let body = self.found(found);
                self.record(kind::FOUND, &body);
            }
            Event::Holder(ref holder) => {
                let found = self.found(&holder.found);
                let task = self.task(Some(holder.task));
                self.record(kind::HOLDER, &wire::Holder { found, task, fd: holder.fd });
            }
            Event::Inspected(ref inspected) => self.inspected(inspected),
            Event::FailedCall(ref call) => self.failed_call(call),
            Event::Flow(Flow { id, acked, received, unacked, .. }) => {
                let socket = self.socket(&Mentioned::only(id));
                let after = self.after(at);
                self.record(kind::FLOW, &wire::Flow { after, socket, acked, received, unacked });
            }
            Event::Subflow(Subflow { id, of: Multipath { token, state }, .. }) => {
                let socket = self.socket(&Mentioned::only(id));
                let after = self.after(at);
                let state = state.map(wire::state_to);
                self.record(kind::SUBFLOW, &wire::Subflow { after, socket, token, state });
            }
            Event::Started { .. } => self.mark(kind::STARTED, at, 0),
            Event::SurveyBegun { .. } => self.mark(kind::SURVEY_BEGUN, at, 0),
            Event::Surveyed { netns, .. } => self.mark(kind::SURVEYED, at, u64::from(netns)),
            Event::SurveyEnded { .. } => self.mark(kind::SURVEY_ENDED, at, 0),
            Event::ScanBegun { .. } => self.mark(kind::SCAN_BEGUN, at, 0),
            Event::ScanEnded { .. } => self.mark(kind::SCAN_ENDED, at, 0),
            Event::Lost { cause, events, .. } => {
                let after = self.after(at);
                self.record(kind::LOST, &(wire::Mark { after, number: events }, wire::cause_to(cause)));
            }
            Event::Suspended { ns, .. } => self.mark(kind::SUSPENDED, at, ns),
            Event::Passed { .. } => self.mark(kind::PASSED, at, 0),
            Event::AcceptsWatched { watched, .. } => self.mark(kind::ACCEPTS_WATCHED, at, u64::from(watched)),
        }
    }

    fn change(&mut self, change: &Change) {
        let Change { at, id, address, tuple, netns, uid, cgroup, interface, old, new, flags, idle, task, ref end } =
            *change;
        let idle = wire::IdleAtEnd(idle);
        let mentioned = Mentioned { id, tuple: Some(tuple), netns, uid, cgroup, interface };
        let body = wire::Change {
            socket: self.socket(&mentioned),
            task: self.task(task),
            after: self.after(at),
            states: wire::state_to(old) | wire::state_to(new) << 4,
            bits: mentioned.bits() | wire::flag_bits(flags),
        };
        match (address, end) {
            (None, None) => self.record(kind::CHANGE, &(body, idle)),
            (Some(address), None) => self.record(kind::CHANGE_WITH_ADDRESS, &(body, address, idle)),
            (address, Some(end)) => self.record(kind::CLOSING, &(body, end_body(end), address, idle)),
        }
    }

    fn inspected(&mut self, inspected: &Inspected) {
        let body = wire::Inspected {
            socket: self.socket(&Mentioned::only(inspected.id)),
            after: self.after(inspected.at),
            recv_queue: inspected.recv_queue,
            send_queue: inspected.send_queue,
            timer: wire::timer_to(inspected.timer),
            timer_left_ns: inspected.timer_left_ns,
            retransmits: inspected.retransmits,
            idle: inspected.idle.map(Into::into),
            timestamps: inspected.timestamps,
            bind_no_port: inspected.bind_no_port,
            bound: inspected.bound.map(Into::into),
        };
        self.record(kind::INSPECTED, &body);
    }

    fn failed_call(&mut self, call: &FailedCall) {
        let body = wire::FailedCall {
            after: self.after(call.at),
            call: wire::call_to(call.call),
            errno: call.errno,
            task: self.task(Some(call.task)),
            fd: call.fd,
            netns: call.netns,
            address: call.address.map(|(ip, port)| (ip.octets(), port)),
        };
        self.record(kind::FAILED_CALL, &body);
    }

    fn act(&mut self, kind: u8, at: u64, id: Id, task: Option<Task>, number: u32) {
        let socket = self.socket(&Mentioned::only(id));
        let task = self.task(task);
        let after = self.after(at);
        self.record(kind, &wire::Act { after, socket, task, number });
    }

    fn mini(&mut self, mini: &Mini) {
        let Mini { at, id, tuple, netns, substate, due_ns, what } = *mini;
        let mentioned = Mentioned { tuple: Some(tuple), netns, ..Mentioned::only(id) };
        let body = wire::Mini {
            socket: self.socket(&mentioned),
            after: self.after(at),
            substate: wire::state_to(substate),
            bits: mentioned.bits(),
            due_ns,
            what: wire::mini_to(what),
        };
        self.record(kind::MINI, &body);
    }

    fn found(&mut self, found: &Found) -> wire::Found {
        let Found { at, id, tuple, netns, uid, cgroup, interface, state, kept } = *found;
        let mentioned = Mentioned { id, tuple: Some(tuple), netns, uid, cgroup, interface };
        let (kept, due_ns) = match kept {
            Kept::Held => (0, 0),
            Kept::Queued => (1, 0),
            Kept::Orphan => (2, 0),
            Kept::Mini { due_ns } => (3, due_ns),
        };
        wire::Found {
            socket: self.socket(&mentioned),
            after: self.after(at),
            state: wire::state_to(state),
            bits: mentioned.bits(),
            kept,
            due_ns,
        }
    }

    fn mark(&mut self, kind: u8, at: u64, number: u64) {
        let after = self.after(at);
        self.record(kind, &wire::Mark { after, number });
    }

    /// The time since the previous event.
    fn after(&mut self, at: u64) -> i64 {
        let after = at.wrapping_sub(self.before).cast_signed();
        self.before = at;
        after
    }

    /// The index of a socket. Describes the socket first if the reader does not know it, or knows it differently.
    fn socket(&mut self, mentioned: &Mentioned) -> u32 {
        let id = mentioned.id;
        let next = self.sockets.len() as u32;
        let is_it = |index: &u32| self.sockets[*index as usize].id == id;
        let index = match self.index.entry(hash(id), is_it, |index| hash(self.sockets[*index as usize].id)) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => *entry.insert(next).get(),
        };
        let known = self.sockets.get(index as usize).copied();
        let before = known.unwrap_or(Described { id, tuple: UNSET, netns: 0, uid: 0, cgroup: 0, interface: 0 });
        let described = Described {
            id,
            tuple: mentioned.tuple.unwrap_or(before.tuple),
            netns: mentioned.netns.unwrap_or(before.netns),
            uid: mentioned.uid.unwrap_or(before.uid),
            cgroup: mentioned.cgroup.unwrap_or(before.cgroup),
            interface: if mentioned.interface != 0 { mentioned.interface } else { before.interface },
        };
        if known != Some(described) {
            match self.sockets.get_mut(index as usize) {
                Some(known) => *known = described,
                None => self.sockets.push(described),
            }
            self.describe(index, &described);
        }
        index
    }

    fn describe(&mut self, index: u32, socket: &Described) {
        let number = socket.id.number();
        let (min, max) = self.ids.unwrap_or((number, number));
        self.ids = Some((min.min(number), max.max(number)));
        let Tuple { local_ip, remote_ip, local_port, remote_port } = socket.tuple;
        let short = local_ip.to_ipv4_mapped().zip(remote_ip.to_ipv4_mapped());
        let is_address = if matches!(socket.id, Id::Address(_)) { socket_bit::IS_ADDRESS } else { 0 };
        let body = wire::Socket {
            index,
            id: number.wrapping_sub(self.id_before).cast_signed(),
            ports: [local_port, remote_port],
            bits: is_address | if short.is_some() { 0 } else { socket_bit::IPV6 },
            netns: socket.netns,
            uid: socket.uid,
            cgroup: socket.cgroup,
        };
        self.id_before = number;
        match (short, socket.interface) {
            (Some((local, remote)), 0) => self.record(kind::SOCKET, &(body, local.octets(), remote.octets())),
            (Some((local, remote)), interface) => {
                self.record(kind::SOCKET, &(body, local.octets(), remote.octets(), interface));
            }
            (None, 0) => self.record(kind::SOCKET, &(body, local_ip.octets(), remote_ip.octets())),
            (None, interface) => {
                self.record(kind::SOCKET, &(body, local_ip.octets(), remote_ip.octets(), interface));
            }
        }
    }

    /// The index of a task plus 1; 0 for no task. Describes the task first if the reader does not know it, or knows it
    /// differently.
    fn task(&mut self, task: Option<Task>) -> u32 {
        let Some(task) = task else { return 0 };
        if let Some((before, number)) = self.task
            && before == task
        {
            return number;
        }
        let next = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        let index = *self.tasks.entry(task).or_insert(next);
        if index == next {
            self.record(kind::TASK, &wire::Task { index, pid: task.pid, tid: task.tid, comm: task.comm.0 });
        }
        self.task = Some((task, index + 1));
        index + 1
    }

    fn record(&mut self, kind: u8, body: &impl Serialize) {
        match postcard::serialize_with_flavor(body, Body { bytes: &mut self.body, len: 0 }) {
            // At most `LONGEST_BODY`, so one or two bytes.
            Ok(len) => {
                self.raw.push(kind);
                if len < 0x80 {
                    self.raw.push(len as u8);
                } else {
                    self.raw.extend_from_slice(&[len as u8 | 0x80, (len >> 7) as u8]);
                }
                self.raw.extend_from_slice(&self.body[..len]);
            }
            // All types have a fixed form, and the longest one fits.
            Err(error) => debug_assert!(false, "a record does not fit: {error}"),
        }
    }

    fn json(&mut self, kind: u8, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(value)?;
        self.long(kind, &[&text])
    }

    fn named(&mut self, kind: u8, number: u64, name: &[u8]) -> io::Result<()> {
        let mut buffer = [0; 10];
        let number = postcard::to_slice(&number, &mut buffer).map_err(io::Error::other)?;
        self.long(kind, &[number, name])
    }

    fn interface(&mut self, netns: u32, index: u32, name: &[u8]) -> io::Result<()> {
        let mut buffer = [0; 10];
        let which = postcard::to_slice(&(netns, index), &mut buffer).map_err(io::Error::other)?;
        self.long(kind::INTERFACE, &[which, name])
    }

    fn long(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > LONGEST / 4 {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("a record of {len} bytes is too long")));
        }
        let mut buffer = [0; 10];
        let number = postcard::to_slice(&(len as u64), &mut buffer).map_err(io::Error::other)?;
        if self.raw.len() + 1 + number.len() + len > LONGEST {
            return Err(full());
        }
        self.raw.push(kind);
        self.raw.extend_from_slice(number);
        parts.iter().for_each(|part| self.raw.extend_from_slice(part));
        Ok(())
    }
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, format!("a block has no room for more than {LONGEST} bytes"))
}

fn hash(id: Id) -> u64 {
    FixedState::default().hash_one(id.number())
}

/// An entirely unknown tuple.
pub(super) const UNSET: Tuple = Tuple {
    local_ip: std::net::Ipv6Addr::UNSPECIFIED,
    remote_ip: std::net::Ipv6Addr::UNSPECIFIED,
    local_port: 0,
    remote_port: 0,
};

fn end_body(end: &EndFacts) -> wire::End {
    let (mini, due_ns) = match end.mini {
        Birth::NotWatched => (0, 0),
        Birth::None => (1, 0),
        Birth::Made { substate, due_ns } => (16 + wire::state_to(substate), due_ns),
    };
    wire::End {
        bytes_sent: end.totals.bytes_sent,
        bytes_received: end.totals.bytes_received,
        bytes_unread: end.totals.bytes_unread,
        all_retransmits: end.totals.retransmits,
        srtt_us: end.totals.srtt_us,
        err: end.err,
        bits: wire::end_bits(end),
        retransmits: end.retransmits,
        probes: end.probes,
        mini,
        due_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::block::FRAME_HEADER;
    use crate::trace::{Content, Reader};

    fn group(id: u64) -> Item {
        Item::Group { id, path: vec![b'x'; 250].into() }
    }

    /// Names alone once made blocks that no reader accepts.
    #[test]
    fn a_full_block_takes_nothing_more_and_can_be_read() {
        let mut encoder = Encoder::new([7; 16]).expect("memory");
        let mut ids = 0..;
        let error = ids.by_ref().find_map(|id| encoder.push(&group(id)).err()).expect("it gets full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let passed = Item::Event(Event::Passed { at: 1 });
        while encoder.push(&passed).is_ok() {}
        assert!(encoder.len() <= LONGEST, "{}", encoder.len());
        let block = encoder.finish(0).expect("it is not too long");
        let (mut reader, mut items) = (Reader::new(&block[..]).expect("memory"), Vec::new());
        let read = reader.next(|_| true, &mut items).expect("bytes can be read");
        assert!(matches!(read, Some(Content::Items { damage: None, .. })), "{read:?}");
        encoder.push(&group(0)).expect("the next block has room");
    }

    #[test]
    fn a_block_that_no_reader_takes_is_not_made() {
        let mut encoder = Encoder::new([7; 16]).expect("memory");
        encoder.raw.resize(LONGEST + 1, 200);
        assert!(encoder.finish(0).is_err());
        encoder.push(&group(0)).expect("the next block has room");
        let block = encoder.finish(0).expect("it is not too long");
        let head = BlockHead::parse(&block[FRAME_HEADER..][..size_of::<BlockHead>()]).expect("a head");
        assert_eq!(head.block.get(), 1, "readers notice that one is missing");
    }
}
