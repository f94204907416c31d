//! Sockets that wait for an answer to their FIN, and when to ask the kernel whether they still exist. If no program
//! reports their end, only a survey shows it.

use super::tcp::State;

/// After this many ns, ask whether they still exist, and again whenever that time has doubled.
pub(crate) const UNANSWERED_NS: u64 = 10_000_000_000;

/// At the end of a run, ask if one has waited for this long.
pub(crate) const UNANSWERED_AT_END_NS: u64 = 1_000_000_000;

/// Whether a full socket in this state waits for an answer to its FIN.
pub(crate) fn is_unanswered(state: State) -> bool {
    matches!(state, State::FinWait1 | State::Closing | State::LastAck)
}

/// Whether it is time to ask about a socket that has waited this long; checked every [`UNANSWERED_NS`].
pub(crate) fn is_time_to_ask(waited_ns: u64) -> bool {
    (waited_ns / UNANSWERED_NS).is_power_of_two()
}
