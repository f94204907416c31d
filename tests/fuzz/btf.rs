//! Reads arbitrary bytes as the kernel's BTF.
#![no_main]

mod memory;

use libfuzzer_sys::fuzz_target;
use tcptrace::kernel::fuzz;

fuzz_target!(|bytes: &[u8]| {
    memory::is_within_bounds(bytes.len(), || fuzz::btf(bytes));
});
