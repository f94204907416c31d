//! What reads the kernel's bytes, without the kernel: the doors of the fuzz targets.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub use super::probe::fuzz::{btf, records};
use super::{containers, counters, descriptors, diag, groups, limits, processes, setting_files, sockstat};
use crate::model::counters::Counters;
use crate::model::socket::Socket;

/// The sockets in an answer of `sock_diag`, as far as it can be read.
pub fn sock_diag(piece: &[u8], of_mptcp: bool) -> Vec<Socket> {
    let mut sockets = Vec::new();
    diag::read_any(piece, of_mptcp, &mut |socket| sockets.push(socket));
    sockets
}

/// Reads each of these texts with what reads files and names below `/proc`, `/sys/fs/cgroup`, `/etc` and of containers.
pub fn files(texts: [&[u8]; 6]) -> Counters {
    for text in texts {
        let lossy = String::from_utf8_lossy(text);
        sockstat::parse(&lossy);
        limits::parse(&lossy);
        descriptors::inode(text);
        lossy.lines().for_each(|line| drop(setting_files::parse(line)));
        containers::read_any(text);
        super::probe::fuzz::symbols(text);
    }
    let lossy = texts.map(String::from_utf8_lossy);
    processes::hides(&lossy[0], &lossy[1]);
    groups::read_any(texts[0], OsStr::from_bytes(texts[1]).as_ref());
    counters::read_any(lossy.each_ref().map(|text| &**text))
}
