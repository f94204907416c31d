//! What is shown, pending and dropped.

use std::collections::HashMap;

use proptest::prelude::*;
use rstest::rstest;

use super::{Criteria, Filter, Undecided, Verdict, begins};
use crate::model::counters::{Increase, Unseen};
use crate::model::labels::Labels;
use crate::model::names::{Group, Names};
use crate::model::row::{Connection, Held, Identity, Owner, Report, Row, Status, Stay, Stuck, Transition};
use crate::model::tcp::{Closer, Comm, End, OwnerSource, Side, State, Task, Tuple};

/// From 10.0.0.1 to 10.0.0.2:443, the local port not chosen yet, nothing else known.
fn bare() -> Transition {
    let tuple = Tuple {
        local_ip: "::ffff:10.0.0.1".parse().expect("an address"),
        remote_ip: "::ffff:10.0.0.2".parse().expect("an address"),
        local_port: 0,
        remote_port: 443,
    };
    Transition {
        boot_ns: 0,
        identity: Identity {
            conn: 1,
            tuple,
            netns: Some(9),
            uid: None,
            cgroup: None,
            interface: 0,
            side: Side::Client,
            owner: None,
        },
        old: State::Closed,
        new: State::SynSent,
        held: Held::Unknown,
        closer: None,
        reason: None,
        orphan: false,
        closed_by: None,
        stuck: None,
    }
}

fn owner(pid: u32, comm: &str, source: OwnerSource) -> Owner {
    Owner { task: Task { pid, tid: pid, comm: Comm::from(comm) }, source }
}

/// Of control groups 4 and 5, and of processes in them.
fn names() -> Names {
    let mut names = Names::default();
    names.name_group(4, Group::at(b"/system.slice/db.service"));
    names.name_group(5, Group::at(b"/system.slice/web.service"));
    let processes = [(8, Some(4)), (9, Some(5)), (10, None), (11, Some(4)), (11, Some(5))];
    processes.into_iter().for_each(|(pid, group)| names.note_process(pid, group));
    names
}

/// The known connection, after this process has closed it.
fn closed_by(pid: u32) -> Transition {
    let task = Task { pid, tid: pid, comm: Comm::from("worker") };
    Transition {
        old: State::Established,
        new: State::FinWait1,
        closer: Some(Closer::Active),
        closed_by: Some(task),
        ..known()
    }
}

/// The known connection, accepted by this process.
fn owned(pid: u32) -> Transition {
    let mut row = known();
    row.identity.owner = Some(owner(pid, "worker", OwnerSource::Accept));
    row
}

/// The same connection with its local port, owned by process 7 in control group 5.
fn known() -> Transition {
    let mut row = bare();
    row.identity.cgroup = Some(5);
    row.identity.tuple.local_port = 5000;
    row.identity.owner = Some(owner(7, "curl", OwnerSource::Connect));
    Transition { old: State::SynSent, new: State::Established, ..row }
}

/// In a control group that has no known name.
fn unnamed(mut row: Transition) -> Transition {
    row.identity.cgroup = Some(6);
    row
}

fn last(row: Transition) -> Transition {
    Transition { old: State::Established, new: State::Closed, ..row }
}

/// A listener on port 443 of every address.
fn listening() -> Transition {
    let mut row = bare();
    row.identity.tuple = Tuple {
        local_ip: "::ffff:0.0.0.0".parse().expect("an address"),
        remote_ip: "::ffff:0.0.0.0".parse().expect("an address"),
        local_port: 443,
        remote_port: 0,
    };
    row.identity.owner = Some(owner(1, "nginx", OwnerSource::Listen));
    Transition { new: State::Listen, ..row }
}

/// A connection that the listener's process has not accepted yet.
fn embryo() -> Transition {
    let mut row = bare();
    row.identity.tuple = row.identity.tuple.reversed();
    row.identity.tuple.remote_port = 5000;
    row.identity.owner = listening().identity.owner;
    Transition { old: State::Listen, new: State::SynRecv, ..row }
}

