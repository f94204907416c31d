//! The kernel's clocks as the eBPF programs read them, in whatever time namespace this process is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::about;

/// What a time namespace adds to the clocks.
const OFFSETS: &str = "/proc/self/timens_offsets";
const NAMESPACE: &str = "/proc/self/ns/time";
/// The time namespace of future children, which the offsets describe (`proc_timens_show_offsets` in
/// `kernel/time/namespace.c`).
const OF_CHILDREN: &str = "/proc/self/ns/time_for_children";
/// Inode number of the first time namespace (`PROC_TIME_INIT_INO` in `include/linux/proc_ns.h`), which adds nothing.
const FIRST: u64 = 0xefff_fffa;

/// What a time namespace adds, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offsets {
    monotonic: i128,
    boot: i128,
}

/// `CLOCK_BOOTTIME` or `CLOCK_MONOTONIC` of the first time namespace, in ns: what `bpf_ktime_get_boot_ns` and
/// `bpf_ktime_get_ns` return. Other clocks are the same in every namespace.
///
/// # Errors
/// When the clock cannot be read, or the offsets of the time namespace are unknown.
pub fn clock_ns(clock: ClockId) -> io::Result<u64> {
    static ADDED: OnceLock<Offsets> = OnceLock::new();
    let added = match ADDED.get() {
        Some(added) => *added,
        None => *ADDED.get_or_init({
            let found = Offsets::find()?;
            move || found
        }),
    };
    let time = clock_gettime(clock)?;
    let shown = i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec());
    u64::try_from(shown - added.of(clock)).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The CPU time of this thread so far: what it has taken from others, however long it has waited for a CPU itself.
pub fn thread_time() -> Duration {
    Duration::from_nanos(clock_ns(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap_or(0))
}

impl Offsets {
    fn find() -> io::Result<Self> {
        let inode = |path: &str| fs::metadata(path).map(|namespace| namespace.ino());
        let own = match inode(NAMESPACE) {
            Ok(own) if own != FIRST => own,
            // Without this file there are no time namespaces, or there is no `/proc`.
            Ok(_) | Err(_) => return Ok(Self::default()),
        };
        if inode(OF_CHILDREN).map_err(about(OF_CHILDREN))? != own {
            return Err(io::Error::other(
                "the clock offsets of this time namespace are unknown: start tcptrace as a child process in it",
            ));
        }
        Ok(Self::parse(&fs::read_to_string(OFFSETS).map_err(about(OFFSETS))?))
    }

    /// Lines of a clock, seconds and ns to add to them.
    fn parse(text: &str) -> Self {
        let of = |clock: &str| {
            let mut words = text.lines().find_map(|line| line.strip_prefix(clock))?.split_whitespace();
            let mut number = || words.next()?.parse::<i128>().ok();
            Some(number()? * 1_000_000_000 + number()?)
        };
        Self { monotonic: of("monotonic").unwrap_or(0), boot: of("boottime").unwrap_or(0) }
    }

    fn of(self, clock: ClockId) -> i128 {
        match clock {
            ClockId::CLOCK_BOOTTIME => self.boot,
            ClockId::CLOCK_MONOTONIC => self.monotonic,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_seconds_and_nanoseconds() {
        let text = "monotonic           3  500000000\nboottime     -1000000         7\n";
        let expected = Offsets { monotonic: 3_500_000_000, boot: -1_000_000_000_000_000 + 7 };
        assert_eq!(Offsets::parse(text), expected);
        assert_eq!(Offsets::parse(""), Offsets::default());
        assert_eq!(expected.of(ClockId::CLOCK_BOOTTIME), expected.boot);
        assert_eq!(expected.of(ClockId::CLOCK_MONOTONIC), expected.monotonic);
        assert_eq!(expected.of(ClockId::CLOCK_REALTIME), 0);
    }

    #[test]
    fn time_goes_on() {
        let first = clock_ns(ClockId::CLOCK_BOOTTIME).expect("read it");
        assert!(clock_ns(ClockId::CLOCK_BOOTTIME).expect("read it") >= first);
    }
}
