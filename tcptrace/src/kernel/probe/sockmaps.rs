//! Which sockets are in maps of sockets (`BPF_MAP_TYPE_SOCKMAP`, `BPF_MAP_TYPE_SOCKHASH`).
//!
//! A BPF program can hand what is written to such a socket straight to another one. These bytes never become segments,
//! and TCP does not count them (`net/core/skmsg.c`, `net/ipv4/tcp_bpf.c`).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::{MapType, loaded_maps};
use nix::errno::Errno;
use nix::libc;
use zerocopy::{Immutable, IntoBytes};

/// `BPF_MAP_LOOKUP_ELEM` and `BPF_MAP_GET_NEXT_KEY`.
const LOOK_UP: libc::c_int = 1;
const NEXT_KEY: libc::c_int = 4;

/// Values must have this size, or the kernel does not say which sockets they are (`sock_map_lookup_sys`).
const COOKIE: u32 = 8;

/// The part of `union bpf_attr` that these commands use.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Attributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The cookies of all sockets in such maps at this moment. Listing maps needs `CAP_SYS_ADMIN`.
///
/// # Errors
///
/// The kernel's error.
pub fn in_sockmaps() -> io::Result<BTreeSet<u64>> {
    let mut cookies = BTreeSet::new();
    for map in loaded_maps() {
        let map = map.map_err(io::Error::other)?;
        let is_one = matches!(map.map_type(), Ok(MapType::SockMap | MapType::SockHash));
        if !is_one || map.value_size() != COOKIE {
            continue;
        }
        // It may be gone.
        let Ok(descriptor) = map.fd() else { continue };
        let key_size = usize::try_from(map.key_size()).unwrap_or(0);
        collect(descriptor.as_fd(), key_size, map.max_entries(), &mut cookies);
    }
    Ok(cookies)
}

/// A hash starts over when the previous key is gone, so the steps are limited.
fn collect(map: BorrowedFd<'_>, key_size: usize, entries: u32, cookies: &mut BTreeSet<u64>) {
    let mut key = None;
    for _ in 0..entries {
        let mut next = vec![0; key_size];
        if ask(NEXT_KEY, map, key.as_deref(), &mut next).is_err() {
            return;
        }
        let mut cookie = [0; COOKIE as usize];
        // This place may have no socket.
        if ask(LOOK_UP, map, Some(&next), &mut cookie).is_ok() {
            cookies.insert(u64::from_ne_bytes(cookie));
        }
        key = Some(next);
    }
}

fn ask(command: libc::c_int, map: BorrowedFd<'_>, key: Option<&[u8]>, answer: &mut [u8]) -> nix::Result<()> {
    let attributes = Attributes {
        map: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: key.map_or(0, |key| key.as_ptr().addr() as u64),
        value: answer.as_mut_ptr().addr() as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads the attributes and the key, which has the size of the map's keys if it came from there, and
    // writes a key or a cookie, for which `answer` has room.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<Attributes>()) };
    Errno::result(result).map(drop)
}
