//! The benchmark's uses of bpf(2): counting the run time of programs, and running an empty one.

use std::ffi::{CStr, c_long};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;

use super::proc::{self, Program};

// Values of `enum bpf_cmd` and `enum bpf_prog_type` in include/uapi/linux/bpf.h.
const PROG_LOAD: c_long = 5;
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

fn bpf<T>(command: c_long, attributes: &T) -> Result<OwnedFd, Errno> {
    // SAFETY: `attributes` is one of the structs above, which have no implicit padding and are as the kernel defines
    // them; it reads no more than the size says. Pointers in them are to constants.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: each of the three commands returns a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.program.as_raw_fd()));
        let info = info.context("cannot read what the kernel says of the empty program")?;
        proc::program_in(info).context("the kernel does not say how long the empty program ran")
    }
}
