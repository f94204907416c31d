//! A client's pool that keeps connections that the server has closed.

use crate::model::tcp::{Side, State};
use crate::study::diagnose::evidence::{Evidence, Standing};

/// Whether it is a client's connection that the server has closed and nobody has looked at since.
pub(super) fn is_stale(_: &Evidence, socket: &Standing) -> bool {
    socket.state == State::CloseWait && socket.side == Side::Client && socket.recv_queue() == Some(1)
}
