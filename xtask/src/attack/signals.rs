//! Signals, dumps of the flight recorder, commands, pipes: every way to end a recording ends it in order.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

use super::books::{self, Books, Rows};
use super::names::files;
use super::process::{PATIENCE, Process, ignoring, limited, wait_until};
use super::{Ground, Verdict, reader, words};
use crate::hidden::{self, Hidden};

/// Checks the closing line, a whole trace, and status 0.
pub(super) fn in_order(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut load = ground.load(0.3, Some(1000.0))?;
        let file = format!("{signal}.tct");
        let recorder =
            Process::ready(&mut ground.record(&load, &file, &[]), &ground.folder.join(format!("{signal}.err")))?;
        let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
        load.begin()?;
        let made = load.wait()?;
        let ended = recorder.end(signal)?;
        let hidden = hidden.map_or(0, |hidden| hidden.so_far());
        load.end()?;
        if ended.status != 0 {
            verdict.must(false, || format!("{signal}: status {}", ended.status));
            continue;
        }
        let books = Books::open(ground, &[&file], Some(&ended))?.with_hidden(hidden);
        verdict.must(!books.is_abrupt(), || format!("{signal}: the trace ends abruptly"));
        books.must_agree(verdict);
        books.must_be_true(made.connections, verdict);
        verdict.note(format!("{signal} {} ms", ended.took.as_millis()));
    }
    Ok(())
}

/// A recorder that was started with the signal ignored goes on.
pub(super) fn nohup(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let mut load = ground.load(0.5, Some(500.0))?;
    let mut command = ignoring(ground.record(&load, "t.tct", &[]), Signal::SIGHUP);
    let recorder = Process::ready(&mut command, &ground.folder.join("t.err"))?;
    recorder.signal(Signal::SIGHUP)?;
    let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    let made = load.wait()?;
    let ended = recorder.end(Signal::SIGTERM)?;
    let hidden = hidden.map_or(0, |hidden| hidden.so_far());
    load.end()?;
    verdict.must(ended.status == 0, || format!("status {}", ended.status));
    let books = Books::open(ground, &["t.tct"], Some(&ended))?.with_hidden(hidden);
    books.must_agree(verdict);
    books.must_be_true(made.connections, verdict);
    verdict.note(books.summary());
    Ok(())
}

/// Checks that dumps leak no descriptor and no thread.
pub(super) fn many_dumps(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    const DUMPS: usize = 300;
    let mut load = ground.load(600.0, Some(50.0))?;
    let command = ground.record(&load, "d.tct", &["--last", "2s"]);
    let mut command = limited(command, Resource::RLIMIT_NOFILE, 256);
    let mut recorder = Process::ready(&mut command, &ground.folder.join("d.err"))?;
    load.begin()?;
    let mut early = [0; 2];
    for number in 1..=DUMPS {
        let dumped = recorder.signal(Signal::SIGUSR1).and_then(|()| {
            wait_until("a dump is there", || {
                anyhow::ensure!(recorder.is_running()?, "it ended: {}", words::tail(&recorder.said()));
                Ok(files(&ground.folder, "d.")?.len() >= number)
            })
        });
        dumped.with_context(|| format!("dump {number}"))?;
        if number == 10 {
            early = recorder.descriptors_and_threads()?;
        }
    }
    let grown = |now: [usize; 2]| now.iter().zip(early).any(|(now, early)| *now > early + 2);
    let mut late = recorder.descriptors_and_threads()?;
    // The last dump may not be complete yet.
    let _ = wait_until("descriptors are closed", || {
        late = recorder.descriptors_and_threads()?;
        Ok(!grown(late) || late[1] > 100)
    });
    verdict.must(!grown(late), || format!("{early:?} descriptors and threads become {late:?}"));
    let ended = recorder.end(Signal::SIGINT)?;
    verdict.must(ended.status == 0, || format!("status {}", ended.status));
    let files = files(&ground.folder, "d.")?;
    verdict.must(files.len() == DUMPS + 1, || format!("{} files", files.len()));
    for file in [files.first(), files.get(DUMPS / 2), files.last()].into_iter().flatten() {
        Books::open(ground, &[file], None)?.must_agree(verdict);
    }
    verdict.note(format!("{DUMPS} dumps, {} descriptors, {} threads", late[0], late[1]));
    Ok(())
}