fn connection() -> Connection {
    let stay = |(state, ns)| Stay { state, held: Held::Exactly(ns) };
    Connection {
        identity: known().identity,
        opened_ns: Some(100),
        boot_ns: 1_000,
        status: Status::Ended(End::Fin.into()),
        closer: Closer::Passive,
        closed_by: None,
        stays: [(State::Established, 600), (State::CloseWait, 300)].map(stay).into(),
        totals: None,
        idle: None,
        complete: true,
    }
}

/// Criteria as on the command line.
fn criteria(options: &str) -> Criteria {
    let mut criteria = Criteria::default();
    let mut words = options.split_whitespace();
    while let Some(option) = words.next() {
        let mut value = || words.next().expect("a value");
        match option {
            "port" => criteria.ports.push(value().parse().expect("a port")),
            "lport" => criteria.local_ports.push(value().parse().expect("a port")),
            "rport" => criteria.remote_ports.push(value().parse().expect("a port")),
            "addr" => criteria.networks.push(value().parse().expect("a network")),
            "pid" => criteria.pids.push(value().parse().expect("a number")),
            "owner-only" => criteria.owner_only = true,
            "comm" => criteria.comms.push(value().into()),
            "netns" => criteria.netns.push(value().parse().expect("a number")),
            "cgroup" => criteria.cgroups.push(value().into()),
            "pod" => criteria.pods.push(value().into()),
            "pod-namespace" => criteria.pod_namespaces.push(value().into()),
            "container-name" => criteria.container_names.push(value().into()),
            "state" => criteria.states.push(value().parse().expect("a state")),
            "closer" => criteria.closers.push(value().parse().expect("a closer")),
            "min" => criteria.min_duration_ns = Some(value().parse().expect("a number")),
            "4" => criteria.ipv4 = true,
            "6" => criteria.ipv6 = true,
            _ => unreachable!("no option {option}"),
        }
    }
    criteria
}

fn filtered(filter: &mut Filter, rows: impl IntoIterator<Item = Row>) -> Vec<Row> {
    let mut out = Vec::new();
    for row in rows {
        filter.push(row, &names(), &mut out);
    }
    out
}

