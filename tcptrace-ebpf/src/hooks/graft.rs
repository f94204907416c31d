//! Accepts at a function of the kernel's own, `security_sock_graft` (`security/security.c`). It runs while a process is
//! given the socket that it accepts, and never for another TCP socket: `sock_graft` calls it, and `inet_accept` and
//! `__inet_accept` (`net/ipv4/af_inet.c`) call that. System calls of 32 bits and io_uring come by here, too. It does not
//! wait, so no accept is missed while programs are attached to it or detached. Not every kernel can attach them.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use aya_ebpf::macros::fentry;
use aya_ebpf::programs::FEntryContext;

use super::holder::tell_accepted;
use crate::emit::is_kernels;
use crate::kernel::load;
use crate::layout::off;

/// `security_sock_graft(sk, parent)`.
#[fentry(function = "security_sock_graft")]
fn accept_grafted(ctx: FEntryContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: the verifier knows the argument as a `struct sock`, and the current task; it checks the loads.
    let (cookie, by_kernel) =
        unsafe { (load(sk, off::SOCK_COMMON_COOKIE()), is_kernels(bpf_get_current_task_btf().cast())) };
    // What the kernel accepts for itself has no owner.
    if !by_kernel {
        tell_accepted(cookie);
    }
    0
}
