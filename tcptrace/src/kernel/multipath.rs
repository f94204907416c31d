//! Which MPTCP connection a TCP socket is a subflow of.

use std::collections::HashMap;
use std::num::NonZeroU32;

use foldhash::fast::FixedState;

use crate::model::event::Multipath;
use crate::model::socket::Socket;

/// The MPTCP connections, by the keys that their subflows know.
#[derive(Clone, Debug, Default)]
pub struct Multipaths {
    by_token: HashMap<(Option<u32>, NonZeroU32), Multipath, FixedState>,
    /// A listener has no token. All subflows of a socket that a process holds have its inode number.
    by_inode: HashMap<u32, Multipath, FixedState>,
}

impl Multipaths {
    /// Notes a socket of MPTCP.
    pub fn note(&mut self, socket: &Socket) {
        let Some(multipath) = socket.multipath else { return };
        if let Some(token) = multipath.token {
            self.by_token.insert((socket.found.netns, token), multipath);
        }
        if socket.inode != 0 {
            self.by_inode.insert(socket.inode, multipath);
        }
    }

    /// The MPTCP connection of a TCP socket, if it is a subflow.
    pub fn of(&self, socket: &Socket) -> Option<Multipath> {
        let told = socket.multipath.and_then(|told| told.token);
        let by_token = told.and_then(|token| self.by_token.get(&(socket.found.netns, token)));
        by_token.or_else(|| self.by_inode.get(&socket.inode)).copied().or(socket.multipath)
    }
}
