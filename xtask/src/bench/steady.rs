//! The steady state of tcptrace: at first, a second program stands in on some tracepoints, until it is clear that
//! nothing interrupts the first one.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::proc::{self, Program};
use super::worker::{self, Args, Deed};

/// Connections of one load: more events than the trial lasts.
const CONNECTIONS: u32 = 6_000;
/// Loads after which the programs that stand in are there to stay: something is interrupted.
const LOADS: u32 = 3;
/// Time that they have to go after a load.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interval of polling.
const POLL: Duration = Duration::from_millis(10);

/// Makes connections until nothing stands in. Returns whether that is so: if something was interrupted, the programs
/// that stand in stay.
pub(super) fn reach(pid: u32) -> Result<bool> {
    for _ in 0..LOADS {
        worker::measure(&[Args::times(Deed::Connection, CONNECTIONS)])?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if !stands_in(&proc::programs(pid)?) {
                // The next event tells the other programs.
                worker::measure(&[Args::times(Deed::Connection, CONNECTIONS / 10)])?;
                return Ok(true);
            }
            sleep(POLL);
        }
    }
    Ok(false)
}

/// Whether two programs are attached to the same tracepoint.
fn stands_in(programs: &[Program]) -> bool {
    let mut hooks: Vec<_> = programs.iter().filter_map(|program| program.hook.as_deref()).collect();
    let count = hooks.len();
    hooks.sort_unstable();
    hooks.dedup();
    hooks.len() < count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_programs_on_one_tracepoint_are_one_too_many() {
        let program = |id, hook: Option<&str>| Program { id, hook: hook.map(str::to_owned), runs: 0, ns: 0 };
        let loaded = [program(1, Some("timer_start")), program(2, None), program(3, None)];
        assert!(!stands_in(&loaded));
        assert!(stands_in(&[&loaded[..], &[program(4, Some("timer_start"))]].concat()));
    }
}
