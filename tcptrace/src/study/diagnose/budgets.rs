//! The local ports of the window: a budget for each destination, and for each source address that is bound before
//! connect().

use std::collections::HashMap;
use std::net::Ipv6Addr;

use foldhash::fast::FixedState;

use super::evidence::{Budgets, Evidence, KeyBudget, Pair, SourceOf, Spread, Standing};
use super::finding::Finding;
use super::need::Need;
use super::say;
use crate::model::event::{Bound, Kept};
use crate::model::release;
use crate::model::tcp::{Side, State, TimeWaitEnd};
use crate::study::ports::{Budget, Key, Measured, Origin, PortSettings, PortUse, Ports, Rate, Reuse};

/// How many budgets are kept: the fullest ones.
const MOST: usize = 256;
/// So many TIME_WAITs that expired tell how long they last: their timers end in bursts.
const EXPIRED: u64 = 20;

/// A remote end of a network namespace.
type Destination = (Option<u32>, Ipv6Addr, u16);

impl Budgets {
    /// From all sockets that stand, and what the window has measured.
    pub(super) fn of(evidence: &Evidence) -> Self {
        let known = evidence.settings.iter().filter(|(netns, _)| netns.is_some());
        let settings: HashMap<Option<u32>, PortSettings, FixedState> =
            known.filter_map(|(netns, settings)| Some((*netns, PortSettings::of(settings)?))).collect();
        let ports = Ports::new(settings.clone(), uses(evidence), knows_bound(evidence));
        let rates = rates(evidence, &ports);
        let lengths = Lengths::of(evidence);
        let delay_ns =
            |key: &Key| settings.get(&key.netns).map_or(0, |it| it.tw_reuse_delay_ms.saturating_mul(1_000_000));
        let keys = ports.keys().filter_map(|key| {
            let measured = Measured { rate: rates.get(&key).copied(), time_wait_ns: lengths.of_key(&key) };
            let budget = ports.budget(&key, measured)?;
            let delay = delay_ns(&key);
            let old =
                ports.uses(&key).filter(|it| it.state == State::TimeWait && it.age_ns.is_some_and(|age| age >= delay));
            let seen = || ports.uses(&key).filter_map(|it| it.timestamps);
            let timestamps = if seen().any(|it| it) { Some(true) } else { seen().next() };
            let old_time_waits = u32::try_from(old.count()).unwrap_or(u32::MAX);
            Some(KeyBudget { old_time_waits, timestamps, budget })
        });
        let keys = fullest_of(keys);
        let sources = evidence.binders.iter().filter_map(|binder| {
            let measured = Measured { rate: None, time_wait_ns: lengths.of_netns(binder.netns) };
            Some(SourceOf { netns: binder.netns, budget: ports.source(binder.netns, binder.ip, measured)? })
        });
        Self { keys, sources: sources.collect() }
    }
}

/// The fullest ones. There may be as many as sockets.
fn fullest_of(keys: impl Iterator<Item = KeyBudget>) -> Vec<KeyBudget> {
    let keep = |fullest: &mut Vec<KeyBudget>| {
        fullest.sort_by(|one, other| {
            let (one, other) = (&one.budget, &other.budget);
            other.share.total_cmp(&one.share).then(other.taken.cmp(&one.taken)).then(one.key.cmp(&other.key))
        });
        fullest.truncate(MOST);
    };
    let mut fullest = Vec::new();
    for key in keys {
        fullest.push(key);
        if fullest.len() >= 2 * MOST {
            keep(&mut fullest);
        }
    }
    keep(&mut fullest);
    fullest
}

/// The destination of which the largest part of the ports is taken.
pub fn fullest(evidence: &Evidence) -> Option<&Budget> {
    evidence.budgets.keys.first().map(|it| &it.budget)
}

/// The fullest budget of a pair's destination.
pub(super) fn of_pair<'e>(evidence: &'e Evidence, pair: &Pair) -> Option<&'e KeyBudget> {
    let is_it = |key: &Key| (key.netns, key.destination, key.port) == (pair.key.netns, pair.key.ip, pair.key.port);
    evidence.budgets.keys.iter().find(|it| pair.key.side == Side::Client && is_it(&it.budget.key))
}

/// Of one source address to a destination.
pub(super) fn of_key<'e>(evidence: &'e Evidence, pair: &Pair, source: Ipv6Addr) -> Option<&'e KeyBudget> {
    let key = &pair.key;
    let wanted = Key { netns: key.netns, interface: 0, source, destination: key.ip, port: key.port };
    evidence.budgets.keys.iter().find(|it| it.budget.key == wanted)
}

