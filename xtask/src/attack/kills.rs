//! Recorders that are killed at any moment.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::books::has;
use super::names::files;
use super::process::{PATIENCE, Process};
use super::random::Random;
use super::reader::{self, Read};
use super::{Ground, Verdict, words};
use crate::hidden::{self, Hidden};
use crate::stress::load::{self, FIRST, Load};

/// Events that were seen this long before are in the file.
const BOUND: Duration = Duration::from_millis(100);

/// The result of a kill.
struct Killed {
    /// The time between the end of the first connection that is not in the file, and the kill.
    lost: Duration,
    /// How long this machine stood still meanwhile.
    stall: Duration,
    connections: usize,
    is_empty: bool,
}

/// Checks that events seen a tenth of a second before the kill can be read without a hole, and that readers report an
/// abrupt end.
pub(super) fn killed(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let ends = ground.folder.join("ends");
    let mut load =
        Load::start(&["--seconds=1200".to_owned(), "--rate=1000".to_owned(), format!("--ends={}", ends.display())])?;
    let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    let metronome = Metronome::default();
    let kills = thread::scope(|scope| {
        scope.spawn(|| metronome.run());
        let mut random = ground.random();
        let kills: Result<Vec<_>> = (0..ground.either(12, 50))
            .map(|number| kill(ground, number, &load, &ends, &metronome, hidden.as_ref(), &mut random, verdict))
            .collect();
        metronome.is_over.store(true, Ordering::Relaxed);
        kills
    })?;
    let empty = kills.iter().filter(|kill| kill.is_empty).count();
    let mut lost: Vec<Duration> = kills.iter().map(|kill| kill.lost).collect();
    lost.sort();
    let late = kills.iter().filter(|kill| kill.lost > BOUND + kill.stall).count();
    verdict.must(ground.is_short || late == 0, || format!("{late} times, more than 100 ms are missing: {lost:?}"));
    verdict.must(kills.iter().any(|kill| kill.connections > 0), || "no connection is in any file".to_owned());
    let ms = |place: usize| lost.get(place).map_or(0.0, |lost| lost.as_secs_f64() * 1e3);
    let connections: usize = kills.iter().map(|kill| kill.connections).sum();
    verdict.note(format!("{} kills, {connections} connections read, {empty} files still empty", kills.len()));
    verdict.note(format!("missing: median {:.0} ms, at most {:.0} ms", ms(lost.len() / 2), ms(lost.len() - 1)));
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "what a kill needs lives as long as all of them")]
fn kill(
    ground: &Ground,
    number: usize,
    load: &Load,
    ends: &Path,
    metronome: &Metronome,
    hidden: Option<&Hidden>,
    random: &mut Random,
    verdict: &mut Verdict,
) -> Result<Killed> {
    // Every second recorder rotates all the time.
    let rotate: &[&str] = if number % 2 == 1 { &["--rotate", "2K"] } else { &[] };
    let name = format!("k{number}.tct");
    let stderr = ground.folder.join(format!("k{number}.err"));
    let hidden_before = hidden.map_or(0, Hidden::so_far);
    let recorder = Process::ready(&mut ground.record(load, &name, rotate), &stderr)?;
    metronome.worst.store(0, Ordering::Relaxed);
    // Kill at a random moment between two flushes, and between two blocks.
    sleep(Duration::from_millis(30 + u64::try_from(random.below(400))?));
    recorder.signal(Signal::SIGKILL)?;
    let killed_at = load::now()?;
    recorder.wait(PATIENCE)?;
    let stall = Duration::from_nanos(metronome.worst.load(Ordering::Relaxed));

    let files = files(&ground.folder, &format!("k{number}."))?;
    let port = load.ports.first().copied().unwrap_or(0);
    let mut seen = BTreeSet::new();
    let mut command = ground.tcptrace(&["replay", "--format", "json"]);
    command.args(&files);
    let read = reader::read(command, PATIENCE, |line| seen.extend(closed(line, port)))?;
    let hidden = hidden.map_or(0, Hidden::so_far) - hidden_before;
    let is_empty = seen.is_empty();
    must_be_readable(&read, &files, number, verdict)?;
    let ends = times(ends)?;
    let (first, last) = (seen.first().copied(), seen.last().copied());
    let holes = first.zip(last).map_or(0, |(first, last)| last - first + 1 - seen.len());
    verdict
        .must(u64::try_from(holes)? <= hidden, || format!("kill {number}: {holes} connections missing in the middle"));
    // Without any connection in the file, the first one that it should have is unknown.
    let missing = last.and_then(|last| ends.get(last + 1)).copied().filter(|end| *end < killed_at);
    let lost = missing.map_or(Duration::ZERO, |end| Duration::from_nanos(killed_at - end));
    Ok(Killed { lost, stall, connections: seen.len(), is_empty })
}

fn must_be_readable(read: &Read, files: &[std::path::PathBuf], number: usize, verdict: &mut Verdict) -> Result<()> {
    read.must_not_deceive(verdict);
    verdict.must(!files.is_empty(), || format!("kill {number}: there is no file"));
    let mut bytes = 0;
    for file in files {
        bytes += fs::metadata(file).with_context(|| format!("cannot look at {}", file.display()))?.len();
    }
    let last = read.said.lines().last().unwrap_or("");
    if bytes == 0 && words::is_empty(&read.said) {
        return Ok(());
    }
    verdict.must(read.status == 3, || format!("kill {number}: status {}: {last}", read.status));
    verdict.must(words::is_abrupt(&read.said), || format!("kill {number}: replay does not say that it ended abruptly"));
    verdict.must(words::is_cut_at_most(&read.said), || format!("kill {number}: damage: {}", words::tail(&read.said)));
    Ok(())
}

/// The connection that a row ends, by its server's address.
fn closed(line: &[u8], port: u64) -> Option<usize> {
    if !has(line, br#""new":"CLOSED""#) || !has(line, br#""old":"LAST_ACK""#) {
        return None;
    }
    let row: Value = serde_json::from_slice(line).ok()?;
    let local: SocketAddrV4 = row["local"].as_str()?.parse().ok()?;
    let number = u32::from(*local.ip()).checked_sub(u32::from(FIRST))?;
    if u64::from(local.port()) == port && *local.ip() != Ipv4Addr::LOCALHOST {
        usize::try_from(number).ok()
    } else {
        None
    }
}

/// When each connection ended.
fn times(ends: &Path) -> Result<Vec<u64>> {
    let bytes = fs::read(ends).context("cannot read when connections were over")?;
    let (times, _) = bytes.as_chunks();
    Ok(times.iter().map(|time| u64::from_ne_bytes(*time)).collect())
}

/// Measures how long this machine stands still.
#[derive(Default)]
struct Metronome {
    is_over: AtomicBool,
    /// The longest delay, in ns.
    worst: AtomicU64,
}

impl Metronome {
    fn run(&self) {
        const BEAT: Duration = Duration::from_millis(2);
        while !self.is_over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            sleep(BEAT);
            let late = u64::try_from(begun.elapsed().saturating_sub(BEAT).as_nanos()).unwrap_or(u64::MAX);
            self.worst.fetch_max(late, Ordering::Relaxed);
        }
    }
}
