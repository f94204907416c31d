//! The hook that shows accepts, which can stay away, or come and go. It is a function of the kernel where that can be
//! traced. Elsewhere it is the exits of two system calls: while any such exit is traced, every system call of the machine
//! takes the slower path.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::thread::{self, JoinHandle};

use aya::programs::fentry::FEntryLinkId;
use aya::programs::trace_point::{TracePoint, TracePointLinkId};
use aya::programs::{FEntry, ProgramError};
use aya::{Btf, Ebpf};

use super::layout::{GRAFT, Layout};
use super::programs::program;
use super::{kernel, tracefs};

/// The program that reports accepted sockets at the exits of system calls, and the tracepoints there.
const ACCEPTED: &str = "accepted";
pub(super) const TRACEPOINTS: [&str; 2] = ["sys_exit_accept", "sys_exit_accept4"];

/// The program that reports them in the kernel's function.
const GRAFTED: &str = "accept_grafted";

/// Attaches and detaches a program, once it is loaded.
#[derive(Default)]
pub(super) struct Accepts {
    by: By,
    attached: Vec<LinkId>,
    /// The thread that detaches it.
    going: Option<JoinHandle<()>>,
}

/// Which program it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum By {
    #[default]
    Calls,
    Function,
}

enum LinkId {
    Call(TracePointLinkId),
    Function(FEntryLinkId),
}

impl Accepts {
    /// Loads the program for the kernel's function, and attaches it. A call that a compiler has replaced by the function's
    /// code would not be seen: GCC does not do that to functions of another file, Clang may.
    ///
    /// # Errors
    /// Says why it cannot be attached.
    pub(super) fn come_by_function(&mut self, ebpf: &mut Ebpf, btf: &Btf, layout: &Layout) -> Result<RawFd, String> {
        if kernel::is_made_by_clang() {
            return Err("this kernel was made by Clang, which may have put the function into its callers".into());
        }
        if layout.arguments(GRAFT) != 2 {
            return Err(format!("this kernel has no {GRAFT}, or another one"));
        }
        self.by = By::Function;
        self.load_and_come(ebpf, btf).map_err(|error| {
            self.by = By::Calls;
            // It may not even be loaded.
            let _ = program(ebpf, GRAFTED).and_then(FEntry::unload);
            kernel::explain(&error)
        })
    }

    fn load_and_come(&mut self, ebpf: &mut Ebpf, btf: &Btf) -> Result<RawFd, ProgramError> {
        program::<FEntry>(ebpf, GRAFTED)?.load(GRAFT, btf)?;
        self.come(ebpf)?;
        Ok(program::<FEntry>(ebpf, GRAFTED)?.fd()?.as_fd().as_raw_fd())
    }

    /// Loads the program for the exits of system calls.
    pub(super) fn load_calls(ebpf: &mut Ebpf) -> Result<RawFd, ProgramError> {
        let hook: &mut TracePoint = program(ebpf, ACCEPTED)?;
        hook.load()?;
        Ok(hook.fd()?.as_fd().as_raw_fd())
    }

    /// Attaches the program wherever it belongs, or nowhere.
    pub(super) fn come(&mut self, ebpf: &mut Ebpf) -> Result<(), ProgramError> {
        if !self.attached.is_empty() {
            return Ok(());
        }
        match self.by {
            By::Calls => self.come_to_calls(ebpf),
            By::Function => self.come_to_function(ebpf),
        }
    }

    fn come_to_function(&mut self, ebpf: &mut Ebpf) -> Result<(), ProgramError> {
        // The kernel attaches it again only when it is detached.
        self.await_going();
        let hook: &mut FEntry = program(ebpf, GRAFTED)?;
        self.attached.push(LinkId::Function(hook.attach()?));
        Ok(())
    }

    fn come_to_calls(&mut self, ebpf: &mut Ebpf) -> Result<(), ProgramError> {
        let hook: &mut TracePoint = program(ebpf, ACCEPTED)?;
        for name in TRACEPOINTS {
            match tracefs::with(|| hook.attach("syscalls", name)) {
                Ok(link) => self.attached.push(LinkId::Call(link)),
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
        for link in self.attached.drain(..) {
            match take(link, ebpf) {
                Ok(link) => links.push(link),
                Err(error) => log::warn!("cannot detach what shows accepts: {}", kernel::explain(&error)),
            }
        }
        if self.going.as_ref().is_some_and(JoinHandle::is_finished) {
            self.await_going();
        }
        // The kernel waits until no CPU runs the program. If there can be no other thread, this one waits.
        let going = thread::Builder::new().name("detach".into()).spawn(move || drop(links));
        self.going = going.ok();
    }

    /// Waits until the kernel has detached the program, if that is under way.
    pub(super) fn await_going(&mut self) {
        if let Some(going) = self.going.take() {
            // It cannot panic: it closes descriptors.
            let _ = going.join();
        }
    }
}

/// What detaches it when it is dropped.
fn take(link: LinkId, ebpf: &mut Ebpf) -> Result<Box<dyn Send>, ProgramError> {
    Ok(match link {
        LinkId::Call(link) => Box::new(program::<TracePoint>(ebpf, ACCEPTED)?.take_link(link)?),
        LinkId::Function(link) => Box::new(program::<FEntry>(ebpf, GRAFTED)?.take_link(link)?),
    })
}
