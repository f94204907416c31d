//! Damaged and forged traces: reading them does no harm, and readers always report damage.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::books::{Books, Rows};
use super::groups::HOSTILE;
use super::names::OUTPUTS;
use super::process::Process;
use super::random::Random;
use super::reader::{self, HANG, Read};
use super::words::{self, Figures};
use super::{Ground, Verdict, forge};
use crate::hidden::{self, Hidden};
use crate::stress::load::Load;

/// A trace whose contents are known.
struct Honest {
    bytes: Vec<u8>,
    events: u64,
    /// The rows of `replay --format json`.
    digest: u64,
}

impl Honest {
    /// Records many connections over many blocks.
    fn record(ground: &Ground, connections: u32, verdict: &mut Verdict) -> Result<Self> {
        let mut load =
            Load::start(&["--seconds=60", "--rate=300", &format!("--connections={connections}")].map(String::from))?;
        let recorder = Process::ready(&mut ground.record(&load, "honest.tct", &[]), &ground.folder.join("honest.err"))?;
        let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
        load.begin()?;
        let made = load.wait()?;
        let recorder = recorder.end(Signal::SIGINT)?;
        let hidden = hidden.map_or(0, |hidden| hidden.so_far());
        load.end()?;
        let books = Books::open(ground, &["honest.tct"], Some(&recorder))?.with_hidden(hidden);
        books.must_agree(verdict);
        books.must_be_true(made.connections, verdict);
        let read = reader::read(ground.tcptrace(&["replay", "--format", "json", "honest.tct"]), HANG, |_| {})?;
        let bytes = fs::read(ground.folder.join("honest.tct")).context("cannot read the trace")?;
        Ok(Self { bytes, events: recorder.figures()?.events, digest: read.digest })
    }
}

/// The results of several readers of one file.
struct Look {
    replay: Read,
    figures: Option<Figures>,
    rows: Rows,
    slowest: Duration,
    memory: u64,
}

impl Look {
    /// Reads a file with `replay`, `report` and `others` more readers.
    fn at(ground: &Ground, file: &str, others: usize, random: &mut Random, verdict: &mut Verdict) -> Result<Self> {
        let run = |output: &[&str], each: &mut (dyn FnMut(&[u8]) + Send)| {
            let mut command = ground.tcptrace(output);
            command.arg(file);
            reader::read(command, HANG, each)
        };
        let mut rows = Rows::default();
        let replay = run(OUTPUTS[0], &mut |line| rows.add(line))?;
        let mut first = Vec::new();
        let report = run(OUTPUTS[1], &mut |line| {
            if first.is_empty() {
                first = line.to_vec();
            }
        })?;
        let figures = words::closing(&replay.said);
        let mut look = Self { figures, rows, slowest: replay.took, memory: replay.memory, replay };
        look.replay.must_be_harmless(verdict);
        look.take(&report, verdict);
        look.must_agree_with_report(&first, file, verdict);
        let all = OUTPUTS.len() - 2;
        for number in 0..others {
            let output = if others < all { 2 + random.below(all) } else { 2 + number };
            look.take(&run(OUTPUTS[output], &mut |_| {})?, verdict);
        }
        for (option, to) in [("--html", "x.html"), ("--format=parquet", "x.parquet")].iter().take(others / all * 2) {
            let words: &[&str] =
                if *option == "--html" { &["report", option, to] } else { &["export", option, "-o", to, "--force"] };
            look.take(&run(words, &mut |_| {})?, verdict);
        }
        Ok(look)
    }

    fn take(&mut self, read: &Read, verdict: &mut Verdict) {
        read.must_be_harmless(verdict);
        let status = self.replay.status;
        verdict
            .must(read.status == status, || format!("`{}`: status {}, replay's is {status}", read.line, read.status));
        self.slowest = self.slowest.max(read.took);
        self.memory = self.memory.max(read.memory);
    }