/// The clients' pairs of a budget.
pub(super) fn pairs<'e>(evidence: &'e Evidence, budget: &Budget) -> impl Iterator<Item = &'e Pair> {
    let Key { netns, destination, port, .. } = budget.key;
    evidence.clients().filter(move |pair| (pair.key.netns, pair.key.ip, pair.key.port) == (netns, destination, port))
}

/// How many ports it has, and who takes them.
pub(super) fn describe(evidence: &Evidence, budget: &Budget, finding: &mut Finding) {
    let range = match evidence.setting(budget.key.netns, "net.ipv4.ip_local_port_range") {
        Some(range) => format!("range {}, ", range.replace(' ', "–")),
        None => String::new(),
    };
    let reused = match budget.reusable {
        0 => String::new(),
        reusable => format!(" ({} of them can be taken over now)", say::count(reusable)),
    };
    let fin_wait2 = match budget.fin_wait2 {
        0 => String::new(),
        waits => format!(", {} FIN_WAIT2", say::count(waits)),
    };
    finding.line(
        "sysctl, sock_diag",
        format!(
            "{range}{} reserved, {} blocked by bind(); {}{} usable, {} taken: {} open{fin_wait2}, {} TIME_WAIT{reused}",
            say::count(budget.reserved),
            say::count(budget.blocked),
            if budget.usable_at_most { "≤" } else { "" },
            say::count(budget.usable),
            say::count(budget.taken),
            say::count(budget.open),
            say::count(budget.time_wait),
        ),
    );
    let Some(forecast) = budget.forecast.filter(|_| budget.samples > 0) else { return };
    let how = if budget.is_measured { "measured" } else { "by design" };
    finding.line(
        "seen",
        format!(
            "demand {} × {} ({how}) + {} open = {}; sustainable {}",
            say::rate(forecast.rate),
            say::time(budget.holds_ns),
            say::count(budget.open + budget.fin_wait2),
            say::count(forecast.demand.round() as u64),
            say::rate(budget.sustainable),
        ),
    );
}

/// `api[4711] 27,114, unknown processes 2`: who takes the ports, three at most.
pub(super) fn holders(budget: &Budget) -> String {
    let named = budget.owners.known.iter().take(3);
    let mut parts: Vec<String> =
        named.map(|(task, count)| format!("{} {}", say::process(*task), say::count(*count))).collect();
    let others = budget.owners.known.len().saturating_sub(parts.len());
    if others > 0 {
        parts.push(format!("and {others} more processes"));
    }
    if budget.owners.unknown > 0 {
        parts.push(format!("unknown processes {}", say::count(budget.owners.unknown)));
    }
    parts.join(", ")
}

/// What helps where ports are short, the application first; the last resort of all is `tcp_tw_reuse`, where it works.
pub(super) fn advise(key: &KeyBudget, finding: &mut Finding) {
    let remedies = &mut finding.remedies;
    remedies.push("Keep connections open: a connection pool, or keep-alive".into());
    remedies.push(
        "Spread over more destination addresses or ports, or over source addresses: each has ports of its own".into(),
    );
    if key.budget.range < 45_000 {
        remedies.push("sysctl net.ipv4.ip_local_port_range=\"10240 60999\"".into());
    }
    if matches!(key.budget.reuse, Reuse::Off | Reuse::LoopbackOnly) {
        match key.timestamps {
            Some(true) => {
                remedies.push("sysctl net.ipv4.tcp_tw_reuse=1 (works here: both ends use TCP timestamps)".into());
            }
            Some(false) => {}
            None => remedies
                .push("sysctl net.ipv4.tcp_tw_reuse=1, if both ends use TCP timestamps (ss -ti shows ts)".into()),
        }
    }
    finding.mistakes.push("lower tcp_fin_timeout: it has no effect on TIME_WAIT".into());
    finding.mistakes.push("set SO_LINGER to 0: it closes by reset, and data is lost".into());
}

/// Who uses which port.
fn uses(evidence: &Evidence) -> Vec<PortUse> {
    let connections = evidence.sockets.iter().map(|it| of_standing(evidence, it));
    let listeners = evidence.listeners.iter().map(|it| {
        let bound = Bound { ip: it.queue.ip, port: it.queue.port, netns: it.netns };
        PortUse { origin: Origin::Listener, state: State::Listen, ..PortUse::of_bound(&bound, it.task) }
    });
    let bound = evidence.bound.iter().map(|it| PortUse::of_bound(it, None));
    connections.chain(listeners).chain(bound).collect()
}

