//! `snapshot --ports`: how many local ports each destination has left.

use std::collections::HashSet;

use anyhow::Result;

use super::Report;
use crate::kernel;
use crate::model::facts::Settings;
use crate::model::release::lists_bound;
use crate::model::socket::Holding;
use crate::output::Kind;
use crate::study::ports::{Measured, PortSettings, PortUse, Ports, rank};
use crate::study::snapshot::Snapshot;

impl Report {
    /// Filters choose destinations by their sockets; all sockets count against the ports of those.
    pub(super) fn ports(
        &mut self,
        snapshot: &Snapshot<impl Fn(u32) -> Option<Holding>>,
        settings: &[Settings],
        top: usize,
    ) -> Result<u64> {
        let (mut uses, mut wanted) = (Vec::new(), HashSet::new());
        for socket in snapshot.entries() {
            let it = PortUse::from(&socket);
            if self.is_wanted(&socket) {
                wanted.insert(it.key());
            }
            uses.push(it);
        }
        let known = settings.iter().filter(|it| it.netns.is_some());
        let known = known.filter_map(|it| Some((it.netns, PortSettings::of(it)?)));
        let ports = Ports::new(known, uses, kernel::release().is_ok_and(|release| lists_bound(&release)));
        let keys = ports.keys().filter(|key| wanted.contains(key));
        let budgets: Vec<_> = keys.filter_map(|key| ports.budget(&key, Measured::default())).collect();
        let shown = budgets.len() as u64;
        self.printer.header(Kind::Ports)?;
        for row in rank(budgets, top) {
            self.printer.ports(&row, &self.context)?;
        }
        self.printer.flush()?;
        Ok(shown)
    }
}

/// Of how many of these network namespaces nobody knows the settings.
pub(super) fn without_settings(namespaces: &[u32], settings: &[Settings]) -> usize {
    let is_known = |netns: u32| settings.iter().any(|it| it.netns == Some(netns) && PortSettings::of(it).is_some());
    namespaces.iter().filter(|netns| !is_known(**netns)).count()
}
