//! What everything else is about: TCP's words ([`tcp`]), what happened ([`event`]), what follows from it ([`row`]), and
//! what carries both ([`stream`]). Values only: no I/O, no clock, nothing of any other room.

pub mod accepts;
pub mod counters;
pub mod criteria;
pub mod event;
pub mod facts;
pub mod feature;
pub mod finding;
pub mod fired;
pub mod human;
pub mod labels;
pub mod life;
mod named;
pub mod names;
pub(crate) mod near;
pub mod newest;
pub mod privilege;
pub mod release;
pub(crate) mod role;
pub mod row;
pub mod sanitise;
pub mod sink;
pub mod socket;
pub mod stream;
pub mod tcp;
pub mod transition;
pub(crate) mod unanswered;

pub(crate) use named::named;
