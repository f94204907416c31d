//! The rules, a file each.
//!
//! Order is the order in which findings of one severity are printed.

mod accept_queue_full;
mod bind_before_connect;
mod bind_refused;
mod close_wait;
mod close_wait_leak;
mod close_wait_unread;
mod connect_refused;
mod connect_timeout;
mod conntrack_full;
mod counted;
mod fd_limit;
mod fin_timeout_trap;
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
pub(super) mod risky_setting;
mod server_closes_first;
mod stale_pool;
mod stale_setting;
mod syn_queue_full;
mod tcp_memory;
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
    &no_connection_pool::RULE,
    &pool_too_small::RULE,
    &server_closes_first::RULE,
    &time_wait_refused::RULE,
    &tw_reuse_inert::RULE,
    &close_wait_leak::RULE,
    &close_wait_unread::RULE,
    &stale_pool::RULE,
    &never_accepted::RULE,
    &fd_limit::RULE,
    &peer_does_not_close::RULE,
    &fin_timeout_trap::RULE,
    &orphans_near_limit::RULE,
    &linger_zero::RULE,
    &unread_at_close::RULE,
    &idle_close_race::RULE,
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
