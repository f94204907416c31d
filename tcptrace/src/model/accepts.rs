//! Whether accepts are watched.

use std::fmt;

use serde::{Deserialize, Serialize};

/// When the calls of `accept` are watched. While they are, every system call of the machine takes a little longer where
/// only the exits of system calls can show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Accepts {
    /// All the time
    #[default]
    Always,
    /// Only while several processes hold a listening socket, or connections come in at one whose holder is unknown
    Auto,
    /// Not at all
    Never,
    /// A choice of a later version.
    #[serde(other)]
    #[value(skip)]
    Other,
}

impl Accepts {
    /// Its word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Auto => "auto",
            Self::Never => "never",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
