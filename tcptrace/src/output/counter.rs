//! Messages about kernel counters that no event covers.

use super::sanitise;
use super::text::count;
use crate::model::counters::Increase;
use crate::model::names::Names;

/// `netns web: 15 SYNs and ACKs dropped (ListenOverflows): the accept queue is full`.
pub fn counter_words(row: &Increase, names: &Names) -> String {
    let netns = names.namespace(row.netns).map_or(row.netns.to_string(), |name| sanitise(name).into_owned());
    let Increase { increase, counter, .. } = *row;
    let since = if row.over_ns.is_some() { "" } else { ", since the namespace was created" };
    let (name, what, why) = (counter.as_str(), counter.what_of(increase), counter.why());
    format!("netns {netns}: {} {what} ({name}{since}): {why}", count(increase))
}
