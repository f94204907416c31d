//! Other tracers, and readers that stop reading: tracers do not disturb each other, and losses are reported.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{self, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::books::{Books, Rows};
use super::cleanup::Base;
use super::process::{PATIENCE, Process, wait_until};
use super::{Ground, Verdict, groups, words};
use crate::hidden::{self, Hidden};
use crate::stress::load::Load;

/// Checks that each of several tracers sees every connection.
pub(super) fn many(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    const TRACERS: usize = 20;
    let mut load = Load::start(&["--seconds=60", "--rate=500", "--connections=1000"].map(String::from))?;
    let mut recorders = (0..TRACERS)
        .map(|number| {
            let mut command = ground.record(&load, &format!("{number}.tct"), &[]);
            Process::start(&mut command, &ground.folder.join(format!("{number}.err")))
        })
        .collect::<Result<Vec<_>>>()?;
    recorders.iter_mut().try_for_each(Process::wait_until_ready)?;
    let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    let made = load.wait()?;
    for recorder in &recorders {
        recorder.signal(Signal::SIGINT)?;
    }
    let ended = recorders.into_iter().map(|recorder| recorder.wait(PATIENCE)).collect::<Result<Vec<_>>>()?;
    let hidden = hidden.map_or(0, |hidden| hidden.so_far());
    load.end()?;
    let mut lost = 0;
    for (number, ended) in ended.iter().enumerate() {
        let books = Books::open(ground, &[format!("{number}.tct")], Some(ended))?.with_hidden(hidden);
        books.must_agree(verdict);
        books.must_be_true(made.connections, verdict);
        lost += ended.figures()?.lost;
    }
    verdict.note(format!("{TRACERS} tracers, {} connections each, {lost} events lost", made.connections));
    Ok(())
}

/// Records connections at full speed in a small ring buffer, while the recorder is disturbed.
fn disturb(
    ground: &Ground,
    verdict: &mut Verdict,
    mut load: Load,
    mut command: Command,
    happens: impl FnOnce(&Process) -> Result<()>,
) -> Result<u64> {
    let recorder = Process::ready(&mut command, &ground.folder.join("t.err"))?;
    let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    happens(&recorder)?;
    let made = load.wait()?;
    let ended = recorder.end(Signal::SIGINT)?;
    let hidden = hidden.map_or(0, |hidden| hidden.so_far());
    load.end()?;
    let books = Books::open(ground, &["t.tct"], Some(&ended))?.with_hidden(hidden);
    books.must_agree(verdict);
    books.must_be_true(made.connections, verdict);
    verdict.note(format!("{} connections, {}", made.connections, books.summary()));
    Ok(ended.figures()?.lost)
}

const SMALL: [&str; 2] = ["--ring-size", "1"];

fn stand_still(ground: &Ground) -> Duration {
    Duration::from_secs(ground.either(2, 5))
}

/// Stops it, as a debugger or Ctrl-Z does.
pub(super) fn stopped(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let time = stand_still(ground);
    let load = ground.load(time.as_secs_f64() + 1.0, None)?;
    let command = ground.record(&load, "t.tct", &SMALL);
    let lost = disturb(ground, verdict, load, command, |recorder| {
        sleep(Duration::from_millis(300));
        recorder.signal(Signal::SIGSTOP)?;
        sleep(time);
        recorder.signal(Signal::SIGCONT)
    })?;
    verdict.must(lost > 0, || "nothing was lost".to_owned());
    Ok(())
}

/// Freezes its control group, as an orchestrator does that pauses a container.
pub(super) fn frozen(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let Some(group) = groups::hierarchy().map(|root| root.join(format!("tcptrace-attack-{}", process::id()))) else {
        verdict.skip("there is no unified hierarchy of control groups");
        return Ok(());
    };
    fs::create_dir(&group).context("cannot create a control group")?;
    let _base = Base::new(group.clone());
    if !group.join("cgroup.freeze").exists() {
        verdict.skip("control groups cannot be frozen");
        return Ok(());
    }
    let time = stand_still(ground);
    let load = ground.load(time.as_secs_f64() + 1.0, None)?;
    let command = ground.record(&load, "t.tct", &SMALL);
    let freeze = |value: &str| fs::write(group.join("cgroup.freeze"), value).context("cannot freeze a control group");
    let lost = disturb(ground, verdict, load, command, |recorder| {
        fs::write(group.join("cgroup.procs"), recorder.pid().to_string()).context("cannot move it")?;
        freeze("1")?;
        wait_until("it is frozen", || {
            let events = fs::read_to_string(group.join("cgroup.events")).context("cannot look at a control group")?;
            Ok(events.contains("frozen 1"))
        })?;
        sleep(time);
        freeze("0")
    })?;
    verdict.must(lost > 0, || "nothing was lost".to_owned());
    Ok(())
}

/// Runs it as a batch job beside busy processes.
pub(super) fn nice(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let busy = Duration::from_secs(ground.either(2, 5));
    let load = ground.load(busy.as_secs_f64(), None)?;
    let record = ground.record(&load, "t.tct", &[]);
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(record.get_program()).args(record.get_args()).current_dir(&ground.folder);
    thread::scope(|scope| {
        disturb(ground, verdict, load, command, |_| {
            for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    let begun = Instant::now();
                    while begun.elapsed() < busy {
                        std::hint::spin_loop();
                    }
                });
            }
            Ok(())
        })
    })?;
    Ok(())
}

/// Leaves its output unread for a while.
pub(super) fn slow_output(ground: &Ground, verdict: &mut Verdict) -> Result<()> {
    let mut load = ground.load(ground.either(2.0, 5.0), None)?;
    let mut command = ground.tcptrace(&["watch", "--no-existing", "--format", "json", "--ring-size", "1", "--netns"]);
    command.arg(load.netns.to_string()).stdout(Stdio::piped());
    let mut watch = Process::ready(&mut command, &ground.folder.join("w.err"))?;
    let mut stdout = BufReader::new(watch.stdout().context("it has no output")?);
    let hidden = Hidden::count(&[hidden::TRANSITIONS], &load.ports);
    load.begin()?;
    let made = load.wait()?;
    watch.signal(Signal::SIGINT)?;
    let (mut rows, mut line) = (Rows::default(), Vec::new());
    while stdout.read_until(b'\n', &mut line).context("cannot read what it prints")? > 0 {
        rows.add(&line);
        line.clear();
    }
    let ended = watch.wait(PATIENCE)?;
    let hidden = hidden.map_or(0, |hidden| hidden.so_far());
    load.end()?;
    let said = words::closing(&ended.said).with_context(|| format!("no closing line: {}", words::tail(&ended.said)))?;
    let (seen, truth) = (rows.transitions - rows.time_wait_ends, made.connections * 10);
    verdict.must(said.lost > 0 && ended.status == 3, || format!("{} lost, status {}", said.lost, ended.status));
    verdict.must(rows.lost == said.lost, || {
        format!("rows of loss add up to {}, the closing line says {}", rows.lost, said.lost)
    });
    verdict.must(rows.transitions == said.events, || format!("{} rows, {} are said", rows.transitions, said.events));
    verdict.must(seen <= truth && seen + said.lost + hidden >= truth, || {
        format!("{seen} transitions seen and {} events lost, of {truth} transitions", said.lost)
    });
    verdict.note(format!("{} connections, {seen} transitions seen, {} events lost", made.connections, said.lost));
    Ok(())
}
