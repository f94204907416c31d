//! Programs that stand in for others, once those are interrupted.
//!
//! They see what the others miss. But a second program makes a tracepoint more expensive, by more than its own work. So
//! they are loaded at the start, and attached at the first interruption.

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::BtfTracePoint;

use super::kernel;
use super::programs::program;

#[derive(Default)]
pub(super) struct StandIns {
    /// Those that wait for an interruption.
    waiting: Vec<&'static str>,
}

/// The map that makes the first programs note what they have seen, for the stand-ins.
const FLAG: &str = "STAND_INS";

impl StandIns {
    /// Keeps a loaded stand-in ready.
    pub(super) fn add(&mut self, name: &'static str) {
        self.waiting.push(name);
    }

    /// Attaches the stand-ins for good, after the first interruption of any program.
    pub(super) fn come(&mut self, ebpf: &mut Ebpf) {
        for name in self.waiting.drain(..) {
            attach(name, ebpf);
        }
    }
}

fn attach(name: &str, ebpf: &mut Ebpf) {
    // Before attaching: a stand-in takes an event without a note as missed.
    if let Err(error) = set_flag(ebpf) {
        log::warn!("cannot attach {name}: {error}");
        return;
    }
    let attach = |program: &mut BtfTracePoint| program.attach();
    if let Err(error) = program(ebpf, name).and_then(attach) {
        log::warn!("cannot attach {name}: {}", kernel::explain(&error));
    }
}

fn set_flag(ebpf: &mut Ebpf) -> Result<(), String> {
    let map = ebpf.map_mut(FLAG).ok_or_else(|| format!("the object has no map {FLAG}"))?;
    let mut flag: Array<_, u32> = Array::try_from(map).map_err(|error| error.to_string())?;
    flag.set(0, 1, 0).map_err(|error| error.to_string())
}
