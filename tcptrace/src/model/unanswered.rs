//! Sockets that wait for an answer to their FIN, and when it is worth asking the kernel whether they are still there: if no
//! program reports their end, only a survey shows it.

use super::tcp::State;

/// After so many ns it is asked whether they are still there, and again whenever that time has doubled.
pub const UNANSWERED_NS: u64 = 10_000_000_000;

/// At the end of a run it is asked if one has waited for so long.
pub const UNANSWERED_AT_END_NS: u64 = 1_000_000_000;

/// Whether a full socket in this state waits for an answer to its FIN.
pub fn is_unanswered(state: State) -> bool {
    matches!(state, State::FinWait1 | State::Closing | State::LastAck)
}

/// Whether it is time to ask for one that has waited so long; looked at every [`UNANSWERED_NS`].
pub fn is_time_to_ask(waited_ns: u64) -> bool {
    (waited_ns / UNANSWERED_NS).is_power_of_two()
}
