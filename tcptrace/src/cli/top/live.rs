//! The live kernel on a screen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::libc;
use tokio::signal::unix::SignalKind;
use tokio::sync::Notify;

use super::ask::{Named, Parsed};
use super::screen::{Screen, Wish};
use super::{Chores, Regularly, SHARE_OF_FRAMES, TopArgs};
use crate::cli::run::{Stop, handler, reached, runtime};
use crate::cli::select::refuse_foreign_pids;
use crate::cli::{Outcome, say};
use crate::engine::follow::Follower;
use crate::engine::lifecycle::Config;
use crate::kernel::{Namespaces, Sandbox};
use crate::live::{Besides, Source};
use crate::model::event::Event;
use crate::model::sink::{Sink, Wishes};
use crate::model::stream::{Item, Origin, Summary};
use crate::output::lost;
use crate::output::tui::Playing;
use crate::study::top::Top;

/// A frame at most this often.
const BETWEEN: Duration = Duration::from_millis(100);

/// How long `--once` looks by default.
const ONCE: Duration = Duration::from_secs(1);
/// And how long it waits for the sockets that existed before.
const PATIENCE: Duration = Duration::from_secs(10);

const SECOND: i64 = 1_000_000_000;

pub(super) fn run(args: &TopArgs) -> Result<Outcome> {
    let namespaces = Namespaces::find();
    let criteria = args.trace.filter().criteria(&namespaces)?;
    refuse_foreign_pids(&criteria)?;
    let options = args.probe.options(tcptrace_common::Filter::default());
    let parsed = Parsed::new(Namespaces::find(), criteria);
    runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let existing = !args.probe.no_existing;
        let mut source = Source::attach(&options, existing, true, true, Besides::Facts)?;
        args.trace.confine(&mut source, Sandbox::default().using_terminal(), &namespaces)?;
        let ask = args.ask(&parsed);
        let mut sink = State::new(config(args, &source), args.state(ask.clone()), parsed.named());
        sink.take(&[Item::Head(Box::new(source.head()?))])?;
        source.begin(&namespaces, &mut sink)?;
        if args.once {
            once(args, &mut source, &mut sink, &mut stop).await?;
            args.print(&sink.top.frame())?;
            return Ok(sink.outcome().with_helper(&source));
        }
        let notify = Arc::new(Notify::new());
        let ready = notify.clone();
        let view = args.view(Playing::Live { oldest: None, is_past: false });
        let (screen, wishes) = Screen::new(view, ask, parsed, move || ready.notify_one())?;
        let end = args.duration.map(|duration| tokio::time::Instant::now() + duration);
        let mut tstp = handler(SignalKind::from_raw(libc::SIGTSTP))?;
        let mut cont = handler(SignalKind::from_raw(libc::SIGCONT))?;
        let mut shown = Shown::new(screen);
        shown.show(&mut sink);
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    () = stop.asked() => Next::End,
                    () = reached(end) => Next::End,
                    () = notify.notified() => Next::Wishes,
                    _ = tstp.recv() => Next::Suspend,
                    _ = cont.recv() => Next::Resume,
                    () = tokio::time::sleep(BETWEEN) => Next::Tick,
                }
            };
            match source.follow(&mut sink, next).await? {
                None | Some(Next::End) => break,
                Some(Next::Tick) => shown.tick(&mut sink),
                Some(Next::Suspend) => shown.screen.suspend(),
                Some(Next::Resume) => shown.screen.resume(),
                Some(Next::Wishes) => {
                    let mut is_over = false;
                    for wish in wishes.try_iter() {
                        is_over |= matches!(wish, Wish::Quit);
                        shown.wish(wish, &mut sink);
                    }
                    if is_over {
                        break;
                    }
                    shown.show(&mut sink);
                }
            }
        }
        shown.screen.finish()?;
        let outcome = sink.outcome().with_helper(&source);
        let mut summary = Summary::default();
        sink.follower.add_to(&mut summary);
        say(format_args!("{} transitions seen, {}", summary.transitions, lost(&summary.lost)));
        Ok(outcome)
    })
}

enum Next {
    End,
    Tick,
    Wishes,
    Suspend,
    Resume,
}

fn config(args: &TopArgs, source: &Source) -> Config {
    Config { existing: !args.probe.no_existing, ..source.engine_config(args.config()) }
}

/// Looks until the frame can be printed.
async fn once(args: &TopArgs, source: &mut Source, sink: &mut State, stop: &mut Stop) -> Result<()> {
    let begun = Instant::now();
    let wanted = args.duration.unwrap_or(ONCE);
    let mut chores = Chores::new();
    loop {
        let next = async {
            tokio::select! {
                () = stop.asked() => false,
                () = tokio::time::sleep(BETWEEN) => true,
            }
        };
        let goes_on = source.follow(sink, next).await?.unwrap_or(false);
        sink.tick();
        let is_complete = sink.is_scanned || args.probe.no_existing || !source.knows_cookies();
        let is_enough = begun.elapsed() >= wanted && (is_complete || begun.elapsed() >= wanted + PATIENCE);
        if !goes_on || is_enough {
            break;
        }
        chores.work(&mut sink.top);
    }
    sink.top.diagnose();
    sink.top.count_ports();
    Ok(())
}

