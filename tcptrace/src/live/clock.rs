//! The kernel's clocks, in ns, as events are timed: whatever time namespace tcptrace runs in.

use anyhow::{Context, Result};
use nix::time::ClockId;

use crate::kernel::clock_ns;
use crate::model::stream::Clocks;

/// Two clocks count as read at the same time if both reads took no longer than this.
const AT_ONCE_NS: u64 = 20_000;

/// `CLOCK_BOOTTIME`, in ns.
///
/// # Errors
/// When the clock cannot be read.
pub fn boot_ns() -> Result<u64> {
    read(ClockId::CLOCK_BOOTTIME)
}

fn read(clock: ClockId) -> Result<u64> {
    clock_ns(clock).with_context(|| format!("cannot read clock {clock}"))
}

/// Reads all clocks.
///
/// # Errors
/// When one cannot be read.
pub fn read_all() -> Result<Clocks> {
    const TRIES: usize = 5;
    let mut best = None;
    for _ in 0..TRIES {
        let boot_ns = read(ClockId::CLOCK_BOOTTIME)?;
        let monotonic_ns = read(ClockId::CLOCK_MONOTONIC)?;
        let unix_ns = i64::try_from(read(ClockId::CLOCK_REALTIME)?).context("the wall clock is not set")?;
        let took = read(ClockId::CLOCK_BOOTTIME)?.saturating_sub(boot_ns);
        if best.is_none_or(|(least, _)| took < least) {
            best = Some((took, Clocks { boot_ns, monotonic_ns, unix_ns }));
        }
        if took <= AT_ONCE_NS {
            break;
        }
    }
    best.map(|(_, clocks)| clocks).context("cannot read the clocks")
}
