//! Reads arbitrary bytes as an answer of `sock_diag`. The engine and the accept queues take in what is found there.
#![no_main]

mod memory;

use libfuzzer_sys::fuzz_target;
use tcptrace::engine::lifecycle::{Config, Engine};
use tcptrace::kernel::{Queues, fuzz};
use tcptrace::model::event::Event;

fuzz_target!(|bytes: &[u8]| {
    memory::is_within_bounds(bytes.len(), || look(bytes));
});

fn look(bytes: &[u8]) {
    let Some((kind, piece)) = bytes.split_first() else { return };
    let sockets = fuzz::sock_diag(piece, kind & 1 != 0);
    let mut queues = Queues::default();
    let mut engine = Engine::new(Config { sockets: 100, existing: true, ..Config::default() });
    let mut rows = Vec::new();
    for socket in &sockets {
        queues.note(socket);
        engine.feed(&Event::Found(socket.found), &mut rows);
        engine.feed(&Event::Inspected(socket.inspected()), &mut rows);
    }
    engine.finish(&mut rows);
    queues.finish(kind & 2 != 0);
}
