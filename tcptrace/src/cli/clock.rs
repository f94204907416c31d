//! The kernel's clocks, in ns.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

pub(super) fn boot_ns() -> Result<u64> {
    read(ClockId::CLOCK_BOOTTIME)
}

pub(super) fn read(clock: ClockId) -> Result<u64> {
    let time = clock_gettime(clock).with_context(|| format!("cannot read clock {clock}"))?;
    u64::try_from(Duration::from(time).as_nanos()).context("the clock is out of range")
}

/// What is to be added to boot time for wall-clock time.
pub(super) fn boot_to_unix_ns() -> Result<i64> {
    let boot = boot_ns()?;
    let unix = read(ClockId::CLOCK_REALTIME)?;
    i64::try_from(i128::from(unix) - i128::from(boot)).context("the clock is unset")
}
