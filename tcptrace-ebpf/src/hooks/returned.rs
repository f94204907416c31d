//! The process that accepts a connection, at the return of the kernel's own function: it slows nobody else down, and sees
//! io_uring, system calls of 32-bit programs, and the subflows of MPTCP, too. Not every kernel can attach it.

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;

use super::holder::tell_accepted;
use crate::kernel::load;
use crate::layout::off;

/// `(sk, arg)`, since 6.10. What the function returns follows its arguments.
#[fexit(function = "inet_csk_accept")]
fn accept_returned_socket(ctx: FExitContext) -> i32 {
    tell(ctx.arg(2))
}

/// `(sk, flags, err, kern)`, before. The verifier takes no place in the context that a branch chooses.
#[fexit(function = "inet_csk_accept")]
fn accept_returned_socket_before_6_10(ctx: FExitContext) -> i32 {
    tell(ctx.arg(4))
}

#[inline(always)]
fn tell(sk: *const u8) -> i32 {
    if !sk.is_null() {
        // SAFETY: the verifier knows the returned pointer as a `struct sock`, and checks the load.
        tell_accepted(unsafe { load(sk, off::SOCK_COMMON_COOKIE()) });
    }
    0
}
