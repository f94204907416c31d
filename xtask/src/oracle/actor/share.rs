//! A second process that listens at the server's address (`SO_REUSEPORT`).

use nix::unistd::{ForkResult, alarm, fork, pipe, read, write};

use super::{Actor, LIMIT};
use crate::oracle::log::now;

impl Actor<'_> {
    /// Goes on when the other process listens or has failed.
    pub(super) fn share(&mut self) {
        let from = now();
        let Ok((here, there)) = pipe() else { return };
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                drop(here);
                alarm::set(LIMIT);
                self.sockets.clear();
                self.cookie = 0;
                self.call("listen", Self::listen);
                // The other process may have ended.
                let _ = write(&there, &[1]);
                drop(there);
                self.serve_one()
            }
            Ok(ForkResult::Parent { .. }) => {
                drop(there);
                let _ = read(&here, &mut [0; 1]);
                self.write("share", from, Some(now()), Ok(0));
            }
            Err(_) => {}
        }
    }

    /// Accepts one connection, if one comes, and ends with it.
    fn serve_one(&mut self) -> ! {
        self.call("accept", Self::accept);
        if !self.sockets.is_empty() {
            self.call("eof", |actor| actor.receive(u32::MAX));
            self.close();
        }
        self.vanish("exit");
        // SAFETY: ends the process at once; nothing uses its memory afterwards.
        unsafe { nix::libc::_exit(0) }
    }
}
