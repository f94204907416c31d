//! Writes traces: a recorder packs events into blocks, and a store manages the files.

mod full;
mod memory;
mod names;
mod recorder;
mod store;
mod unanswered;
mod unowned;

pub use self::memory::{Memory, Written, other_folders};
pub use self::recorder::{Progress, Recorded, Recorder, Rotate, Target};
pub use self::store::{Plan, Store, StoreError};

use self::store::{End, Failure, Missing, Packed};

/// Prints a message to the user.
pub type Say = fn(&dyn std::fmt::Display);
