//! What is shown of a frame: which pane, which row, how deep.

use std::io::{self, Write};
use std::sync::Arc;

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::paint::{Look, adapt, put_all};
use super::table::Table;
use super::{bar, connection, findings, groups, help, ports, queues, totals, waiters};
use crate::study::counts::By;
use crate::study::diagnose::finding::Finding;
use crate::study::top::{Detail, Frame, Key, Sort};

/// A smaller terminal shows only a part.
const NARROWEST: u16 = 20;

/// From this height on, more than one pane is on the screen.
const TALL: u16 = 36;

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
    look: Look,
    pub(super) zone: TimeZone,
    pub(super) pane: Pane,
    pub(super) over: Vec<Over>,
    /// The selected row of each pane, and of what lies over them.
    rows: [usize; Pane::ALL.len()],
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

    fn table(self, frame: &Frame) -> Table {
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

    /// Draws everything.
    pub fn draw(&mut self, to: &mut Buffer) {
        let area = to.area;
        if area.width < NARROWEST || area.height < 4 {
            return;
        }
        bar::head(to, Rect { height: 1, ..area }, self);
        let body = Rect { y: area.y + 1, height: area.height - 2, ..area };
        match self.over.last() {
            Some(Over::Help) => help::draw(to, body),
            Some(Over::Finding(finding)) => self.draw_page(to, body, &finding.clone()),
            Some(Over::Connection(_)) => connection::draw(to, body, self.frame.connection.as_ref(), &self.zone),
            Some(Over::Group(..)) => {
                if let Some((group, rows)) = &self.frame.connections {
                    waiters::of_group(group, rows).draw(to, body, Some(self.deep));
                }
                self.page = body.height.saturating_sub(3);
            }
            None => self.draw_panes(to, body),
        }
        bar::foot(to, Rect { y: area.bottom() - 1, height: 1, ..area }, self);
        adapt(to, self.look);
    }

    fn draw_panes(&mut self, to: &mut Buffer, area: Rect) {
        let frame = self.frame.clone();
        totals::draw(to, Rect { height: totals::LINES, ..area }, &frame);
        let causes = u16::try_from(findings::causes(&frame).len()).unwrap_or(u16::MAX);
        let strip = if self.pane == Pane::Findings { 0 } else { causes.min(if area.height >= TALL { 5 } else { 2 }) };
        let begin = area.y + totals::LINES;
        findings::strip(to, Rect { y: begin, height: strip, ..area }, &frame.diagnosis);
        let rest = Rect { y: begin + strip + 1, height: area.bottom().saturating_sub(begin + strip + 1), ..area };
        bar::tabs(to, Rect { y: begin + strip, height: 1, ..area }, self);
        let table = self.pane.table(&frame);
        let is_tall = area.height >= TALL;
        let (main, below) = if is_tall { split(rest, self.pane, table.height()) } else { (rest, Vec::new()) };
        self.page = main.height.saturating_sub(3);
        table.draw(to, main, Some(self.rows[self.pane as usize]));
        for (pane, area) in below {
            pane.table(&frame).draw(to, area, None);
        }
    }

    fn draw_page(&mut self, to: &mut Buffer, area: Rect, finding: &Finding) {
        self.page = area.height;
        let lines = findings::page(finding, area.width);
        let first = self.deep.min(lines.len().saturating_sub(usize::from(area.height)));
        for (y, line) in (area.y..area.bottom()).zip(&lines[first..]) {
            put_all(to, area, y, line);
        }
    }
}

/// The pane with the keys above, and others below it: one beside the other where that is wide enough.
fn split(area: Rect, main: Pane, lines: u16) -> (Rect, Vec<(Pane, Rect)>) {
    let others: Vec<Pane> =
        [Pane::Waiters, Pane::Ports, Pane::Groups].into_iter().filter(|pane| *pane != main).collect();
    let above = Rect { height: lines.clamp(6, area.height * 3 / 5), ..area };
    let below = Rect { y: above.bottom() + 1, height: area.height.saturating_sub(above.height + 1), ..area };
    match others[..] {
        [first, second, ..] if area.width >= 160 => {
            let left = Rect { width: area.width / 2 - 1, ..below };
            let right = Rect { x: left.right() + 2, width: area.width.saturating_sub(left.width + 2), ..below };
            (above, vec![(first, left), (second, right)])
        }
        [first, ..] => (above, vec![(first, below)]),
        [] => (area, Vec::new()),
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
