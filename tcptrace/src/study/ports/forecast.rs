//! Where a rate of connections leads to.

/// What takes ports now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load<'a> {
    /// Ports in all.
    pub(super) usable: u32,
    /// Ports that stay taken.
    pub(super) open: u32,
    /// In how many ns each of the others is free again, in ascending order.
    pub(super) ends_ns: &'a [u64],
    /// For how long a new connection takes its port after it was closed, in ns.
    pub(super) holds_ns: u64,
}

/// Where a rate of connections leads to, if it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Connections a second that leave a TIME_WAIT here.
    pub rate: f64,
    /// How many ports that takes in the end, those of open connections among them.
    pub demand: f64,
    /// What share of the usable ports that is, if there are so many.
    pub levels_off_at: Option<f64>,
    /// In how many seconds the last port is taken, if there are fewer.
    pub seconds_left: Option<f64>,
}

impl Load<'_> {
    /// How many connections a second could go on for ever.
    pub(super) fn sustainable(&self) -> f64 {
        f64::from(self.usable.saturating_sub(self.open)) / self.holds()
    }

    /// Where a rate leads to.
    pub(super) fn forecast(&self, rate: f64) -> Forecast {
        let demand = rate * self.holds() + f64::from(self.open);
        let is_enough = demand <= f64::from(self.usable);
        Forecast {
            rate,
            demand,
            levels_off_at: is_enough.then(|| share(demand, self.usable)),
            seconds_left: (!is_enough).then(|| self.full_after(rate)),
        }
    }

    /// Counts on: what takes a port now ends one by one, and no new one ends before `holds_ns` have passed, by when there
    /// would be too many of them.
    fn full_after(&self, rate: f64) -> f64 {
        let present = self.ends_ns.len();
        let mut begin = 0.0;
        for ended in 0..=present {
            let end = self.ends_ns.get(ended).map_or(f64::INFINITY, |ns| seconds(*ns));
            let taken = f64::from(self.open) + (present - ended) as f64;
            let full = ((f64::from(self.usable) - taken) / rate).max(begin);
            if full < end {
                return full.min(self.holds());
            }
            begin = end;
        }
        self.holds()
    }

    fn holds(&self) -> f64 {
        // The least delay that the kernel takes is 1 ms.
        seconds(self.holds_ns.max(1_000_000))
    }
}

/// A part of all usable ports. Of none, all are taken.
pub(super) fn share(part: f64, usable: u32) -> f64 {
    if usable == 0 { 1.0 } else { part / f64::from(usable) }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
