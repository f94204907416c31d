//! Reads a trace of arbitrary bytes: reading must end in order, within the memory limit.
//!
//! Checksums protect every block, so random changes of bytes are found at once. Most inputs are therefore changed
//! inside: blocks are unpacked, changed, and packed again with correct checksums.
#![no_main]

mod memory;

use std::io;
use std::iter::repeat_with;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use tcptrace::engine::lifecycle::Config;
use tcptrace::model::criteria::Criteria;
use tcptrace::model::row::Row;
use tcptrace::model::stream::{Origin, Summary};
use tcptrace::output::{Format, TextOptions};
use tcptrace::replay::{OpenError, Recordings, Span};
use tcptrace::trace::Blocks;
use tcptrace::trace::block::BlockHead;
use zstd::bulk::compress;

/// Limit for the length of an unpacked block.
const LONGEST: usize = 1 << 16;

/// Limit for the unpacked length of all blocks: a few bytes can expand into seconds of work, which is no finding.
const MOST: usize = 1 << 18;

fuzz_target!(|bytes: &[u8]| {
    // It does not matter whether anything can be read.
    memory::is_within_bounds(bytes.len(), || drop(print_nowhere(bytes)));
});

/// Reads a trace, draws all conclusions, and prints them in every format.
fn print_nowhere(bytes: &[u8]) -> Result<Summary, OpenError> {
    let recordings = Recordings::of(vec![("bytes".into(), bytes)])?;
    let text = TextOptions { colour: true, states: true, ..TextOptions::default() };
    let mut printers = [Format::Text, Format::Json, Format::Csv].map(|format| format.printer(io::sink(), text.clone()));
    let mut print = |row: &Row, origin: &Origin| {
        printers.iter_mut().try_for_each(|printer| printer.row(row, &origin.context).map(drop))
    };
    let (config, criteria) = (Config { sockets: 10_000, ..Config::default() }, Criteria::default());
    let told: io::Result<Summary> = recordings.tell(config, &criteria, Span::default(), true, &mut print);
    told.map_err(|reason| OpenError::Unreadable { path: "bytes".into(), reason })
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random(u64::from(seed) << 1 | 1);
    let changed = if random.below(4) > 0 { changed_inside(&data[..size], &mut random) } else { None };
    match changed.filter(|changed| changed.len() <= max_size.min(data.len())) {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

/// A file with a change behind its checksums; `None` if it has no block.
fn changed_inside(file: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut reader = Blocks::new(file).ok()?;
    let mut blocks = Vec::new();
    while let Some(block) = reader.next(|_| true).ok()? {
        blocks.extend(block.ok().map(|(head, raw)| (head, raw.to_vec())));
    }
    let at = random.index(blocks.len())?;
    match random.below(8) {
        0 => change_order(&mut blocks, at, random),
        1 => change_head(&mut blocks[at].0, random),
        2 => blocks[at].1 = bytes_changed(&blocks[at].1),
        _ => {
            let other = random.index(blocks.len())?;
            let from = records(&blocks[other].1).iter().map(|record| record.to_vec()).collect::<Vec<_>>();
            blocks[at].1 = records_changed(&blocks[at].1, &from, random);
        }
    }
    if blocks.iter().map(|(_, raw)| raw.len()).sum::<usize>() > MOST {
        return None;
    }
    let mut changed = Vec::new();
    for (mut head, raw) in blocks {
        let data = compress(&raw, 1).ok()?;
        head.raw_len.set(u32::try_from(raw.len()).ok()?);
        head.data_len.set(u32::try_from(data.len()).ok()?);
        changed.extend_from_slice(&head.frame());
        changed.extend_from_slice(&data);
    }
    Some(changed)
}

/// Repeats, drops or reorders blocks, or takes them from another recording.
fn change_order(blocks: &mut Vec<(BlockHead, Vec<u8>)>, at: usize, random: &mut Random) {
    match random.below(4) {
        0 => blocks.push(blocks[at].clone()),
        1 => drop(blocks.remove(at)),
        2 => blocks[at].0.recording[0] ^= 1,
        _ => blocks.swap(0, at),
    }
}

fn change_head(head: &mut BlockHead, random: &mut Random) {
    let number = random.number();
    match random.below(5) {
        0 => head.block.set(number),
        1 => head.first_at.set(number),
        2 => head.last_at.set(number),
        3 => head.events.set((number >> 32) as u32),
        _ => head.file.set((number >> 32) as u32),
    }
}

/// Changes, repeats, drops or reorders records, or takes them from another block.
fn records_changed(raw: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut records: Vec<Vec<u8>> = records(raw).into_iter().map(<[u8]>::to_vec).collect();
    let Some(at) = random.index(records.len()) else { return bytes_changed(raw) };
    match random.below(8) {
        0 => drop(records.remove(at)),
        1 => records.insert(at, records[at].clone()),
        2 => records.swap(0, at),
        3 => {
            let to = random.below(records.len());
            records.swap(at, to);
        }
        4 => {
            if let Some(other) = random.index(others.len()) {
                records.insert(at, others[other].clone());
            }
        }
        5 => {
            let again: Vec<_> = repeat_with(|| records[at].clone()).take(random.below(200)).collect();
            records.splice(at..at, again);
        }
        6 => records[at][0] = random.below(48) as u8,
        _ => {
            let (kind, body) = (records[at][0], body(&records[at]));
            records[at] = record(kind, &bytes_changed(body));
        }
    }
    let mut raw = records.concat();
    raw.truncate(LONGEST);
    raw
}

fn bytes_changed(bytes: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed.resize(bytes.len() + 16, 0);
    let room = changed.len();
    let len = fuzzer_mutate(&mut changed, bytes.len(), room);
    changed.truncate(len);
    changed
}

/// Each record with kind and length, as far as they can be parsed.
fn records(raw: &[u8]) -> Vec<&[u8]> {
    let mut rest = raw;
    let mut records = Vec::new();
    while let Some((len, header)) = rest.get(1..).and_then(length) {
        let Some((record, after)) = rest.split_at_checked(1 + header + len) else { break };
        records.push(record);
        rest = after;
    }
    records
}

/// A variable-length number, and its size.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.iter().take(3).position(|byte| byte & 0x80 == 0)?;
    let number = bytes[..=end].iter().rev().fold(0, |number, byte| number << 7 | usize::from(byte & 0x7f));
    Some((number, end + 1))
}

fn body(record: &[u8]) -> &[u8] {
    let header = length(&record[1..]).map_or(0, |(_, header)| header);
    &record[1 + header..]
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind];
    let mut rest = body.len();
    while rest >= 0x80 {
        record.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    record.push(rest as u8);
    record.extend_from_slice(body);
    record
}

/// A reproducible generator (xorshift64*).
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.number() >> 33) as usize % end
    }

    fn index(&mut self, len: usize) -> Option<usize> {
        (len > 0).then(|| self.below(len))
    }
}
