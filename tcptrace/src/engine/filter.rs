//! Which connections and rows are shown.
//!
//! The filter decides ports, addresses, owner, namespace, family and closer once for a whole connection, so that it
//! never hides the beginning of a connection that it later shows. Rows stay pending until enough is known of their
//! connection. After that, it checks states and durations row by row.

mod criteria;

#[cfg(test)]
mod tests;

use foldhash::fast::FixedState;
use hashlink::{LinkedHashMap, LruCache};

use crate::model::criteria::{Criteria, Undecided};
use crate::model::names::Names;
use crate::model::row::{Identity, Row, Transition};
use crate::model::tcp::State;

/// Most pending rows.
pub const PENDING_ROWS: usize = 65_536;

/// Most connections remembered as shown or not. Only those whose end was lost stay for long. A forgotten connection is
/// decided anew by its next row.
const DECIDED_CONNECTIONS: usize = 1 << 20;

/// Lets rows through that match the [`Criteria`].
///
/// The rows of one connection keep their order. Pending rows come out after younger rows of other connections.
#[derive(Debug)]
pub struct Filter {
    criteria: Criteria,
    by_connection: bool,
    decided: LruCache<u64, Verdict, FixedState>,
    /// Rows of undecided connections, by how long they have been waiting.
    pending: LinkedHashMap<u64, Vec<Row>, FixedState>,
    pending_rows: usize,
    pending_rows_max: usize,
    /// The connection that the previous row closed, and its verdict: the engine's conclusion about it comes next.
    closed: Option<(u64, Verdict)>,
    filtered_out: u64,
    undecided: Undecided,
    dropped: u64,
}

/// The fate of a connection's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It matches.
    Shown,
    /// It does not match.
    Hidden,
    /// It would match, but for a control group that is unknown: it is shown and counted.
    Undecided,
    /// Its processes are unknown: it is not shown, but counted.
    Unknown,
}

impl Filter {
    /// Keeps [`PENDING_ROWS`] at most.
    pub fn new(criteria: Criteria) -> Self {
        Self::with_capacity(criteria, PENDING_ROWS)
    }

    /// Keeps `rows` pending at most. Beyond that, the connection that has been waiting longest loses its pending rows.
    pub fn with_capacity(criteria: Criteria, rows: usize) -> Self {
        Self {
            by_connection: criteria.ask_connections(),
            criteria,
            decided: LruCache::with_hasher(DECIDED_CONNECTIONS, FixedState::default()),
            pending: LinkedHashMap::with_hasher(FixedState::default()),
            pending_rows: 0,
            pending_rows_max: rows,
            closed: None,
            filtered_out: 0,
            undecided: Undecided::default(),
            dropped: 0,
        }
    }

    /// Whether every row passes, so that no row has to be pushed.
    pub fn is_open(&self) -> bool {
        self.criteria.is_empty()
    }

    /// Takes a row, and emits the rows that can be shown now.
    pub fn push(&mut self, row: Row, names: &Names, out: &mut Vec<Row>) {
        let Some(conn) = row.identity().map(|identity| identity.conn) else {
            // A loss may have matched, and so may what never became a socket.
            return self.put(row, Verdict::Shown, out);
        };
        if !self.by_connection {
            return self.put(row, Verdict::Shown, out);
        }
        if row.is_standing() {
            // It is useful now or never.
            let known = self.decided.get(&conn).copied().or_else(|| self.criteria.decide(&row, names));
            let verdict = known.unwrap_or_else(|| self.criteria.give_up_on(&row, names));
            return self.put(row, verdict, out);
        }
        if begins(&row) {
            self.give_up(conn, names, out);
        }
        match self.known(conn, &row).or_else(|| self.criteria.decide(&row, names)) {
            Some(verdict) => {
                self.settle(conn, &row, verdict, out);
                self.put(row, verdict, out);
            }
            None => self.hold(conn, row, names, out),
        }
    }

    /// The stream has ended. Decides the pending rows by what is known.
    pub fn finish(&mut self, names: &Names, out: &mut Vec<Row>) {
        for (_, rows) in std::mem::take(&mut self.pending) {
            self.put_all(rows, names, out);
        }
        self.pending_rows = 0;
    }

