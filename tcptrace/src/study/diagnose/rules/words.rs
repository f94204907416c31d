//! Words that several rules share.

use crate::model::tcp::Task;
use crate::study::diagnose::evidence::Evidence;
use crate::study::diagnose::say;

/// `462 connections/s` of so many in the window; a lower bound when events were lost.
pub(super) fn connections_per_second(evidence: &Evidence, number: u64) -> String {
    let rate = say::rate(evidence.about.per_second(number));
    format!("{}{} connections/s", at_least(evidence), rate.trim_end_matches("/s"))
}

/// `462/s` of so many in the window; a lower bound when events were lost.
pub(super) fn per_second(evidence: &Evidence, number: u64) -> String {
    format!("{}{}", at_least(evidence), say::rate(evidence.about.per_second(number)))
}

/// ` of api[4711]`, ` of api (12 processes)`; empty when nobody knows, or when their names differ.
pub(super) fn of_process(tasks: &[Task]) -> String {
    match tasks.first() {
        Some(task) if tasks.len() == 1 => format!(" of {}", say::process(*task)),
        Some(task) if tasks.iter().all(|it| it.comm == task.comm) => {
            format!(" of {} ({} processes)", say::comm(task.comm), tasks.len())
        }
        _ => String::new(),
    }
}

/// `≥` when events were lost.
pub(super) fn at_least(evidence: &Evidence) -> &'static str {
    if evidence.about.lost > 0 { "≥" } else { "" }
}

/// For how long transitions were traced.
pub(super) fn window(evidence: &Evidence) -> String {
    say::time(evidence.about.traced_ns).to_string()
}

/// A part of a whole; 0 of nothing.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::super::testing::nothing;
    use super::*;

    #[test]
    fn a_rate_with_losses_is_a_lower_bound() {
        let mut evidence = nothing();
        assert_eq!(connections_per_second(&evidence, 4_620), "462 connections/s");
        evidence.about.lost = 1;
        assert_eq!(connections_per_second(&evidence, 4_620), "≥462 connections/s");
        assert_eq!(per_second(&evidence, 42), "≥4.2/s");
    }
}
