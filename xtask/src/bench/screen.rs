//! The live screen: what it costs beyond `connections`, how often it draws, and how soon it answers.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use vt100::Parser;

use super::Bench;
use super::generator::{Generator, Order};
use super::holder::{Holder, in_namespace};
use super::proc::{self, Cpu};
use super::running::Running;
use super::stats::Figures;
use super::subject::{self, Sink};
use super::table::{Findings, Table, grouped, interleaved, mib};

const LINES: u16 = 50;
const COLUMNS: u16 = 160;
const ROUNDS: u32 = 5;
const STARTS: u32 = 10;
const KEYS: u32 = 20;
/// Connections a second while the CPU time counts.
const RATE: f64 = 10_000.0;
const SECONDS: f64 = 10.0;
/// Sockets while the memory counts.
const SOCKETS: u32 = 100_000;
/// How long nothing but time passes.
const IDLE: Duration = Duration::from_secs(5);
/// Longest wait for the screen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Every drawing ends by hiding the cursor.
const DRAWN: &[u8] = b"\x1b[?25l";

/// `tcptrace top` in a terminal of its own. It ends when this is dropped.
struct Top {
    child: Child,
    begun: Instant,
    keys: File,
    shown: Arc<Shown>,
    reader: Option<JoinHandle<()>>,
}

/// What is on the screen.
struct Shown {
    screen: Mutex<Screen>,
    has_changed: Condvar,
}

struct Screen {
    parser: Parser,
    /// What may be the beginning of the next [`DRAWN`].
    tail: Vec<u8>,
    drawings: u32,
}

