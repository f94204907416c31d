//! Reads arbitrary text as filters, whose words line feeds separate, and as the value of options: times, sizes and
//! conditions.
#![no_main]

mod memory;

use libfuzzer_sys::fuzz_target;
use tcptrace::cli::fuzz;

fuzz_target!(|bytes: &[u8]| {
    memory::is_within_bounds(bytes.len(), || {
        match bytes.split_first() {
            // No shell passes a NUL.
            Some((b'-', _)) if !bytes.contains(&0) => {
                fuzz::filters(&bytes.split(|byte| *byte == b'\n').collect::<Vec<_>>());
            }
            _ => fuzz::value(&String::from_utf8_lossy(bytes)),
        }
    });
});
