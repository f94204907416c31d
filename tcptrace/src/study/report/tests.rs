//! Connections in, a report out.

use crate::model::row::{Connection, Ending, Held, Identity, Status};
use crate::model::stream::Summary;
use crate::model::tcp::{Closer, End, Side, State, TimeWaitEnd};

use super::testing::{connection, open, origin};
use super::{Analysis, By, Options, Property, Report};

const S: u64 = 1_000_000_000;

fn summary(to_s: u64) -> Summary {
    Summary { to_unix_ns: (to_s * S) as i64, hosts: vec!["web-1".into()], ..Summary::default() }
}

fn report(connections: &[Connection], to_s: u64) -> Report {
    let mut analysis = Analysis::new(Options::default());
    connections.iter().for_each(|connection| analysis.add(connection, &origin()));
    analysis.finish(&summary(to_s))
}

/// Opened at this second, closed by this side after 10 ms, and then in TIME_WAIT for a minute.
fn short(opened_s: u64) -> Connection {
    let stays = [(State::Established, Held::Exactly(S / 100)), (State::TimeWait, Held::Exactly(60 * S))];
    Connection {
        opened_ns: Some(opened_s * S),
        boot_ns: opened_s * S + S / 100 + 60 * S,
        status: Status::Ended(Ending { end: End::Fin, time_wait: Some(TimeWaitEnd::Expired) }),
        // The FIN_WAIT states took no time.
        stays: [(State::Established, S / 100), (State::FinWait1, 0), (State::FinWait2, 0), (State::TimeWait, 60 * S)]
            .map(|(state, ns)| crate::model::row::Stay { state, held: Held::Exactly(ns) })
            .into(),
        ..connection(&stays)
    }
}

#[test]
fn sockets_are_counted_over_time() {
    let report = report(&(0..100).map(short).collect::<Vec<_>>(), 200);
    // One is opened each second, and stays for 60.01 s.
    let time_wait = &report.states[0];
    let peak = time_wait.peak.expect("there were some");
    assert!((59.5..=60.5).contains(&peak.value), "{peak:?}");
    assert_eq!(time_wait.unplaced, 0);
    let time: f64 = report.points.iter().map(|point| point.sockets[0] * point.width_ns as f64).sum();
    assert!((time / (100.0 * 60.0 * S as f64) - 1.0).abs() < 0.001, "{time}");
    assert_eq!(report.points.iter().map(|point| point.opened).sum::<u64>(), 100);
    assert_eq!(report.points.iter().map(|point| point.ended).sum::<u64>(), 100);
    assert!(report.points.len() <= 240 && report.points.len() > 100, "{}", report.points.len());
    let peak = report.overview.opened_peak.expect("a rate");
    assert_eq!((peak.value, peak.width_ns), (1.0, S));
    assert_eq!(report.overview.per_second(report.overview.opened), Some(0.5));
}

#[test]
fn durations_known_in_part_are_counted_apart() {
    let known = |ns| connection(&[(State::CloseWait, Held::Exactly(ns)), (State::LastAck, Held::Exactly(1))]);
    let part = open(connection(&[(State::CloseWait, Held::AtLeast(90 * S))]), State::CloseWait, Held::AtLeast(90 * S));
    let report = report(&[known(S), known(2 * S), part], 100);
    let row = &report.states[1];
    assert_eq!((row.sockets, row.at_least, row.open), (3, 1, 1));
    assert_eq!((row.exact.min, row.exact.max), (Some(S), Some(2 * S)));
    assert_eq!((row.parts.min, row.parts.max), (Some(90 * S), Some(90 * S)));
    let group = report.groups.iter().find(|row| row.state == Some(State::CloseWait)).expect("a row");
    assert_eq!((group.connections, group.at_least, group.longest), (3, Some(1), Held::AtLeast(90 * S)));
    let still: Vec<_> = report.open.iter().filter(|row| row.group.by == By::Process).collect();
    assert_eq!(still.len(), 1);
    assert_eq!((still[0].state, still[0].connections, still[0].oldest), (State::CloseWait, 1, Held::AtLeast(90 * S)));
}

