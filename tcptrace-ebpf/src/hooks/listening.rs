//! Which processes hold a listening socket, by a walk through all descriptors that userspace requests. It shows no other
//! sockets, so that it can be requested often.

use tcptrace_common::state::LISTEN;

use super::holder::{Descriptor, tell};

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn listening(descriptor: *const Descriptor) -> i32 {
    // SAFETY: the kernel calls the program with this context.
    unsafe { tell(descriptor, |state| state == LISTEN) }
}
