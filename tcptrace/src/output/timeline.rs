//! Connections drawn on a time axis: [`layout`] makes the lines.

mod axis;
mod bar;
pub(crate) mod glyphs;
mod label;
mod layout;
mod packets;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use anstyle::Style;
use jiff::tz::TimeZone;

pub use self::layout::layout;
pub use self::packets::packets;

/// Where bars start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Axis {
    /// As `clock`, unless all bars would be short.
    #[default]
    Auto,
    /// At the time of their start, on one axis.
    Clock,
    /// At the left edge, each on its own axis.
    Own,
}

/// Options of the drawing.
#[derive(Clone, Debug)]
pub struct Options {
    /// Columns of the terminal.
    pub width: usize,
    /// ASCII only.
    pub ascii: bool,
    /// Where bars start.
    pub axis: Axis,
    /// The time zone of the drawing.
    pub zone: TimeZone,
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Safe to print.
    pub text: String,
    /// Its style.
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
/// Errors of the writer.
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
