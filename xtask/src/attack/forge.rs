//! Takes traces apart, and writes traces by hand: blocks with correct checksums around any contents. It implements the
//! format independently, so that it does not repeat a fault of tcptrace's writer.

use std::iter::repeat_n;

use anyhow::{Context as _, Result, ensure};
use zstd::bulk::{compress, decompress};

use super::random::Random;

/// Magic number of the skippable frame that contains a head.
const FRAME: u32 = 0x184d_2a5c;
/// Header of a frame: magic number and length.
const HEADER: usize = 8;
/// Length of a head.
const HEAD: usize = 88;
/// Length of the part of a head that its checksum does not cover.
const CHECKED_FROM: usize = 12;

/// Offsets of numbers in a head.
pub(super) mod at {
    use std::ops::Range;
    pub(in super::super) const VERSION: Range<usize> = 12..14;
    pub(in super::super) const FLAGS: Range<usize> = 14..16;
    pub(in super::super) const RECORDING: Range<usize> = 16..32;
    pub(in super::super) const FILE: Range<usize> = 32..36;
    pub(in super::super) const EVENTS: Range<usize> = 36..40;
    pub(in super::super) const BLOCK: Range<usize> = 40..48;
    pub(in super::super) const FIRST_AT: Range<usize> = 48..56;
    pub(in super::super) const LAST_AT: Range<usize> = 56..64;
    pub(in super::super) const MIN_ID: Range<usize> = 64..72;
    pub(in super::super) const MAX_ID: Range<usize> = 72..80;
    pub(in super::super) const RAW_LEN: Range<usize> = 80..84;
    pub(in super::super) const DATA_LEN: Range<usize> = 84..88;
}

/// Kinds of records.
pub(super) mod kind {
    pub(in super::super) const HEAD: u8 = 1;
    pub(in super::super) const CLOCKS: u8 = 2;
    pub(in super::super) const NAMESPACE: u8 = 3;
    pub(in super::super) const GROUP: u8 = 4;
    pub(in super::super) const SOCKET: u8 = 6;
    pub(in super::super) const TASK: u8 = 7;
    pub(in super::super) const STARTED: u8 = 8;
    pub(in super::super) const CHANGE: u8 = 9;
    pub(in super::super) const MINI: u8 = 16;
    pub(in super::super) const LOST: u8 = 24;
    pub(in super::super) const PASSED: u8 = 26;
}

/// An unpacked block.
#[derive(Clone)]
pub(super) struct Block {
    head: [u8; HEAD],
    pub(super) raw: Vec<u8>,
}

impl Block {
    /// An empty block for a hand-written trace.
    pub(super) fn new(number: u64, events: u32, raw: Vec<u8>) -> Self {
        let mut block = Self { head: [0; HEAD], raw };
        block.head[..8].copy_from_slice(b"tcptrace");
        block.set(at::VERSION, 1);
        block.set(at::FLAGS, 1);
        block.head[at::RECORDING].fill(b'R');
        block.set(at::EVENTS, u64::from(events));
        block.set(at::BLOCK, number);
        block.set(at::FIRST_AT, SECOND);
        block.set(at::LAST_AT, 300 * SECOND);
        block.set(at::MAX_ID, u64::MAX);
        block
    }

    pub(super) fn set(&mut self, at: std::ops::Range<usize>, number: u64) {
        let bytes = number.to_le_bytes();
        let len = at.len();
        self.head[at].copy_from_slice(&bytes[..len]);
    }

    /// The block as in a file, with correct checksums and lengths.
    pub(super) fn written(&self) -> Result<Vec<u8>> {
        let data = compress(&self.raw, 1).context("cannot pack a block")?;
        let mut block = self.clone();
        block.set(at::RAW_LEN, u64::try_from(self.raw.len())?);
        block.set(at::DATA_LEN, u64::try_from(data.len())?);
        Ok(block.claiming(&data))
    }

