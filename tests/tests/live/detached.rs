//! Nobody can take a running tracer's hooks away: the kernel refuses it, even to root.

use std::ffi::c_long;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use tcptrace_tests::sockets::pair;
use tcptrace_tests::{Namespace, Tracer};

/// `BPF_LINK_GET_FD_BY_ID` and `BPF_LINK_DETACH` (`include/uapi/linux/bpf.h`).
const OPEN_LINK: c_long = 30;
const DETACH: c_long = 34;

/// The first fields of `union bpf_attr`, as these commands read it: an id or a descriptor, and flags.
#[repr(C)]
struct Link {
    number: u32,
    padding: [u32; 2],
}

fn bpf(command: c_long, number: u32) -> nix::Result<c_long> {
    let link = Link { number, padding: [0; 2] };
    // SAFETY: the kernel reads as many bytes as the size says.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const link, size_of::<Link>()) })
}

fn links(tracer: &Tracer) -> Vec<u32> {
    let infos = fs::read_dir(format!("/proc/{}/fdinfo", tracer.pid())).expect("its descriptors").flatten();
    let texts = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
    let number = |text: String| text.lines().find_map(|line| line.strip_prefix("link_id:")?.trim().parse().ok());
    texts.filter_map(number).collect()
}

#[test]
fn the_kernel_refuses_to_detach_the_hooks_of_others() {
    let net = Namespace::enter();
    let tracer = Tracer::start_in(&net, &["watch", "--no-existing", "--format", "json"]);
    let links = links(&tracer);
    if links.is_empty() {
        tcptrace_tests::attempt::skip("this kernel does not show links (5.8 and newer do, for typed tracepoints)");
    }
    for link in links {
        let opened = bpf(OPEN_LINK, link).expect("its link");
        // SAFETY: the kernel has just opened it, for nobody else.
        let opened = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(opened).expect("a descriptor")) };
        let refused = bpf(DETACH, opened.as_raw_fd().cast_unsigned());
        // The latter before 5.9, which has no such command.
        assert!(matches!(refused, Err(Errno::EOPNOTSUPP | Errno::EINVAL)), "link {link}: {refused:?}");
    }
    // It goes on.
    let (client, mut server) = pair();
    let client = client.name();
    server.close();
    tracer.row(&net, "a connection made afterwards", |row| net.is_about(row, &client));
    assert_eq!(tracer.interrupt().status.code(), Some(0));
}
