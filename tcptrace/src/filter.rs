//! Which connections and rows are shown.
//!
//! Ports, addresses, owner, namespace, family and closer are decided once for a whole connection, so that a filter never
//! hides the beginning of a connection that it later shows: rows are held back until enough is known of their
//! connection. States and durations are asked of each row after that.

mod criteria;

#[cfg(test)]
mod tests;

use foldhash::fast::FixedState;
use hashlink::{LinkedHashMap, LruCache};

use crate::lifecycle::{Row, Transition};
use crate::names::Names;
use crate::tcp::State;

pub use self::criteria::Criteria;

/// How many rows are held back at most.
pub const HELD_ROWS: usize = 65_536;

/// How many connections are remembered as shown or not. Only ones whose end was lost stay for long, and what is
/// forgotten is decided anew by its next row.
const DECIDED_CONNECTIONS: usize = 1 << 20;

/// Lets rows through that match the [`Criteria`].
///
/// The rows of one connection keep their order. Those that were held back come after rows of other connections that are
/// younger.
#[derive(Debug)]
pub struct Filter {
    criteria: Criteria,
    by_connection: bool,
    decided: LruCache<u64, bool, FixedState>,
    /// Rows of connections that are not decided, by how long they have been waiting.
    held: LinkedHashMap<u64, Vec<Row>, FixedState>,
    held_rows: usize,
    held_rows_max: usize,
    /// The connection that the row before closed, and whether it was shown: what the engine concludes of it comes next.
    closed: Option<(u64, bool)>,
    filtered_out: u64,
    dropped: u64,
}

impl Filter {
    /// Holds back [`HELD_ROWS`] at most.
    pub fn new(criteria: Criteria) -> Self {
        Self::with_capacity(criteria, HELD_ROWS)
    }

    /// Holds back `rows` at most. Beyond that the connection that has been waiting longest loses its held rows.
    pub fn with_capacity(criteria: Criteria, rows: usize) -> Self {
        Self {
            by_connection: criteria.ask_connections(),
            criteria,
            decided: LruCache::with_hasher(DECIDED_CONNECTIONS, FixedState::default()),
            held: LinkedHashMap::with_hasher(FixedState::default()),
            held_rows: 0,
            held_rows_max: rows,
            closed: None,
            filtered_out: 0,
            dropped: 0,
        }
    }

    /// Whether every row passes, so that none needs to be pushed.
    pub fn is_open(&self) -> bool {
        self.criteria.is_empty()
    }

    /// Takes a row in, and puts out what can be shown now.
    pub fn push(&mut self, row: Row, names: &Names, out: &mut Vec<Row>) {
        let Some(conn) = row.identity().map(|identity| identity.conn) else {
            // What is missing may have matched, and what never became a socket, too.
            return self.put(row, true, out);
        };
        if !self.by_connection {
            return self.put(row, true, out);
        }
        if row.stuck().is_some() {
            // It is of use now or never.
            let shown = self.decided.get(&conn).copied().or_else(|| self.criteria.decide(&row, names));
            return self.put(row, shown == Some(true), out);
        }
        if begins(&row) {
            self.give_up(conn);
        }
        match self.known(conn, &row).or_else(|| self.criteria.decide(&row, names)) {
            Some(shown) => {
                self.settle(conn, &row, shown, out);
                self.put(row, shown, out);
            }
            None => self.hold(conn, row),
        }
    }

    /// The stream has ended. What is still undecided does not match, so nothing more is put out.
    pub fn finish(&mut self) {
        self.filtered_out += self.held_rows as u64;
        self.held.clear();
        self.held_rows = 0;
    }

    /// Rows that did not match, so far.
    pub fn filtered_out(&self) -> u64 {
        self.filtered_out
    }

    /// Rows dropped because too many had to be held back: some of them may have matched.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What was decided of this connection before.
    fn known(&mut self, conn: u64, row: &Row) -> Option<bool> {
        let closed = self.closed.take().filter(|(closed, _)| *closed == conn && matches!(row, Row::Connection(_)));
        closed.map(|(_, shown)| shown).or_else(|| self.decided.get(&conn).copied())
    }

    /// Applies a decision to the rows held back, and remembers it while more may come.
    fn settle(&mut self, conn: u64, row: &Row, shown: bool, out: &mut Vec<Row>) {
        let held = self.take_held(conn);
        let goes_on = match row {
            Row::Transition(row) => row.new != State::Closed,
            // Without transitions before it, it is the only row of its connection.
            Row::Connection(_) => !held.is_empty() || self.decided.peek(&conn).is_some(),
            Row::Loss(_) | Row::Audit(_) | Row::Counter(_) => false,
        };
        for row in held {
            self.put(row, shown, out);
        }
        if goes_on {
            self.decided.insert(conn, shown);
        } else {
            self.decided.remove(&conn);
            self.closed = Some((conn, shown));
        }
    }

    /// Puts a row out, if its connection is shown and it matches itself.
    fn put(&mut self, row: Row, shown: bool, out: &mut Vec<Row>) {
        if shown && self.criteria.passes(&row) {
            out.push(row);
        } else {
            self.filtered_out += 1;
        }
    }

    fn hold(&mut self, conn: u64, row: Row) {
        // Not through `entry`, which would put it behind those that have not waited as long.
        if let Some(rows) = self.held.get_mut(&conn) {
            rows.push(row);
        } else {
            self.held.insert(conn, vec![row]);
        }
        self.held_rows += 1;
        while self.held_rows > self.held_rows_max {
            let Some((_, rows)) = self.held.pop_front() else { break };
            self.held_rows -= rows.len();
            self.dropped += rows.len() as u64;
        }
    }

    fn take_held(&mut self, conn: u64) -> Vec<Row> {
        let rows = self.held.remove(&conn).unwrap_or_default();
        self.held_rows -= rows.len();
        rows
    }

    /// Another life of the same socket begins: the end of the one before was not seen.
    fn give_up(&mut self, conn: u64) {
        self.decided.remove(&conn);
        self.filtered_out += self.take_held(conn).len() as u64;
    }
}

/// Whether a socket's life begins with this row.
fn begins(row: &Row) -> bool {
    let of = |row: &Transition| row.old == State::Closed || (row.old, row.new) == (State::Listen, State::SynRecv);
    matches!(row, Row::Transition(row) if of(row))
}
