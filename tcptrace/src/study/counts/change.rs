//! In or out: what adds to a figure takes away from it by the same code.

/// Whether something is counted in or taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    In,
    Out,
}

impl Change {
    /// One more or one less.
    #[inline]
    pub(super) fn count(self, figure: &mut u64) {
        self.count_if(figure, true);
    }

    /// Where something holds.
    #[inline]
    pub(super) fn count_if(self, figure: &mut u64, holds: bool) {
        match self {
            Self::In => *figure += u64::from(holds),
            Self::Out => *figure = figure.saturating_sub(u64::from(holds)),
        }
    }

    /// So much more or less.
    #[inline]
    pub(super) fn sum(self, sum: &mut Sum, amount: u64) {
        match self {
            Self::In => sum.0 += u128::from(amount),
            Self::Out => sum.0 = sum.0.saturating_sub(amount.into()),
        }
    }
}

/// A sum of bytes or nanoseconds, wide enough for any number of them: one that had stuck at a limit would be wrong for
/// ever once something is taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u128);

impl Sum {
    /// As far as 64 bits go.
    pub fn get(self) -> u64 {
        u64::try_from(self.0).unwrap_or(u64::MAX)
    }

    /// Counts in what another one has.
    pub(super) fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }
}
