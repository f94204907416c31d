//! Keys, and what they ask for.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::findings;
use super::view::{Over, Pane, Playing, View};
use crate::study::counts::By;
use crate::study::top::Sort;

/// What a key asks of the caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    Quit,
    Suspend,
    /// Draw everything again.
    Redraw,
    /// [`View::wanted`] is another one.
    Ask,
    /// The filter is being typed.
    Filter(String),
    /// Stop or go on.
    Pause(bool),
    /// Go back or forward by so many seconds.
    Move(i64),
    /// Go to a part of the time, in percent.
    Percent(u8),
    /// Leave the past.
    Now,
    /// Multiply the playback speed.
    Faster(f64),
}

impl View {
    /// Takes a key. `None`: it asks for nothing.
    pub fn key(&mut self, key: KeyEvent) -> Option<Act> {
        let act = self.act(key);
        self.awaits |= matches!(act, Some(Act::Ask | Act::Filter(_) | Act::Move(_) | Act::Percent(_) | Act::Now));
        act
    }

    fn act(&mut self, key: KeyEvent) -> Option<Act> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        self.is_dirty = true;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Act::Quit),
                KeyCode::Char('z') => Some(Act::Suspend),
                KeyCode::Char('l') => Some(Act::Redraw),
                KeyCode::Char('u') if self.typing.is_some() => self.typed(String::new()),
                _ => None,
            };
        }
        if self.typing.is_some() {
            return self.type_key(key.code);
        }
        match key.code {
            KeyCode::Char('q') => Some(Act::Quit),
            KeyCode::Char('?') => {
                self.over.push(Over::Help);
                None
            }
            KeyCode::Char('/') => {
                self.typing = Some(self.filter.clone());
                None
            }
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                Some(Act::Pause(self.is_paused))
            }
            KeyCode::Char('g') => self.group(),
            KeyCode::Char('s') => self.sort(1),
            KeyCode::Char('S') => self.sort(Sort::ALL.len() - 1),
            KeyCode::Char('f') => self.show(Pane::Findings),
            KeyCode::Tab => self.show(self.pane.after(1)),
            KeyCode::BackTab => self.show(self.pane.after(Pane::ALL.len() - 1)),
            KeyCode::Char('[') => Some(Act::Move(-10)),
            KeyCode::Char(']') => Some(Act::Move(10)),
            KeyCode::Char('{') => Some(Act::Move(-60)),
            KeyCode::Char('}') => Some(Act::Move(60)),
            KeyCode::Char(digit @ '0'..='9') => Some(Act::Percent((digit as u8 - b'0') * 10)),
            KeyCode::Char('n') => Some(Act::Now),
            KeyCode::Char('+' | '=') if matches!(self.playing, Playing::Trace { .. }) => Some(Act::Faster(2.0)),
            KeyCode::Char('-') if matches!(self.playing, Playing::Trace { .. }) => Some(Act::Faster(0.5)),
            KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => self.open(),
            KeyCode::Char('t') => self.open_timeline(),
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace | KeyCode::Char('h') => self.back(),
            code => {
                self.walk(code);
                None
            }
        }
    }

    fn type_key(&mut self, code: KeyCode) -> Option<Act> {
        let typing = self.typing.clone().unwrap_or_default();
        match code {
            KeyCode::Char(character) => self.typed(format!("{typing}{character}")),
            KeyCode::Backspace => {
                let mut shorter = typing;
                shorter.pop();
                self.typed(shorter)
            }
            KeyCode::Enter if self.error.is_none() => {
                self.filter = self.typing.take().unwrap_or_default();
                None
            }
            KeyCode::Esc => {
                (self.typing, self.error) = (None, None);
                Some(Act::Filter(self.filter.clone()))
            }
            _ => None,
        }
    }

    fn typed(&mut self, text: String) -> Option<Act> {
        self.typing = Some(text.clone());
        Some(Act::Filter(text))
    }

    fn walk(&mut self, code: KeyCode) {
        let page = usize::from(self.page).max(1);
        let rows = self.rows();
        let at = self.selected();
        *at = match code {
            KeyCode::Down | KeyCode::Char('j') => at.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
            KeyCode::PageDown => at.saturating_add(page),
            KeyCode::PageUp => at.saturating_sub(page),
            KeyCode::Home => 0,
            KeyCode::End => usize::MAX,
            _ => *at,
        }
        .min(rows.saturating_sub(1));
    }

    fn show(&mut self, pane: Pane) -> Option<Act> {
        let was_deep = !self.over.is_empty();
        self.over.clear();
        self.pane = pane;
        was_deep.then_some(Act::Ask)
    }

    fn group(&mut self) -> Option<Act> {
        let next = By::ALL.iter().position(|by| *by == self.by).unwrap_or(0) + 1;
        self.by = By::ALL[next % By::ALL.len()];
        self.over.clear();
        self.pane = Pane::Groups;
        *self.selected() = 0;
        Some(Act::Ask)
    }

    fn sort(&mut self, step: usize) -> Option<Act> {
        let next = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0) + step;
        self.sort = Sort::ALL[next % Sort::ALL.len()];
        Some(Act::Ask)
    }

    /// Opens what is selected.
    fn open(&mut self) -> Option<Act> {
        let at = (*self.selected()).min(self.rows().saturating_sub(1));
        let over = match (self.over.last(), self.pane) {
            (Some(Over::Group(..)), _) => {
                let (_, rows) = self.frame.connections.as_ref()?;
                Over::Connection(rows.rows.get(at)?.key)
            }
            (Some(_), _) => return None,
            (None, Pane::Groups) => Over::Group(self.frame.by, self.frame.groups.rows.get(at)?.id),
            (None, Pane::Waiters) => Over::Connection(self.frame.waiters.rows.get(at)?.key),
            (None, Pane::Findings) => {
                let finding = (*findings::causes(&self.frame).get(at)?).clone();
                Over::Finding(Box::new(finding))
            }
            (None, Pane::Ports | Pane::Queues) => return None,
        };
        self.over.push(over);
        self.deep = 0;
        Some(Act::Ask)
    }

    /// Opens the selected connection; of a group, its first one.
    fn open_timeline(&mut self) -> Option<Act> {
        match (self.over.last(), self.pane) {
            (Some(Over::Group(..)), _) | (None, Pane::Waiters) => self.open(),
            _ => None,
        }
    }

    fn back(&mut self) -> Option<Act> {
        self.over.pop().map(|_| {
            self.deep = 0;
            Act::Ask
        })
    }
}