/// Follows the kernel into the state of a screen.
struct State {
    follower: Follower,
    top: Top,
    /// What the filter that is typed may name.
    named: Named,
    /// A survey or a scan has just ended: the engine knows more.
    knows_more: bool,
    is_scanned: bool,
    /// Whether something has come since the last frame.
    has_changed: bool,
    /// `CLOCK_BOOTTIME` up to which everything has come, in ns.
    settled: u64,
}

impl State {
    fn new(config: Config, top: Top, named: Named) -> Self {
        let follower = Follower::new(config, [], Origin::default());
        Self { follower, top, named, knows_more: false, is_scanned: false, has_changed: true, settled: 0 }
    }

    /// Lets time pass.
    fn tick(&mut self) {
        if self.settled == 0 {
            return;
        }
        let now = self.follower.context().clock.unix_ns(self.settled);
        self.top.time(now, self.follower.origin());
    }

    fn confirm(&mut self) {
        let Self { follower, top, .. } = self;
        top.look();
        let Ok(()) = follower.take_open::<Infallible>(|row, origin| {
            top.confirm(row, origin);
            Ok(())
        });
        top.confirmed(follower.origin());
    }

    fn outcome(&self) -> Outcome {
        let mut summary = Summary::default();
        self.follower.add_to(&mut summary);
        Outcome::of(&summary)
    }
}

impl Sink for State {
    /// One by one: what an item leads to may decide what the next one means.
    fn take(&mut self, items: &[Item]) -> Result<()> {
        let Self { follower, top, .. } = self;
        for item in items {
            if let Item::Namespace { inode, name } = item {
                self.named.note(*inode, name);
            }
            top.item(item, follower.origin());
            let Ok(()) = follower.take::<Infallible>(std::slice::from_ref(item), |row, origin| {
                top.row(row, origin);
                Ok(())
            });
            let is_scan = matches!(item, Item::Event(Event::ScanEnded { .. }));
            self.is_scanned |= is_scan;
            self.knows_more |= is_scan || matches!(item, Item::Event(Event::SurveyEnded { .. }));
            self.has_changed |= !matches!(item, Item::Event(Event::Passed { .. }) | Item::Clocks(_));
        }
        Ok(())
    }

    fn settle(&mut self, now: u64) -> Result<()> {
        self.settled = now;
        if std::mem::take(&mut self.knows_more) {
            self.tick();
            self.confirm();
        }
        Ok(())
    }

    fn misses_any(&mut self) -> bool {
        self.follower.misses_any()
    }

    fn wishes(&mut self) -> Wishes {
        self.follower.wishes()
    }
}

/// The screen, and what it shows.
struct Shown {
    screen: Screen,
    chores: Chores,
    frames: Regularly,
    /// The time that is shown; `None`: now.
    past: Option<i64>,
}

impl Shown {
    fn new(screen: Screen) -> Self {
        Self { screen, chores: Chores::new(), frames: Regularly::every(BETWEEN, SHARE_OF_FRAMES), past: None }
    }

    /// Shows a frame if one is due and something has changed: an event, or ages by a second.
    fn tick(&mut self, sink: &mut State) {
        sink.tick();
        sink.has_changed |= self.chores.work(&mut sink.top);
        if sink.has_changed && self.past.is_none() && self.frames.is_due() {
            self.show(sink);
        }
    }

    fn show(&mut self, sink: &mut State) {
        let begun = Instant::now();
        sink.tick();
        sink.has_changed = false;
        let past = self.past.and_then(|at| sink.top.back(at));
        let playing = Playing::Live { oldest: sink.top.oldest(), is_past: past.is_some() };
        self.screen.show(past.unwrap_or_else(|| Arc::new(sink.top.frame())), playing);
        self.frames.done(begun);
    }

    fn wish(&mut self, wish: Wish, sink: &mut State) {
        let now = sink.top.second() * SECOND;
        let oldest = sink.top.oldest().unwrap_or(now);
        let to = |at: i64| (at < now).then(|| at.max(oldest));
        match wish {
            Wish::Ask(ask) => sink.top.ask(*ask, &sink.follower.context().names),
            Wish::Move(seconds) => self.past = to(self.past.unwrap_or(now) + seconds * SECOND),
            Wish::Percent(percent) => self.past = to(oldest + (now - oldest) / 100 * i64::from(percent)),
            Wish::Now | Wish::Pause(false) => self.past = None,
            Wish::Pause(true) | Wish::Faster(_) | Wish::Quit => {}
        }
    }
}
