//! Where rows go.

use std::io::{self, Write};

use bytes::{BufMut, BytesMut};

/// Standard output, written to when it is flushed: a write for every row would cost more than the row.
#[derive(Default)]
pub(super) struct Outlet {
    pending: BytesMut,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        const FULL: usize = 1 << 18;
        self.pending.put_slice(bytes);
        if self.pending.len() >= FULL {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.pending.split())?;
        stdout.flush()
    }
}
