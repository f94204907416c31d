//! The states and the end of one end, as they are worked out.

use super::{Range, Stay};

/// The outcome of a life.
pub(super) struct Led {
    pub(super) opened: Range,
    pub(super) states: Vec<Stay>,
    pub(super) closer: Vec<&'static str>,
    pub(super) end: Vec<&'static str>,
    pub(super) time_wait_end: Vec<Option<&'static str>>,
    pub(super) unsure: Option<&'static str>,
}

impl Led {
    pub(super) fn new(opened: Range, state: &'static str) -> Self {
        Self {
            opened,
            states: vec![Stay { state, begin: opened, end: opened }],
            closer: Vec::new(),
            end: Vec::new(),
            time_wait_end: vec![None],
            unsure: None,
        }
    }

    pub(super) fn state(&self) -> &'static str {
        self.states.last().map_or("", |stay| stay.state)
    }

    fn close_stay(&mut self, at: Range) {
        if let Some(stay) = self.states.last_mut() {
            stay.end = (at.0.max(stay.begin.0), at.1.max(stay.begin.1));
        }
    }

    pub(super) fn enter(&mut self, state: &'static str, at: Range) {
        self.close_stay(at);
        let begin = self.states.last().map_or(at, |stay| stay.end);
        self.states.push(Stay { state, begin, end: begin });
    }

    pub(super) fn is_over(&self) -> bool {
        !self.end.is_empty()
    }

    pub(super) fn finish(&mut self, end: &[&'static str], otherwise: &'static str, at: Range) {
        self.close_stay(at);
        self.end = end.to_vec();
        if self.closer.is_empty() {
            self.closer = vec![otherwise];
        }
    }

    pub(super) fn unsure(&mut self, why: &'static str) {
        self.unsure.get_or_insert(why);
    }
}
