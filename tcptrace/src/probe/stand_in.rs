//! Programs that stand in for others while these are interrupted, as long as that happens.
//!
//! They see what the others miss, but a second program makes a tracepoint dearer, by more than what it does itself. So
//! they are on trial: where nothing was interrupted in the beginning they are detached, and where something is later
//! they come back for good.

use std::thread;

use aya::Ebpf;
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLinkId;

use super::load::program;
use super::{Feature, kernel};

/// What is served by a program that may need another, its tracepoint, and the program that stands in for it.
pub(super) const PROGRAMS: [(Feature, &str, &str); 2] = [
    (Feature::Destroy, "tcp_destroy_sock", "tcp_destroy_sock_stand_in"),
    (Feature::Transitions, "inet_sock_set_state", "inet_sock_set_state_stand_in"),
];

/// After so many records without an interruption they seem needless.
const TRIAL: u64 = 50_000;

#[derive(Default)]
pub(super) struct StandIns {
    loaded: Vec<&'static str>,
    attached: Vec<(&'static str, BtfTracePointLinkId)>,
    is_trial: bool,
}

impl StandIns {
    /// Attaches those that were loaded.
    pub(super) fn attach(loaded: Vec<&'static str>, ebpf: &mut Ebpf) -> Self {
        let mut stand_ins = Self { loaded, attached: Vec::new(), is_trial: true };
        stand_ins.come(ebpf);
        stand_ins
    }

    /// Comes or goes as needed, after so many records and so many interruptions of any program.
    pub(super) fn look(&mut self, records: u64, interruptions: u64, ebpf: &mut Ebpf) {
        if interruptions > 0 {
            self.is_trial = false;
            self.come(ebpf);
        } else if self.is_trial && records >= TRIAL {
            self.is_trial = false;
            self.go(ebpf);
        }
    }

    fn come(&mut self, ebpf: &mut Ebpf) {
        if !self.attached.is_empty() {
            return;
        }
        for name in &self.loaded {
            let attach = |program: &mut BtfTracePoint| program.attach();
            match program(ebpf, name).and_then(attach) {
                Ok(link) => self.attached.push((name, link)),
                Err(error) => log::warn!("cannot attach {name}: {}", kernel::explain(&error)),
            }
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
