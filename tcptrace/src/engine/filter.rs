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

use crate::model::criteria::{Criteria, Undecided};
use crate::model::names::Names;
use crate::model::row::{Identity, Row, Transition};
use crate::model::tcp::State;

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
    decided: LruCache<u64, Verdict, FixedState>,
    /// Rows of connections that are not decided, by how long they have been waiting.
    held: LinkedHashMap<u64, Vec<Row>, FixedState>,
    held_rows: usize,
    held_rows_max: usize,
    /// The connection that the row before closed, and whether it was shown: what the engine concludes of it comes next.
    closed: Option<(u64, Verdict)>,
    filtered_out: u64,
    undecided: Undecided,
    dropped: u64,
}

/// What becomes of the rows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It matches.
    Shown,
    /// It does not match.
    Hidden,
    /// It would match, but for a control group that is unknown: it is shown, and counted.
    Undecided,
    /// Nobody knows whose it is: it is not shown, but counted.
    Unknown,
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
            undecided: Undecided::default(),
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
            return self.put(row, Verdict::Shown, out);
        };
        if !self.by_connection {
            return self.put(row, Verdict::Shown, out);
        }
        if row.is_standing() {
            // It is of use now or never.
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

    /// The stream has ended. What is still held back is decided by what is known.
    pub fn finish(&mut self, names: &Names, out: &mut Vec<Row>) {
        for (_, rows) in std::mem::take(&mut self.held) {
            self.put_all(rows, names, out);
        }
        self.held_rows = 0;
    }

    /// What rows that are held back say of their sockets.
    pub fn held(&self) -> impl Iterator<Item = &Identity> {
        self.held.values().flatten().filter_map(Row::identity)
    }

    /// Rows that did not match, so far.
    pub fn filtered_out(&self) -> u64 {
        self.filtered_out
    }

    /// Rows of which nobody can say whether they match.
    pub fn undecided(&self) -> Undecided {
        self.undecided
    }

    /// Rows dropped because too many had to be held back: some of them may have matched.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What was decided of this connection before.
    fn known(&mut self, conn: u64, row: &Row) -> Option<Verdict> {
        let closed = self.closed.take().filter(|(closed, _)| *closed == conn && matches!(row, Row::Connection(_)));
        closed.map(|(_, verdict)| verdict).or_else(|| self.decided.get(&conn).copied())
    }

    /// Applies a decision to the rows held back, and remembers it while more may come.
    fn settle(&mut self, conn: u64, row: &Row, verdict: Verdict, out: &mut Vec<Row>) {
        let held = self.take_held(conn);
        let goes_on = match row {
            Row::Transition(row) => row.new != State::Closed,
            // Without transitions before it, it is the only row of its connection.
            Row::Connection(_) => !held.is_empty() || self.decided.peek(&conn).is_some(),
            Row::Loss(_) | Row::Audit(_) | Row::Counter(_) => false,
        };
        for row in held {
            self.put(row, verdict, out);
        }
        if goes_on {
            self.decided.insert(conn, verdict);
        } else {
            self.decided.remove(&conn);
            self.closed = Some((conn, verdict));
        }
    }

    /// Puts a row out, if its connection is shown and it matches itself.
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
            match rows.last().map(|row| self.criteria.give_up_on(row, names)) {
                Some(Verdict::Undecided) => self.put_all(rows, names, out),
                // Whose it is is known, and not who will close it.
                Some(Verdict::Hidden) if self.criteria.ask_processes() => self.undecided.left_out += rows.len() as u64,
                _ => self.dropped += rows.len() as u64,
            }
        }
    }

    fn take_held(&mut self, conn: u64) -> Vec<Row> {
        let rows = self.held.remove(&conn).unwrap_or_default();
        self.held_rows -= rows.len();
        rows
    }

    /// Another life of the same socket begins: the end of the one before was not seen.
    fn give_up(&mut self, conn: u64, names: &Names, out: &mut Vec<Row>) {
        self.decided.remove(&conn);
        let rows = self.take_held(conn);
        self.put_all(rows, names, out);
    }

    /// Decides about rows of a connection of which no more will be known than its last row says.
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
