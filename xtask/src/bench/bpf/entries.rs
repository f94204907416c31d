//! How full the maps of a process are.

use std::ffi::c_long;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;

use super::super::proc;
use super::{Known, MAP_GET_FD_BY_ID, bpf};

/// `BPF_MAP_GET_NEXT_KEY`.
const NEXT_KEY: c_long = 4;

/// Hashes of `enum bpf_map_type`, each CPU's own and those that forget among them. Arrays are always full.
const HASHES: [u32; 4] = [1, 5, 9, 10];

/// The part of `union bpf_attr` that `BPF_MAP_GET_NEXT_KEY` reads.
#[repr(C)]
struct Next {
    map: u32,
    padding: u32,
    key: u64,
    next: u64,
}

/// The number of BPF maps of which a process has descriptors, and of the entries in those that can grow.
pub(crate) fn maps_and_entries(pid: u32) -> Result<[u64; 2]> {
    let mut sum = [0, 0];
    for info in proc::descriptors(pid)? {
        let number = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            value.and_then(|value| value.trim().parse::<u32>().ok())
        };
        let (Some(id), Some(kind)) = (number("map_id"), number("map_type")) else { continue };
        sum[0] += 1;
        if HASHES.contains(&kind) {
            let (key, most) = (number("key_size").context("a map has no keys")?, number("max_entries").unwrap_or(0));
            sum[1] += count(id, usize::try_from(key)?, most)?;
        }
    }
    Ok(sum)
}

/// A hash starts over when the previous key is gone, so the steps are limited.
fn count(id: u32, key_size: usize, most: u32) -> Result<u64> {
    let map = bpf(MAP_GET_FD_BY_ID, &Known { id, next: 0, flags: 0 });
    let map = map.with_context(|| format!("cannot open the map {id}"))?;
    let mut key: Option<Vec<u8>> = None;
    for entries in 0..u64::from(most) {
        let mut next = vec![0; key_size];
        if step(&map, key.as_deref(), &mut next).is_err() {
            return Ok(entries);
        }
        key = Some(next);
    }
    Ok(most.into())
}

fn step(map: &OwnedFd, key: Option<&[u8]>, next: &mut [u8]) -> Result<(), Errno> {
    let attributes = Next {
        map: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: key.map_or(0, |key| key.as_ptr() as u64),
        next: next.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel reads the attributes and a key of the map's size, and writes one, for which there is room.
    let result = unsafe { libc::syscall(libc::SYS_bpf, NEXT_KEY, &raw const attributes, size_of::<Next>()) };
    Errno::result(result).map(drop)
}