#[rstest]
#[case::nothing_asked("", bare(), Some(Verdict::Shown))]
#[case::remote_port("port 443", bare(), Some(Verdict::Shown))]
#[case::local_port_to_come("port 80", bare(), None)]
#[case::repeated("port 80 port 443", bare(), Some(Verdict::Shown))]
#[case::other_port("port 80", known(), Some(Verdict::Hidden))]
#[case::local_port("lport 5000", known(), Some(Verdict::Shown))]
#[case::lport_is_local("lport 443", known(), Some(Verdict::Hidden))]
#[case::lport_to_come("lport 5000", bare(), None)]
#[case::rport_is_remote("rport 5000", bare(), Some(Verdict::Hidden))]
#[case::never_chosen("lport 5000", last(bare()), Some(Verdict::Hidden))]
#[case::all_must_hold("rport 443 lport 1", bare(), None)]
#[case::one_fails("rport 80 lport 1", bare(), Some(Verdict::Hidden))]
#[case::network("addr 10.0.0.0/24", bare(), Some(Verdict::Shown))]
#[case::local_address("addr 10.0.0.1/32", bare(), Some(Verdict::Shown))]
#[case::other_network("addr 10.0.1.0/24", bare(), Some(Verdict::Hidden))]
#[case::mapped_is_no_ipv6("addr ::/0", bare(), Some(Verdict::Hidden))]
#[case::family_4("4", bare(), Some(Verdict::Shown))]
#[case::family_6("6", bare(), Some(Verdict::Hidden))]
#[case::both_families("4 6", bare(), Some(Verdict::Shown))]
#[case::netns("netns 9", bare(), Some(Verdict::Shown))]
#[case::other_netns("netns 8", bare(), Some(Verdict::Hidden))]
#[case::cgroup("cgroup /system.slice/web.service", known(), Some(Verdict::Shown))]
#[case::cgroup_above("cgroup /system.slice", known(), Some(Verdict::Shown))]
#[case::unit("cgroup web", known(), Some(Verdict::Shown))]
#[case::other_cgroup("cgroup /system.slice/db.service", known(), None)]
#[case::no_cgroup_yet("cgroup web", bare(), None)]
#[case::cgroup_without_a_name("cgroup web", unnamed(known()), None)]
#[case::cgroup_that_never_got_a_name("cgroup web", last(unnamed(known())), Some(Verdict::Undecided))]
#[case::cgroup_without_a_name_does_not_matter("cgroup web port 80", unnamed(known()), Some(Verdict::Hidden))]
#[case::closed_by_another("pid 8", closed_by(8), Some(Verdict::Shown))]
#[case::closed_by_a_third("pid 9", closed_by(8), Some(Verdict::Hidden))]
#[case::name_of_who_closed("comm worker", closed_by(8), Some(Verdict::Shown))]
#[case::owner_only("pid 8 owner-only", closed_by(8), Some(Verdict::Hidden))]
#[case::owner_only_decides_at_once("pid 8 owner-only", known(), Some(Verdict::Hidden))]
#[case::the_owner_still_matches("pid 7", closed_by(8), Some(Verdict::Shown))]
#[case::group_of_who_closed("cgroup db", closed_by(8), Some(Verdict::Shown))]
#[case::group_of_who_closed_is_another("cgroup db", closed_by(9), Some(Verdict::Hidden))]
#[case::group_of_the_socket_only("cgroup db owner-only", closed_by(8), Some(Verdict::Hidden))]
#[case::group_of_who_closed_is_unknown("cgroup db", last(closed_by(10)), Some(Verdict::Undecided))]
#[case::group_of_who_closed_is_unknown_and_does_not_matter("cgroup db pid 1", closed_by(10), Some(Verdict::Hidden))]
#[case::several_groups_of_one_process_id("cgroup db", last(closed_by(11)), Some(Verdict::Undecided))]
#[case::several_groups_and_none_is_wanted("cgroup cache", closed_by(11), Some(Verdict::Hidden))]
#[case::the_owner_closed("cgroup db", closed_by(7), Some(Verdict::Hidden))]
#[case::group_of_the_owner_itself("cgroup db", owned(8), Some(Verdict::Shown))]
#[case::whose_time_wait_it_is_nobody_says("pid 7", Transition { old: State::TimeWait, ..last(bare()) }, Some(Verdict::Hidden))]
#[case::no_owner_yet("pid 7", bare(), None)]
#[case::pid("pid 7", known(), Some(Verdict::Shown))]
#[case::other_pid("pid 8", known(), None)]
#[case::comm("comm curl", known(), Some(Verdict::Shown))]
#[case::comm_is_exact("comm cur", known(), None)]
#[case::pid_and_comm("pid 7 comm wget", known(), None)]
#[case::owner_never_seen("comm curl", last(bare()), Some(Verdict::Unknown))]
#[case::listener("port 443", listening(), Some(Verdict::Shown))]
#[case::listeners_have_no_remote_port("rport 443", listening(), Some(Verdict::Hidden))]
#[case::listeners_have_no_address("addr 10.0.0.0/8", listening(), Some(Verdict::Hidden))]
#[case::listeners_owner("comm nginx", listening(), Some(Verdict::Shown))]
#[case::not_the_listeners_owner("pid 2", listening(), None)]
#[case::accepted_by_whom("pid 2", embryo(), None)]
#[case::the_listener_will_do("comm nginx", embryo(), Some(Verdict::Shown))]
#[case::not_closed_yet("closer passive", known(), None)]
#[case::closer("closer passive", Transition { closer: Some(Closer::Passive), ..known() }, Some(Verdict::Shown))]
#[case::other_closer("closer active", Transition { closer: Some(Closer::Passive), ..known() }, Some(Verdict::Hidden))]
#[case::fins_may_cross("closer active", Transition { closer: Some(Closer::Active), new: State::FinWait1, ..known() }, None)]
#[case::nobody_closed("closer unknown", last(known()), Some(Verdict::Shown))]
#[case::states_are_asked_of_rows("state LISTEN", bare(), Some(Verdict::Shown))]
fn connections_are_decided(#[case] options: &str, #[case] row: Transition, #[case] expected: Option<Verdict>) {
    assert_eq!(criteria(options).decide(&Row::Transition(row), &names()), expected);
}

