//! Buffered standard output.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};

/// Standard output, written to when it is flushed: a write for every row would cost more than the row.
#[derive(Default)]
pub(super) struct Outlet {
    pending: BytesMut,
    blocked: Blocked,
}

/// How long writes to standard output have blocked.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocked(Rc<Cell<Duration>>);

impl Blocked {
    pub(super) fn get(&self) -> Duration {
        self.0.get()
    }
}

impl Outlet {
    /// Adds the time that its writes block to `blocked`.
    pub(super) fn timed(blocked: Blocked) -> Self {
        Self { pending: BytesMut::default(), blocked }
    }
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
        let begun = Instant::now();
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&self.pending.split()).and_then(|()| stdout.flush());
        self.blocked.0.set(self.blocked.get() + begun.elapsed());
        written
    }
}
