//! How the task on the CPU relates to a change of state.

use super::event::{Event, FailedCall, Holder};
use super::tcp::State;
use super::transition::Transition;

/// `sk_err` of a socket that `ss -K` or the like destroyed.
const ECONNABORTED: u16 = 103;

/// How the current task of a transition relates to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It called `connect`.
    Connects,
    /// It called `listen`.
    Listens,
    /// It closed or shut down the socket.
    Closes,
    /// It destroyed a socket of another process.
    Kills,
    /// It is unrelated, and only happened to be on the CPU.
    Bystander,
}

/// System calls make transitions as the current task; packets and timers do not.
pub(crate) fn role(change: &impl Transition, shut_early: bool) -> Role {
    let err = || change.end().map_or(0, |end| end.err);
    match (change.leaves(), change.enters()) {
        (State::Closed, State::SynSent) => Role::Connects,
        (State::Closed, State::Listen) => Role::Listens,
        (_, State::Closed) if err() == ECONNABORTED => Role::Kills,
        (State::Listen, State::Closed) => Role::Closes,
        (State::Closed | State::Listen, _) => Role::Bystander,
        (old, new) if old == new => Role::Closes,
        // After a shutdown in SYN_RECV the FIN goes out when the connection is established, in soft interrupt.
        (_, State::FinWait1) if shut_early => Role::Bystander,
        (_, State::FinWait1) | (State::CloseWait, State::LastAck) => Role::Closes,
        (old, State::Closed) if err() == 0 && closed_by_call(old, change) => Role::Closes,
        _ => Role::Bystander,
    }
}

/// Whether the current task of a change may have made it.
pub(crate) fn is_call(change: &impl Transition) -> bool {
    !matches!(role(change, false), Role::Bystander)
}

/// Whether a system call closed a socket that has no error. No packet and no timer closes a socket that a process
/// holds, except at the end of a FIN exchange.
fn closed_by_call(old: State, change: &impl Transition) -> bool {
    let Some(flags) = change.flags() else { return false };
    match old {
        State::SynSent => true,
        // A child without a socket leaves this state within the soft interrupt that made it.
        State::SynRecv => !flags.dead && flags.has_socket,
        State::Established | State::CloseWait => !flags.dead,
        State::FinWait1 | State::FinWait2 => !flags.dead && flags.has_socket && !flags.done,
        _ => false,
    }
}

/// Id of the process that may have made a change.
pub(crate) fn caller(change: &impl Transition) -> Option<u32> {
    change.task().filter(|_| is_call(change)).map(|task| task.pid)
}

impl Event {
    /// Id of the process that relates to its socket, as far as this event alone shows.
    pub(crate) fn process(&self) -> Option<u32> {
        match self {
            Self::Change(change) => caller(change),
            Self::Accepted { task, .. }
            | Self::Holder(Holder { task, .. })
            | Self::FailedCall(FailedCall { task, .. }) => Some(task.pid),
            _ => None,
        }
    }
}
