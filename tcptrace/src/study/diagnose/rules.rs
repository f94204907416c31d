//! The rules, a file each.
//!
//! Order is the order in which findings of one severity are printed.

mod accept_queue_full;
mod bind_before_connect;
mod bind_refused;
mod close_wait;
mod close_wait_leak;
mod close_wait_slow;
mod close_wait_unread;
mod closed_not_released;
mod connect_refused;
mod connect_timeout;
mod conntrack_full;
mod counted;
mod dead_peer;
mod fd_limit;
mod fin_timeout_trap;
mod fin_unanswered;
mod fixed_port_in_range;
mod group;
mod idle_close_race;
mod linger_zero;
mod listening;
mod never_accepted;
mod no_connection_pool;
mod orphans_near_limit;
mod paws_drops;
mod peer_does_not_close;
mod pool_too_small;
mod ports_exhausted;
mod ports_running_out;
mod quiet;
mod reset_by_peer;
pub(super) mod risky_setting;
mod server_closes_first;
mod silent_peer;
mod stale_pool;
mod stale_setting;
mod syn_queue_full;
mod tcp_memory;
mod time_wait_prolonged;
mod time_wait_refused;
mod tw_reuse_inert;
mod unread_at_close;
mod words;

#[cfg(test)]
pub(super) mod testing;

use super::rule::Rule;

/// Every rule.
pub static RULES: &[&Rule] = &[
    &ports_exhausted::RULE,
    &ports_running_out::RULE,
    &bind_before_connect::RULE,
    &fixed_port_in_range::RULE,
    &no_connection_pool::RULE,
    &pool_too_small::RULE,
    &server_closes_first::RULE,
    &time_wait_refused::RULE,
    &time_wait_prolonged::RULE,
    &tw_reuse_inert::RULE,
    &close_wait_leak::RULE,
    &close_wait_unread::RULE,
    &close_wait_slow::RULE,
    &stale_pool::RULE,
    &never_accepted::RULE,
    &closed_not_released::RULE,
    &fd_limit::RULE,
    &peer_does_not_close::RULE,
    &fin_timeout_trap::RULE,
    &fin_unanswered::RULE,
    &orphans_near_limit::RULE,
    &linger_zero::RULE,
    &unread_at_close::RULE,
    &idle_close_race::RULE,
    &reset_by_peer::RULE,
    &dead_peer::RULE,
    &silent_peer::RULE,
    &connect_refused::RULE,
    &connect_timeout::RULE,
    &accept_queue_full::RULE,
    &syn_queue_full::RULE,
    &paws_drops::RULE,
    &conntrack_full::RULE,
    &bind_refused::RULE,
    &tcp_memory::RULE,
    &stale_setting::RULE,
    &risky_setting::RULE,
];
