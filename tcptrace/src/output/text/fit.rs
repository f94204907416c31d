//! Lines that fit a terminal: the columns that they give up where it is narrow. Used only where output is a terminal.

use std::borrow::Cow;

use super::column::{ARROW, Align, Cell, Line, fitting};
use super::wrap::wrapped;
use super::{IPV4_WIDTH, STATES_INDENT};
use crate::output::{Kind, width};

/// How to fit a kind of rows.
struct Plan {
    /// Columns reserved for NOTE. It also takes what is left over.
    note: usize,
    /// Steps in order: a column and its new width; 0 removes it. A later step may widen it again, after another column is
    /// gone. LOCAL and REMOTE never go.
    steps: &'static [(&'static str, usize)],
    /// The last to go. It stays even where two addresses alone are too wide.
    last: &'static str,
}

const fn plan(kind: Kind) -> Plan {
    match kind {
        Kind::Transition => Plan {
            note: 18,
            steps: &[
                ("PID", 0),
                ("TIME", SECONDS),
                ("COMM", 8),
                ("NOTE", 13),
                ("TIME", 0),
                // 80 columns have room for TIME or NOTE beside two usual addresses, not for both.
                ("TIME", SECONDS),
                ("NOTE", 0),
                ("COMM", 5),
                ("COMM", 8),
                ("TIME", 0),
                ("COMM", 0),
                ("HELD", 0),
                ("OLD", 0),
            ],
            last: "NEW",
        },
        Kind::Connection => Plan {
            note: 0,
            steps: &[
                ("SIDE", 0),
                ("SENT", 0),
                ("RECV", 0),
                ("TIME", SECONDS),
                ("PID", 0),
                ("COMM", 8),
                ("TIME_WAIT", 9),
                ("TIME", 0),
                ("END", 0),
                ("CLOSER", 12),
                ("ESTAB", 0),
                ("COMM", 0),
                ("CLOSER", 8),
                ("TIME_WAIT", 0),
                ("CLOSE_WAIT", 0),
            ],
            last: "CLOSER",
        },
        Kind::Socket => Plan {
            note: 14,
            steps: &[
                ("TIMER", 0),
                ("PID", 0),
                ("LEFT", 0),
                ("COMM", 8),
                ("SEND-Q", 0),
                ("NOTE", 0),
                ("RECV-Q", 0),
                ("COMM", 0),
                ("AGE", 0),
            ],
            last: "STATE",
        },
        Kind::Ports => Plan {
            note: 22,
            steps: &[
                ("PID", 0),
                ("COMM", 8),
                ("NOTE", 0),
                ("COMM", 0),
                ("LEFT", 0),
                ("MAX/S", 0),
                ("USABLE", 0),
                ("TAKEN", 0),
            ],
            last: "SHARE",
        },
        Kind::Count => {
            Plan { note: 22, steps: &[("PID", 0), ("COMM", 8), ("NOTE", 0), ("COMM", 0), ("STATE", 0)], last: "TOTAL" }
        }
    }
}

/// `HH:MM:SS`.
const SECONDS: usize = 8;

/// A narrower note would be useless.
const NOTE_MIN: usize = 8;

/// A usual IPv4 address and port. Address columns start with this width, and widen.
const ADDRESS_WIDTH: usize = "10.0.0.12:45678".len();

/// Lays out lines.
#[derive(Debug)]
pub(super) struct Fit {
    limit: usize,
    kind: Kind,
    columns: Vec<Planned>,
    /// Number of steps of the plan that all rows take. A wider row takes more.
    taken: usize,
    /// The width of each column after these steps.
    widths: Vec<usize>,
    has_note: bool,
    /// The last heading no longer matches the rows.
    is_stale: bool,
}

#[derive(Debug)]
struct Planned {
    head: Cell,
    width: usize,
}

/// A cell, its start, and its text, which may be cut.
type Placed<'a> = (&'a Cell, usize, Cow<'a, str>);

/// A line that was laid out.
struct Laid<'a> {
    cells: Vec<Placed<'a>>,
    /// Where the last one ends.
    end: usize,
    /// Where the last column ends.
    columns_end: usize,
}

impl Fit {
    /// For lines of at most `limit` columns.
    pub(super) fn new(limit: usize) -> Self {
        let (columns, widths) = (Vec::new(), Vec::new());
        Self { limit, kind: Kind::Count, columns, taken: 0, widths, has_note: false, is_stale: false }
    }

    /// Whether columns are planned for these rows.
    pub(super) fn is_for(&self, kind: Kind) -> bool {
        self.kind == kind && !self.columns.is_empty()
    }

    /// Starts rows of a kind, with these heads.
    pub(super) fn begin(&mut self, kind: Kind, heads: Vec<Cell>) {
        self.kind = kind;
        self.columns = heads.into_iter().map(|head| Planned { width: 0, head }).collect();
        self.start_over();
        self.is_stale = false;
    }