#[test]
fn long_names_are_cut_as_the_kernel_cuts_them() {
    let mut row = known();
    row.identity.owner = Some(owner(7, "a-very-long-name-indeed", OwnerSource::Connect));
    assert_eq!(criteria("comm a-very-long-name-indeed").decide(&Row::Transition(row), &names()), Some(Verdict::Shown));
}

#[rstest]
#[case("", true)]
#[case("state SYN_SENT", true)]
#[case("state ESTABLISHED", true)]
#[case("state CLOSED state LISTEN", false)]
#[case("min 500", true)]
#[case("min 501", false)]
#[case("state SYN_SENT min 501", false)]
fn transitions_pass(#[case] options: &str, #[case] expected: bool) {
    let row = Transition { held: Held::AtLeast(500), ..known() };
    assert_eq!(criteria(options).passes(&Row::Transition(row)), expected);
    let unknown = Row::Transition(known());
    assert_eq!(criteria(options).passes(&unknown), expected && !options.contains("min"));
}

#[rstest]
#[case("state CLOSE_WAIT", true)]
#[case("state TIME_WAIT", false)]
#[case("min 900", true)]
#[case("min 901", false)]
#[case("state CLOSE_WAIT min 300", true)]
#[case("state CLOSE_WAIT min 301", false)]
#[case("state CLOSE_WAIT state ESTABLISHED min 301", true)]
fn connections_pass(#[case] options: &str, #[case] expected: bool) {
    assert_eq!(criteria(options).passes(&Row::Connection(connection())), expected);
    let unopened = Connection { opened_ns: None, ..connection() };
    assert_eq!(criteria(options).passes(&Row::Connection(unopened)), expected);
}

#[rstest]
#[case("pid 7", 3, 0)]
#[case("pid 8", 0, 3)]
#[case("lport 5000", 3, 0)]
#[case("lport 80", 0, 3)]
#[case("closer unknown", 3, 0)]
#[case("lport 5000 state ESTABLISHED", 2, 1)]
fn a_beginning_is_never_hidden(#[case] options: &str, #[case] shown: usize, #[case] filtered_out: u64) {
    let mut filter = Filter::new(criteria(options));
    let rows = [bare(), known(), last(known())].map(Row::Transition);
    let out = filtered(&mut filter, rows.clone());
    let expected: Vec<Row> = rows.into_iter().filter(|row| out.contains(row)).collect();
    assert_eq!((out.len(), filter.filtered_out()), (shown, filtered_out));
    assert_eq!(out, expected, "in order");
}

#[test]
fn what_nobody_has_closed_by_the_end_does_not_match() {
    let mut filter = Filter::new(criteria("pid 8"));
    let rows = [Row::Transition(bare()), Row::Transition(known())];
    assert_eq!(filtered(&mut filter, rows), []);
    assert_eq!(finished(&mut filter), []);
    assert_eq!((filter.filtered_out(), filter.undecided(), filter.dropped()), (2, Undecided::default(), 0));
}

/// Such a connection once counted as filtered out.
#[test]
fn a_connection_without_a_known_owner_is_not_simply_another_ones() {
    let mut filter = Filter::new(criteria("pid 8"));
    assert_eq!(filtered(&mut filter, [Row::Transition(bare())]), []);
    assert_eq!(finished(&mut filter), []);
    assert_eq!((filter.filtered_out(), filter.undecided()), (0, Undecided { shown: 0, left_out: 1 }));
}

fn finished(filter: &mut Filter) -> Vec<Row> {
    let mut out = Vec::new();
    filter.finish(&names(), &mut out);
    out
}

