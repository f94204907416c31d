//! One frame of `top`: as text, or as rows of several kinds, told apart by `event`.

use std::io::{self, Write};

use super::fields::{PORTS, TOP, TOP_FINDING, TOP_GROUP, TOP_QUEUE, TOP_RATE, TOP_STATE, TOP_WAITER};
use super::{Format, Json, tui};
use crate::model::stream::Context;
use crate::model::tcp::State;
use crate::study::ports::Ranked;
use crate::study::top::Frame;

/// Columns where output is not a terminal.
const COLUMNS: u16 = 120;

/// Writes a frame. CSV has one header a file, and so no room for rows of several kinds.
///
/// # Errors
/// Errors of the writer.
pub fn top(mut out: impl Write, format: Format, frame: &Frame, columns: Option<u16>, ascii: bool) -> io::Result<()> {
    match format {
        Format::Json => json(&mut out, frame)?,
        Format::Text | Format::Csv => tui::print(&mut out, frame, columns.unwrap_or(COLUMNS), ascii)?,
    }
    out.flush()
}

fn json(out: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let context = Context::default();
    let mut json = Json::new(out);
    json.object(&TOP, frame, &context)?;
    for state in State::ALL.into_iter().filter(|state| !matches!(state, State::Closed | State::Listen)) {
        json.object(&TOP_STATE, &(state, frame.sockets(state)), &context)?;
    }
    for (closer, rate) in &frame.rates.closers {
        json.object(&TOP_RATE, &("closer", closer.as_str(), *rate), &context)?;
    }
    for (end, rate) in &frame.rates.failures {
        json.object(&TOP_RATE, &("end", end.as_str(), *rate), &context)?;
    }
    frame.groups.rows.iter().try_for_each(|row| json.object(&TOP_GROUP, row, &context))?;
    frame.waiters.rows.iter().try_for_each(|row| json.object(&TOP_WAITER, row, &context))?;
    let mut ports = frame.ports.rows.iter().map(|budget| Ranked::One(Box::new(budget.clone())));
    ports.try_for_each(|row| json.object(&PORTS, &row, &context))?;
    frame.queues.rows.iter().try_for_each(|row| json.object(&TOP_QUEUE, row, &context))?;
    frame.diagnosis.findings.iter().try_for_each(|row| json.object(&TOP_FINDING, row, &context))
}
