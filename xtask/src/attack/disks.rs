//! Disks that are full, stand still, or disappear: unwritten events are counted, and the failure is reported once.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

use super::books::Books;
use super::mounts::Mount;
use super::names::files;
use super::process::{Ended, Process, limited, wait_until};
use super::{Ground, Verdict, words};
use crate::hidden::{self, Hidden};
use crate::stress::load::Load;

/// A recording that is disturbed.
struct Recorded {
    ended: Ended,
    connections: u64,
    hidden: u64,
}

/// Records while the load makes connections, some before the disturbance and some after it.
fn record(
    ground: &Ground,
    mut load: Load,
    mut command: Command,
    happens: impl FnOnce(&mut Process) -> Result<()>,
) -> Result<Recorded> {
    let mut recorder = Process::ready(&mut command, &ground.folder.join("record.err"))?;
    let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    happens(&mut recorder)?;
    let made = load.wait()?;
    let ended = recorder.end(Signal::SIGINT)?;
    let hidden = hidden.map_or(0, |hidden| hidden.so_far());
    load.end()?;
    Ok(Recorded { ended, connections: made.connections, hidden })
}

/// Checks that the recorder reported the failure once, and that all numbers include the loss.
fn must_be_told(recorded: &Recorded, books: &Books, why: &str, verdict: &mut Verdict) -> Result<()> {
    let Recorded { ended, connections, .. } = recorded;
    let lost = ended.figures()?.lost;
    verdict.must(ended.status == 3, || format!("the recorder: status {}", ended.status));
    verdict.must(lost > 0, || "nothing was lost".to_owned());
    let times = words::times(&ended.said, why);
    verdict.must(times == 1, || {
        format!("'{why}' is printed {times} times: {}", words::complaints(&ended.said).join(" / "))
    });
    books.must_agree(verdict);
    books.must_be_true(*connections, verdict);
    verdict.note(format!("{connections} connections, {}", books.summary()));
    Ok(())
}

/// Waits for this many connections, however long they take.
fn load(connections: u32, more: Option<String>) -> Result<Load> {
    let arguments = ["--seconds=120".to_owned(), format!("--connections={connections}")];
    Load::start(&arguments.into_iter().chain(more).collect::<Vec<_>>())
}

fn full(ground: &Ground, verdict: &mut Verdict, size: &str, options: &[&str], connections: u32) -> Result<()> {
    let disk = Mount::tmpfs(ground.folder.join("disk"), size)?;
    let load = load(connections, None)?;
    let command = ground.record(&load, "disk/t.tct", options);
    let recorded = record(ground, load, command, |_| Ok(()))?;
    let files = files(disk.path(), "t.")?;
    let books = Books::open(ground, &files, Some(&recorded.ended))?.with_hidden(recorded.hidden);
    must_be_told(&recorded, &books, words::NO_SPACE, verdict)
}

pub(super) fn full_20k(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    full(ground, verdict, "20k", &[], 5_000)
}

pub(super) fn full_64k(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    full(ground, verdict, "64k", &[], 10_000)
}

pub(super) fn full_1m(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    full(ground, verdict, "1m", &[], 60_000)
}

pub(super) fn full_rotated(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    full(ground, verdict, "64k", &["--rotate", "20K"], 10_000)
}

/// Fills the disk, and empties it again, three times.
fn emptied(ground: &Ground, verdict: &mut Verdict, options: &[&str]) -> Result<()> {
    const TIMES: usize = 3;
    let disk = Mount::tmpfs(ground.folder.join("disk"), "4m")?;
    let filler = disk.path().join("filler");
    // Each time, the recorder waits longer before it tries again: for seven seconds in all.
    let load = ground.load(10.0, Some(1000.0))?;
    let command = ground.record(&load, "disk/t.tct", options);
    let recorded = record(ground, load, command, |recorder| {
        for time in 1..=TIMES {
            let mut file = fs::File::create(&filler).context("cannot create a file")?;
            while file.write_all(&[0; 4096]).is_ok() {}
            drop(file);
            recorder.wait_until("the disk is full", |said| words::times(said, words::NO_SPACE) >= time)?;
            fs::remove_file(&filler).context("cannot remove it")?;
            recorder.wait_until("there is room again", |said| words::times(said, words::ROOM_AGAIN) >= time)?;
        }
        Ok(())
    })?;
    let files = files(disk.path(), "t.")?;
    let books = Books::open(ground, &files, Some(&recorded.ended))?.with_hidden(recorded.hidden);
    let Recorded { ended, connections, .. } = &recorded;
    verdict.must(ended.status == 3, || format!("the recorder: status {}", ended.status));
    for what in [words::NO_SPACE, words::ROOM_AGAIN] {
        let times = words::times(&ended.said, what);
        verdict.must(times == TIMES, || format!("'{what}' is printed {times} times"));
    }
    verdict.must(!books.is_abrupt(), || "readers report an abrupt end".to_owned());
    books.must_agree(verdict);
    books.must_be_true(*connections, verdict);
    verdict.note(format!("{connections} connections, {}", books.summary()));
    Ok(())
}

