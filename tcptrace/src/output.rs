//! Rows in, bytes out: text, JSON and CSV.
//!
//! A printer only renders. It does not know the source of rows, reads no clock (the caller passes a [`Context`]) and
//! uses only its writer. It writes once per row, so the writer should be buffered; [`Printer::flush`] writes the rest.

mod aside;
mod audit;
pub mod columns;
mod counter;
mod csv;
mod diagnose;
pub mod export;
mod features;
pub mod fields;
mod json;
mod lost;
mod markdown;
mod page;
mod privileges;
pub(crate) mod render;
mod report;
mod schema;
mod text;
mod time;
pub mod timeline;
mod top;
pub mod tui;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use jiff::tz::TimeZone;

use crate::model::row::{Entry, Row};
use crate::model::stream::{Closing, Context};
use crate::study::ports::Ranked;
use crate::study::snapshot::Count;

pub use self::aside::aside;
pub use self::audit::audit_lines;
pub use self::counter::counter_words;
pub use self::csv::Csv;
pub use self::diagnose::{DiagnoseFormat, diagnose, explain, finding, rules, settings};
pub use self::features::{features, ring_buffers};
pub use self::json::Json;
pub use self::lost::lost;
pub use self::page::page;
pub use self::privileges::{alternatives, privileges};
pub use self::report::{ReportFormat, report};
pub use self::schema::schema;
pub use self::text::Text;
pub(crate) use self::text::{end_style, fitting, state_style};
pub use self::top::top;
pub use crate::model::human;
pub use crate::model::sanitise::{sanitise, sanitise_message, width};

/// Formats of rows.
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

/// Kinds of rows that have a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Changes of state.
    Transition,
    /// Ends of connections.
    Connection,
    /// Sockets that exist.
    Socket,
    /// Counts of those sockets.
    Count,
    /// The ports of destinations.
    Ports,
}

/// Options of the text format.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Mark states and resets with colours.
    pub colour: bool,
    /// Print the states of a connection below it.
    pub states: bool,
    /// The time zone of the output.
    pub zone: TimeZone,
    /// Columns of the terminal, which lines must fit; `None` where output is not a terminal.
    pub width: Option<usize>,
    /// Lines of the terminal, which a report's screen must fit.
    pub height: Option<usize>,
    /// Print each part of a report in depth, below its screen.
    pub full: bool,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { colour: false, states: false, zone: TimeZone::UTC, width: None, height: None, full: false }
    }
}

/// Whether a row was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Printed {
    Yes,
    /// The format has no columns for it: [`aside`] has a message for it instead.
    No,
}

/// Writes rows in one format.
pub trait Printer {
    /// Writes the header once, if the format has one.
    ///
    /// # Errors
    /// What the writer returns.
    fn header(&mut self, kind: Kind) -> io::Result<()>;

    /// Writes a row of a stream, if the format has columns for it.
    ///
    /// # Errors
    /// What the writer returns.
    fn row(&mut self, row: &Row, context: &Context) -> io::Result<Printed>;

    /// Writes the last row, if the format has columns for it. The closing line on standard error has the same content.
    ///
    /// # Errors
    /// What the writer returns.
    fn closing(&mut self, row: &Closing) -> io::Result<()>;

    /// Sets the columns of the terminal. Formats for programs ignore it.
    fn resize(&mut self, _width: usize) {}

    /// Writes all buffers, including the writer's.
    ///
    /// # Errors
    /// What the writer returns.
    fn flush(&mut self) -> io::Result<()>;
}

/// Writes sockets that exist, and their counts.
pub trait Lister: Printer {
    /// Writes a socket that exists.
    ///
    /// # Errors
    /// What the writer returns.
    fn socket(&mut self, row: &Entry, context: &Context) -> io::Result<()>;

    /// Writes a count.
    ///
    /// # Errors
    /// What the writer returns.
    fn count(&mut self, row: &Count, context: &Context) -> io::Result<()>;

    /// Writes the ports of a destination.
    ///
    /// # Errors
    /// What the writer returns.
    fn ports(&mut self, row: &Ranked, context: &Context) -> io::Result<()>;
}

impl Format {
    /// A printer of this format.
    pub fn printer<'w, W: Write + 'w>(self, out: W, text: TextOptions) -> Box<dyn Printer + 'w> {
        self.lister(out, text)
    }

    /// A lister of this format.
    pub fn lister<'w, W: Write + 'w>(self, out: W, text: TextOptions) -> Box<dyn Lister + 'w> {
        match self {
            Self::Text => Box::new(Text::new(out, text)),
            Self::Json => Box::new(Json::new(out)),
            Self::Csv => Box::new(Csv::new(out)),
        }
    }
}
