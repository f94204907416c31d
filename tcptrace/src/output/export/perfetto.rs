//! Connections on a time axis: Chrome's trace event format, which ui.perfetto.dev opens.
//!
//! A process that owns connections is a process there. A connection is an asynchronous track of it, named for the end
//! that similar connections share, with a slice for its life and, within it, one for each state. The arguments of the
//! first slice are the fields of the connection. A reset or a refusal is an instant at its end.
//!
//! Process ids are our own, because hosts share and reuse them. Times count from shortly before the first row, because
//! readers store them as floating-point numbers: times since 1970 would be a quarter of a microsecond apart.

use std::collections::HashMap;
use std::io::Write;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Exported, Exporter};
use crate::model::life::Life;
use crate::model::row::{Connection, Row};
use crate::model::stream::{Clock, Context, Origin, Summary};
use crate::model::tcp::{Comm, End, Side, TimeWaitEnd};
use crate::output::fields::{CONNECTION, address};
use crate::output::{Json, render, sanitise};

const DAY_NS: i64 = 86_400 * 1_000_000_000;

/// From the start of the time axis to the first row. What started earlier is cut there.
const BEFORE_NS: i64 = 100 * DAY_NS;

/// Writes connections as trace events, one a line. Its memory is a few bytes for each process.
pub struct Perfetto<W: Write> {
    out: W,
    /// Events of a connection.
    text: Vec<u8>,
    /// The separator before the next event.
    before: &'static [u8],
    arguments: Json<Vec<u8>>,
    processes: HashMap<Process, u32>,
    zero_unix_ns: Option<i64>,
    rows: u64,
}

/// The owner of connections, and its host.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    origin: usize,
    owner: Option<(u32, Comm)>,
}

/// The common parts of all events of one connection.
struct Track {
    process: u32,
    id: String,
    clock: Clock,
    zero_unix_ns: i64,
}