/// Such rows once counted as filtered out, so a process that hid its control group's name was hidden too.
#[rstest]
#[case::undecided("cgroup web", [0, 3])]
#[case::otherwise_wanted("cgroup web lport 5000 pid 7", [0, 3])]
#[case::unwanted_for_something_else("cgroup web pid 8", [3, 0])]
#[case::not_all_in_these_states("cgroup web state CLOSED", [1, 2])]
#[case::not_asked_for("pid 8", [3, 0])]
fn a_group_without_a_name_is_not_simply_another(#[case] options: &str, #[case] counts: [u64; 2]) {
    let conclusion = Connection { identity: unnamed(known()).identity, ..connection() };
    let conclusion = Connection { stays: vec![Stay { state: State::Closed, held: Held::Exactly(1) }], ..conclusion };
    let rows =
        [Row::Transition(unnamed(known())), Row::Transition(last(unnamed(known()))), Row::Connection(conclusion)];
    let mut filter = Filter::new(criteria(options));
    assert_eq!(filtered(&mut filter, rows).len() as u64, counts[1], "they are shown");
    assert_eq!([filter.filtered_out(), filter.undecided().shown], counts);
}

/// The end of the stream, and another life of the socket, decide as the last row of a connection does.
#[rstest]
#[case::undecided("cgroup web", [0, 2])]
#[case::unwanted_for_something_else("cgroup web closer active", [2, 0])]
fn a_group_without_a_name_may_never_get_one(#[case] options: &str, #[case] counts: [u64; 2]) {
    let mut filter = Filter::new(criteria(options));
    let rows = [unnamed(bare()), unnamed(bare())].map(Row::Transition);
    let mut out = filtered(&mut filter, rows);
    assert_eq!(filter.pending().count(), 1);
    out.extend(finished(&mut filter));
    assert_eq!(out.len() as u64, counts[1]);
    assert_eq!([filter.filtered_out(), filter.undecided().shown], counts);
}

/// All that is asked of a group holds for one group.
#[rstest]
#[case("pod web-5d9", true)]
#[case("pod web", false)]
#[case("pod-namespace shop", true)]
#[case("pod-namespace shop pod db pod web-5d9 container-name nginx", true)]
#[case("pod web-5d9 pod-namespace other", false)]
#[case("container-name nginx cgroup db", false)]
fn containers_are_wanted_by_name(#[case] wanted: &str, #[case] expected: bool) {
    let [pod, pod_namespace, container_name] = ["web-5d9", "shop", "nginx"].map(|name| Some(name.into()));
    let labels = Labels { pod, pod_namespace, container_name };
    let named = Group { labels, ..Group::at(b"/kubepods/pod1/web.service") };
    assert_eq!(criteria(wanted).wants_group(&named), expected);
    assert!(!criteria(wanted).wants_group(&Group::at(b"/kubepods/pod1/web.service")), "it has no names");
    assert!(!criteria(wanted).is_empty());
}

#[test]
fn a_name_that_comes_late_shows_the_whole_connection() {
    let mut filter = Filter::new(criteria("cgroup db"));
    let rows = [unnamed(known()), last(unnamed(known()))].map(Row::Transition);
    assert_eq!(filtered(&mut filter, rows[..1].to_vec()), []);
    assert_eq!(filter.pending().count(), 1);
    let mut names = names();
    names.name_group(6, Group::at(b"/system.slice/db.service"));
    let mut out = Vec::new();
    filter.push(rows[1].clone(), &names, &mut out);
    assert_eq!(out, rows);
    assert_eq!((filter.filtered_out(), filter.undecided()), (0, Undecided::default()));
}

/// They may have matched: the name of their group is unknown.
#[test]
fn rows_without_a_named_group_that_must_go_are_undecided() {
    let mut filter = Filter::with_capacity(criteria("cgroup web"), 1);
    let rows = [known(), known()].map(|row| Row::Transition(unnamed(row)));
    assert_eq!(filtered(&mut filter, rows.clone()), rows);
    assert_eq!((filter.undecided(), filter.dropped()), (Undecided { shown: 2, left_out: 0 }, 0));
}

/// Their owner is known, but not who will close them: that is no loss.
#[test]
fn rows_that_wait_for_who_closes_are_not_lost() {
    let mut filter = Filter::with_capacity(criteria("pid 8"), 1);
    assert_eq!(filtered(&mut filter, [known(), known()].map(Row::Transition)), []);
    assert_eq!((filter.undecided(), filter.dropped()), (Undecided { shown: 0, left_out: 2 }, 0));
}