    fn must_agree_with_report(&self, first: &[u8], file: &str, verdict: &mut Verdict) {
        let Some(figures) = self.figures else { return };
        let row: serde_json::Value = serde_json::from_slice(first).unwrap_or_default();
        let report = ["events", "transitions", "lost"].map(|name| row[name].as_u64());
        let replay = [figures.events, figures.transitions, figures.lost].map(Some);
        verdict.must(report == replay, || format!("{file}: replay counts {replay:?}, report {report:?}"));
    }
}

/// Maxima over all readings.
#[derive(Default)]
struct Most {
    files: u32,
    slowest: Duration,
    memory: u64,
    statuses: [u32; 4],
}

impl Most {
    fn add(&mut self, look: &Look) {
        self.files += 1;
        self.slowest = self.slowest.max(look.slowest);
        self.memory = self.memory.max(look.memory);
        if let Some(count) = usize::try_from(look.replay.status).ok().and_then(|status| self.statuses.get_mut(status)) {
            *count += 1;
        }
    }

    fn note(&self, verdict: &mut Verdict) {
        let Self { files, slowest, memory, statuses: [whole, failed, _, damaged] } = self;
        verdict.note(format!("{files} files: status 0 {whole}, 1 {failed}, 3 {damaged}"));
        verdict.note(format!("{:.2} s and {} MiB at most", slowest.as_secs_f64(), memory >> 20));
    }
}

/// Ways to damage bytes.
const WAYS: [&str; 10] =
    ["bits", "cut", "cut at a block", "hole", "zeroes", "again", "block again", "garbage", "order", "block gone"];

