//! What is shown of a frame: which pane, which row, how deep.

use std::io::{self, Write};
use std::sync::Arc;

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::paint::{Look, adapt};
use super::table::Table;
use super::{findings, groups, ports, queues, totals, waiters};
use crate::study::counts::By;
use crate::study::diagnose::finding::Finding;
use crate::study::top::{Detail, Frame, Key, Sort};

/// A smaller terminal shows only a part.
pub(super) const NARROWEST: u16 = 20;

/// A pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    Groups,
    Waiters,
    Ports,
    Queues,
    Findings,
}

/// Where the frames come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Playing {
    Live {
        /// The oldest moment that is remembered, in ns of Unix time.
        oldest: Option<i64>,
        /// Whether the frame is of the past.
        is_past: bool,
    },
    Trace {
        /// Where it begins and ends, in ns of Unix time.
        from: i64,
        to: i64,
        speed: f64,
        is_over: bool,
    },
}

/// What lies over the panes.
#[derive(Clone, Debug)]
pub(super) enum Over {
    Group(By, u64),
    Connection(Key),
    Finding(Box<Finding>),
    Help,
}

/// The state of a screen.
#[derive(Debug)]
pub struct View {
    pub(super) frame: Arc<Frame>,
    pub(super) playing: Playing,
    pub(super) look: Look,
    pub(super) zone: TimeZone,
    pub(super) pane: Pane,
    pub(super) over: Vec<Over>,
    /// The selected row of each pane, and of what lies over them.
    pub(super) rows: [usize; Pane::ALL.len()],
    pub(super) deep: usize,
    pub(super) by: By,
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) typing: Option<String>,
    pub(super) error: Option<String>,
    pub(super) is_paused: bool,
    /// A key has asked for another frame, which is shown on a paused screen, too.
    pub(super) awaits: bool,
    /// Rows of the pane that has the keys.
    pub(super) page: u16,
    /// Whether the screen is to be drawn.
    pub(super) is_dirty: bool,
}

impl Pane {
    pub const ALL: [Self; 5] = [Self::Groups, Self::Waiters, Self::Ports, Self::Queues, Self::Findings];

    pub(super) fn after(self, step: usize) -> Self {
        Self::ALL[(self as usize + step) % Self::ALL.len()]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Waiters => "oldest",
            Self::Ports => "ports",
            Self::Queues => "queues",
            Self::Findings => "findings",
        }
    }

    pub(super) fn table(self, frame: &Frame) -> Table {
        match self {
            Self::Groups => groups::table(frame),
            Self::Waiters => waiters::table(frame),
            Self::Ports => ports::table(frame),
            Self::Queues => queues::table(frame),
            Self::Findings => findings::table(frame),
        }
    }
}

impl View {
    pub fn new(look: Look, zone: TimeZone, by: By, sort: Sort, playing: Playing) -> Self {
        Self {
            frame: Arc::default(),
            playing,
            look,
            zone,
            pane: Pane::Groups,
            over: Vec::new(),
            rows: [0; Pane::ALL.len()],
            deep: 0,
            by,
            sort,
            filter: String::new(),
            typing: None,
            error: None,
            is_paused: false,
            awaits: false,
            page: 1,
            is_dirty: true,
        }
    }

    /// Shows another frame, unless it is paused. A trace pauses at its source.
    pub fn take(&mut self, frame: Arc<Frame>, playing: Playing) {
        self.playing = playing;
        if !self.is_paused || std::mem::take(&mut self.awaits) || matches!(playing, Playing::Trace { .. }) {
            self.frame = frame;
            self.is_dirty = true;
        }
    }

    /// What frames are to have.
    pub fn wanted(&self) -> (By, Sort, Detail) {
        let detail = match self.over.iter().rev().find(|over| !matches!(over, Over::Help | Over::Finding(_))) {
            Some(Over::Group(by, id)) => Detail::Group(*by, *id),
            Some(Over::Connection(key)) => Detail::Connection(*key),
            _ => Detail::None,
        };
        (self.by, self.sort, detail)
    }

    /// Says what is wrong with the filter, or that nothing is.
    pub fn judge_filter(&mut self, error: Option<String>) {
        self.error = error;
        self.is_dirty = true;
    }

    /// Whether it must be drawn; then it is up to date.
    pub fn is_dirty(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    /// It must be drawn again, as the terminal has another size or another content.
    pub fn redraw(&mut self) {
        self.is_dirty = true;
    }

    pub(super) fn selected(&mut self) -> &mut usize {
        if self.over.is_empty() { &mut self.rows[self.pane as usize] } else { &mut self.deep }
    }

    /// Rows, or lines, that can be selected.
    pub(super) fn rows(&self) -> usize {
        match (self.over.last(), self.pane) {
            (Some(Over::Group(..)), _) => self.frame.connections.as_ref().map_or(0, |(_, rows)| rows.rows.len()),
            (Some(Over::Finding(finding)), _) => findings::page(finding, NARROWEST * 3).len(),
            (Some(_), _) => 0,
            (None, Pane::Groups) => self.frame.groups.rows.len(),
            (None, Pane::Waiters) => self.frame.waiters.rows.len(),
            (None, Pane::Ports) => self.frame.ports.rows.len(),
            (None, Pane::Queues) => self.frame.queues.rows.len(),
            (None, Pane::Findings) => findings::causes(&self.frame).len(),
        }
    }
}

/// Writes everything that a frame has as text: the same panes, one below the other.
///
/// # Errors
/// Errors of the writer.
pub fn print(out: &mut impl Write, frame: &Frame, columns: u16, ascii: bool) -> io::Result<()> {
    let look = Look { colour: false, ascii };
    let tables: Vec<Table> = Pane::ALL.iter().map(|pane| pane.table(frame)).collect();
    let heights = tables.iter().map(|table| table.height() + 1);
    let height = heights.fold(totals::LINES + 1, u16::saturating_add).min(u16::MAX / columns.max(1));
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, height));
    totals::draw(&mut buffer, Rect::new(0, 0, columns, totals::LINES), frame);
    let mut y = totals::LINES + 1;
    for table in tables {
        let lines = table.height().min(height.saturating_sub(y));
        table.draw(&mut buffer, Rect::new(0, y, columns, lines), None);
        y = y.saturating_add(lines + 1);
    }
    adapt(&mut buffer, look);
    write(out, &buffer)
}

/// Writes the text of a screen, without blanks at the ends of lines.
pub(super) fn write(out: &mut impl Write, buffer: &Buffer) -> io::Result<()> {
    for y in buffer.area.rows() {
        let mut line = String::new();
        let mut skip = 0;
        for x in y.left()..y.right() {
            let symbol = buffer[(x, y.y)].symbol();
            if skip == 0 {
                line.push_str(symbol);
            }
            // The cell behind a wide character is a part of it.
            skip = super::paint::width(symbol).max(skip).saturating_sub(1);
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
