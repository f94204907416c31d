//! The rules, a file each.
//!
//! Order is the order in which findings of one severity are printed.

mod accept_queue_full;
mod bind_refused;
mod close_wait;
mod close_wait_leak;
mod close_wait_unread;
mod fd_limit;
mod fin_timeout_trap;
mod idle_close_race;
mod listening;
mod never_accepted;
mod peer_does_not_close;
mod quiet;
mod stale_pool;

#[cfg(test)]
pub(super) mod testing;

use super::rule::Rule;

/// Every rule.
pub static RULES: &[&Rule] = &[
    &close_wait_leak::RULE,
    &close_wait_unread::RULE,
    &stale_pool::RULE,
    &never_accepted::RULE,
    &fd_limit::RULE,
    &peer_does_not_close::RULE,
    &fin_timeout_trap::RULE,
    &idle_close_race::RULE,
    &accept_queue_full::RULE,
    &bind_refused::RULE,
];