pub(super) fn emptied_one(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    emptied(ground, verdict, &[])
}

pub(super) fn emptied_rotated(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    emptied(ground, verdict, &["--rotate", "64K"])
}

/// Freezes the disk for longer than the recorder can keep unwritten events.
pub(super) fn frozen(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    /// Connections made before, and after.
    const AROUND: u64 = 5_000;
    let disk = match Mount::ext4(ground.folder.join("disk"), 256 << 20) {
        Ok(disk) => disk,
        Err(error) => {
            verdict.skip(format!("{error:#}"));
            return Ok(());
        }
    };
    let (connections, least) = ground.either((150_000, 3), (250_000, 7));
    let ends = ground.folder.join("ends");
    let load = load(connections, Some(format!("--ends={}", ends.display())))?;
    let command = ground.record(&load, "disk/t.tct", &[]);
    let made = |wanted: u64| Ok(fs::metadata(&ends).is_ok_and(|ends| ends.len() / 8 >= wanted));
    let recorded = record(ground, load, command, |_| {
        wait_until("there are connections", || made(AROUND))?;
        let (frozen, begun) = (disk.freeze()?, Instant::now());
        let so_long = Duration::from_secs(least);
        wait_until("there are many connections", || made(u64::from(connections) - AROUND))?;
        sleep(so_long.saturating_sub(begun.elapsed()));
        drop(frozen);
        verdict.note(format!("{:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    })?;
    let books = Books::open(ground, &["disk/t.tct"], Some(&recorded.ended))?.with_hidden(recorded.hidden);
    books.must_agree(verdict);
    books.must_be_true(recorded.connections, verdict);
    let lost = recorded.ended.figures()?.lost;
    verdict.must(lost > 0, || "nothing was lost".to_owned());
    verdict.must(!books.is_abrupt(), || "readers report an abrupt end".to_owned());
    verdict.note(format!("{} connections, {}", recorded.connections, books.summary()));
    Ok(())
}

/// `ulimit -f`: acts as a quota would.
pub(super) fn file_limit(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let load = load(10_000, None)?;
    let command = limited(ground.record(&load, "t.tct", &[]), Resource::RLIMIT_FSIZE, 60_000);
    let recorded = record(ground, load, command, |_| Ok(()))?;
    let books = Books::open(ground, &["t.tct"], Some(&recorded.ended))?.with_hidden(recorded.hidden);
    must_be_told(&recorded, &books, words::TOO_LARGE, verdict)
}

fn gone(ground: &Ground, verdict: &mut Verdict, remove: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = ground.folder.join("f");
    fs::create_dir(&folder).context("cannot create a folder")?;
    let load = ground.load(2.5, Some(1000.0))?;
    let command = ground.record(&load, "f/t.tct", &[]);
    let recorded = record(ground, load, command, |_| {
        sleep(Duration::from_millis(500));
        remove(&folder).context("cannot remove it")
    })?;
    let Recorded { ended, connections, .. } = &recorded;
    let figures = ended.figures()?;
    let complaints = words::complaints(&ended.said);
    verdict.must(ended.status == 3 || ended.status == 1, || format!("the recorder: status {}", ended.status));
    verdict.must(complaints.len() == 1, || {
        format!("the failure is reported {} times: {}", complaints.len(), complaints.join(" / "))
    });
    verdict.must(figures.events + figures.lost >= connections * 10, || {
        format!("{} recorded and {} lost, of {connections} connections", figures.events, figures.lost)
    });
    verdict.note(format!("{} events recorded, {} lost", figures.events, figures.lost));
    Ok(())
}

/// Nobody can read a deleted file, so the recorder must report it.
pub(super) fn deleted(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    gone(ground, verdict, |folder| fs::remove_file(folder.join("t.tct")))
}

pub(super) fn folder_removed(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    gone(ground, verdict, |folder| fs::remove_dir_all(folder))
}

/// The recorder must choose another number.
pub(super) fn name_taken(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    // A number changes every second.
    let taken = ground.folder.join("t.0005.tct");
    let load = ground.load(2.5, Some(2000.0))?;
    let command = ground.record(&load, "t.tct", &["--rotate", "20K"]);
    let recorded =
        record(ground, load, command, |_| fs::write(&taken, "somebody else's").context("cannot take a name"))?;
    let mut files = files(&ground.folder, "t.")?;
    files.retain(|file| *file != taken);
    let kept = fs::read(&taken).context("cannot read it again")?;
    verdict.must(kept == b"somebody else's", || "somebody else's file was changed".to_owned());
    verdict.must(recorded.ended.status == 0, || {
        format!(
            "the recorder: status {}: {}",
            recorded.ended.status,
            words::complaints(&recorded.ended.said).join(" / ")
        )
    });
    verdict.must(files.len() > 5, || format!("{} files", files.len()));
    let books = Books::open(ground, &files, Some(&recorded.ended))?.with_hidden(recorded.hidden);
    books.must_agree(verdict);
    books.must_be_true(recorded.connections, verdict);
    verdict.note(format!("{} files, {}", files.len(), books.summary()));
    Ok(())
}