fn damage(way: &str, bytes: &mut Vec<u8>, random: &mut Random) {
    let blocks = forge::beginnings(bytes);
    let block = |random: &mut Random| {
        let number = random.below(blocks.len());
        blocks[number]..blocks.get(number + 1).copied().unwrap_or(bytes.len())
    };
    let from = random.below(bytes.len());
    let to = bytes.len().min(from + 1 + random.below(400));
    match way {
        "bits" => {
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        "cut" => bytes.truncate(from),
        "cut at a block" => {
            let at = block(random).start;
            bytes.truncate(at);
        }
        "hole" => drop(bytes.drain(from..to)),
        "zeroes" => bytes[from..to].fill(0),
        "again" => {
            let again = bytes[from..to].to_vec();
            bytes.splice(from..from, again);
        }
        "block again" => {
            let again = bytes[block(random)].to_vec();
            bytes.splice(to..to, again);
        }
        "block gone" => {
            let gone = block(random);
            bytes.drain(gone);
        }
        "garbage" => {
            let garbage: Vec<u8> = (from..to).map(|_| (random.number() >> 32) as u8).collect();
            bytes.splice(from..from, garbage);
        }
        _ => {
            let moved: Vec<u8> = bytes.drain(from..to).collect();
            let to = random.below(bytes.len());
            bytes.splice(to..to, moved);
        }
    }
}

/// Checks that readers report every kind of damage.
pub(super) fn damaged(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let honest = Honest::record(ground, 200, verdict)?;
    let mut random = ground.random();
    let mut most = Most::default();
    for number in 0..ground.either(3, 40) * WAYS.len() {
        let way = WAYS[number % WAYS.len()];
        let mut bytes = honest.bytes.clone();
        damage(way, &mut bytes, &mut random);
        if bytes == honest.bytes {
            continue;
        }
        let file = format!("{number}-{}.tct", way.replace(' ', "-"));
        let look = look_at(ground, &file, &bytes, ground.either(2, OUTPUTS.len() - 2), &mut random, verdict)?;
        most.add(&look);
        let is_same = look.replay.digest == honest.digest;
        verdict.must(is_same || look.replay.status != 0, || {
            format!("{file}: damaged, and status 0: {}", words::tail(&look.replay.said))
        });
        let Some(figures) = look.figures else { continue };
        let rows = [look.rows.transitions, look.rows.lost];
        let said = [figures.transitions, figures.lost];
        verdict.must(rows == said, || {
            format!("{file}: rows are {rows:?} transitions and lost, the closing line says {said:?}")
        });
        // A repeated block adds no events, and the number of events missing at the end is unknown.
        let all = figures.events.saturating_add(figures.lost);
        let is_lower_bound = figures.is_lower_bound || words::is_abrupt(&look.replay.said);
        verdict.must(all <= honest.events && (is_lower_bound || all == honest.events), || {
            let sign = if is_lower_bound { "≥" } else { "" };
            format!("{file}: {} read and {sign}{} lost of {}", figures.events, figures.lost, honest.events)
        });
    }
    most.note(verdict);
    Ok(())
}

/// Writes a file, runs the readers on it, and removes it unless something is wrong.
fn look_at(
    ground: &Ground,
    file: &str,
    bytes: &[u8],
    others: usize,
    random: &mut Random,
    verdict: &mut Verdict,
) -> Result<Look> {
    let path = ground.folder.join(file);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    let before = verdict.complaints.len();
    let look = Look::at(ground, file, others, random, verdict)?;
    if verdict.complaints.len() == before && look.replay.status != 0 {
        remove(&path)?;
    }
    Ok(look)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Checks that wrong data behind correct checksums does no harm, and that all readers report it alike.
pub(super) fn changed_inside(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let honest = Honest::record(ground, 100, verdict)?;
    let mut random = ground.random();
    let mut most = Most::default();
    for number in 0..ground.either(30, 400) {
        let mut blocks = forge::blocks(&honest.bytes)?;
        for _ in 0..=random.below(3) {
            forge::change_inside(&mut blocks, &mut random);
        }
        let written: Result<Vec<_>> = blocks.iter().map(forge::Block::written).collect();
        let file = format!("{number}.tct");
        most.add(&look_at(
            ground,
            &file,
            &written?.concat(),
            ground.either(2, OUTPUTS.len() - 2),
            &mut random,
            verdict,
        )?);
    }
    most.note(verdict);
    Ok(())
}

/// Traces that tcptrace did not write.
pub(super) fn forged(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let mut random = ground.random();
    let mut most = Most::default();
    let others = ground.either(3, OUTPUTS.len() - 2);
    for (name, bytes) in bombs()?.into_iter().chain(phantoms()?) {
        most.add(&look_at(ground, &format!("{name}.tct"), &bytes, others, &mut random, verdict)?);
    }
    for (number, bytes) in deceivers(ground)?.into_iter().enumerate() {
        let look = look_at(ground, &format!("name-{number}.tct"), &bytes, others, &mut random, verdict)?;
        verdict.must(look.replay.status == 0 || look.replay.status == 3, || {
            format!("name-{number}.tct cannot be read: {}", words::tail(&look.replay.said))
        });
        most.add(&look);
    }
    most.note(verdict);
    Ok(())
}

/// A trace of one block: its head, then these records.
fn trace(events: u32, records: &[u8]) -> Result<Vec<u8>> {
    forge::Block::new(0, events, [forge::beginning(&forge::head("host", "h")), records.to_vec()].concat()).written()
}

/// Small files that claim to be large, or cause much work.
fn bombs() -> Result<Vec<(&'static str, Vec<u8>)>> {
    use forge::{Block, SECOND, at, change, kind, lost, number, record, socket, timed};
    let claim = |place: std::ops::Range<usize>, claimed: u64| -> Result<Vec<u8>> {
        let mut block = Block::new(0, 7, forge::beginning(&forge::head("host", "h")));
        block.set(at::RAW_LEN, 1000);
        block.set(at::DATA_LEN, 1000);
        block.set(place, claimed);
        Ok(block.claiming(&[0; 1000]))
    };
    let meaningless = Block::new(0, 0, vec![0; 1 << 20]);
    let meaningless: Vec<u8> = [Block::new(0, 0, forge::beginning(&forge::head("host", "h"))).written()?]
        .into_iter()
        .chain((1..30).map(|number| {
            let mut block = meaningless.clone();
            block.set(at::BLOCK, number);
            block.written().unwrap_or_default()
        }))
        .flatten()
        .collect();
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let many: Vec<u8> =
        (0..20_000).flat_map(|index| [socket(index, [index, 80]), change(1, index, 0, 2)]).flatten().collect();
    let endless: Vec<u8> = [socket(0, [1, 2]), change(1, 0, 0, 2)].concat();
    let endless = [endless, timed(kind::PASSED, u64::MAX >> 2, 0), change(u64::MAX >> 2, 0, 2, 4)].concat();
    Ok(vec![
        ("4-gb-raw", claim(at::RAW_LEN, u64::from(u32::MAX))?),
        ("4-gb-data", claim(at::DATA_LEN, u64::from(u32::MAX))?),
        ("later-version", claim(at::VERSION, 65_535)?),
        ("meaningless", meaningless),
        ("deep-json", Block::new(0, 0, record(kind::HEAD, &[deep.as_bytes()])).written()?),
        ("many-sockets", trace(40_000, &many)?),
        ("end-of-time", trace(4, &endless)?),
        ("lost-all", trace(3, &[lost(1, u64::MAX, 1), lost(1, u64::MAX, 3), lost(1, 1, 200)].concat())?),
        ("no-socket", trace(1, &change(1, 77, 2, 4))?),
        ("no-state", trace(2, &[socket(0, [1, 2]), change(1, 0, 14, 15)].concat())?),
        ("claims-events", trace(u32::MAX, &timed(kind::PASSED, SECOND, 0))?),
        ("long-record", trace(1, &[vec![kind::CHANGE], number(u64::MAX), vec![1; 100]].concat())?),
        ("long-name", trace(0, &record(kind::NAMESPACE, &[&[1], &[b'n'; 900_000]]))?),
        ("zeroes", vec![0; 1 << 20]),
    ])
}

/// Ends of mini-sockets whose beginning was not seen.
fn phantoms() -> Result<Vec<(&'static str, Vec<u8>)>> {
    use forge::{SECOND, change, kind, mini, socket, task, timed};
    let ways = [("phantom-expired", 0), ("phantom-killed", 3), ("phantom-segment", 4), ("phantom-reset", 5)];
    let phantom = |(name, what)| {
        let opened = [socket(0, [40_000, 80]), task("x"), change(1000, 0, 0, 2), change(1000, 0, 2, 4)].concat();
        let ended = [change(1000, 0, 4, 5), mini(1_000_000, 0, 10, 1), mini(50 * SECOND, 0, 10, what)].concat();
        Ok((name, trace(7, &[opened, ended, timed(kind::PASSED, 200 * SECOND, 0)].concat())?))
    };
    ways.into_iter().map(phantom).collect()
}

/// Traces with hostile names in every field that has a name.
fn deceivers(ground: &Ground) -> Result<Vec<Vec<u8>>> {
    use forge::{Block, beginning, head, kind, life, record, socket, task};
    let fields = ["host", "kernel", "machine", "program", "boot_id"];
    let long = "\x1b[31m".repeat(60);
    let names = HOSTILE.into_iter().chain([long.as_str()]);
    let mut traces = Vec::new();
    for (number, name) in names.enumerate() {
        let with = |field: &str, comm: &str, names: &str| {
            let named =
                [record(kind::NAMESPACE, &[&[1], names.as_bytes()]), record(kind::GROUP, &[&[1], names.as_bytes()])];
            let records = [beginning(&head(field, name)), named.concat(), socket(0, [40_000, 80]), task(comm), life()];
            Block::new(0, 7, records.concat()).written()
        };
        let comm: String = name.chars().take(5).collect();
        // The short form changes one field of the head; the full form changes each of them in turn.
        for field in
            fields.iter().skip(if ground.is_short { number % fields.len() } else { 0 }).take(ground.either(1, 5))
        {
            traces.push(with(field, &comm, &format!("/{name}"))?);
        }
    }
    Ok(traces)
}
