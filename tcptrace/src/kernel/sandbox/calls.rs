//! System calls that nothing in a sandbox needs. They fail with EPERM.

use std::collections::BTreeMap;
use std::io;

use nix::errno::Errno;
use nix::libc;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

/// Refused whatever their arguments: the network, programs, other processes, the kernel, and the owners and modes of
/// files, which Landlock does not protect.
#[rustfmt::skip]
const REFUSED: &[i64] = &[
    libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4,
    libc::SYS_execve, libc::SYS_execveat,
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_pidfd_getfd,
    libc::SYS_kill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo, libc::SYS_pidfd_send_signal,
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module,
    libc::SYS_kexec_load, libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct,
    libc::SYS_quotactl, libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime,
    libc::SYS_sethostname, libc::SYS_setdomainname,
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_move_mount,
    libc::SYS_open_tree, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_setns, libc::SYS_unshare, libc::SYS_open_by_handle_at,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl,
    libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat,
    libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr,
    libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_fremovexattr,
];

/// The same, where they exist.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const REFUSED_HERE: &[i64] = &[
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown,
    libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// Later ways to the same, by the numbers that they have on every architecture (`scripts/syscall.tbl`): `fchmodat2`,
/// `setxattrat`, `removexattrat`, `open_tree_attr` and `file_setattr`.
const REFUSED_LATER: &[i64] = &[452, 463, 466, 467, 469];

// `include/uapi/asm-generic/ioctls.h`
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

/// From here on are the numbers of the x32 ABI, a second way into the same calls.
const X32: u32 = 0x4000_0000;

// `include/uapi/linux/bpf_common.h`
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// What a process does beside computing.
pub(super) struct Work {
    /// Calls that it may make although others may not.
    allowed: &'static [i64],
    /// Whether it opens netlink sockets, and local ones to ask for the names of interfaces.
    asks_kernel: bool,
    /// Whether it reads and writes maps of eBPF programs, and does nothing else with eBPF.
    reads_maps: bool,
}

/// Reads traces.
pub(super) const READING: Work = Work { allowed: &[], asks_kernel: false, reads_maps: false };
/// Reads what eBPF programs report. It may give away the files that it makes.
pub(super) const DECODING: Work = Work { allowed: &[libc::SYS_fchown], asks_kernel: false, reads_maps: true };
/// Asks the kernel.
#[rustfmt::skip]
pub(super) const FOLLOWING: Work = Work {
    allowed: &[
        libc::SYS_connect, libc::SYS_bind, libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_open_by_handle_at,
        libc::SYS_setns, libc::SYS_unshare, libc::SYS_mount,
    ],
    asks_kernel: true,
    reads_maps: false,
};

// `enum bpf_cmd` in `include/uapi/linux/bpf.h`
const LOOK_UP: u64 = 1;
const UPDATE: u64 = 2;

/// Refuses all other calls from now on, to this thread and to those that it starts.
pub(super) fn refuse(work: &Work) -> io::Result<()> {
    // The C library then starts threads with `clone`, whose arguments a filter can read.
    let without_clone3 = filter([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS);
    apply(&without_clone3.map_err(io::Error::other)?)?;
    let mut program = without_x32();
    program.extend(refused(work).and_then(|refused| filter(refused, libc::EPERM)).map_err(io::Error::other)?);
    apply(&program)
}

/// Up to Linux 5.15, a filter also makes every load slower that could be speculated about, unless it is told not to.
fn apply(program: &[sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    let (set, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    // SAFETY: the kernel copies the program, which is as long as it says; both types of instructions are the kernel's.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, set, flags, &raw const program) })?;
    Ok(())
}

fn refused(work: &Work) -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    let all = REFUSED.iter().chain(REFUSED_HERE).chain(REFUSED_LATER).filter(|call| !work.allowed.contains(call));
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = all.map(|call| (*call, Vec::new())).collect();
    if work.asks_kernel {
        let is_other =
            |family: i32| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, unsigned(family));
        let neither = SeccompRule::new(vec![is_other(libc::AF_NETLINK)?, is_other(libc::AF_UNIX)?])?;
        refused.insert(libc::SYS_socket, vec![neither]);
    }
    if work.reads_maps {
        let is_other = |command| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, command);
        refused.insert(libc::SYS_bpf, vec![SeccompRule::new(vec![is_other(LOOK_UP)?, is_other(UPDATE)?])?]);
    }
    let own = u64::from(std::process::id());
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    let differs = SeccompCmpOp::Ne;
    for (call, argument, operator, value) in [
        // A new process. Threads are allowed.
        (libc::SYS_clone, 0, SeccompCmpOp::MaskedEq(thread), 0),
        // Signals to others.
        (libc::SYS_tgkill, 0, differs.clone(), own),
        // The event loop of the terminal uses pairs of local sockets.
        (libc::SYS_socketpair, 0, differs, unsigned(libc::AF_UNIX)),
        // What would be typed into the terminal for the shell.
        (libc::SYS_ioctl, 1, SeccompCmpOp::Eq, TIOCSTI),
        (libc::SYS_ioctl, 1, SeccompCmpOp::Eq, TIOCLINUX),
    ] {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        refused.entry(call).or_default().push(SeccompRule::new(vec![condition])?);
    }
    Ok(refused)
}

fn unsigned(number: i32) -> u64 {
    number.cast_unsigned().into()
}

fn filter(refused: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, Error> {
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

/// Refuses all calls of the x32 ABI. The rest of a filter follows.
fn without_x32() -> BpfProgram {
    // `SECCOMP_RET_ERRNO` in `include/uapi/linux/seccomp.h`
    let refuse = 0x0005_0000 | libc::EPERM.cast_unsigned();
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    // The number of the call is the first word.
    vec![step(LOAD_WORD, 0, 0, 0), step(JUMP_IF_AT_LEAST, 0, 1, X32), step(RETURN, 0, 0, refuse)]
}