    /// The block with any head, correct or not; the checksum of the head is always correct.
    pub(super) fn claiming(mut self, data: &[u8]) -> Vec<u8> {
        let checksum = crc32fast::hash(&self.head[CHECKED_FROM..]);
        self.head[8..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
        let header = [FRAME.to_le_bytes(), (HEAD as u32).to_le_bytes()].concat();
        [header.as_slice(), &self.head, data].concat()
    }
}

/// The blocks of an undamaged trace.
pub(super) fn blocks(mut file: &[u8]) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let head: [u8; HEAD] = file.get(HEADER..HEADER + HEAD).context("the trace is cut")?.try_into()?;
        ensure!(file.starts_with(&FRAME.to_le_bytes()) && head.starts_with(b"tcptrace"), "there is no block");
        let number = |at: std::ops::Range<usize>| -> Result<usize> {
            Ok(usize::try_from(u32::from_le_bytes(head[at].try_into()?))?)
        };
        let (raw_len, data_len) = (number(at::RAW_LEN)?, number(at::DATA_LEN)?);
        let data = file.get(HEADER + HEAD..HEADER + HEAD + data_len).context("the trace is cut")?;
        blocks.push(Block { head, raw: decompress(data, raw_len).context("cannot unpack a block")? });
        file = &file[HEADER + HEAD + data_len..];
    }
    Ok(blocks)
}

/// Offsets at which blocks begin.
pub(super) fn beginnings(file: &[u8]) -> Vec<usize> {
    let mark = [&FRAME.to_le_bytes()[..], &(HEAD as u32).to_le_bytes(), b"tcptrace"].concat();
    (0..file.len()).filter(|&at| file[at..].starts_with(&mark)).collect()
}

/// Changes contents behind the checksums.
pub(super) fn change_inside(blocks: &mut Vec<Block>, random: &mut Random) {
    let at = random.below(blocks.len());
    match random.below(10) {
        0 => {
            let to = random.below(blocks.len());
            let block = blocks[at].clone();
            blocks.insert(to, block);
        }
        1 if blocks.len() > 1 => drop(blocks.remove(at)),
        2 => {
            let to = random.below(blocks.len());
            blocks.swap(at, to);
        }
        3 => change_head(&mut blocks[at], random),
        4 => {
            let len = random.below(blocks[at].raw.len());
            blocks[at].raw.truncate(len);
        }
        5 => change_bytes(&mut blocks[at].raw, random),
        _ => {
            let other = random.below(blocks.len());
            let others: Vec<Vec<u8>> = records(&blocks[other].raw).into_iter().map(<[u8]>::to_vec).collect();
            change_records(&mut blocks[at].raw, &others, random);
        }
    }
}

fn change_head(block: &mut Block, random: &mut Random) {
    let places = [
        at::VERSION,
        at::FLAGS,
        at::RECORDING,
        at::FILE,
        at::EVENTS,
        at::BLOCK,
        at::FIRST_AT,
        at::LAST_AT,
        at::MIN_ID,
        at::MAX_ID,
    ];
    let number = if random.below(2) == 0 { random.number() } else { random.number() % 4 };
    if let Some(place) = random.of(&places).cloned() {
        let place = place.start..place.end.min(place.start + 8);
        block.set(place, number);
    }
}

fn change_bytes(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte = (random.number() >> 32) as u8;
        }
    }
}

fn change_records(raw: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let mut records: Vec<Vec<u8>> = records(raw).into_iter().map(<[u8]>::to_vec).collect();
    if records.is_empty() {
        return;
    }
    let (at, to) = (random.below(records.len()), random.below(records.len()));
    match random.below(6) {
        0 => drop(records.remove(at)),
        1 => records.swap(at, to),
        2 => records.extend(random.of(others).cloned()),
        3 => {
            let again = repeat_n(records[at].clone(), random.below(500));
            records.splice(at..at, again.collect::<Vec<_>>());
        }
        4 => records[at][0] = u8::try_from(random.below(40)).unwrap_or(0),
        _ => change_bytes(&mut records[at][1..], random),
    }
    *raw = records.concat();
}

/// Each record with kind and length, as far as they can be parsed.
fn records(mut raw: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let Some((len, digits)) = raw.get(1..).and_then(length) {
        let Some((record, rest)) = raw.split_at_checked(1 + digits + len) else { break };
        records.push(record);
        raw = rest;
    }
    records
}

/// A length, and its size in bytes.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut number = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number, place + 1));
        }
    }
    None
}

/// Nanoseconds.
pub(super) const SECOND: u64 = 1_000_000_000;