impl<W: Write> Perfetto<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W) -> Self {
        Self {
            out,
            text: Vec::with_capacity(8 * 1024),
            before: b"{\"traceEvents\":[\n",
            arguments: Json::new(Vec::with_capacity(2 * 1024)),
            processes: HashMap::new(),
            zero_unix_ns: None,
            rows: 0,
        }
    }

    /// Adds a connection.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn push(&mut self, row: &Connection, origin: &Origin) -> Result<()> {
        let life = Life::of(row);
        let clock = origin.context.clock;
        let zero_unix_ns = *self.zero_unix_ns.get_or_insert_with(|| day_before(clock.unix_ns(life.begin)));
        let process = self.process(row, origin)?;
        let id = format!("{:x}-{:x}", origin.number, row.identity.conn);
        self.arguments.get_mut().clear();
        self.arguments.object(&CONNECTION, row, &origin.context)?;
        self.events(row, &name(row, &origin.context), &life, &Track { process, id, clock, zero_unix_ns });
        self.rows += 1;
        self.write()
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn end(&mut self, summary: &Summary) -> Result<()> {
        if self.rows == 0 {
            self.text.extend_from_slice(self.before);
        }
        let lost = summary.lost.iter().map(|lost| (lost.cause.as_str().to_owned(), json!(lost.events)));
        let other = json!({
            "version": concat!("tcptrace ", env!("CARGO_PKG_VERSION")),
            "hosts": summary.hosts.iter().map(|host| sanitise(host.as_bytes())).collect::<Vec<_>>(),
            "zero_unix_ns": self.zero_unix_ns,
            "events_lost": serde_json::Value::Object(lost.collect()),
            "events_lost_at_least": summary.lost.iter().any(|lost| lost.at_least),
            "damaged_places": summary.damage.len(),
        });
        writeln!(self.text, "\n],\"otherData\":{other}}}")?;
        self.write()?;
        self.out.flush().context("cannot write trace events")
    }

    fn write(&mut self) -> Result<()> {
        self.out.write_all(&self.text).context("cannot write trace events")?;
        self.text.clear();
        Ok(())
    }

    fn events(&mut self, row: &Connection, name: &str, life: &Life, track: &Track) {
        let arguments = std::mem::take(self.arguments.get_mut());
        self.event(track, b'b', name, life.begin, arguments.trim_ascii_end());
        for (state, from, to) in life.known() {
            let held = row.held(state);
            let arguments = json!({ "ns": held.known_ns(), "at_least": held.is_at_least() }).to_string();
            self.event(track, b'b', state.as_str(), from, arguments.as_bytes());
            self.event(track, b'e', state.as_str(), to, b"{}");
        }
        if let Some(reset) = reset(row) {
            self.event(track, b'n', reset, life.end, b"{}");
        }
        self.event(track, b'e', name, life.end, b"{}");
        // Keeps its memory.
        *self.arguments.get_mut() = arguments;
    }

    /// `name` needs no escaping, `arguments` are JSON. `id2` with `local` ties the event to its process: events with a
    /// plain `id` belong to none.
    fn event(&mut self, track: &Track, phase: u8, name: &str, boot_ns: u64, arguments: &[u8]) {
        let to = &mut self.text;
        let parts: [&[u8]; 6] = [
            self.before,
            b"{\"name\":\"",
            name.as_bytes(),
            b"\",\"cat\":\"tcp\",\"ph\":\"",
            &[phase],
            b"\",\"id2\":{\"local\":\"",
        ];
        parts.into_iter().for_each(|part| to.extend_from_slice(part));
        to.extend_from_slice(track.id.as_bytes());
        for key in ["\"},\"pid\":", ",\"tid\":"] {
            to.extend_from_slice(key.as_bytes());
            render::decimal(to, track.process.into());
        }
        let ns = track.clock.unix_ns(boot_ns).saturating_sub(track.zero_unix_ns).max(0).unsigned_abs();
        to.extend_from_slice(b",\"ts\":");
        render::decimal(to, ns / 1_000);
        to.push(b'.');
        render::digits::<3>(to, ns % 1_000);
        to.extend_from_slice(b",\"args\":");
        to.extend_from_slice(arguments);
        to.push(b'}');
        self.before = b",\n";
    }

    /// The number of the owner's process. Writes its name the first time.
    fn process(&mut self, row: &Connection, origin: &Origin) -> Result<u32> {
        let owner = row.identity.owner.map(|owner| (owner.task.pid, owner.task.comm));
        let next = u32::try_from(self.processes.len() + 1).context("too many processes")?;
        let process = *self.processes.entry(Process { origin: origin.number, owner }).or_insert(next);
        if process == next {
            let host = sanitise(origin.host.as_bytes());
            let name = match owner {
                Some((pid, comm)) => format!("{}[{pid}] on {host}", sanitise(comm.bytes())),
                None => format!("no owner on {host}"),
            };
            self.text.extend_from_slice(self.before);
            let arguments = json!({ "name": name });
            write!(self.text, "{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{process},\"args\":{arguments}}}")?;
            self.before = b",\n";
        }
        Ok(process)
    }
}

impl<W: Write> Exporter for Perfetto<W> {
    fn row(&mut self, row: &Row, origin: &Origin) -> Result<()> {
        if let Row::Connection(row) = row { self.push(row, origin) } else { Ok(()) }
    }

    fn finish(&mut self, summary: &Summary) -> Result<Exported> {
        self.end(summary)?;
        Ok(Exported { rows: self.rows, ..Exported::default() })
    }
}

/// A midnight early enough before the first row.
fn day_before(unix_ns: i64) -> i64 {
    unix_ns.saturating_sub(BEFORE_NS).div_euclid(DAY_NS).saturating_mul(DAY_NS)
}

/// The common name of similar connections: the UI draws those of a process together.
fn name(row: &Connection, context: &Context) -> String {
    let identity = &row.identity;
    let end = |end| address(identity, end, context);
    match identity.side {
        Side::Client => format!("client of {}", end(identity.remote())),
        Side::Server => format!("server at {}", end(identity.local())),
        Side::Unknown => format!("side unknown, to {}", identity.tuple.remote().ip()),
    }
}

/// The reset or refusal that ended it early.
fn reset(row: &Connection) -> Option<&'static str> {
    match row.time_wait_end() {
        Some(TimeWaitEnd::Reset) => Some("reset in TIME_WAIT"),
        _ => row.end().filter(|end| end.is_reset() || *end == End::Refused).map(End::as_str),
    }
}