#[test]
fn processes_of_one_name_are_one_group() {
    let of = |pid: u32| {
        let mut connection = short(1);
        connection.identity.owner.as_mut().expect("curl").task.pid = pid;
        connection
    };
    let report = report(&[of(1), of(2), of(2)], 100);
    let rows: Vec<_> = report.groups.iter().filter(|row| row.group.by == By::Process && row.state.is_none()).collect();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].group.pid, rows[0].group.processes, rows[0].connections), (None, Some(2), 3));
}

#[test]
fn what_follows_the_top_is_one_row() {
    let from = |port: u16| {
        let mut connection = short(1);
        connection.identity.tuple.remote_port = port;
        connection
    };
    let mut analysis = Analysis::new(Options { top: 2, ..Options::default() });
    for port in [1, 1, 1, 2, 2, 3, 4] {
        analysis.add(&from(port), &origin());
    }
    let report = analysis.finish(&summary(100));
    let rows: Vec<_> = report.groups.iter().filter(|row| row.group.by == By::Remote && row.state.is_none()).collect();
    let shown: Vec<_> = rows.iter().map(|row| (row.group.remote_port, row.group.others, row.connections)).collect();
    assert_eq!(shown, [(Some(1), None, 3), (Some(2), None, 2), (None, Some(2), 2)]);
    assert_eq!(report.churn.iter().map(|row| row.connections).collect::<Vec<_>>(), [3, 2, 2]);
}

/// Any number of groups takes little memory, and no connection is missing from the sums.
#[test]
fn many_groups_are_folded() {
    let from = |number: u32| {
        let mut connection = short(1);
        connection.identity.tuple.remote_ip = std::net::Ipv4Addr::from_bits(number).to_ipv6_mapped();
        connection
    };
    let mut analysis = Analysis::new(Options::default());
    for number in 0..20_000 {
        analysis.add(&from(number % 10_000 + 1), &origin());
        analysis.add(&from(0xffff), &origin());
    }
    let report = analysis.finish(&summary(100));
    let rows: Vec<_> = report.groups.iter().filter(|row| row.group.by == By::Remote && row.state.is_none()).collect();
    assert_eq!(rows.iter().map(|row| row.connections).sum::<u64>(), 40_000);
    assert_eq!((rows[0].connections, rows[0].group.is_partial), (20_000, false));
    let others = rows.last().expect("others");
    assert!(others.group.is_partial && others.group.others > Some(9_000), "{others:?}");
}

#[test]
fn other_connections_decide_the_side() {
    let mut served = short(1);
    served.identity.side = Side::Server;
    served.identity.tuple.local_port = 80;
    let mut unknown = served.clone();
    unknown.identity.side = Side::Unknown;
    let report = report(
        &[served, unknown, Connection { identity: Identity { side: Side::Unknown, ..short(1).identity }, ..short(1) }],
        100,
    );
    let ports: Vec<_> = report.groups.iter().filter(|row| row.group.by == By::Lport && row.state.is_none()).collect();
    let shown: Vec<_> = ports.iter().map(|row| (row.group.local_port, row.connections)).collect();
    assert_eq!(shown, [(Some(80), 2), (None, 1)]);
}

#[test]
fn failures_are_counted_by_kind() {
    let ended = |end| Connection { status: Status::Ended(Ending::from(end)), ..short(1) };
    let report = report(&[ended(End::Refused), ended(End::ResetReceived), ended(End::ResetReceived), short(1)], 100);
    let by_process: Vec<_> = report.failures.iter().filter(|row| row.group.by == By::Process).collect();
    let shown: Vec<_> = by_process.iter().map(|row| (row.end, row.connections, row.share)).collect();
    assert_eq!(shown, [(End::ResetReceived, 2, 1.0), (End::Refused, 1, 1.0)]);
    assert_eq!((report.overview.failed, report.overview.reset), (3, 2));
    let ends: Vec<_> = report.counts.iter().filter(|count| count.property.kind() == "end").collect();
    assert_eq!(ends[0].property, Property::End(End::ResetReceived));
}

/// In CLOSE_WAIT for this time, then closed.
fn left_after(ns: u64) -> Connection {
    let stays = [(State::CloseWait, Held::Exactly(ns)), (State::LastAck, Held::Exactly(1))];
    Connection { closer: Closer::Passive, ..connection(&stays) }
}