/// A dump skips a number that exists, and leaves that file alone.
pub(super) fn dump_name_taken(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let taken = ground.folder.join("a.0002.tct");
    fs::write(&taken, "somebody else's").context("cannot take a name")?;
    let mut load = ground.load(600.0, Some(200.0))?;
    let mut recorder =
        Process::ready(&mut ground.record(&load, "a.tct", &["--last", "1m"]), &ground.folder.join("a.err"))?;
    load.begin()?;
    for wanted in [2, 3] {
        recorder.signal(Signal::SIGUSR1)?;
        wait_until("a dump is there", || {
            anyhow::ensure!(recorder.is_running()?, "it ended: {}", words::tail(&recorder.said()));
            Ok(files(&ground.folder, "a.")?.len() >= wanted)
        })?;
    }
    let ended = recorder.end(Signal::SIGINT)?;
    verdict.must(ended.status == 0, || format!("status {}: {}", ended.status, words::tail(&ended.said)));
    let mut dumps = files(&ground.folder, "a.")?;
    dumps.retain(|file| *file != taken);
    verdict.must(dumps.len() == 3, || format!("{} dumps", dumps.len()));
    for dump in &dumps {
        Books::open(ground, &[dump], None)?.must_agree(verdict);
    }
    let kept = fs::read(&taken).context("cannot read it again")?;
    verdict.must(kept == b"somebody else's", || "somebody else's file was changed".to_owned());
    verdict.note(format!("{} dumps", dumps.len()));
    Ok(())
}

/// A failed dump is reported, and its events stay in memory until they can be written.
pub(super) fn dump_folder_gone(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let folder = ground.folder.join("f");
    fs::create_dir(&folder).context("cannot create a folder")?;
    let mut load = ground.load(0.5, Some(1000.0))?;
    let mut recorder =
        Process::ready(&mut ground.record(&load, "f/a.tct", &["--last", "1m"]), &ground.folder.join("a.err"))?;
    let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    let made = load.wait()?;
    fs::remove_dir_all(&folder).context("cannot remove a folder")?;
    recorder.signal(Signal::SIGUSR1)?;
    recorder.wait_until("it says that it cannot write", |said| !words::complaints(said).is_empty())?;
    verdict.must(recorder.is_running()?, || "it has ended".to_owned());
    fs::create_dir(&folder).context("cannot create a folder")?;
    let ended = recorder.end(Signal::SIGINT)?;
    let hidden = hidden.map_or(0, |hidden| hidden.so_far());
    load.end()?;
    let dumps = files(&folder, "a.")?;
    verdict.must(dumps.len() == 1, || {
        format!("{} dumps (status {}): {}", dumps.len(), ended.status, words::tail(&ended.said))
    });
    if let Some(dump) = dumps.first() {
        let books = Books::open(ground, &[dump], None)?.with_hidden(hidden);
        books.must_agree(verdict);
        books.must_be_true(made.connections, verdict);
        verdict.note(books.summary());
    }
    Ok(())
}

/// TERM and `--duration` end the recording although the command ignores TERM.
pub(super) fn stubborn_command(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    /// It ends by itself after half a minute, in case tcptrace leaves it behind.
    const STUBBORN: [&str; 4] =
        ["--", "sh", "-c", "trap '' TERM; i=0; while [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done"];
    const LIMIT: Duration = Duration::from_secs(40);
    let start = |name: &str, options: &[&str]| {
        let mut command = ground.tcptrace(&["record", "--no-existing", "-o", &format!("{name}.tct")]);
        command.args(options).args(STUBBORN);
        Process::ready(&mut command, &ground.folder.join(format!("{name}.err")))
    };
    let (term, duration) = (start("term", &[])?, start("duration", &["--duration", "300ms"])?);
    term.signal(Signal::SIGTERM)?;
    let [term, duration] = thread::scope(|scope| {
        let waits = [term, duration].map(|process| scope.spawn(|| process.wait(LIMIT)));
        waits.map(|wait| wait.join().ok().context("cannot wait for it")?)
    });
    for (how, ended) in [("TERM", term?), ("--duration", duration?)] {
        let took = ended.took.as_secs_f64();
        // tcptrace waits five seconds; anything above depends on the machine.
        verdict.must(took < ground.either(20.0, 8.0), || format!("{how} takes {took:.1} s"));
        verdict.must(words::closing(&ended.said).is_some(), || format!("{how}: no closing line"));
        verdict.note(format!("{how} {took:.1} s, status {}", ended.status));
    }
    Ok(())
}

