//! Whether connections had a local port before connect(), in little memory: there may be a million of them.

use std::collections::HashMap;

use foldhash::fast::FixedState;

/// How many numbers a page is for, as a power of two: a bit of a word for each.
const PAGE_BITS: u32 = u64::BITS.ilog2();

/// Two bits for each connection. The kernel numbers sockets one after the other, so that a page is for many of them, and
/// the memory of one is near when the next one is looked up: of those in TIME_WAIT alone there are as many as a minute
/// brings.
#[derive(Clone, Debug, Default)]
pub(super) struct BoundFirst {
    pages: HashMap<u64, Page, FixedState>,
    count: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    known: u64,
    bound: u64,
}

impl BoundFirst {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn note(&mut self, conn: u64, is_bound: bool) {
        let page = self.pages.entry(conn >> PAGE_BITS).or_default();
        let bit = bit(conn);
        self.count += usize::from(page.known & bit == 0);
        page.known |= bit;
        page.bound = if is_bound { page.bound | bit } else { page.bound & !bit };
    }

    pub(super) fn of(&self, conn: u64) -> Option<bool> {
        let page = self.pages.get(&(conn >> PAGE_BITS)).filter(|page| page.known & bit(conn) != 0)?;
        Some(page.bound & bit(conn) != 0)
    }

    pub(super) fn forget(&mut self, conn: u64) {
        let number = conn >> PAGE_BITS;
        let Some(page) = self.pages.get_mut(&number) else { return };
        self.count -= usize::from(page.known & bit(conn) != 0);
        page.known &= !bit(conn);
        if page.known == 0 {
            self.pages.remove(&number);
        }
    }
}

fn bit(conn: u64) -> u64 {
    1 << (conn % u64::from(u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_until_it_is_forgotten() {
        let mut all = BoundFirst::default();
        for conn in 0..1000 {
            all.note(conn, conn % 3 == 0);
        }
        all.note(7, true);
        all.note(8, true);
        all.note(8, false);
        all.forget(9);
        all.forget(1000);
        let known = [6, 7, 8, 9, 1000].map(|conn| all.of(conn));
        assert_eq!((known, all.len()), ([Some(true), Some(true), Some(false), None, None], 999));
    }

    #[test]
    fn nothing_is_kept_of_those_that_ended() {
        let mut all = BoundFirst::default();
        for conn in (0..u64::MAX).step_by(1 << 55) {
            all.note(conn, true);
            assert_eq!((all.of(conn), all.len()), (Some(true), 1));
            all.forget(conn);
        }
        assert_eq!((all.len(), all.pages.len()), (0, 0));
    }
}
