//! The benchmark's uses of bpf(2): counting the run time of programs, running an empty one, and attaching programs that
//! others have loaded.

mod entries;
mod ring;

use std::ffi::{CStr, c_long};
use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;

use super::proc::{self, Program};
pub(crate) use entries::maps_and_entries;
pub(super) use ring::Ring;

// Values of `enum bpf_cmd` and `enum bpf_prog_type` in include/uapi/linux/bpf.h.
const PROG_LOAD: c_long = 5;
const PROG_GET_FD_BY_ID: c_long = 13;
const MAP_GET_FD_BY_ID: c_long = 14;
const RAW_TRACEPOINT_OPEN: c_long = 17;
const ENABLE_STATS: c_long = 32;
const RAW_TRACEPOINT: u32 = 17;
const RUN_TIME: u32 = 0;

/// `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `return 0`.
static EMPTY: [Instruction; 2] = [
    // BPF_ALU64 | BPF_MOV | BPF_K, r0
    Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 0 },
    // BPF_JMP | BPF_EXIT
    Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
];

/// The beginning of `union bpf_attr`, as `BPF_PROG_LOAD` reads it.
#[repr(C)]
struct Load {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The part that `BPF_RAW_TRACEPOINT_OPEN` reads.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    // The kernel must find no uninitialised byte here.
    padding: u32,
}

/// The part that `BPF_ENABLE_STATS` reads.
#[repr(C)]
struct Stats {
    kind: u32,
}

/// The part that `BPF_PROG_GET_FD_BY_ID` and `BPF_MAP_GET_FD_BY_ID` read.
#[repr(C)]
struct Known {
    id: u32,
    next: u32,
    flags: u32,
}

/// The first version of `struct perf_event_attr` in include/uapi/linux/perf_event.h.
#[repr(C)]
struct Event {
    kind: u32,
    size: u32,
    config: u64,
    sampling: [u64; 3],
    flags: u64,
    breakpoint: [u32; 2],
    address: u64,
}

// Values of the same file.
const TRACEPOINT: u32 = 2;
const FLAG_CLOEXEC: c_long = 8;
// As x86 and ARM number them: `_IO('$', 0)` and `_IOW('$', 8, __u32)`.
const ENABLE: libc::Ioctl = 0x2400;
const SET_PROGRAM: libc::Ioctl = 0x4004_2408;

fn bpf<T>(command: c_long, attributes: &T) -> Result<OwnedFd, Errno> {
    // SAFETY: `attributes` is one of the structs above, which have no implicit padding and are as the kernel defines
    // them; it reads no more than the size says. Pointers in them are to constants.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: each of the commands returns a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A program that somebody has loaded.
pub(super) fn program(id: u32) -> Result<OwnedFd> {
    let known = Known { id, next: 0, flags: 0 };
    bpf(PROG_GET_FD_BY_ID, &known).with_context(|| format!("cannot open the program {id}"))
}

/// Attaches a program that has access to the arguments of its tracepoint by type. The program names the tracepoint.
pub(super) fn attach_typed(program: &OwnedFd) -> Result<OwnedFd> {
    let open = Open { name: 0, program: program.as_raw_fd().try_into()?, padding: 0 };
    bpf(RAW_TRACEPOINT_OPEN, &open).context("the kernel refuses to attach it")
}

/// Attaches a program to a classic tracepoint. It runs on every CPU.
pub(super) fn attach_classic(program: &OwnedFd, category: &str, name: &str) -> Result<OwnedFd> {
    let path = format!("/sys/kernel/tracing/events/{category}/{name}/id");
    let id = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let event = Event {
        kind: TRACEPOINT,
        size: size_of::<Event>().try_into()?,
        config: id.trim().parse().with_context(|| format!("no number in {path}"))?,
        sampling: [0; 3],
        flags: 0,
        breakpoint: [0; 2],
        address: 0,
    };
    let (every_process, first_cpu, no_group): (c_long, c_long, c_long) = (-1, 0, -1);
    // SAFETY: `event` is as the kernel defines it, without padding; the call reads it and nothing else.
    let result = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const event, every_process, first_cpu, no_group, FLAG_CLOEXEC)
    };
    let fd = RawFd::try_from(Errno::result(result).with_context(|| format!("cannot open {name}"))?)?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    let event = unsafe { OwnedFd::from_raw_fd(fd) };
    for (request, argument) in [(SET_PROGRAM, program.as_raw_fd()), (ENABLE, 0)] {
        // SAFETY: the descriptor is open, and neither request reads or writes memory.
        let result = unsafe { libc::ioctl(event.as_raw_fd(), request, argument) };
        Errno::result(result).with_context(|| format!("the kernel refuses to attach it to {name}"))?;
    }
    Ok(event)
}

/// Makes the kernel count how often and how long programs run, until the descriptor is closed.
pub(super) fn count_time() -> Result<OwnedFd> {
    bpf(ENABLE_STATS, &Stats { kind: RUN_TIME }).context("the kernel does not count the time of BPF programs")
}

/// An empty program on the tracepoint of state changes.
pub(super) struct EmptyProgram {
    program: OwnedFd,
    _link: OwnedFd,
}

impl EmptyProgram {
    /// Attaches it.
    pub(super) fn attach() -> Result<Self> {
        let (license, tracepoint): (&CStr, &CStr) = (c"MIT", c"inet_sock_set_state");
        let load = Load {
            program_type: RAW_TRACEPOINT,
            instructions: EMPTY.len().try_into()?,
            code: EMPTY.as_ptr() as u64,
            license: license.as_ptr() as u64,
        };
        let program = bpf(PROG_LOAD, &load).context("cannot load an empty program")?;
        let open = Open { name: tracepoint.as_ptr() as u64, program: program.as_raw_fd().try_into()?, padding: 0 };
        let link = bpf(RAW_TRACEPOINT_OPEN, &open).context("cannot attach an empty program")?;
        Ok(Self { program, _link: link })
    }

    /// How often it ran, and for how long.
    pub(super) fn look(&self) -> Result<Program> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.program.as_raw_fd()));
        let info = info.context("cannot read what the kernel says of the empty program")?;
        proc::program_in(info).context("the kernel does not say how long the empty program ran")
    }
}