/// A row names one of the processes that hold it.
#[rstest]
#[case::no_other(1, Verdict::Hidden)]
#[case::others(2, Verdict::Unknown)]
fn who_has_a_stuck_socket_is_asked(#[case] holders: u32, #[case] other: Verdict) {
    let task = Task { pid: 8, tid: 8, comm: Comm::from("worker") };
    let report = Report { holder: Some((task, 3)), holders: Some(holders), accepted: Some(true), ..Report::default() };
    let stuck = Some(Stuck::Waiting(report));
    let row = Row::Transition(Transition { new: State::CloseWait, stuck, ..known() });
    assert_eq!(criteria("pid 8").decide(&row, &names()), Some(Verdict::Shown));
    assert_eq!(criteria("cgroup db").decide(&row, &names()), Some(Verdict::Shown));
    assert_eq!(criteria("pid 9").give_up_on(&row, &names()), other);
}

#[test]
fn the_conclusion_follows_its_transitions() {
    let mut filter = Filter::new(criteria("closer unknown"));
    let conclusion = Row::Connection(connection());
    let rows = [Row::Transition(known()), Row::Transition(last(known())), conclusion.clone()];
    assert_eq!(filtered(&mut filter, rows.clone()), rows);
    // On its own it says that the peer closed first.
    assert_eq!(filtered(&mut filter, [Row::Transition(bare()), conclusion]), []);
}

#[test]
fn a_conclusion_at_close_decides_for_the_time_wait() {
    let mut filter = Filter::new(criteria("closer passive"));
    let time_wait = Transition { old: State::TimeWait, ..last(known()) };
    let rows = [Row::Transition(known()), Row::Connection(connection()), Row::Transition(time_wait)];
    assert_eq!(filtered(&mut filter, rows.clone()), rows);
    assert_eq!(filter.decided.len(), 0);
}

#[test]
fn another_life_of_a_socket_is_another_connection() {
    let mut filter = Filter::new(criteria("lport 5000"));
    let rows = [bare(), bare(), known(), bare(), last(bare())].map(Row::Transition);
    assert_eq!(filtered(&mut filter, rows.clone()), rows[1..3]);
    assert_eq!(filter.filtered_out(), 3);
}

#[test]
fn too_many_held_rows_are_dropped_from_the_one_that_waits_longest() {
    let of = |conn, row: Transition| Row::Transition(Transition { identity: Identity { conn, ..row.identity }, ..row });
    let mut filter = Filter::with_capacity(criteria("pid 7"), 3);
    let held = [of(1, bare()), of(2, bare()), of(1, bare_established()), of(3, bare())];
    assert_eq!(filtered(&mut filter, held), []);
    assert_eq!((filter.dropped(), filter.pending_rows), (2, 2));
    let deciding = [of(1, known()), of(2, known())];
    assert_eq!(filtered(&mut filter, deciding.clone()), [deciding[0].clone(), of(2, bare()), deciding[1].clone()]);
}

fn bare_established() -> Transition {
    Transition { old: State::SynSent, new: State::Established, ..bare() }
}

#[test]
fn nothing_is_kept_of_what_has_ended() {
    let mut filter = Filter::new(criteria("pid 7"));
    let rows = (0..100).flat_map(|conn| {
        [bare(), known(), last(known())].map(|row| {
            let identity = Identity { conn, ..row.identity };
            Row::Transition(Transition { identity, ..row })
        })
    });
    assert_eq!(filtered(&mut filter, rows).len(), 300);
    assert_eq!((filter.decided.len(), filter.pending.len(), filter.pending_rows), (0, 0, 0));
    let connections = (0..100).map(|conn| {
        let identity = Identity { conn, ..known().identity };
        Row::Connection(Connection { identity, ..connection() })
    });
    assert_eq!(filtered(&mut filter, connections).len(), 100);
    assert_eq!(filter.decided.len(), 0);
}

