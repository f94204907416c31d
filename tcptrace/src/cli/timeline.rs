//! `timeline`: lives of connections, drawn to scale.

use std::collections::HashSet;
use std::env;
use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::Args;
use jiff::tz::TimeZone;

use super::outlet::Outlet;
use super::replay::summarise;
use super::select::OutputArgs;
use super::study::{TraceArgs, Traces};
use super::{Outcome, say};
use crate::engine::lifecycle::Config;
use crate::kernel::Sandbox;
use crate::model::row::{Connection, Row};
use crate::model::stream::{Origin, Summary};
use crate::output::timeline::{self, Axis, Options};
use crate::output::{Format, Kind, TextOptions};
use crate::study::timeline::{Group, Peers, Selection, Sort};

/// Width where output is not a terminal.
const WIDTH: usize = 100;

/// The upper bound of `--width`.
const WIDEST: usize = 10_000;

/// Arguments of `timeline`.
#[derive(Args, Debug)]
#[command(mut_arg("until", |time| time.alias("to")))]
pub(super) struct TimelineArgs {
    /// Draw only the connection with this id (`conn` in JSON, `sk:` in `ss -e`), and print the command of `tshark` that
    /// finds its packets in a capture
    #[arg(long, value_name = "ID", value_parser = hex)]
    conn: Vec<u64>,
    /// Order of the connections; --limit keeps the first ones
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Draw at most this many connections, not counting the peers drawn with them
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Where bars start
    #[arg(long, value_enum, default_value_t)]
    axis: Axis,
    /// Draw with ASCII characters only; the default where the locale is not UTF-8
    #[arg(long)]
    ascii: bool,
    /// Width of the drawing [default: the width of the terminal]
    #[arg(long, value_name = "COLUMNS")]
    width: Option<usize>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    traces: TraceArgs,
}

pub(super) fn run(args: &TimelineArgs) -> Result<Outcome> {
    let traces = args.traces.open_to_reread()?.confined(Sandbox::default());
    let mut selection = Selection::new(args.sort, args.limit);
    let ids = (!args.conn.is_empty()).then(|| args.conn.iter().copied().collect());
    let summary = each_connection(&traces, ids, &mut |connection, origin| selection.offer(connection, origin))?;
    let offered = selection.offered();
    // The peer is drawn even if the filters hide it, so it may take a second read to find it.
    let is_all_seen = args.conn.is_empty() && args.traces.is_unfiltered();
    let is_all_drawn = is_all_seen && selection.is_whole();
    let addresses = selection.addresses();
    let mut peers = Peers::of(selection.into_items());
    if !is_all_drawn && peers.are_wanted(|ip| !is_all_seen || addresses.may_have(ip)) {
        let traces = traces.unfiltered();
        let ids = traces.ids_of(&peers.tuples())?;
        each_connection(&traces, Some(ids), &mut |connection, origin| peers.offer(connection, origin))?;
    }
    let groups = peers.into_groups();
    args.print(&groups)?;
    let ends = groups.iter().filter(|group| group.second.is_some()).count();
    let drawn = groups.len() + ends;
    say(format_args!("drew {drawn} connections, {ends} of them as the peer of another; {offered} matched"));
    Ok(summarise(&summary))
}

impl TimelineArgs {
    fn print(&self, groups: &[Group]) -> Result<()> {
        match self.output.format {
            Format::Text => self.draw(groups).context("cannot write the timeline"),
            Format::Json | Format::Csv => self.list(groups).context("cannot write the connections"),
        }
    }

    fn draw(&self, groups: &[Group]) -> io::Result<()> {
        let options = Options {
            width: self.width.or_else(columns).unwrap_or(WIDTH).min(WIDEST),
            ascii: self.ascii || is_ascii(),
            axis: self.axis,
            zone: TimeZone::system(),
        };
        let mut out = Outlet::default();
        timeline::write(&mut out, &timeline::layout(groups, &options), self.output.colour())?;
        let packets = if self.conn.is_empty() { Vec::new() } else { timeline::packets(groups) };
        if !packets.is_empty() {
            // Not cut to the width: it is there to be copied.
            writeln!(out)?;
            packets.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        out.flush()
    }

    fn list(&self, groups: &[Group]) -> io::Result<()> {
        let text = TextOptions { zone: TimeZone::system(), ..TextOptions::default() };
        let mut printer = self.output.format.printer(Outlet::default(), text);
        printer.header(Kind::Connection)?;
        for item in groups.iter().flat_map(Group::items) {
            printer.row(&Row::Connection(item.connection.clone()), &item.context).map(drop)?;
        }
        printer.flush()
    }
}

/// Reads the connections with these ids, or all; open ones are included.
fn each_connection(
    traces: &Traces,
    ids: Option<HashSet<u64>>,
    each: &mut dyn FnMut(&Connection, &Origin),
) -> Result<Summary> {
    let config = Config { transitions: false, connections: true, ..Config::default() };
    let mut each = |row: &Row, origin: &Origin| {
        // A connection that has ended while its descriptor stayed open was reported before.
        if let Row::Connection(connection) = row
            && !connection.ended_before()
        {
            each(connection, origin);
        }
        Ok(())
    };
    match ids {
        Some(ids) => traces.read_only(ids, config, true, &mut each),
        None => traces.read(config, true, &mut each),
    }
}

/// Columns of the terminal; else what `COLUMNS` says.
fn columns() -> Option<usize> {
    let terminal = terminal_size::terminal_size_of(io::stdout()).map(|(columns, _)| columns.0.into());
    terminal.or_else(|| env::var("COLUMNS").ok()?.parse().ok()).filter(|columns| *columns > 0)
}

/// Whether the locale asks for ASCII.
pub(super) fn is_ascii() -> bool {
    !is_utf8(|name| env::var(name).ok())
}

/// Whether text is UTF-8, by the first of these variables that is set, as `setlocale(3)` has it.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let codeset = locale.to_ascii_lowercase();
        codeset.contains("utf-8") || codeset.contains("utf8")
    })
}

/// The id of a connection.
fn hex(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| format!("'{text}' is not a hexadecimal number such as 3a2f"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[("LANG", "en_GB.UTF-8")], true)]
    #[case(&[("LANG", "C.utf8")], true)]
    #[case(&[("LANG", "C")], false)]
    #[case(&[], false)]
    #[case::the_first_that_is_set_counts(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")], false)]
    #[case::an_empty_one_is_not_set(&[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8"), ("LANG", "C")], true)]
    fn locales(#[case] variables: &[(&str, &str)], #[case] expected: bool) {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, to)| (*to).to_owned());
        assert_eq!(is_utf8(variable), expected);
    }

    #[rstest]
    #[case("8840f1", Some(0x88_40f1))]
    #[case("0xa", Some(10))]
    #[case("ffffffffffffffff", Some(u64::MAX))]
    #[case("1ffffffffffffffff", None)]
    #[case("g", None)]
    #[case("", None)]
    fn ids(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(hex(text).ok(), expected);
    }
}