fn of_standing(evidence: &Evidence, socket: &Standing) -> PortUse {
    let is_time_wait = socket.state == State::TimeWait;
    let origin = match socket.side {
        Side::Server => Origin::Accepted,
        _ if socket.state == State::SynRecv || socket.kept == Some(Kept::Queued) => Origin::Accepted,
        Side::Client => Origin::Connected { bound: evidence.bound_first.get(&socket.conn).copied() },
        Side::Unknown => Origin::Unknown,
    };
    PortUse {
        netns: socket.netns,
        interface: 0,
        tuple: socket.tuple,
        state: socket.state,
        is_mini: is_time_wait || matches!(socket.kept, Some(Kept::Mini { .. })),
        origin,
        owner: socket.task(),
        left_ns: socket.left_ns.filter(|_| is_time_wait),
        age_ns: socket.age.known_ns().filter(|_| is_time_wait),
        timestamps: socket.seen.and_then(|seen| seen.timestamps),
    }
}

/// Whether sockets that are bound and neither connect nor listen were seen.
fn knows_bound(evidence: &Evidence) -> bool {
    release::lists_bound(&evidence.about.kernel) && evidence.lacks(Need::Inspections).is_none()
}

/// Connections of each key that have left a TIME_WAIT here in the window. Those to a destination from several source
/// addresses are split as the sockets that stand are.
fn rates(evidence: &Evidence, ports: &Ports) -> HashMap<Key, Rate, FixedState> {
    let window_ns = evidence.about.traced_ns;
    let mut entered: HashMap<Destination, u64, FixedState> = HashMap::default();
    for pair in evidence.clients().filter(|_| window_ns > 0) {
        let stays = pair.stay(State::TimeWait).map_or(0, |it| it.entered);
        *entered.entry((pair.key.netns, pair.key.ip, pair.key.port)).or_default() += stays;
    }
    let mut standing: HashMap<Destination, u64, FixedState> = HashMap::default();
    let destination = |key: &Key| (key.netns, key.destination, key.port);
    let number = |key: &Key| ports.uses(key).count() as u64;
    for key in ports.keys() {
        *standing.entry(destination(&key)).or_default() += number(&key);
    }
    let rate = |key: Key| {
        let (all, taken) = (*entered.get(&destination(&key))?, *standing.get(&destination(&key))?);
        let opened = all.saturating_mul(number(&key)).checked_div(taken)?;
        (opened > 0).then_some((key, Rate { opened, window_ns }))
    };
    ports.keys().filter_map(rate).collect()
}

/// How long TIME_WAITs last: those that expired in the window.
struct Lengths {
    by_destination: HashMap<Destination, Spread, FixedState>,
    by_netns: HashMap<Option<u32>, Spread, FixedState>,
}

impl Lengths {
    fn of(evidence: &Evidence) -> Self {
        let mut lengths = Self { by_destination: HashMap::default(), by_netns: HashMap::default() };
        for pair in &evidence.pairs {
            for (_, _, spread) in pair.time_waits.iter().filter(|(end, ..)| *end == TimeWaitEnd::Expired) {
                lengths.by_netns.entry(pair.key.netns).or_default().merge(spread);
                if pair.key.side == Side::Client {
                    let destination = (pair.key.netns, pair.key.ip, pair.key.port);
                    lengths.by_destination.entry(destination).or_default().merge(spread);
                }
            }
        }
        lengths
    }

    fn of_key(&self, key: &Key) -> Option<u64> {
        let own = self.by_destination.get(&(key.netns, key.destination, key.port));
        own.and_then(median).or_else(|| self.of_netns(key.netns))
    }

    fn of_netns(&self, netns: Option<u32>) -> Option<u64> {
        self.by_netns.get(&netns).and_then(median)
    }
}

fn median(spread: &Spread) -> Option<u64> {
    spread.percentile(50).filter(|_| spread.total() >= EXPIRED)
}

#[cfg(test)]
mod tests {
    use super::super::evidence::Stays;
    use super::super::rules::testing::{
        NETNS, S, client_key, listener, nothing, pair, spread, standing, tuple, with_settings,
    };
    use super::*;
    use crate::model::event::Inspected;
    use crate::model::row::Held;

    /// 100 ports; so many TIME_WAITs, the oldest of an age of 60 s, each a second younger than the one before.
    fn ports(time_waits: u64) -> Evidence {
        let mut evidence = with_settings(&[
            ("net.ipv4.ip_local_port_range", "40000 40099"),
            ("net.ipv4.ip_local_reserved_ports", "40098-40099"),
            ("net.ipv4.tcp_tw_reuse", "0"),
        ]);
        evidence.about.kernel = "6.18.44".into();
        for conn in 0..time_waits {
            let age = 60 - conn % 60;
            let mut socket = standing(conn, State::TimeWait, age);
            (socket.age, socket.left_ns) = (Held::Exactly(age * S), Some((60 - age) * S));
            evidence.bound_first.insert(conn, false);
            evidence.sockets.push(socket);
        }
        let mut pair = pair(client_key());
        (pair.opened, pair.closed_here) = (20, 20);
        pair.stays.push((State::TimeWait, Stays { entered: 20, ..Stays::default() }));
        evidence.pairs.push(pair);
        evidence
    }

