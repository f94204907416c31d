//! The programs, one file a family of hooks.

mod classic;
mod destroy;
mod mini;
mod reset;
mod state;
