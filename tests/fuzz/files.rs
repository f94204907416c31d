//! Reads arbitrary texts as the files and names that tcptrace reads below `/proc`, `/sys/fs/cgroup` and `/etc`, and those
//! of containers. NUL bytes separate the texts.
#![no_main]

mod memory;

use libfuzzer_sys::fuzz_target;
use tcptrace::kernel::fuzz;

fuzz_target!(|bytes: &[u8]| {
    let mut texts = bytes.splitn(6, |byte| *byte == 0);
    let texts = [(); 6].map(|()| texts.next().unwrap_or_default());
    memory::is_within_bounds(bytes.len(), || drop(fuzz::files(texts)));
});
