//! Rows in, bytes out: text, JSON and CSV.
//!
//! A printer only renders. It knows nothing of where rows come from, reads no clock (the caller passes a [`Context`]) and
//! touches nothing but its writer. It writes once a row, so the writer should be buffered; [`Printer::flush`] hands over
//! what is left.

mod audit;
pub mod columns;
mod counter;
mod csv;
pub mod export;
mod features;
pub mod fields;
pub mod human;
mod json;
mod lost;
mod page;
pub(crate) mod render;
mod report;
mod sanitise;
mod schema;
mod text;
mod time;
pub mod timeline;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use jiff::tz::TimeZone;

use crate::model::counters::Increase;
use crate::model::finding::Finding;
use crate::model::row::{Connection, Entry, Loss, Row, Transition};
use crate::model::stream::Context;
use crate::study::snapshot::Count;

pub use self::audit::audit_lines;
pub use self::counter::counter_words;
pub use self::csv::Csv;
pub use self::features::features;
pub use self::json::Json;
pub use self::lost::lost;
pub use self::page::page;
pub use self::report::report;
pub use self::sanitise::{sanitise, sanitise_message, width};
pub use self::schema::schema;
pub use self::text::Text;
pub(crate) use self::text::{end_style, fitting, state_style};

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// Comma-separated values, with a header.
    Csv,
}

/// Which rows a header is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Changes of state.
    Transition,
    /// Ends of connections.
    Connection,
    /// Sockets that exist.
    Socket,
    /// How many of them there are.
    Count,
}

/// What only the text format takes into account.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Mark states and resets with colours.
    pub colour: bool,
    /// Below a connection, the states it went through.
    pub states: bool,
    /// The zone that times are shown in.
    pub zone: TimeZone,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { colour: false, states: false, zone: TimeZone::UTC }
    }
}

/// Writes rows in one format.
pub trait Printer {
    /// Writes the header, where the format has one; the second time, nothing.
    ///
    /// # Errors
    /// What the writer returns.
    fn header(&mut self, kind: Kind) -> io::Result<()>;

    /// Writes a change of state.
    ///
    /// # Errors
    /// What the writer returns.
    fn transition(&mut self, row: &Transition, context: &Context) -> io::Result<()>;

    /// Writes the end of a connection.
    ///
    /// # Errors
    /// What the writer returns.
    fn connection(&mut self, row: &Connection, context: &Context) -> io::Result<()>;

    /// Writes a socket that exists.
    ///
    /// # Errors
    /// What the writer returns.
    fn socket(&mut self, row: &Entry, context: &Context) -> io::Result<()>;

    /// Writes how many there are of one kind.
    ///
    /// # Errors
    /// What the writer returns.
    fn count(&mut self, row: &Count, context: &Context) -> io::Result<()>;

    /// Writes that something is missing; nothing, where the format has no room for that among its rows.
    ///
    /// # Errors
    /// What the writer returns.
    fn loss(&mut self, row: &Loss, context: &Context) -> io::Result<()>;

    /// Writes what an audit found; nothing, where the format has no room for that among its rows.
    ///
    /// # Errors
    /// What the writer returns.
    fn audit(&mut self, row: &Finding, context: &Context) -> io::Result<()>;

    /// Writes that the kernel has counted what no event tells; nothing, where the format has no room for that among its
    /// rows.
    ///
    /// # Errors
    /// What the writer returns.
    fn counter(&mut self, row: &Increase, context: &Context) -> io::Result<()>;

    /// Writes whatever is kept in buffers, the writer's included.
    ///
    /// # Errors
    /// What the writer returns.
    fn flush(&mut self) -> io::Result<()>;

    /// Writes a row of a stream.
    ///
    /// # Errors
    /// What the writer returns.
    fn row(&mut self, row: &Row, context: &Context) -> io::Result<()> {
        match row {
            Row::Transition(row) => self.transition(row, context),
            Row::Connection(row) => self.connection(row, context),
            Row::Loss(row) => self.loss(row, context),
            Row::Audit(row) => self.audit(row, context),
            Row::Counter(row) => self.counter(row, context),
        }
    }
}

impl Format {
    /// A printer of this format.
    pub fn printer<'w, W: Write + 'w>(self, out: W, text: TextOptions) -> Box<dyn Printer + 'w> {
        match self {
            Self::Text => Box::new(Text::new(out, text)),
            Self::Json => Box::new(Json::new(out)),
            Self::Csv => Box::new(Csv::new(out)),
        }
    }
}
