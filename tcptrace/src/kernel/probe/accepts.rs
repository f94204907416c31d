//! The hook that shows accepts. While an exit of a system call is traced, every system call of the machine takes the
//! slower path, so this hook can stay away, or come and go.

use std::thread::{self, JoinHandle};

use aya::Ebpf;
use aya::programs::ProgramError;
use aya::programs::trace_point::{TracePoint, TracePointLinkId};

use super::programs::program;
use super::{kernel, tracefs};

/// The program that reports accepted sockets, and the tracepoints of the system calls.
pub(super) const ACCEPTED: &str = "accepted";
pub(super) const TRACEPOINTS: [&str; 2] = ["sys_exit_accept", "sys_exit_accept4"];

/// Attaches and detaches the program, once it is loaded.
#[derive(Default)]
pub(super) struct Accepts {
    links: Vec<TracePointLinkId>,
    /// The thread that detaches it.
    going: Option<JoinHandle<()>>,
}

impl Accepts {
    /// Attaches the program to both tracepoints, or to none.
    pub(super) fn come(&mut self, ebpf: &mut Ebpf) -> Result<(), ProgramError> {
        if !self.links.is_empty() {
            return Ok(());
        }
        let hook: &mut TracePoint = program(ebpf, ACCEPTED)?;
        for name in TRACEPOINTS {
            match tracefs::with(|| hook.attach("syscalls", name)) {
                Ok(link) => self.links.push(link),
                Err(error) => {
                    self.go(ebpf);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Detaches it.
    pub(super) fn go(&mut self, ebpf: &mut Ebpf) {
        let mut links = Vec::new();
        for link in self.links.drain(..) {
            let take = |hook: &mut TracePoint| hook.take_link(link);
            match program(ebpf, ACCEPTED).and_then(take) {
                Ok(link) => links.push(link),
                Err(error) => log::warn!("cannot detach {ACCEPTED}: {}", kernel::explain(&error)),
            }
        }
        if let Some(going) = self.going.take_if(|going| going.is_finished()) {
            // It cannot panic: it closes descriptors.
            let _ = going.join();
        }
        // The kernel waits until no CPU runs the program. If there can be no other thread, this one waits.
        let going = thread::Builder::new().name("detach".into()).spawn(move || drop(links));
        self.going = going.ok();
    }
}
