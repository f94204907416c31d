//! Programs that stand in for others while these are interrupted, as long as that happens.
//!
//! They see what the others miss, but a second program makes a tracepoint dearer, by more than what it does itself. So
//! they are on trial: where nothing was interrupted in the beginning they are detached, and where something is later
//! they come back for good.

use std::thread;

use aya::Ebpf;
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
    is_decided: bool,
}

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
    }

    fn come(&mut self, ebpf: &mut Ebpf) {
        if self.attached.is_empty() {
            for name in self.loaded.clone() {
                self.attach_one(name, ebpf);
            }
        }
    }

    fn attach_one(&mut self, name: &'static str, ebpf: &mut Ebpf) {
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
        let _ = thread::Builder::new().spawn(move || drop(links));
    }
}