/// Still in CLOSE_WAIT after this time.
fn leaked(ns: u64, age: fn(u64) -> Held) -> Connection {
    let stays = [(State::CloseWait, Held::AtLeast(ns))];
    open(Connection { closer: Closer::Passive, ..connection(&stays) }, State::CloseWait, age(ns))
}

/// 20 of 30 sockets leaked for 4 s, and the report gave the median of the other ten: 7.69 µs.
#[test]
fn a_median_counts_what_is_not_over() {
    for age in [Held::Exactly, Held::AtLeast] {
        let mut all: Vec<_> = (0..10).map(|number| left_after(7_690 + number)).collect();
        all.extend((0..20).map(|_| leaked(4 * S, age)));
        let report = report(&all, 100);
        let row = &report.states[1];
        assert_eq!((row.p50, row.p90, row.p99), (Held::AtLeast(4 * S), Held::AtLeast(4 * S), Held::AtLeast(4 * S)));
        assert_eq!((row.sockets, row.at_least, row.open), (30, 20, 20));
        for by in By::ALL {
            let mut groups = report.groups.iter().filter(|row| row.group.by == by);
            let group = groups.find(|row| row.state == Some(State::CloseWait)).expect("a row");
            assert_eq!((group.p50, group.p99), (Held::AtLeast(4 * S), Held::AtLeast(4 * S)), "{by:?}");
        }
    }
}

/// A lost connection lasted at least as long as it was seen, from its beginning on or not.
#[test]
fn a_median_counts_what_was_lost_sight_of() {
    let lost = |opened_ns| Connection {
        opened_ns,
        status: Status::Ended(Ending { end: End::Fin, time_wait: Some(TimeWaitEnd::Unknown) }),
        complete: false,
        ..connection(&[(State::TimeWait, Held::AtLeast(20 * S))])
    };
    for opened_ns in [None, Some(1)] {
        let one_of_three = report(&[lost(opened_ns), short(1), short(2)], 100);
        assert_eq!((one_of_three.states[0].sockets, one_of_three.states[0].p50), (3, Held::Exactly(60 * S)));
        let two_of_three = report(&[lost(opened_ns), lost(opened_ns), short(1)], 100);
        assert_eq!((two_of_three.states[0].sockets, two_of_three.states[0].p50), (3, Held::AtLeast(20 * S)));
    }
}

/// This side closed first in two of three: one is still in TIME_WAIT, and one waits for the peer's FIN.
#[test]
fn a_closer_counts_as_soon_as_it_closes() {
    let age = Held::Exactly(S);
    let time_wait = open(connection(&[(State::TimeWait, Held::AtLeast(S))]), State::TimeWait, age);
    let half_closed = open(connection(&[(State::FinWait2, Held::AtLeast(S))]), State::FinWait2, age);
    let established = open(
        Connection { closer: Closer::Unknown, ..connection(&[(State::Established, Held::AtLeast(S))]) },
        State::Established,
        age,
    );
    let unseen = Connection { closer: Closer::Unknown, status: Status::Ended(End::Unknown.into()), ..connection(&[]) };
    let report = report(&[time_wait, half_closed, established, left_after(S), unseen], 100);
    let closers = report.counts.iter().filter_map(|row| match row.property {
        Property::Closer(closer) => Some((closer, row.connections, row.share)),
        _ => None,
    });
    let expected = [(Closer::Active, 2, 0.5), (Closer::Passive, 1, 0.25), (Closer::Unknown, 1, 0.25)];
    assert_eq!(closers.collect::<Vec<_>>(), expected);
    assert_eq!((report.overview.closer_undecided, report.overview.open), (1, 3));
}

#[test]
fn failures_name_what_could_not_be_reached() {
    let refused = |port: u16| {
        let mut connection = Connection { status: Status::Ended(End::Refused.into()), ..short(1) };
        connection.identity.tuple.remote_port = port;
        connection
    };
    let report = report(&[refused(81), refused(82), refused(82), refused(82), refused(81)], 100);
    let ports = report.failures.iter().filter(|row| row.group.by == By::Remote);
    let ports: Vec<_> = ports.map(|row| (row.group.remote_port, row.connections)).collect();
    assert_eq!(ports, [(Some(82), 3), (Some(81), 2)]);
}