impl Screen {
    fn new() -> Self {
        Self { parser: Parser::new(LINES, COLUMNS, 0), tail: Vec::new(), drawings: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.parser.process(bytes);
        self.tail.extend_from_slice(bytes);
        let drawn = self.tail.windows(DRAWN.len()).filter(|window| *window == DRAWN).count();
        self.drawings += u32::try_from(drawn).unwrap_or(u32::MAX);
        self.tail.drain(..self.tail.len().saturating_sub(DRAWN.len() - 1));
    }
}

impl Top {
    fn start(tcptrace: &Path) -> Result<Self> {
        let size = Winsize { ws_row: LINES, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).context("cannot open a terminal")?;
        let stdio = || slave.try_clone().map(Stdio::from).context("cannot duplicate a descriptor");
        let mut command = Command::new(tcptrace);
        command.arg("top").env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?);
        let begun = Instant::now();
        let child = command.spawn().context("cannot run `tcptrace top`")?;
        drop((command, slave));
        let shown = Arc::new(Shown { screen: Mutex::new(Screen::new()), has_changed: Condvar::new() });
        let keys = File::from(master);
        let mut output = keys.try_clone().context("cannot duplicate a descriptor")?;
        let to = Arc::clone(&shown);
        // An error means that no writer is left.
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Some(length) = read(&mut output, &mut buffer) {
                lock(&to.screen).take(buffer.get(..length).unwrap_or_default());
                to.has_changed.notify_all();
            }
        });
        Ok(Self { child, begun, keys, shown, reader: Some(reader) })
    }

    /// Starts it, and waits for its first frame.
    fn shown(tcptrace: &Path) -> Result<Self> {
        let top = Self::start(tcptrace)?;
        top.wait_until(|screen| screen.contains("tcptrace top"))?;
        Ok(top)
    }

    /// Waits until the screen is as wanted, and returns when that was.
    fn wait_until(&self, wanted: impl Fn(&str) -> bool) -> Result<Instant> {
        let begun = Instant::now();
        let mut screen = lock(&self.shown.screen);
        loop {
            if wanted(&screen.parser.screen().contents()) {
                return Ok(Instant::now());
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            if left.is_zero() {
                bail!("`tcptrace top` does not show what it should:\n{}", screen.parser.screen().contents());
            }
            let waited = self.shown.has_changed.wait_timeout(screen, left);
            screen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn drawings(&self) -> u32 {
        lock(&self.shown.screen).drawings
    }

    /// Types a key. Returns how long it took until the screen was as wanted, in ms.
    fn key(&mut self, key: &[u8], wanted: impl Fn(&str) -> bool) -> Result<f64> {
        let begun = Instant::now();
        self.keys.write_all(key).context("cannot type a key")?;
        let shown = self.wait_until(wanted)?;
        Ok(shown.duration_since(begun).as_secs_f64() * 1e3)
    }

    /// Ends it in order.
    fn finish(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.pid().try_into().context("its process id is out of range")?);
        kill(pid, Signal::SIGTERM).context("cannot end `tcptrace top`")?;
        let status = self.child.wait().context("cannot wait for `tcptrace top`")?;
        if !matches!(status.code(), Some(0 | 3)) {
            bail!("`tcptrace top` failed: {status}");
        }
        Ok(())
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // Both fail for a process that has been reaped, as it should be.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Reads something; `None`: no writer is left.
fn read(from: &mut File, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match from.read(buffer) {
            Ok(0) => return None,
            Ok(length) => return Some(length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    // A panic of the reader ends the wait for the screen with what is on it.
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a round has measured.
struct Round {
    connections_per_second: f64,
    /// CPU time of each in percent of a core.
    top: f64,
    connections: f64,
    drawings_per_second: f64,
}

/// Measures and makes the tables.
pub(super) fn measure(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let rounds: Vec<Round> = (1..=bench.times(ROUNDS)).map(|round| one_round(bench, round)).collect::<Result<_>>()?;
    let idle = idle(bench)?;
    let (busy, quiet) = keys(bench)?;
    let starts = (0..bench.times(STARTS)).map(|_| first_frame(bench)).collect::<Result<Figures>>()?;
    let sockets = if bench.quick { 2_000 } else { SOCKETS };
    let beyond = in_namespace(|| memory(bench, sockets))?;

    let each = |figure: fn(&Round) -> f64| rounds.iter().map(figure).collect::<Figures>();
    let mut table = Table::new("The live screen", ["", "measured"]);
    let mut row = |name: &str, measured: String| table.row(vec![name.to_owned(), measured]);
    row("connections/s", each(|round| round.connections_per_second).spread(0));
    row("CPU of `connections`, % of a core", each(|round| round.connections).spread(1));
    row("CPU of `top`, % of a core", each(|round| round.top).spread(1));
    row("CPU of `top` beyond it, % of a core", each(|round| round.top - round.connections).spread(1));
    row("redraws/s at that rate", each(|round| round.drawings_per_second).spread(1));
    row("redraws/s while only time passes", format!("{idle:.1}"));
    row("first frame after the start, ms", starts.spread(0));
    row("answer to a key while one core is saturated, ms", busy.spread(1));
    row("answer to a key while idle, ms", quiet.spread(1));
    row(&format!("memory beyond `connections` with {} sockets", grouped(sockets)), mib(beyond));
    table.caption(format!(
        "`tcptrace top` in a pseudo-terminal of {COLUMNS} × {LINES}, and `tcptrace connections` to /dev/null, both beside \
         the same connections of {SECONDS} s; {}; median (min–max) there and of {} starts and {} keys.",
        interleaved(bench.times(ROUNDS)),
        starts.count(),
        busy.count(),
    ));
    findings.tables.push(table);
    let json = |round: &Round| {
        json!({
            "connections_per_second": round.connections_per_second,
            "top_percent": round.top,
            "connections_percent": round.connections,
            "redraws_per_second": round.drawings_per_second,
        })
    };
    findings.json = json!({
        "rounds": rounds.iter().map(json).collect::<Vec<_>>(),
        "idle_redraws_per_second": idle,
        "first_frame_ms": starts.median(),
        "key_busy_ms": busy.median(),
        "key_busy_max_ms": busy.max(),
        "key_idle_ms": quiet.median(),
        "memory_beyond_bytes": beyond,
    });
    Ok(())
}

fn one_round(bench: &Bench, round: u32) -> Result<Round> {
    bench.tell(format_args!("screen, round {round}/{}", bench.times(ROUNDS)));
    let tool = subject::tcptrace(&bench.tcptrace, "connections", Sink::Null);
    let connections = Running::attach(&tool, &bench.folder)?;
    let top = Top::shown(&bench.tcptrace)?;
    let seconds = if bench.quick { 1.0 } else { SECONDS };
    let order = Order { rate: Some(RATE), seconds: Some(seconds), ..Order::connections(1_000_000) };
    let mut generator = Generator::start(&order)?;
    let look = || Ok::<_, anyhow::Error>((proc::cpu(top.pid())?, proc::cpu(connections.pid())?, top.drawings()));
    let before = look()?;
    let begun = Instant::now();
    generator.go()?;
    let load = generator.wait()?;
    let after = look()?;
    let lasted = begun.elapsed().as_secs_f64();
    generator.finish()?;
    top.finish()?;
    connections.finish()?;
    let percent = |before: Cpu, after: Cpu| {
        let spent = after.less(before);
        (spent.user + spent.system).as_secs_f64() / lasted * 100.0
    };
    Ok(Round {
        connections_per_second: load.rate(),
        top: percent(before.0, after.0),
        connections: percent(before.1, after.1),
        drawings_per_second: f64::from(after.2 - before.2) / lasted,
    })
}

/// Redraws a second while only time passes.
fn idle(bench: &Bench) -> Result<f64> {
    let top = Top::shown(&bench.tcptrace)?;
    sleep(IDLE);
    let before = top.drawings();
    sleep(IDLE);
    let drawn = top.drawings() - before;
    top.finish()?;
    Ok(f64::from(drawn) / IDLE.as_secs_f64())
}

/// How long the screen takes to answer while one core makes as many connections as it can, and while none is made.
fn keys(bench: &Bench) -> Result<(Figures, Figures)> {
    bench.tell(format_args!("screen: keys"));
    let mut top = Top::shown(&bench.tcptrace)?;
    let quiet = type_keys(&mut top, bench.times(KEYS))?;
    let mut generator = Generator::start(&Order { seconds: Some(120.0), ..Order::connections(5_000_000) })?;
    generator.go()?;
    top.wait_until(|screen| screen.contains("TIME_WAIT"))?;
    let busy = type_keys(&mut top, bench.times(KEYS))?;
    drop(generator);
    top.finish()?;
    Ok((busy, quiet))
}

fn type_keys(top: &mut Top, count: u32) -> Result<Figures> {
    let mut all = Vec::new();
    for _ in 0..count {
        let is_help = |screen: &str| screen.contains("this help");
        all.push(top.key(b"?", is_help)?);
        all.push(top.key(b"\x1b", |screen| !is_help(screen))?);
        // Not in step with the screen.
        sleep(Duration::from_millis(37));
    }
    Ok(all.into_iter().collect())
}

/// From the start to the first frame, in ms.
fn first_frame(bench: &Bench) -> Result<f64> {
    let top = Top::start(&bench.tcptrace)?;
    let shown = top.wait_until(|screen| screen.contains("tcptrace top"))?;
    let took = shown.duration_since(top.begun);
    top.finish()?;
    Ok(took.as_secs_f64() * 1e3)
}

/// The heap of `top` beyond that of `connections`, with so many sockets, in bytes.
fn memory(bench: &Bench, sockets: u32) -> Result<f64> {
    bench.tell(format_args!("screen: memory"));
    let tool = subject::tcptrace(&bench.tcptrace, "connections", Sink::Null);
    let connections = Running::attach(&tool, &bench.folder)?;
    let top = Top::shown(&bench.tcptrace)?;
    let holders = Holder::start(sockets / 2)?;
    let own = |pid| Ok::<_, anyhow::Error>(super::memory::settled(pid)?.own as f64);
    let beyond = own(top.pid())? - own(connections.pid())?;
    drop(holders);
    top.finish()?;
    connections.finish()?;
    Ok(beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_are_counted_across_reads() {
        let mut screen = Screen::new();
        screen.take(b"tcptrace \x1b[3;1Htop\x1b[?25l\x1b[?2");
        assert_eq!(screen.drawings, 1);
        screen.take(b"5l\x1b[?25l");
        assert_eq!(screen.drawings, 3);
        screen.take(b"");
        assert_eq!(screen.drawings, 3);
        assert_eq!(screen.parser.screen().contents().trim_end(), "tcptrace \n\ntop");
    }
}
