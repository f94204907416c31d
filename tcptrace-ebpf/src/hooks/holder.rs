//! Who holds a socket: the process that accepts it, at the exit of its system call (or in [`super::graft`]); and the
//! processes with a descriptor of it, by a walk through all descriptors that userspace requests.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_seq_write, bpf_skc_to_tcp_sock, bpf_sock_from_file,
};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use tcptrace_common::{Head, HolderTail, counter, flag, kind};

use crate::emit::{TaskRecord, boot_ns, fill_task, fill_task_of, reserve, submit};
use crate::hooks::destroy::fill_event;
use crate::kernel::{load, read};
use crate::layout::off;
use crate::socket::{Key, cgroup, fill_addresses, flags, member};

#[repr(C)]
struct HolderRecord {
    head: Head,
    holder: HolderTail,
}

/// Reports the process to which `accept` or `accept4` has just returned a socket.
#[tracepoint]
fn accepted(ctx: TracePointContext) -> u32 {
    /// Of the return value, in `events/syscalls/sys_exit_accept4/format`.
    const RETURNED: usize = 16;
    // SAFETY: the verifier checks that this lies in the context.
    let returned: i64 = unsafe { load(ctx.as_ptr().cast(), RETURNED) };
    if let Some(sk) = socket_of(returned) {
        tell_accepted(member(sk, off::SOCK_COMMON_COOKIE()));
    }
    0
}

/// Reports that the current process has accepted the socket with this cookie.
#[inline(always)]
pub(super) fn tell_accepted(cookie: u64) {
    // A socket that no hook has reported usually has no cookie, and nothing else identifies it. That is the filter,
    // too: a look at addresses and ports would cost more than everything else.
    if cookie == 0 {
        return;
    }
    let Some(mut entry) = reserve::<TaskRecord>(counter::LOST_OTHERS) else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved and filled completely.
    unsafe {
        fill_event(&raw mut (*record).head, kind::ACCEPTED, cookie, 0);
        fill_task(&raw mut (*record).task);
    }
    submit(entry);
}

/// Address of the `struct sock` behind a descriptor of the current process. Another thread may have replaced the
/// descriptor meanwhile: only an object that points back to its file is a socket.
#[inline(always)]
pub(crate) fn socket_of(fd: i64) -> Option<u64> {
    // SAFETY: the verifier checks each load. One through a pointer that leads nowhere is zero.
    let (slots, files) = unsafe {
        let files: *const u8 = load(bpf_get_current_task_btf().cast(), off::TASK_FILES());
        if files.is_null() {
            return None;
        }
        let table: *const u8 = load(files, off::FILES_FDT());
        if table.is_null() {
            return None;
        }
        (load::<u32>(table, off::FDTABLE_MAX_FDS()), load::<u64>(table, off::FDTABLE_FD()))
    };
    if fd < 0 || fd >= i64::from(slots) {
        return None;
    }
    let file: u64 = read(files.wrapping_add(fd as u64 * 8));
    if file == 0 {
        return None;
    }
    let socket: u64 = member(file, off::FILE_PRIVATE_DATA());
    if socket == 0 || member::<u64>(socket, off::SOCKET_FILE()) != file {
        return None;
    }
    let sk: u64 = member(socket, off::SOCKET_SK());
    (sk != 0 && member::<u64>(sk, off::SOCK_SOCKET()) == socket).then_some(sk)
}

/// What the walk gives for each descriptor (`struct bpf_iter__task_file` in `kernel/bpf/task_iter.c`).
#[repr(C)]
pub(crate) struct Descriptor {
    meta: *const *mut c_void,
    task: *const u8,
    fd: u32,
    file: *mut c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn holders(descriptor: *const Descriptor) -> i32 {
    // SAFETY: the kernel calls the program with this context.
    unsafe { tell(descriptor, |_| true) }
}

/// Tells of a descriptor, if it is that of a TCP socket in a wanted state.
///
/// # Safety
///
/// It is the context of the walk.
#[inline(always)]
pub(crate) unsafe fn tell(descriptor: *const Descriptor, wants: impl Fn(u8) -> bool) -> i32 {
    // SAFETY: the verifier knows what the pointers in the context are.
    unsafe {
        let Descriptor { meta, task, fd, file } = descriptor.read();
        if task.is_null() || file.is_null() {
            return 0;
        }
        let socket: *const u8 = bpf_sock_from_file(file.cast()).cast();
        if socket.is_null() {
            return 0;
        }
        let sk: *const u8 = load(socket, off::SOCKET_SK());
        if sk.is_null() || !wants(load(sk, off::SOCK_COMMON_STATE())) {
            return 0;
        }
        let tcp: *const u8 = bpf_skc_to_tcp_sock(sk.cast_mut().cast()).cast();
        if tcp.is_null() {
            return 0;
        }
        let key = Key::of_socket(sk, tcp, false);
        if !key.is_wanted() {
            return 0;
        }
        let mut record = core::mem::MaybeUninit::<HolderRecord>::uninit();
        fill(record.as_mut_ptr(), task, fd, sk, key);
        // `seq` is the first member of the iterator's own data. What does not fit makes the kernel call again.
        bpf_seq_write((*meta).cast(), record.as_mut_ptr().cast(), size_of::<HolderRecord>() as u32);
    }
    0
}

/// # Safety
///
/// `record` is valid for writes; the other pointers are trusted by the verifier.
#[inline(always)]
unsafe fn fill(record: *mut HolderRecord, task: *const u8, fd: u32, sk: *const u8, key: Key) {
    // SAFETY: the writes stay inside the record; the verifier checks the loads.
    unsafe {
        let head = &raw mut (*record).head;
        (&raw mut (*head).boot_ns).write(boot_ns());
        (&raw mut (*head).id).write(bpf_get_socket_cookie(sk.cast_mut().cast()));
        fill_addresses(head, sk);
        (&raw mut (*head).local_port).write(key.local_port);
        (&raw mut (*head).remote_port).write(key.remote_port);
        (&raw mut (*head).netns).write(key.netns);
        (&raw mut (*head).extra).write(load(sk, off::SOCK_UID()));
        (&raw mut (*head).kind).write(kind::HELD);
        (&raw mut (*head).old).write(load(sk, off::SOCK_COMMON_STATE()));
        (&raw mut (*head).new).write(0);
        (&raw mut (*head).flags).write(flags(sk) & !flag::ID_IS_ADDRESS);
        fill_task_of(&raw mut (*record).holder.task, task);
        (&raw mut (*record).holder.cgroup).write(cgroup(sk));
        (&raw mut (*record).holder.fd).write(fd);
        (&raw mut (*record).holder.padding).write(0);
    }
}
