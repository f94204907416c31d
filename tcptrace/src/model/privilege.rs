//! A capability, and what it is for.

/// A capability that tcptrace has a use for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// Its name: `CAP_BPF`.
    pub name: Box<str>,
    /// Whether this process can use it.
    pub is_held: bool,
    /// Whether a live command keeps it once everything is attached.
    pub is_kept: bool,
    /// What tcptrace does with it.
    pub purpose: &'static str,
}
