//! Cells that were written before: the transitions of a connection follow one another, and most of them name the same
//! process and the same ends.

use crate::model::row::Identity;
use crate::model::tcp::{Task, Tuple};

/// For how many sockets, by the lowest bits of their numbers.
const MOST: usize = 256;

/// The cells PID, COMM, LOCAL and REMOTE as they were written last.
#[derive(Debug, Default)]
pub(super) struct Known(Vec<Option<Cells>>);

#[derive(Debug)]
struct Cells {
    task: Option<Task>,
    tuple: Tuple,
    /// Of the columns.
    widths: [usize; 4],
    bytes: Vec<u8>,
}

impl Known {
    /// The cells for a row, if they would be the same.
    pub(super) fn of(&self, identity: &Identity, widths: [usize; 4]) -> Option<&[u8]> {
        let cells = self.0.get(slot(identity))?.as_ref()?;
        let is_same = cells.tuple == identity.tuple && cells.task == task(identity) && cells.widths == widths;
        is_same.then_some(&cells.bytes)
    }

    pub(super) fn note(&mut self, identity: &Identity, widths: [usize; 4], written: &[u8]) {
        if self.0.is_empty() {
            self.0.resize_with(MOST, || None);
        }
        let Some(cells) = self.0.get_mut(slot(identity)) else { return };
        let mut bytes = cells.take().map(|cells| cells.bytes).unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(written);
        *cells = Some(Cells { task: task(identity), tuple: identity.tuple, widths, bytes });
    }
}

fn slot(identity: &Identity) -> usize {
    identity.conn as usize % MOST
}

fn task(identity: &Identity) -> Option<Task> {
    identity.owner.map(|owner| owner.task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn cells_are_written_anew_when_anything_in_them_changes() {
        let identity = samples::transitions().remove(0).identity;
        let mut known = Known::default();
        assert_eq!(known.of(&identity, [1; 4]), None);
        known.note(&identity, [1; 4], b"cells");
        assert_eq!(known.of(&identity, [1; 4]), Some(&b"cells"[..]));
        assert_eq!(known.of(&identity, [1, 1, 2, 1]), None);
        let mut other = identity;
        other.tuple.local_port ^= 1;
        assert_eq!(known.of(&other, [1; 4]), None);
        let nobodys = Identity { owner: None, ..identity };
        assert_eq!((known.of(&nobodys, [1; 4]), identity.owner.is_some()), (None, true));
        // Another socket takes its place.
        let next = Identity { conn: identity.conn + MOST as u64, ..identity };
        known.note(&Identity { owner: None, ..next }, [1; 4], b"nobody's");
        assert_eq!(known.of(&identity, [1; 4]), None);
    }
}
