//! Attaching to the kernel's functions for mini-sockets (`net/ipv4/inet_timewait_sock.c`), which run for nothing else.
//!
//! A call that a compiler has replaced by the function's code would not be seen, and a TIME_WAIT would count as refused. GCC
//! does not do that to functions of this length that have several callers; Clang may.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use aya::programs::FEntry;
use aya::{Btf, Ebpf};

use super::kernel;
use super::layout::{KILL, Layout, SCHEDULE};
use super::programs::program;

/// The programs, the functions, and how many arguments these have.
const HOOKS: [(&str, &str, usize); 2] = [("mini_killed", KILL, 1), ("mini_scheduled", SCHEDULE, 3)];

/// Attaches both programs, or neither.
///
/// # Errors
/// Says why they cannot be attached.
pub(super) fn attach(ebpf: &mut Ebpf, btf: &Btf, layout: &Layout) -> Result<Vec<RawFd>, String> {
    if kernel::is_made_by_clang() {
        return Err("this kernel was made by Clang, which may have put the functions into their callers".into());
    }
    if let Some((_, name, _)) = HOOKS.iter().find(|(_, name, count)| layout.arguments(name) != *count) {
        return Err(format!("this kernel has no {name}, or another one"));
    }
    let (mut fds, mut attached) = (Vec::new(), Vec::new());
    for (name, function, _) in HOOKS {
        let attach = |program: &mut FEntry| {
            program.load(function, btf)?;
            let link = program.attach()?;
            Ok((link, program.fd()?.as_fd().as_raw_fd()))
        };
        match program(ebpf, name).and_then(attach) {
            Ok((link, fd)) => {
                attached.push((name, link));
                fds.push(fd);
            }
            Err(error) => {
                for (name, link) in attached {
                    let detach = |program: &mut FEntry| program.detach(link);
                    if let Err(error) = program(ebpf, name).and_then(detach) {
                        log::warn!("cannot detach {name}: {}", kernel::explain(&error));
                    }
                }
                return Err(kernel::explain(&error));
            }
        }
    }
    Ok(fds)
}

/// Detaches both programs. Returns the numbers of the descriptors that they had: none if they were not attached.
pub(super) fn unload(ebpf: &mut Ebpf) -> Vec<RawFd> {
    let mut fds = Vec::new();
    for (name, ..) in HOOKS {
        let Ok(program) = program::<FEntry>(ebpf, name) else { continue };
        let Ok(fd) = program.fd().map(|fd| fd.as_fd().as_raw_fd()) else { continue };
        match program.unload() {
            Ok(()) => fds.push(fd),
            Err(error) => log::warn!("cannot detach {name}: {}", kernel::explain(&error)),
        }
    }
    fds
}