#[test]
fn nothing_asked_lets_everything_through() {
    let mut filter = Filter::new(Criteria::default());
    let rows = [Row::Transition(bare()), Row::Transition(bare_established()), Row::Connection(connection())];
    assert!(Criteria::default().is_empty());
    assert_eq!(filtered(&mut filter, rows.clone()), rows);
}

/// It may have become any connection, but not in another network namespace.
#[rstest]
#[case("port 1 pid 2 comm a state LISTEN closer active min 5 6", true)]
#[case("netns 9", true)]
#[case("netns 9 netns 10", true)]
#[case("netns 10", false)]
fn counters_of_what_no_event_tells_pass_but_for_the_namespace(#[case] options: &str, #[case] shown: bool) {
    let mut filter = Filter::new(criteria(options));
    let (counter, over_ns) = (Unseen::ListenDrops, None);
    let row = Row::Counter(Increase { at: 1, netns: 9, counter, increase: 1, over_ns });
    assert_eq!(filtered(&mut filter, [row]).len(), usize::from(shown));
    assert_eq!(filter.filtered_out(), u64::from(!shown));
}

#[test]
fn each_criterion_counts() {
    let options = "port 1,lport 1,rport 1,addr ::/0,pid 1,comm a,netns 1,state LISTEN,closer active,min 1,4,6";
    for option in options.split(',') {
        assert!(!criteria(option).is_empty(), "{option}");
    }
}

#[test]
fn the_kernel_is_asked_what_it_can_check() {
    let kernel = criteria("port 80 port 443 rport 22 netns 5 6").kernel();
    let expected = tcptrace_common::Filter {
        ports: [80, 443, 0, 0, 0, 0, 0, 0],
        remote_ports: [22, 0, 0, 0, 0, 0, 0, 0],
        netns: 5,
        family: 6,
        ..Default::default()
    };
    assert_eq!(kernel, expected);
}

#[rstest]
#[case::too_many_ports("port 1 port 2 port 3 port 4 port 5 port 6 port 7 port 8 port 9")]
#[case::port_that_means_unused("lport 0 lport 1")]
#[case::two_namespaces("netns 1 netns 2")]
#[case::both_families("4 6")]
#[case::only_known_here("pid 1 comm a addr 10.0.0.0/8 state LISTEN closer active min 1")]
fn the_kernel_is_not_asked_for_a_part(#[case] options: &str) {
    assert_eq!(criteria(options).kernel(), tcptrace_common::Filter::default());
}

/// Any row of one of four sockets; `boot_ns` is set to its place in the stream later.
fn any_transition() -> impl Strategy<Value = Transition> {
    let states = prop::sample::select(State::ALL.to_vec());
    let ports = prop::sample::select(vec![0_u16, 80, 443]);
    let owners = prop::sample::select(vec![
        None,
        Some(owner(7, "curl", OwnerSource::Connect)),
        Some(owner(8, "nginx", OwnerSource::Listen)),
        Some(owner(9, "nginx", OwnerSource::Accept)),
    ]);
    let closers = prop::option::of(prop::sample::select(Closer::ALL.to_vec()));
    let held = prop_oneof![Just(Held::Unknown), (0..4_u64).prop_map(Held::Exactly)];
    let cgroups = prop::sample::select(vec![None, Some(5), Some(6)]);
    (0..4_u64, states.clone(), states, ports.clone(), ports, owners, closers, held, cgroups).prop_map(
        |(conn, old, new, local_port, remote_port, owner, closer, held, cgroup)| {
            let row = bare();
            let tuple = Tuple { local_port, remote_port, ..row.identity.tuple };
            let identity = Identity { conn, tuple, owner, cgroup, ..row.identity };
            Transition { identity, old, new, closer, held, ..row }
        },
    )
}

/// A stream in which some connections are concluded right after their last transition, as the engine does it.
fn any_stream() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((any_transition(), any::<bool>()), 0..60).prop_map(|rows| {
        let mut stream = Vec::new();
        for (row, concluded) in rows {
            let row = Transition { boot_ns: stream.len() as u64, ..row };
            stream.push(Row::Transition(row));
            if concluded && row.new == State::Closed {
                let boot_ns = stream.len() as u64;
                stream.push(Row::Connection(Connection { identity: row.identity, boot_ns, ..connection() }));
            }
        }
        stream
    })
}