    #[test]
    fn a_destination_has_its_ports() {
        let mut evidence = ports(60);
        evidence.listeners.push(listener(NETNS, [0, 0, 0, 0].into(), 40_097));
        evidence.bound.push(Bound { netns: Some(NETNS), ip: tuple((7, 0), (0, 0)).local_ip, port: 40_096 });
        // Of another namespace.
        evidence.listeners.push(listener(NETNS + 1, [0, 0, 0, 0].into(), 40_095));
        evidence.budgets = Budgets::of(&evidence);
        let budget = fullest(&evidence).expect("one");
        assert_eq!((budget.range, budget.reserved, budget.blocked, budget.usable), (100, 2, 2, 96));
        assert_eq!((budget.taken, budget.time_wait, budget.open, budget.free), (60, 60, 0, 36));
        assert!(!budget.usable_at_most);
        let forecast = budget.forecast.expect("a rate");
        assert_eq!((forecast.rate, budget.samples, budget.is_measured), (2.0, 20, false));
        assert_eq!(evidence.budgets.keys[0].old_time_waits, 60);
        let mut finding =
            Finding::new("x", super::super::Severity::Note, super::super::finding::Confidence::Certain, String::new());
        describe(&evidence, budget, &mut finding);
        let lines: Vec<_> = finding.evidence.iter().map(|it| &*it.text).collect();
        assert_eq!(
            lines,
            [
                "range 40000–40099, 2 reserved, 2 blocked by bind(); 96 usable, 60 taken: 0 open, 60 TIME_WAIT",
                "demand 2.0/s × 61.0s (by design) + 0 open = 122; sustainable 1.6/s",
            ]
        );
        assert_eq!(holders(budget), "api[4711] 60");
    }

    #[test]
    fn the_length_of_a_time_wait_is_measured() {
        let mut evidence = ports(1);
        let mut expire = |count| {
            let lasted = spread((0..count).map(|_| 62 * S));
            evidence.pairs[0].time_waits = vec![(TimeWaitEnd::Expired, count, lasted)];
            let budgets = Budgets::of(&evidence);
            (budgets.keys[0].budget.is_measured, budgets.keys[0].budget.holds_ns / S)
        };
        assert_eq!((expire(19), expire(20)), ((false, 61), (true, 62)));
    }

    /// As many from one address as from the other.
    #[test]
    fn a_rate_is_split_by_source_address() {
        let mut evidence = ports(10);
        for socket in evidence.sockets.iter_mut().skip(5) {
            socket.tuple.local_ip = tuple((2, 0), (0, 0)).local_ip;
        }
        let budgets = Budgets::of(&evidence);
        let samples: Vec<_> = budgets.keys.iter().map(|it| (it.budget.taken, it.budget.samples)).collect();
        assert_eq!(samples, [(5, 10), (5, 10)]);
    }

    #[test]
    fn what_is_bound_before_connect_is_nobody_elses() {
        let mut evidence = ports(60);
        evidence.bound_first.values_mut().for_each(|bound| *bound = true);
        let ip = tuple((1, 0), (0, 0)).local_ip;
        evidence.binders.push(super::super::evidence::Binder {
            netns: Some(NETNS),
            ip,
            opened: 60,
            destinations: 1,
            tasks: Vec::new(),
            lacks_no_port: None,
        });
        let budgets = Budgets::of(&evidence);
        assert!(budgets.keys.is_empty());
        let source = &budgets.sources[0].budget;
        assert_eq!((source.usable, source.bound, source.taken, source.time_wait), (98, 60, 60, 60));
    }

    #[test]
    fn without_settings_there_is_no_budget() {
        let mut evidence = nothing();
        evidence.sockets.push(standing(1, State::TimeWait, 1));
        assert!(Budgets::of(&evidence).keys.is_empty());
        assert!(fullest(&evidence).is_none());
    }

    #[test]
    fn timestamps_are_those_that_a_look_shows() {
        let mut evidence = ports(2);
        let look = |timestamps| Inspected { timestamps, ..super::super::rules::testing::seen(1, 0, 0) };
        evidence.sockets[0].seen = Some(look(None));
        assert_eq!(Budgets::of(&evidence).keys[0].timestamps, None);
        evidence.sockets[1].seen = Some(look(Some(true)));
        assert_eq!(Budgets::of(&evidence).keys[0].timestamps, Some(true));
    }
}