/// Checks exit statuses as shells define them, and that a command that did not start leaves no file.
pub(super) fn command_status(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let cases: [(&[&str], i32, bool); 5] = [
        (&["/nonexistent"], 127, false),
        (&["/etc/passwd"], 126, false),
        (&["false"], 1, true),
        (&["sh", "-c", "kill -9 $$"], 137, true),
        (&["true"], 0, true),
    ];
    for (number, (words, status, stays)) in cases.into_iter().enumerate() {
        let file = format!("{number}.tct");
        let mut command = ground.tcptrace(&["record", "--no-existing", "-o", &file, "--"]);
        command.args(words);
        let ended = Process::start(&mut command, &ground.folder.join(format!("{number}.err")))?.wait(PATIENCE)?;
        // Other programs make connections on this machine, too.
        let lost = words::closing(&ended.said).is_some_and(|figures| figures.lost > 0);
        let status = if status == 0 && lost { 3 } else { status };
        verdict.must(ended.status == status, || format!("{words:?}: status {}, not {status}", ended.status));
        let is_there = ground.folder.join(&file).exists();
        verdict.must(is_there == stays, || format!("{words:?}: {}", if stays { "no file" } else { "a file is left" }));
        verdict.note(ended.status.to_string());
    }
    Ok(())
}

/// Checks that the reader of a pipe gets the whole trace and its end.
pub(super) fn piped(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let mut load = ground.load(1.0, Some(1000.0))?;
    let mut command = ground.record(&load, "-", &[]);
    let mut recorder = Process::ready(command.stdout(Stdio::piped()), &ground.folder.join("record.err"))?;
    let stdout = recorder.stdout().context("it has no output")?;
    let mut rows = Rows::default();
    let (read, ended, made) = thread::scope(|scope| {
        let mut replay = ground.tcptrace(&["replay", "-", "--format", "json"]);
        replay.stdin(stdout);
        let rows = &mut rows;
        let reader = scope.spawn(move || reader::read(replay, PATIENCE, |line| rows.add(line)));
        load.begin()?;
        let made = load.wait()?;
        let ended = recorder.end(Signal::SIGINT)?;
        let read = reader.join().ok().context("the reader has failed")??;
        Ok::<_, anyhow::Error>((read, ended, made))
    })?;
    load.end()?;
    let (said, recorded) = (books::closing(&read)?, ended.figures()?);
    verdict.must(read.status == ended.status && !words::is_abrupt(&read.said), || {
        format!("record: status {}, replay: {}: {}", ended.status, read.status, words::tail(&read.said))
    });
    verdict.must(said.events == recorded.events && said.lost == recorded.lost, || {
        format!("{} events recorded and {} read", recorded.events, said.events)
    });
    verdict.must(said.transitions == rows.transitions, || "rows are missing".to_owned());
    verdict.note(format!("{} connections, {} events", made.connections, said.events));
    Ok(())
}

/// Checks that a recording stays whole when the reader of the rows stops.
pub(super) fn reader_gone(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let mut load = ground.load(1.0, Some(1000.0))?;
    let mut command = ground.tcptrace(&["watch", "--no-existing", "--record", "w.tct", "--netns"]);
    command.arg(load.netns.to_string()).stdout(Stdio::piped());
    let mut watch = Process::ready(&mut command, &ground.folder.join("w.err"))?;
    let mut stdout = BufReader::new(watch.stdout().context("it has no output")?);
    load.begin()?;
    stdout.read_line(&mut String::new()).context("cannot read the first line")?;
    drop(stdout);
    let made = load.wait()?;
    let ended = watch.wait(PATIENCE)?;
    load.end()?;
    verdict.must(ended.status == 0, || format!("status {}: {}", ended.status, words::tail(&ended.said)));
    let books = Books::open(ground, &["w.tct"], None)?;
    books.must_agree(verdict);
    verdict.must(!books.is_abrupt(), || "the trace ends abruptly".to_owned());
    verdict.must(books.rows.transitions > 0, || "nothing is in the trace".to_owned());
    verdict.note(format!("{} transitions of {} in the trace", books.rows.transitions, made.connections * 10));
    Ok(())
}
