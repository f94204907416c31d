//! Traces on a screen: they are played, with their time.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::ask::Parsed;
use super::screen::{Screen, Wish};
use super::{Chores, TopArgs};
use crate::cli::Outcome;
use crate::cli::progress::Progress;
use crate::cli::replay::summarise;
use crate::cli::study::Traces;
use crate::engine::follow::Follower;
use crate::kernel::Sandbox;
use crate::model::names::Names;
use crate::model::row::Row;
use crate::model::stream::{Item, Origin, Summary};
use crate::output::tui::Playing;
use crate::replay::Audience;
use crate::study::top::{Ask, Top};

/// A frame at most this often, and keys at least.
const BETWEEN: Duration = Duration::from_millis(100);

const SECOND: i64 = 1_000_000_000;

/// Ends reading: of the rest, or to read again from the beginning.
#[derive(Debug, thiserror::Error)]
#[error("reading has ended")]
struct Over;

pub(super) fn run(args: &TopArgs) -> Result<Outcome> {
    let traces = args.trace.open_to_reread()?.confined(Sandbox::default().using_terminal());
    let parsed = Parsed::new(traces.namespaces()?, traces.criteria()?);
    let traces = traces.of_everybody();
    let ask = args.ask(&parsed);
    if args.once {
        let mut all = Whole { top: args.state(ask) };
        let summary = traces.tell(args.config(), false, Progress::new, &mut all)?;
        all.top.diagnose();
        all.top.count_ports();
        args.print(&all.top.frame())?;
        return Ok(summarise(&summary));
    }
    let summary = traces.tell(args.config(), false, Progress::new, &mut |_: &Row, _: &Origin| Ok(()))?;
    let (from, to) = (summary.from_unix_ns, summary.to_unix_ns);
    let view = args.view(Playing::Trace { from, to, speed: args.speed, is_over: false });
    let (screen, wishes) = Screen::new(view, ask.clone(), parsed, || {})?;
    let mut player = Player {
        top: args.state(ask.clone()),
        ask,
        names: Names::default(),
        wishes,
        screen,
        chores: Chores::new(),
        from,
        to,
        speed: args.speed,
        is_paused: false,
        is_over: false,
        target: from,
        at: from,
        begun: (Instant::now(), from),
        shown: None,
        is_quit: false,
    };
    while !player.is_quit {
        player.play(args, &traces)?;
    }
    player.screen.finish()?;
    Ok(summarise(&summary))
}

/// The whole trace at once.
struct Whole {
    top: Top,
}

/// The engine knows more of the open connections.
fn confirm(top: &mut Top, follower: &mut Follower) {
    top.look();
    let Ok(()) = follower.take_open::<Infallible>(|row, origin| {
        top.confirm(row, origin);
        Ok(())
    });
    top.confirmed(follower.origin());
}

impl Audience<anyhow::Error> for Whole {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        self.top.row(row, origin);
        Ok(())
    }

    fn takes_items(&self) -> bool {
        true
    }

    fn item(&mut self, item: &Item, origin: &Origin) {
        self.top.item(item, origin);
    }

    fn looked(&mut self, follower: &mut Follower) {
        confirm(&mut self.top, follower);
    }

    fn time(&mut self, unix_ns: i64) -> Result<()> {
        self.top.pass(unix_ns);
        Ok(())
    }
}

struct Player {
    top: Top,
    ask: Ask,
    names: Names,
    wishes: Receiver<Wish>,
    screen: Screen,
    chores: Chores,
    from: i64,
    to: i64,
    speed: f64,
    is_paused: bool,
    /// The trace has been read to its end.
    is_over: bool,
    /// Until this time, in ns of Unix time, it is read without waiting.
    target: i64,
    /// The time in the trace.
    at: i64,
    /// A moment, and the time in the trace then.
    begun: (Instant, i64),
    shown: Option<Instant>,
    is_quit: bool,
}

impl Player {
    /// Reads the trace from its beginning, until a key asks for an earlier time.
    fn play(&mut self, args: &TopArgs, traces: &Traces) -> Result<()> {
        self.top = args.state(self.ask.clone());
        (self.chores, self.at, self.is_over) = (Chores::new(), self.from, false);
        self.begun = (Instant::now(), self.target);
        let read: Result<Summary> = traces.tell(args.config(), false, Progress::hidden, self);
        match read {
            Ok(_) => {}
            Err(error) if error.is::<Over>() => return Ok(()),
            Err(error) => return Err(error),
        }
        (self.is_over, self.at) = (true, self.to);
        self.top.diagnose();
        self.top.count_ports();
        self.show();
        while self.is_over && !self.is_quit {
            self.wait(BETWEEN);
        }
        Ok(())
    }

