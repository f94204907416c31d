//! What an engine is to do, and what it has done.

/// What the engine is to do.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many sockets are followed; beyond that the one that has been idle longest is forgotten.
    pub sockets: usize,
    /// Put connections out when their full socket is closed, instead of when their TIME_WAIT is over.
    pub at_close: bool,
    /// Put transitions out.
    pub transitions: bool,
    /// Put connections out.
    pub connections: bool,
    /// Report sockets that wait for somebody for so long, in ns, and again whenever that time has doubled.
    pub stuck_after: Option<u64>,
    /// Begin to follow sockets that are found and not followed.
    pub existing: bool,
    /// Whether there are scans when [`Engine::wants_scan`](super::Engine::wants_scan) asks for them.
    pub scans: bool,
    /// Whether the resets that sockets send are seen: without, an end that depends on one stays unknown.
    pub resets: bool,
    /// Whether the resets that they receive are seen.
    pub received_resets: bool,
    /// Whether the FIN that turns an orphan's FIN_WAIT2 into TIME_WAIT is seen when it comes: one that was not is a loss.
    pub fins: bool,
    /// Whether those look at some processes only: a socket that nobody was found to hold may be held.
    pub partial_scans: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sockets: 1_000_000,
            at_close: false,
            transitions: true,
            connections: true,
            stuck_after: None,
            existing: true,
            scans: false,
            resets: true,
            received_resets: true,
            fins: false,
            partial_scans: false,
        }
    }
}

/// What the engine has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transitions put out.
    pub transitions: u64,
    /// Connections that have ended.
    pub connections: u64,
    /// Sockets followed now.
    pub followed: usize,
    /// Sockets forgotten because there were too many.
    pub evicted: u64,
    /// Closings of sockets and FINs that were not reported, and not counted as lost either, as what came after them proves,
    /// or two surveys that did not find the socket.
    pub unreported: u64,
}