fn any_criteria() -> impl Strategy<Value = Criteria> {
    let options = [
        "port 80",
        "lport 443",
        "rport 80",
        "pid 7",
        "pid 9",
        "comm nginx",
        "cgroup web",
        "closer active",
        "closer unknown",
    ];
    prop::sample::subsequence(options.to_vec(), 0..4).prop_map(|options| criteria(&options.join(" ")))
}

/// The place of a row in its stream.
fn place(row: &Row) -> u64 {
    row.boot_ns()
}

/// The rows of every life of every socket.
fn lives(stream: &[Row]) -> Vec<Vec<Row>> {
    let mut lives: Vec<Vec<Row>> = Vec::new();
    let mut current: HashMap<u64, usize> = HashMap::new();
    for row in stream {
        let conn = row.identity().expect("no loss").conn;
        let life = current.get(&conn).copied();
        let is_over = life.is_some_and(|life| {
            let closed = |row: &Row| matches!(row, Row::Transition(row) if row.new == State::Closed);
            begins(row) || (lives[life].iter().any(closed) && matches!(row, Row::Transition(_)))
        });
        let life = life.filter(|_| !is_over).unwrap_or_else(|| {
            lives.push(Vec::new());
            lives.len() - 1
        });
        current.insert(conn, life);
        lives[life].push(row.clone());
    }
    lives
}

proptest! {
    #[test]
    fn a_connection_is_shown_as_a_whole_or_not_at_all(stream in any_stream(), criteria in any_criteria()) {
        let mut filter = Filter::new(criteria.clone());
        let mut out = filtered(&mut filter, stream.clone());
        out.extend(finished(&mut filter));
        for life in lives(&stream) {
            let shown: Vec<Row> = out.iter().filter(|row| life.contains(row)).cloned().collect();
            let verdict = life.iter().find_map(|row| criteria.decide(row, &names()));
            let verdict = verdict.unwrap_or_else(|| criteria.give_up_on(&life[life.len() - 1], &names()));
            let is_shown = matches!(verdict, Verdict::Shown | Verdict::Undecided);
            prop_assert_eq!(shown, if is_shown { life } else { Vec::new() });
        }
    }

    #[test]
    fn every_row_is_shown_once_or_counted(stream in any_stream(), criteria in any_criteria(), held in 0_usize..20) {
        let criteria = Criteria { min_duration_ns: Some(2), states: vec![State::Established], ..criteria };
        let mut filter = Filter::with_capacity(criteria, held);
        let mut out = filtered(&mut filter, stream.clone());
        out.extend(finished(&mut filter));
        prop_assert_eq!(out.len() as u64 + filter.filtered_out() + filter.undecided().left_out + filter.dropped(), stream.len() as u64);
        prop_assert!(out.iter().all(|row| stream.contains(row)));
        for conn in 0..4 {
            let places: Vec<u64> = out.iter().filter(|row| row.identity().expect("no loss").conn == conn).map(place).collect();
            prop_assert!(places.is_sorted_by(|before, after| before < after), "{places:?}");
        }
    }
}

/// A report of a stuck socket is useful now or never: it does not stay pending, and decides nothing for later.
#[rstest]
#[case::matches("pid 7", known(), true)]
#[case::does_not_match("pid 8", known(), false)]
#[case::not_known_to_match("pid 7", bare(), false)]
fn reports_do_not_wait(#[case] options: &str, #[case] row: Transition, #[case] shown: bool) {
    let mut filter = Filter::new(criteria(options));
    let stuck = Some(Stuck::Waiting(Report::default()));
    let report = Row::Transition(Transition { old: row.new, stuck, ..row });
    assert_eq!(filtered(&mut filter, [report]).len(), usize::from(shown));
    assert_eq!((filter.pending_rows, filter.decided.len()), (0, 0));
}
