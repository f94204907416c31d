//! What an engine should do, and what it has done.

/// What the engine should do.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many sockets to follow; beyond that, the engine forgets the one that has been idle longest.
    pub sockets: usize,
    /// Emit connections when their full socket is closed, instead of when their TIME_WAIT is over.
    pub at_close: bool,
    /// Emit transitions.
    pub transitions: bool,
    /// Emit connections.
    pub connections: bool,
    /// Report sockets that have waited for this long, in ns, and again whenever that time has doubled.
    pub stuck_after: Option<u64>,
    /// Follow sockets that surveys and scans find.
    pub existing: bool,
    /// Whether scans happen when [`Engine::wants_scan`](super::Engine::wants_scan) asks for them.
    pub scans: bool,
    /// Whether sent resets are seen: without them, an end that depends on one stays unknown.
    pub resets: bool,
    /// Whether received resets are seen.
    pub received_resets: bool,
    /// Whether the FIN that turns an orphan's FIN_WAIT2 into TIME_WAIT is seen when it comes: then an unseen one is a
    /// loss.
    pub fins: bool,
    /// Whether accepts are seen from the beginning on. Otherwise an unaccepted connection may have been accepted since.
    pub accepts: bool,
    /// Whether scans look at some processes only: a socket without a known holder may have one.
    pub partial_scans: bool,
    /// Hand over connections that are over and whose descriptor is open, together with the open ones.
    pub unreleased: bool,
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
            accepts: true,
            partial_scans: false,
            unreleased: false,
        }
    }
}

/// The engine's statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transitions emitted.
    pub transitions: u64,
    /// Connections that have ended.
    pub connections: u64,
    /// Sockets followed now.
    pub followed: usize,
    /// Sockets forgotten because there were too many.
    pub evicted: u64,
    /// Closings of sockets and FINs that the kernel neither reported nor counted as lost. Later events prove them, or
    /// two surveys that did not find the socket.
    pub unreported: u64,
}
