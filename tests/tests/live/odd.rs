//! Odd days of a whole machine.

mod alone;
