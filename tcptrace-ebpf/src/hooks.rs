//! The programs, one file a family of hooks.
#![expect(clippy::needless_pass_by_value, reason = "aya's macros hand the context over by value")]

mod classic;
mod destroy;
mod failed;
mod graft;
mod holder;
mod listening;
mod mini;
mod reset;
mod state;
mod twsk;
