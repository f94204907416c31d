//! What the kernel counts in network namespaces, and what rules about that have in common.

use crate::study::diagnose::evidence::Evidence;
use crate::study::diagnose::need::Need;
use crate::study::diagnose::say;

/// Why nothing has been counted: there was one look only.
pub(super) fn lacks_time(evidence: &Evidence) -> Option<String> {
    (evidence.about.traced_ns == 0)
        .then(|| evidence.lacks(Need::Events).unwrap_or_else(|| "needs time (--duration 10s)".into()))
}

/// `netns 4026532000: `, where there are several.
pub(super) fn place(evidence: &Evidence, netns: u32) -> String {
    if evidence.counters.len() > 1 { format!("netns {netns}: ") } else { String::new() }
}

/// ` in 10.0s`; nothing, where there was one look only.
pub(super) fn in_window(evidence: &Evidence) -> String {
    if evidence.about.traced_ns == 0 { String::new() } else { format!(" in {}", super::words::window(evidence)) }
}

/// How much of a counter of TCP has grown in all network namespaces together.
pub(super) fn grown_everywhere(evidence: &Evidence, name: &str) -> u64 {
    evidence.counters.keys().map(|netns| evidence.grown(*netns, name)).sum()
}

/// The memory of all TCP sockets of the host, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// The most that was seen.
    pub(super) used: u64,
    /// The second and the third value of `tcp_mem`: from where on windows are cut, and from where on nothing is given.
    pub(super) pressure: u64,
    pub(super) limit: u64,
    /// Bytes of a page; `None` when unknown.
    pub(super) page: Option<u64>,
}

impl Memory {
    /// `None` where the setting is unknown: it shows in the first network namespace only.
    pub(super) fn of(evidence: &Evidence) -> Option<Self> {
        let marks = evidence.setting(None, "net.ipv4.tcp_mem")?;
        let mut marks = marks.split_whitespace().skip(1).map(str::parse);
        let (pressure, limit) = (marks.next()?.ok()?, marks.next()?.ok()?);
        let page = evidence.number(None, "kernel.page_size").and_then(|page| u64::try_from(page).ok());
        Some(Self { used: evidence.peak_of_host("sockstat.TCP.mem"), pressure, limit, page })
    }

    /// Whether windows are cut.
    pub(super) fn is_short(self) -> bool {
        self.used > self.pressure
    }

    /// So many pages, in bytes where their size is known.
    pub(super) fn say(self, pages: u64) -> String {
        match self.page {
            Some(page) => say::bytes(pages.saturating_mul(page)),
            None => say::counted(pages, "page"),
        }
    }
}

/// Whether memory of TCP was short in the window: then connections are aborted for that, and not for orphans.
pub(super) fn was_short_of_memory(evidence: &Evidence) -> bool {
    Memory::of(evidence).is_some_and(Memory::is_short) || grown_everywhere(evidence, "TcpExt.TCPMemoryPressures") > 0
}
