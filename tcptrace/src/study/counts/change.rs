//! Add or remove: the same code does both to a figure.

/// Whether something is added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    In,
    Out,
}

impl Change {
    /// Adds or subtracts one.
    #[inline]
    pub(super) fn count(self, figure: &mut u64) {
        self.count_if(figure, true);
    }

    /// Adds or subtracts one if the condition is true.
    #[inline]
    pub(super) fn count_if(self, figure: &mut u64, holds: bool) {
        match self {
            Self::In => *figure += u64::from(holds),
            Self::Out => *figure = figure.saturating_sub(u64::from(holds)),
        }
    }

    /// Adds or subtracts an amount.
    #[inline]
    pub(super) fn sum(self, sum: &mut Sum, amount: u64) {
        match self {
            Self::In => sum.0 += u128::from(amount),
            Self::Out => sum.0 = sum.0.saturating_sub(amount.into()),
        }
    }
}

/// A sum of bytes or nanoseconds that cannot overflow. A sum that saturates would stay wrong after a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u128);

impl Sum {
    /// The sum, saturated to 64 bits.
    pub fn get(self) -> u64 {
        u64::try_from(self.0).unwrap_or(u64::MAX)
    }

    /// Adds another sum.
    pub(super) fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }
}
