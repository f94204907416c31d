//! The rules, a file each.
//!
//! Order is the order in which findings of one severity are printed.

mod close_wait;
mod close_wait_leak;
mod connect_refused;
mod connect_timeout;
mod fin_timeout_trap;
mod group;
mod stale_pool;
mod words;

#[cfg(test)]
pub(super) mod testing;

use super::rule::Rule;

/// Every rule.
pub static RULES: &[&Rule] =
    &[&close_wait_leak::RULE, &fin_timeout_trap::RULE, &connect_refused::RULE, &connect_timeout::RULE];