    /// Changes how wide lines may be.
    pub(super) fn resize(&mut self, limit: usize) {
        if limit != self.limit {
            self.limit = limit;
            self.start_over();
        }
    }

    /// Whether a row of these cells needs a new heading before it. Columns widen as long as no other column has to go;
    /// for IPv4 even then, so that addresses stay aligned.
    pub(super) fn widen(&mut self, cells: &[Cell]) -> bool {
        let mut is_wider = false;
        for (place, cell) in cells.iter().enumerate().filter(|(_, cell)| cell.name != "NOTE") {
            let column = &self.columns[place];
            let (wanted, is_cut) = (width(&cell.text), self.widths[place] < column.width);
            if is_cut || wanted <= column.width {
                continue;
            }
            let is_ipv4 = is_address(cell) && wanted <= IPV4_WIDTH;
            if is_ipv4 || self.planned(self.taken) + wanted - column.width <= self.limit {
                self.columns[place].width = wanted;
                // The columns after it have moved.
                self.is_stale |= is_address(cell);
                is_wider = true;
            }
        }
        if is_wider {
            self.settle();
        }
        std::mem::take(&mut self.is_stale)
    }

    /// Writes the heading.
    pub(super) fn heading(&self, line: &mut Line) {
        let heads: Vec<&Cell> = self.columns.iter().map(|column| &column.head).collect();
        let laid = self.lay(&heads, &self.widths, None);
        let note = heads.iter().find(|cell| cell.name == "NOTE").filter(|_| self.has_note);
        let start = laid.columns_end + 1;
        write(line, laid, note.map(|note| (*note, start, note.text.as_str().into())));
    }

