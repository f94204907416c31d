//! The rules, a file each.
//!
//! Order is the order in which findings of one severity are printed.

mod close_wait;
mod close_wait_leak;
mod fin_timeout_trap;
mod stale_pool;

#[cfg(test)]
pub(super) mod testing;

use super::rule::Rule;

/// Every rule.
pub static RULES: &[&Rule] = &[&close_wait_leak::RULE, &fin_timeout_trap::RULE];
