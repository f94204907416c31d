//! The rules, a file each.
//!
//! Order is the order in which findings of one severity are printed.

mod bind_before_connect;
mod close_wait;
mod close_wait_leak;
mod connect_refused;
mod connect_timeout;
mod fin_timeout_trap;
mod group;
mod linger_zero;
mod no_connection_pool;
mod pool_too_small;
mod ports_exhausted;
mod ports_running_out;
mod server_closes_first;
mod stale_pool;
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
    &fin_timeout_trap::RULE,
    &linger_zero::RULE,
    &unread_at_close::RULE,
    &connect_refused::RULE,
    &connect_timeout::RULE,
];
