//! Takes arbitrary records out of the ring buffer: they are decoded, followed, printed and recorded, and both ways into a
//! trace must agree.
#![no_main]

mod memory;

use std::io;

use libfuzzer_sys::fuzz_target;
use tcptrace::engine::follow::Follower;
use tcptrace::engine::lifecycle::Config;
use tcptrace::kernel::fuzz::records;
use tcptrace::kernel::probe::Told;
use tcptrace::model::criteria::Criteria;
use tcptrace::model::event::Event;
use tcptrace::model::row::Row;
use tcptrace::model::stream::{Item, Origin};
use tcptrace::model::transition::Transition as _;
use tcptrace::output::{Format, TextOptions};
use tcptrace::trace::Encoder;

fuzz_target!(|bytes: &[u8]| {
    memory::is_within_bounds(bytes.len(), || trace(bytes).expect("a sink takes everything"));
});

fn trace(bytes: &[u8]) -> io::Result<()> {
    let batch = records(bytes);
    batch.first_at();
    let [mut of_events, mut of_parts] = [Encoder::new([7; 16])?, Encoder::new([7; 16])?];
    let mut items = Vec::new();
    for told in batch.records() {
        let event = match told {
            Told::Change(change) => {
                of_parts.push_change(&change)?;
                Event::Change(change.change())
            }
            Told::Other(event) => {
                of_parts.push(&Item::Event(event))?;
                event
            }
        };
        items.push(Item::Event(event));
    }
    items.iter().try_for_each(|item| of_events.push(item))?;
    assert!(of_parts.finish(0)? == of_events.finish(0)?, "the two ways into a trace differ");
    print_nowhere(&items)
}

/// Draws all conclusions, and prints them in every format.
fn print_nowhere(items: &[Item]) -> io::Result<()> {
    let config = Config {
        sockets: 100,
        transitions: true,
        connections: true,
        stuck_after: Some(1_000_000_000),
        ..Config::default()
    };
    let mut follower = Follower::new(config, [Criteria::default()], Origin::default());
    let text = TextOptions { colour: true, states: true, ..TextOptions::default() };
    let mut printers = [Format::Text, Format::Json, Format::Csv].map(|format| format.printer(io::sink(), text.clone()));
    let mut print = |row: &Row, origin: &Origin| {
        printers.iter_mut().try_for_each(|printer| printer.row(row, &origin.context).map(drop))
    };
    follower.take(items, &mut print)?;
    follower.take_open(&mut print)?;
    follower.finish(&mut print)
}
