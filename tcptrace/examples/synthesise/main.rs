//! Makes a trace of any length out of nothing, for benchmarks: `synthesise FILE CONNECTIONS`.
//!
//! The connections (see [`life`]) come evenly, 2,000 a second.

mod life;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use tcptrace::model::event::Event;
use tcptrace::model::stream::{Clocks, Head, Item};
use tcptrace::trace::Encoder;

use life::{Connection, MS};

/// As `record` makes them.
const BLOCK: usize = 64 << 10;
const APART_NS: u64 = 500_000;

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(Ok(connections))) = (args.next(), args.next().map(|count| count.parse::<u64>())) else {
        return Err(io::Error::other("usage: synthesise FILE CONNECTIONS"));
    };
    let mut out = Out { file: BufWriter::new(File::create(path)?), encoder: Encoder::new([7; 16])? };
    let head = Head { program: "synthesise".into(), host: "nowhere".into(), knows_cookies: true, ..Head::default() };
    out.put(&Item::Head(Box::new(head)))?;
    let begin = 1_000_000 * MS;
    out.put(&Item::Clocks(Clocks { boot_ns: begin, monotonic_ns: begin, unix_ns: 1_800_000_000_000_000_000 }))?;
    out.event(Event::Started { at: begin })?;
    let mut waiting: VecDeque<Connection> = VecDeque::new();
    for number in 0..connections {
        let at = begin + number * APART_NS;
        while waiting.front().is_some_and(|oldest| oldest.expires() <= at)
            && let Some(oldest) = waiting.pop_front()
        {
            out.event(oldest.expiry())?;
        }
        let connection = Connection { number, at };
        for event in connection.life() {
            out.event(event)?;
        }
        waiting.push_back(connection);
    }
    for connection in waiting {
        out.event(connection.expiry())?;
    }
    out.finish_block()?;
    out.file.flush()
}

struct Out {
    file: BufWriter<File>,
    encoder: Encoder,
}

impl Out {
    fn event(&mut self, event: Event) -> io::Result<()> {
        self.put(&Item::Event(event))
    }

    fn put(&mut self, item: &Item) -> io::Result<()> {
        self.encoder.push(item)?;
        if self.encoder.len() >= BLOCK { self.finish_block() } else { Ok(()) }
    }

    fn finish_block(&mut self) -> io::Result<()> {
        let block = self.encoder.finish(0)?;
        self.file.write_all(&block)
    }
}