/// Encodes a number as in records.
pub(super) fn number(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Encodes a signed number.
fn signed(value: u64) -> Vec<u8> {
    number(value << 1)
}

/// Encodes a record.
pub(super) fn record(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [&[kind], number(body.len() as u64).as_slice(), body.as_slice()].concat()
}

/// The first records of a trace: its head (a JSON object) and the clocks.
pub(super) fn beginning(head: &serde_json::Value) -> Vec<u8> {
    let clocks = [number(SECOND), number(SECOND), signed(1_735_786_245 * SECOND)].concat();
    [
        record(kind::HEAD, &[head.to_string().as_bytes()]),
        record(kind::CLOCKS, &[&clocks]),
        timed(kind::STARTED, SECOND, 0),
    ]
    .concat()
}

/// A head as tcptrace writes one, with one name replaced.
pub(super) fn head(field: &str, name: &str) -> serde_json::Value {
    let mut head = serde_json::json!({
        "program": "tcptrace 0", "host": "h", "kernel": "6.1", "machine": "x86_64",
        "boot_id": "6ad8fcbd-34df-42d5-bc33-d4b3a4e7d1a9", "started_unix_ns": 1_735_786_245_000_000_000_u64,
        "knows_cookies": true, "existing": false, "features": [],
    });
    head[field] = name.into();
    head
}

/// Describes the first socket, or another one.
pub(super) fn socket(index: u64, ports: [u64; 2]) -> Vec<u8> {
    let numbers = [number(index), signed(7), number(ports[0]), number(ports[1])].concat();
    // IPv4, network namespace 1, user 0, control group 1.
    record(kind::SOCKET, &[&numbers, &[0, 1, 0, 1, 127, 0, 0, 1, 127, 0, 0, 2]])
}

/// Describes the first thread.
pub(super) fn task(name: &str) -> Vec<u8> {
    let mut comm = name.as_bytes().to_vec();
    comm.resize(16, 0);
    record(kind::TASK, &[&[0, 9, 9], &comm])
}

/// Flags for the known fields of an event: network namespace, user, control group, and so on.
const KNOWN: u64 = 1 | 2 | 4 | 8 | 64;

/// A change of state.
pub(super) fn change(after: u64, socket: u64, old: u8, new: u8) -> Vec<u8> {
    let states = [old | new << 4];
    record(kind::CHANGE, &[&signed(after), &number(socket), &states, &number(KNOWN), &[1]])
}

/// What happens to a mini-socket.
pub(super) fn mini(after: u64, socket: u64, state: u8, what: u8) -> Vec<u8> {
    record(kind::MINI, &[&signed(after), &number(socket), &[state, 1, 0, what]])
}

/// A record with a time and a number.
pub(super) fn timed(kind: u8, after: u64, value: u64) -> Vec<u8> {
    record(kind, &[&signed(after), &number(value)])
}

/// Events lost, for a cause.
pub(super) fn lost(after: u64, count: u64, cause: u8) -> Vec<u8> {
    record(kind::LOST, &[&signed(after), &number(count), &[cause]])
}

/// A connection that ends in TIME_WAIT, followed by a long time.
pub(super) fn life() -> Vec<u8> {
    [
        change(1000, 0, 0, 2),
        change(1000, 0, 2, 4),
        change(1000, 0, 4, 5),
        mini(1_000_000, 0, 10, 1),
        mini(50 * SECOND, 0, 10, 0),
        timed(kind::PASSED, 200 * SECOND, 0),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_apart_and_put_together() {
        let raw = [beginning(&head("host", "h")), socket(0, [40_000, 80]), task("x"), life()].concat();
        assert_eq!(records(&raw).concat(), raw);
        assert_eq!(records(&raw).len(), 11);
        let file = Block::new(0, 7, raw.clone()).written().expect("packed");
        let again = blocks(&file).expect("a trace");
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].raw, raw);
        assert_eq!(again[0].written().expect("packed"), file);
        assert_eq!(beginnings(&[file.clone(), file.clone()].concat()), [0, file.len()]);
        blocks(&file[1..]).err().expect("no block");
    }

    #[test]
    fn changes_keep_records_readable() {
        let raw = [beginning(&head("host", "h")), socket(0, [40_000, 80]), task("x"), life()].concat();
        for seed in 0..500 {
            let mut changed = vec![Block::new(0, 7, raw.clone()), Block::new(1, 7, raw.clone())];
            change_inside(&mut changed, &mut Random::new(seed));
            let file: Vec<u8> = changed.iter().flat_map(|block| block.written().expect("packed")).collect();
            assert_eq!(blocks(&file).expect("a trace").len(), changed.len());
        }
    }
}