    /// Writes a row. Returns the note if it must be read and did not fit.
    pub(super) fn row<'a>(&self, cells: &'a [Cell], must_note: bool, line: &mut Line) -> Option<&'a Cell> {
        let all: Vec<&Cell> = cells.iter().collect();
        let laid = self.fitted(&all);
        let note = cells.iter().find(|cell| cell.name == "NOTE" && !cell.text.is_empty());
        let Some(note) = note else {
            write(line, laid, None);
            return None;
        };
        let wanted = width(&note.text);
        // If the row is short, its note may start further left.
        let start = (laid.columns_end + 1).min(self.limit.saturating_sub(wanted)).max(laid.end + 1);
        let room = self.limit.saturating_sub(start);
        let is_shown = self.has_note && (wanted <= room || room >= NOTE_MIN && !must_note);
        write(line, laid, is_shown.then(|| (note, start, cut(note, room))));
        (must_note && !is_shown).then_some(note)
    }

    /// The lines below a row for a note that must be read.
    pub(super) fn below<'a>(&self, note: &'a Cell) -> Vec<&'a str> {
        wrapped(&note.text, self.limit.saturating_sub(STATES_INDENT.len()))
    }

    /// The lines of a message beside a time.
    pub(super) fn beside_time<'a>(&self, words: &'a str) -> Vec<&'a str> {
        wrapped(words, self.limit.saturating_sub(STATES_INDENT.len()))
    }

    /// How wide lines may be.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    fn start_over(&mut self) {
        for column in &mut self.columns {
            column.width = match column.head.name {
                "LOCAL" | "REMOTE" => ADDRESS_WIDTH,
                "NOTE" => plan(self.kind).note,
                "TOTAL" => "TOTAL".len(),
                _ => column.head.width,
            };
        }
        self.settle();
        // Give addresses the remaining columns now, so that they rarely move later.
        for wider in ADDRESS_WIDTH + 1..=IPV4_WIDTH {
            let addresses = self.columns.iter().filter(|column| is_address(&column.head)).count();
            if self.planned(self.taken) + addresses > self.limit {
                break;
            }
            self.columns.iter_mut().filter(|column| is_address(&column.head)).for_each(|column| column.width = wider);
        }
        self.settle();
    }

    /// Takes no more steps than it needs.
    fn settle(&mut self) {
        let all = plan(self.kind).steps.len();
        let taken = (0..all).find(|taken| self.planned(*taken) <= self.limit).unwrap_or(all);
        self.widths = self.widths_after(taken);
        let has_note = self.columns.iter().any(|column| column.head.name == "NOTE")
            && self.columns_end(&self.widths) + 1 + NOTE_MIN <= self.limit;
        self.is_stale |= (taken, has_note) != (self.taken, self.has_note);
        (self.taken, self.has_note) = (taken, has_note);
    }

    fn widths_after(&self, taken: usize) -> Vec<usize> {
        self.columns.iter().map(|column| self.width(column, taken)).collect()
    }

    /// The width of a column after `taken` steps.
    fn width(&self, column: &Planned, taken: usize) -> usize {
        let steps = plan(self.kind).steps[..taken].iter().rev();
        let cut = steps.filter(|(name, _)| *name == column.head.name).map(|(_, to)| *to).next();
        cut.unwrap_or(usize::MAX).min(column.width)
    }

    /// The width of lines after `taken` steps, including what is reserved for NOTE.
    fn planned(&self, taken: usize) -> usize {
        let note = self.columns.iter().find(|column| column.head.name == "NOTE");
        let note = note.map(|note| self.width(note, taken)).filter(|note| *note > 0);
        self.columns_end(&self.widths_after(taken)) + note.map_or(0, |note| 1 + note)
    }

    fn columns_end(&self, widths: &[usize]) -> usize {
        self.lay(&[], widths, None).columns_end
    }

    /// As much of a row as fits.
    fn fitted<'a>(&self, cells: &[&'a Cell]) -> Laid<'a> {
        let laid = self.lay(cells, &self.widths, None);
        if laid.end <= self.limit {
            return laid;
        }
        let Plan { steps, last, .. } = plan(self.kind);
        let mut each = (self.taken + 1..=steps.len()).map(|taken| self.lay(cells, &self.widths_after(taken), None));
        if let Some(laid) = each.find(|laid| laid.end <= self.limit) {
            return laid;
        }
        let widths = self.widths_after(steps.len());
        let least = self.lay(cells, &widths, None);
        let addresses = cells.iter().filter(|cell| is_address(cell)).map(|cell| width(&cell.text));
        if addresses.fold(0, |sum, address| sum + address + usize::from(sum > 0)) > self.limit {
            return least;
        }
        let widest = cells.iter().find(|cell| cell.name == last).map_or(0, |cell| width(&cell.text));
        let mut cuts = (2..widest).rev().chain([0]).map(|to| self.lay(cells, &widths, Some((last, to))));
        cuts.find(|laid| laid.end <= self.limit).unwrap_or(least)
    }

    /// Places cells in columns of these widths, after one more step. A cell wider than its column moves the next ones, until
    /// there is room to spare. Without cells, it places only columns.
    fn lay<'a>(&self, cells: &[&'a Cell], widths: &[usize], more: Option<(&str, usize)>) -> Laid<'a> {
        let mut laid = Laid { cells: Vec::with_capacity(cells.len()), end: 0, columns_end: 0 };
        let mut before = "";
        for (place, column) in self.columns.iter().enumerate().filter(|(_, column)| column.head.name != "NOTE") {
            let name = column.head.name;
            let wide = match more {
                Some((cut, to)) if cut == name => to,
                _ => widths[place],
            };
            if wide == 0 {
                continue;
            }
            let gap = if before.is_empty() { 0 } else { gap(before, name) };
            let start = laid.columns_end + gap;
            laid.columns_end = start + wide;
            before = name;
            let Some(&cell) = cells.get(place) else { continue };
            let text = if wide < column.width || more.is_some_and(|(cut, _)| cut == name) {
                cut(cell, wide)
            } else {
                Cow::Borrowed(cell.text.as_str())
            };
            let (text_width, earliest) = (width(&text), laid.end + gap);
            let aligned = match cell.align {
                Align::Left => start,
                Align::Right => start + wide.saturating_sub(text_width),
            };
            let start = aligned.max(earliest);
            laid.end = start + text_width;
            laid.cells.push((cell, start, text));
        }
        laid
    }
}

fn is_address(cell: &Cell) -> bool {
    matches!(cell.name, "LOCAL" | "REMOTE")
}

/// An arrow goes between two states.
fn gap(before: &str, name: &str) -> usize {
    if (before, name) == ("OLD", "NEW") { width(ARROW) + 1 } else { 1 }
}

/// As much of a cell as fits.
fn cut(cell: &Cell, columns: usize) -> Cow<'_, str> {
    let text = cell.text.as_str();
    if width(text) <= columns {
        return text.into();
    }
    match text.get(..columns) {
        // Without its milliseconds, a time is whole.
        Some(seconds) if cell.name == "TIME" => seconds.into(),
        _ => format!("{}…", fitting(text, columns)).into(),
    }
}

fn write<'a>(line: &mut Line, mut laid: Laid<'a>, note: Option<Placed<'a>>) {
    laid.cells.extend(note);
    let mut end = 0;
    let mut before = "";
    for (cell, start, text) in &laid.cells {
        if before == "OLD" && cell.name == "NEW" {
            line.pad(start - end - gap(before, cell.name));
            line.raw(ARROW.as_bytes());
            line.pad(1);
        } else {
            line.pad(start - end);
        }
        line.styled(cell.style, |to| to.extend_from_slice(text.as_bytes()));
        end = start + width(text);
        before = cell.name;
    }
}
