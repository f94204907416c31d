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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// So many wait to be ranked. There may be as many as sockets.
const WAITING: usize = 64;

impl Rest {
    fn add(&mut self, budget: &Budget) {
        self.groups += 1;
        self.taken += u64::from(budget.taken);
        self.open += u64::from(budget.open);
        self.fin_wait2 += u64::from(budget.fin_wait2);
        self.time_wait += u64::from(budget.time_wait);
    }
}

/// The `top` ones of which the largest part is taken, and the sum of the others.
pub fn rank(budgets: impl IntoIterator<Item = Budget>, top: usize) -> Vec<Ranked> {
    let mut rest = Rest::default();
    let mut fullest: Vec<Budget> = Vec::new();
    let mut keep = |fullest: &mut Vec<Budget>| {
        fullest.sort_by(|one, other| {
            let order = |it: &Budget| (Reverse(it.taken), it.key);
            other.share.total_cmp(&one.share).then_with(|| order(one).cmp(&order(other)))
        });
        fullest.drain(top.min(fullest.len())..).for_each(|other| rest.add(&other));
    };
    for budget in budgets {
        fullest.push(budget);
        if fullest.len() >= top.saturating_add(WAITING) {
            keep(&mut fullest);
        }
    }
    keep(&mut fullest);
    let mut rows: Vec<Ranked> = fullest.into_iter().map(|budget| Ranked::One(Box::new(budget))).collect();
    if top > 0 && rest.groups > 0 {
        rows.push(Ranked::Rest(rest));
    }
    rows
}
