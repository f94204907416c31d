//! Programs that stand in for others, as long as those are interrupted.
//!
//! They see what the others miss. But a second program makes a tracepoint more expensive, by more than its own work. So
//! they are on trial: tcptrace detaches them if nothing is interrupted at first, and attaches them for good once
//! something is.

use std::thread::{self, JoinHandle};

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::{BtfTracePointLink, BtfTracePointLinkId};

use super::kernel;
use super::programs::program;

/// Records without an interruption after which they are detached.
const TRIAL: u64 = 50_000;

#[derive(Default)]
pub(super) struct StandIns {
    loaded: Vec<&'static str>,
    attached: Vec<(&'static str, BtfTracePointLinkId)>,
    /// The thread that detaches them.
    going: Option<JoinHandle<()>>,
    is_decided: bool,
}

/// The map that makes the first programs note what they have seen, for the stand-ins.
const FLAG: &str = "STAND_INS";

impl StandIns {
    /// Attaches a loaded stand-in, on trial.
    pub(super) fn attach(&mut self, name: &'static str, ebpf: &mut Ebpf) {
        self.loaded.push(name);
        self.attach_one(name, ebpf);
    }

    /// Attaches or detaches stand-ins as needed, after this many records and interruptions of any program.
    pub(super) fn look(&mut self, records: u64, interruptions: u64, ebpf: &mut Ebpf) {
        if interruptions > 0 {
            self.is_decided = true;
            self.come(ebpf);
        } else if !self.is_decided && records >= TRIAL {
            self.is_decided = true;
            self.go(ebpf);
        }
        // Only after they have run for the last time.
        if let Some(going) = self.going.take_if(|going| going.is_finished())
            && going.join().is_ok()
            && let Err(error) = set_flag(ebpf, false)
        {
            log::warn!("cannot stop the programs from noting what they see: {error}");
        }
    }

    /// Closes the links, which do not end as long as another process has them. It attaches and detaches from now on.
    pub(super) fn leave_to_another(&mut self, ebpf: &mut Ebpf) {
        self.take_links(ebpf);
        self.loaded.clear();
        self.is_decided = true;
    }

    fn come(&mut self, ebpf: &mut Ebpf) {
        self.going = None;
        if self.attached.is_empty() {
            for name in self.loaded.clone() {
                self.attach_one(name, ebpf);
            }
        }
    }

    fn attach_one(&mut self, name: &'static str, ebpf: &mut Ebpf) {
        // Before attaching: a stand-in takes an event without a note as missed.
        if let Err(error) = set_flag(ebpf, true) {
            log::warn!("cannot attach {name}: {error}");
            return;
        }
        let attach = |program: &mut BtfTracePoint| program.attach();
        match program(ebpf, name).and_then(attach) {
            Ok(link) => self.attached.push((name, link)),
            Err(error) => log::warn!("cannot attach {name}: {}", kernel::explain(&error)),
        }
    }

    fn go(&mut self, ebpf: &mut Ebpf) {
        let links = self.take_links(ebpf);
        // The kernel waits until no CPU runs them, about a tenth of a second. If there can be no other thread, this one
        // waits.
        self.going = thread::Builder::new().spawn(move || drop(links)).ok();
    }

    fn take_links(&mut self, ebpf: &mut Ebpf) -> Vec<BtfTracePointLink> {
        let mut links = Vec::new();
        for (name, link) in self.attached.drain(..) {
            let take = |program: &mut BtfTracePoint| program.take_link(link);
            match program(ebpf, name).and_then(take) {
                Ok(link) => links.push(link),
                Err(error) => log::warn!("cannot detach {name}: {}", kernel::explain(&error)),
            }
        }
        links
    }
}

fn set_flag(ebpf: &mut Ebpf, is_set: bool) -> Result<(), String> {
    let map = ebpf.map_mut(FLAG).ok_or_else(|| format!("the object has no map {FLAG}"))?;
    let mut flag: Array<_, u32> = Array::try_from(map).map_err(|error| error.to_string())?;
    flag.set(0, u32::from(is_set), 0).map_err(|error| error.to_string())
}
