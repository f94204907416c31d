//! The fullest budgets, and the sum of the others.

use std::cmp::Reverse;

use super::Budget;

/// A budget, or the sum of those that have no row of their own.
#[derive(Clone, Debug, PartialEq)]
pub enum Ranked {
    /// One destination.
    One(Box<Budget>),
    /// The others.
    Rest(Rest),
}

/// The sum of some budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// How many destinations.
    pub groups: u64,
    /// Ports that they take; one that several take counts as often.
    pub taken: u64,
    /// By sockets of which the connection is not over on this side.
    pub open: u64,
    /// By mini-sockets in FIN_WAIT2.
    pub fin_wait2: u64,
    /// By TIME_WAITs.
    pub time_wait: u64,
}

/// The `top` ones of which the largest part is taken, and the sum of the others.
pub fn rank(mut budgets: Vec<Budget>, top: usize) -> Vec<Ranked> {
    budgets.sort_by(|one, other| {
        let order = |it: &Budget| (Reverse(it.taken), it.key);
        other.share.total_cmp(&one.share).then_with(|| order(one).cmp(&order(other)))
    });
    let others = budgets.split_off(top.min(budgets.len()));
    let mut rows: Vec<Ranked> = budgets.into_iter().map(|budget| Ranked::One(Box::new(budget))).collect();
    if top > 0 && !others.is_empty() {
        let sum = |of: fn(&Budget) -> u32| others.iter().map(|it| u64::from(of(it))).sum();
        rows.push(Ranked::Rest(Rest {
            groups: others.len() as u64,
            taken: sum(|it| it.taken),
            open: sum(|it| it.open),
            fin_wait2: sum(|it| it.fin_wait2),
            time_wait: sum(|it| it.time_wait),
        }));
    }
    rows
}
