//! A capability, and what it is for; what could stand in for it.

/// A capability that tcptrace has a use for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// Its name: `CAP_BPF`.
    pub name: Box<str>,
    /// Whether this process can use it.
    pub is_held: bool,
    /// Whether the helper process of a live command keeps it once everything is attached.
    pub is_kept: bool,
    /// What tcptrace does with it.
    pub purpose: &'static str,
}

/// A way to use BPF without capabilities of one's own, which tcptrace does not go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Its name: `BPF token`.
    pub name: &'static str,
    /// Whether the kernel, and the place where this process runs, allow it.
    pub is_possible: bool,
    /// How, or why not. Paths in it come from outside.
    pub detail: String,
}