    /// The sockets of pending rows.
    pub fn pending(&self) -> impl Iterator<Item = &Identity> {
        self.pending.values().flatten().filter_map(Row::identity)
    }

    /// Rows that did not match so far.
    pub fn filtered_out(&self) -> u64 {
        self.filtered_out
    }

    /// Rows that could not be decided.
    pub fn undecided(&self) -> Undecided {
        self.undecided
    }

    /// Rows dropped because too many were pending: some of them may have matched.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The earlier decision about this connection.
    fn known(&mut self, conn: u64, row: &Row) -> Option<Verdict> {
        let closed = self.closed.take().filter(|(closed, _)| *closed == conn && matches!(row, Row::Connection(_)));
        closed.map(|(_, verdict)| verdict).or_else(|| self.decided.get(&conn).copied())
    }

    /// Applies a decision to the pending rows, and remembers it while more may come.
    fn settle(&mut self, conn: u64, row: &Row, verdict: Verdict, out: &mut Vec<Row>) {
        let pending = self.take_pending(conn);
        let goes_on = match row {
            Row::Transition(row) => row.new != State::Closed,
            // Without transitions before it, it is the only row of its connection.
            Row::Connection(_) => !pending.is_empty() || self.decided.peek(&conn).is_some(),
            Row::Loss(_) | Row::Audit(_) | Row::Counter(_) => false,
        };
        for row in pending {
            self.put(row, verdict, out);
        }
        if goes_on {
            self.decided.insert(conn, verdict);
        } else {
            self.decided.remove(&conn);
            self.closed = Some((conn, verdict));
        }
    }

    /// Emits a row, if its connection is shown and the row itself matches.
    fn put(&mut self, row: Row, verdict: Verdict, out: &mut Vec<Row>) {
        match verdict {
            _ if !self.criteria.passes(&row) => self.filtered_out += 1,
            Verdict::Shown => out.push(row),
            Verdict::Hidden => self.filtered_out += 1,
            Verdict::Undecided => {
                self.undecided.shown += 1;
                out.push(row);
            }
            Verdict::Unknown => self.undecided.left_out += 1,
        }
    }

    fn hold(&mut self, conn: u64, row: Row, names: &Names, out: &mut Vec<Row>) {
        // Not through `entry`, which would move it behind rows that have not waited as long.
        if let Some(rows) = self.pending.get_mut(&conn) {
            rows.push(row);
        } else {
            self.pending.insert(conn, vec![row]);
        }
        self.pending_rows += 1;
        while self.pending_rows > self.pending_rows_max {
            let Some((_, rows)) = self.pending.pop_front() else { break };
            self.pending_rows -= rows.len();
            match rows.last().map(|row| self.criteria.give_up_on(row, names)) {
                Some(Verdict::Undecided) => self.put_all(rows, names, out),
                // Its owner is known, but not who will close it.
                Some(Verdict::Hidden) if self.criteria.ask_processes() => self.undecided.left_out += rows.len() as u64,
                _ => self.dropped += rows.len() as u64,
            }
        }
    }

    fn take_pending(&mut self, conn: u64) -> Vec<Row> {
        let rows = self.pending.remove(&conn).unwrap_or_default();
        self.pending_rows -= rows.len();
        rows
    }

    /// Another life of the same socket begins: the end of the one before was not seen.
    fn give_up(&mut self, conn: u64, names: &Names, out: &mut Vec<Row>) {
        self.decided.remove(&conn);
        let rows = self.take_pending(conn);
        self.put_all(rows, names, out);
    }

    /// Decides rows of a connection whose last row says all that will ever be known.
    fn put_all(&mut self, rows: Vec<Row>, names: &Names, out: &mut Vec<Row>) {
        let Some(verdict) = rows.last().map(|row| self.criteria.give_up_on(row, names)) else { return };
        rows.into_iter().for_each(|row| self.put(row, verdict, out));
    }
}

/// Whether a socket's life begins with this row.
fn begins(row: &Row) -> bool {
    let of = |row: &Transition| row.old == State::Closed || (row.old, row.new) == (State::Listen, State::SynRecv);
    matches!(row, Row::Transition(row) if of(row))
}
