//! Why a flight recorder has written a file by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The condition that held, and what made it hold. JSON in a trace: fields may be added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fired {
    /// When, in ns of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// The condition, as it was typed.
    pub when: Box<str>,
    /// The rule that fired; `None` where a figure did.
    pub rule: Option<Box<str>>,
    /// What is going on, in one line.
    pub headline: Box<str>,
    /// The finding, as `diagnose --format json` prints it; null where a figure made the condition hold.
    pub finding: Value,
    /// The figures of the condition that are known, by name.
    pub figures: BTreeMap<Box<str>, f64>,
}
