//! Programs that stand in for others while these are interrupted, as long as that happens.
//!
//! They see what the others miss, but a second program makes a tracepoint dearer, by more than what it does itself. So
//! they are on trial: where nothing was interrupted in the beginning they are detached, and where something is later
//! they come back for good.

use std::thread::{self, JoinHandle};

use aya::Ebpf;
use aya::maps::Array;
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLinkId;

use super::kernel;
use super::programs::program;

/// After so many records without an interruption they seem needless.
const TRIAL: u64 = 50_000;

#[derive(Default)]
pub(super) struct StandIns {
    loaded: Vec<&'static str>,
    attached: Vec<(&'static str, BtfTracePointLinkId)>,
    /// What detaches them.
    going: Option<JoinHandle<()>>,
    is_decided: bool,
}

/// The map that has the first programs note what they have seen, for the others.
const FLAG: &str = "STAND_INS";

impl StandIns {
    /// Attaches one that was loaded, to be tried.
    pub(super) fn attach(&mut self, name: &'static str, ebpf: &mut Ebpf) {
        self.loaded.push(name);
        self.attach_one(name, ebpf);
    }

    /// They come or go as needed, after so many records and so many interruptions of any program.
    pub(super) fn look(&mut self, records: u64, interruptions: u64, ebpf: &mut Ebpf) {
        if interruptions > 0 {
            self.is_decided = true;
            self.come(ebpf);
        } else if !self.is_decided && records >= TRIAL {
            self.is_decided = true;
            self.go(ebpf);
        }
        // Not before they have run for the last time.
        if let Some(going) = self.going.take_if(|going| going.is_finished())
            && going.join().is_ok()
            && let Err(error) = set_flag(ebpf, false)
        {
            log::warn!("programs go on noting what they have seen: {error}");
        }
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
        // Before: it takes for missed what was not noted.
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
        let mut links = Vec::new();
        for (name, link) in self.attached.drain(..) {
            let take = |program: &mut BtfTracePoint| program.take_link(link);
            match program(ebpf, name).and_then(take) {
                Ok(link) => links.push(link),
                Err(error) => log::warn!("cannot detach {name}: {}", kernel::explain(&error)),
            }
        }
        // The kernel waits until no CPU runs them, a tenth of a second or so.
        // Where there can be no other thread, this one waits.
        self.going = thread::Builder::new().spawn(move || drop(links)).ok();
    }
}

fn set_flag(ebpf: &mut Ebpf, is_set: bool) -> Result<(), String> {
    let map = ebpf.map_mut(FLAG).ok_or_else(|| format!("there is no map {FLAG}"))?;
    let mut flag: Array<_, u32> = Array::try_from(map).map_err(|error| error.to_string())?;
    flag.set(0, u32::from(is_set), 0).map_err(|error| error.to_string())
}
