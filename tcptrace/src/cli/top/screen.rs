//! The thread of the screen: it draws frames and reads keys. A slow terminal holds up this thread alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ratatui::crossterm::event::{Event, poll, read};

use super::ask::Parsed;
use super::terminal;
use crate::cli::messages;
use crate::model::criteria::Criteria;
use crate::output::tui::{Act, Playing, View};
use crate::study::top::{Ask, Frame};

/// At most ten times a second.
const BETWEEN: Duration = Duration::from_millis(100);
/// How soon a new frame is noticed; sooner, if a key asked for it.
const WAIT: Duration = Duration::from_millis(50);
const SHORT: Duration = Duration::from_millis(5);

/// What a key asks of the state.
#[derive(Debug)]
pub(super) enum Wish {
    Quit,
    Ask(Box<Ask>),
    Pause(bool),
    Move(i64),
    Percent(u8),
    Now,
    Faster(f64),
}

/// The screen, as the state sees it.
pub(super) struct Screen {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    frame: Mutex<Option<(Arc<Frame>, Playing)>>,
    is_over: AtomicBool,
    is_suspended: AtomicBool,
    is_resumed: AtomicBool,
}

impl Screen {
    /// Shows the screen. `notify` is called when a wish can be received.
    pub(super) fn new(
        view: View,
        ask: Ask,
        parsed: Parsed,
        notify: impl Fn() + Send + 'static,
    ) -> Result<(Self, Receiver<Wish>)> {
        let shared = Arc::new(Shared::default());
        // Keys are typed one by one.
        let (sender, receiver) = sync_channel(1024);
        messages::hold();
        let screen = terminal::Screen::new().inspect_err(|_| messages::release())?;
        let mut drawing = Drawing {
            screen,
            view,
            ask,
            typed: None,
            parsed,
            shared: shared.clone(),
            sender,
            notify: Box::new(notify),
        };
        let thread = thread::Builder::new().name("screen".into()).spawn(move || {
            let result = drawing.run();
            drawing.send(Wish::Quit);
            result
        });
        let thread = Some(thread.context("cannot start the thread of the screen")?);
        Ok((Self { shared, thread }, receiver))
    }

    /// Shows another frame.
    pub(super) fn show(&self, frame: Arc<Frame>, playing: Playing) {
        if let Ok(mut shown) = self.shared.frame.lock() {
            *shown = Some((frame, playing));
        }
    }

    /// Has the process stopped, with the terminal as it was.
    pub(super) fn suspend(&self) {
        self.shared.is_suspended.store(true, Ordering::SeqCst);
    }

    /// The process goes on: another one may have used the terminal.
    pub(super) fn resume(&self) {
        self.shared.is_resumed.store(true, Ordering::SeqCst);
    }

    /// Restores the terminal.
    ///
    /// # Errors
    /// What ended the thread.
    pub(super) fn finish(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = thread.join();
        messages::release();
        ended.map_err(|_| anyhow!("internal error: the thread of the screen panicked"))?
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

struct Drawing {
    screen: terminal::Screen,
    view: View,
    ask: Ask,
    /// The filter that is typed.
    typed: Option<Criteria>,
    parsed: Parsed,
    shared: Arc<Shared>,
    sender: SyncSender<Wish>,
    notify: Box<dyn Fn() + Send>,
}

impl Drawing {
    fn run(&mut self) -> Result<()> {
        let mut drawn = None::<Instant>;
        let mut typed_at = None::<Instant>;
        while !self.shared.is_over.load(Ordering::SeqCst) {
            if self.shared.is_suspended.swap(false, Ordering::SeqCst) {
                self.suspend()?;
            }
            if self.shared.is_resumed.swap(false, Ordering::SeqCst) {
                self.screen.enter()?;
                self.view.redraw();
            }
            let frame = self.shared.frame.lock().ok().and_then(|mut frame| frame.take());
            if let Some((frame, playing)) = frame {
                self.view.take(frame, playing);
            }
            let is_due = drawn.is_none_or(|at| at.elapsed() >= BETWEEN);
            let is_typed = typed_at.is_some_and(|at| at.elapsed() < BETWEEN);
            if (is_due || is_typed) && self.view.is_dirty() {
                let view = &mut self.view;
                self.screen.terminal.draw(|frame| view.draw(frame.buffer_mut()))?;
                drawn = Some(Instant::now());
            }
            if !poll(if is_typed { SHORT } else { WAIT })? {
                continue;
            }
            typed_at = Some(Instant::now());
            match read()? {
                Event::Key(key) => {
                    if let Some(act) = self.view.key(key)
                        && !self.act(act)?
                    {
                        break;
                    }
                }
                Event::Resize(..) => {
                    self.screen.renew()?;
                    self.view.redraw();
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn suspend(&mut self) -> Result<()> {
        self.view.redraw();
        self.screen.suspend()
    }

    /// Does what a key asks for. Returns whether to go on.
    fn act(&mut self, act: Act) -> Result<bool> {
        match act {
            Act::Quit => return Ok(false),
            Act::Suspend => self.suspend()?,
            Act::Redraw => {
                self.screen.renew()?;
                self.view.redraw();
            }
            Act::Filter(text) => match self.parsed.typed(&text) {
                Ok(criteria) => {
                    self.typed = Some(criteria);
                    self.view.judge_filter(None);
                    self.want();
                }
                Err(error) => self.view.judge_filter(Some(error)),
            },
            Act::Ask => self.want(),
            Act::Pause(is_paused) => self.send(Wish::Pause(is_paused)),
            Act::Move(seconds) => self.send(Wish::Move(seconds)),
            Act::Percent(percent) => self.send(Wish::Percent(percent)),
            Act::Now => self.send(Wish::Now),
            Act::Faster(factor) => self.send(Wish::Faster(factor)),
        }
        Ok(true)
    }

    fn want(&mut self) {
        let (by, sort, detail) = self.view.wanted();
        let criteria = self.parsed.all(self.typed.clone());
        self.send(Wish::Ask(Box::new(Ask { by, sort, detail, criteria, ..self.ask.clone() })));
    }

    fn send(&mut self, wish: Wish) {
        // Where nobody receives any more, the command is about to end.
        let _ = self.sender.try_send(wish);
        (self.notify)();
    }
}
