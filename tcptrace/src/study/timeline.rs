//! Lives of connections, drawn to scale: which of them, with their other ends, and as which lines.
//!
//! All of it is pure: [`Selection`] keeps the few that are shown of the many that are read, [`Peers`] finds the other end
//! of each, and [`layout`] makes lines of them.

mod axis;
mod bar;
mod glyphs;
mod label;
mod layout;
mod pair;
mod select;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use anstyle::Style;
use jiff::tz::TimeZone;

use crate::model::life::Life;
use crate::model::names::Names;
use crate::model::row::Connection;
use crate::model::stream::{Context, Origin};

pub use self::layout::layout;
pub use self::pair::{Group, Peers};
pub use self::select::{Addresses, Selection};

/// Which connections are shown, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Those that were in TIME_WAIT, longest first.
    TimeWait,
    /// Those that were in CLOSE_WAIT, longest first.
    CloseWait,
    /// Longest from open to end first.
    #[default]
    Lifetime,
    /// In the order of their beginning.
    Opened,
}

/// Where bars begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Axis {
    /// By the clock, unless all bars would be short.
    #[default]
    Auto,
    /// Where they belong by the clock.
    Clock,
    /// All at the left.
    Own,
}

/// How lines are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Columns of the terminal.
    pub width: usize,
    /// Nothing but ASCII.
    pub ascii: bool,
    /// Where bars begin.
    pub axis: Axis,
    /// The zone that times are shown in.
    pub zone: TimeZone,
}

/// A connection that is shown.
#[derive(Clone, Debug)]
pub struct Item {
    /// As it was read.
    pub connection: Connection,
    /// Which recording it is from.
    pub origin: usize,
    /// Of which host.
    pub host: Box<str>,
    /// The clock at its time, and the names that it needs.
    pub context: Context,
    /// When it was in which state.
    pub life: Life,
}

impl Item {
    /// Takes what is needed of a connection's recording.
    pub fn new(connection: &Connection, origin: &Origin) -> Self {
        let mut names = Names::default();
        let known = &origin.context.names;
        let identity = &connection.identity;
        if let Some((inode, name)) = identity.netns.and_then(|inode| Some((inode, known.namespace(inode)?))) {
            names.name_namespace(inode, name);
        }
        if let Some((id, group)) = identity.cgroup.and_then(|id| Some((id, known.group(id)?))) {
            names.name_group(id, group.clone());
        }
        Self {
            connection: connection.clone(),
            origin: origin.number,
            host: origin.host.clone(),
            context: Context { clock: origin.context.clock, names },
            life: Life::of(connection),
        }
    }

    /// When it began, as far as that was seen, in ns of Unix time.
    fn begin(&self) -> i64 {
        self.context.clock.unix_ns(self.life.begin)
    }

    /// When it ended, or was seen last.
    fn end(&self) -> i64 {
        self.context.clock.unix_ns(self.life.end)
    }
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Safe to print.
    pub text: String,
    /// How it is marked.
    pub style: Style,
}

/// A line of the drawing, without its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<Part>);

impl Line {
    fn push(&mut self, text: impl Into<String>, style: Style) {
        let text = text.into();
        match self.0.last_mut() {
            Some(last) if last.style == style => last.text.push_str(&text),
            _ if text.is_empty() => {}
            _ => self.0.push(Part { text, style }),
        }
    }
}

/// Writes lines.
///
/// # Errors
/// What the writer returns.
pub fn write(out: &mut impl Write, lines: &[Line], colour: bool) -> io::Result<()> {
    for line in lines {
        for Part { text, style } in &line.0 {
            if colour && !style.is_plain() {
                write!(out, "{style}{text}{style:#}")?;
            } else {
                out.write_all(text.as_bytes())?;
            }
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}