    fn show(&mut self) {
        let playing = Playing::Trace { from: self.from, to: self.to, speed: self.speed, is_over: self.is_over };
        self.screen.show(Arc::new(self.top.frame()), playing);
        self.shown = Some(Instant::now());
    }

    /// Waits for a key.
    fn wait(&mut self, longest: Duration) {
        match self.wishes.recv_timeout(longest) {
            Ok(wish) => {
                self.wish(wish);
                self.show();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.is_quit = true,
        }
    }

    fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Quit => self.is_quit = true,
            Wish::Ask(ask) => {
                self.ask = (*ask).clone();
                self.top.ask(*ask, &self.names);
            }
            Wish::Pause(is_paused) => {
                self.is_paused = is_paused;
                self.begun = (Instant::now(), self.at);
            }
            Wish::Move(seconds) => self.seek(self.at.saturating_add(seconds * SECOND)),
            Wish::Percent(percent) => self.seek(self.from + (self.to - self.from) / 100 * i64::from(percent)),
            Wish::Now => self.seek(self.to),
            Wish::Faster(factor) => {
                self.speed = (self.speed * factor).clamp(1.0 / 16.0, 4096.0);
                self.begun = (Instant::now(), self.at);
            }
        }
    }

    fn seek(&mut self, to: i64) {
        // At the very beginning nothing has happened yet.
        self.target = to.clamp(self.from.saturating_add(SECOND).min(self.to), self.to);
        self.begun = (Instant::now(), self.target);
        if self.target < self.at {
            // It is read again.
            self.at = i64::MAX;
            self.is_over = false;
        }
    }

    /// Whether reading has to begin again.
    fn is_behind(&self) -> bool {
        self.at == i64::MAX
    }

    /// Waits until it is time for this moment of the trace; meanwhile, keys are answered.
    fn pace(&mut self, unix_ns: i64) {
        loop {
            let (here, there) = self.begun;
            let passed = (here.elapsed().as_secs_f64() * self.speed * SECOND as f64) as i64;
            let is_due = unix_ns <= self.target || !self.is_paused && unix_ns <= there.saturating_add(passed);
            if is_due || self.is_quit || self.is_behind() {
                break;
            }
            let early = Duration::from_nanos(unix_ns.saturating_sub(there.saturating_add(passed)).unsigned_abs());
            let early = if self.is_paused { BETWEEN } else { early.div_f64(self.speed) };
            self.let_time_pass(unix_ns);
            self.wait(early.clamp(Duration::from_millis(1), BETWEEN));
        }
        while !self.is_quit
            && let Ok(wish) = self.wishes.try_recv()
        {
            self.wish(wish);
        }
    }

    /// Shows the time between two rows of the trace, too.
    fn let_time_pass(&mut self, before: i64) {
        let (here, there) = self.begun;
        if !self.is_paused {
            let passed = (here.elapsed().as_secs_f64() * self.speed * SECOND as f64) as i64;
            self.at = self.at.max(there.saturating_add(passed).min(before));
            self.top.pass(self.at);
        }
        self.refresh();
    }

    fn refresh(&mut self) {
        if self.at < self.target {
            return;
        }
        self.chores.work(&mut self.top);
        if self.shown.is_none_or(|at| at.elapsed() >= BETWEEN) {
            self.show();
        }
    }
}

impl Audience<anyhow::Error> for Player {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        self.top.row(row, origin);
        Ok(())
    }

    fn takes_items(&self) -> bool {
        true
    }

    fn item(&mut self, item: &Item, origin: &Origin) {
        self.top.item(item, origin);
    }

    fn looked(&mut self, follower: &mut Follower) {
        confirm(&mut self.top, follower);
    }

    fn time(&mut self, unix_ns: i64) -> Result<()> {
        self.pace(unix_ns);
        if self.is_quit || self.is_behind() {
            return Err(Over.into());
        }
        self.at = self.at.max(unix_ns);
        self.top.pass(unix_ns);
        self.refresh();
        Ok(())
    }
}
