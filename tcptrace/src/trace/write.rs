//! Writes traces: a recorder makes blocks of what comes, and a store keeps the files.

mod memory;
mod names;
mod recorder;
mod store;
mod unanswered;
mod unowned;

pub use self::memory::{Memory, Written};
pub use self::recorder::{Progress, Recorded, Recorder, Rotate, Target};
pub use self::store::{Plan, Store, StoreError};

use self::store::{End, Packed};

/// Says something to whoever has started the recording.
pub type Say = fn(&dyn std::fmt::Display);
