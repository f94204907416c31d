use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::model::event::{Bound, Kept};
use crate::model::facts::Settings;
use crate::model::row::{Connection, Held, Status};
use crate::model::tcp::{Comm, Side, State, Task, Tuple};
use crate::output::samples;

const S: u64 = 1_000_000_000;
const SERVER: (&str, u16) = ("127.0.0.1", 7_000);
const FAR: (&str, u16) = ("10.9.0.2", 7_000);

fn ip(text: &str) -> Ipv6Addr {
    match text.parse().expect("an address") {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        std::net::IpAddr::V6(ip) => ip,
    }
}

fn settings(values: &[(&str, &str)]) -> Settings {
    let values = values.iter().map(|(name, value)| (format!("net.ipv4.{name}").into(), (*value).into()));
    Settings { at: 7, netns: Some(9), values: values.collect() }
}

/// 100 ports, nothing reserved, timestamps on.
fn hundred(tw_reuse: &str) -> PortSettings {
    of(&[("ip_local_port_range", "40000 40099"), ("tcp_tw_reuse", tw_reuse)])
}

fn of(values: &[(&str, &str)]) -> PortSettings {
    let mut settings = settings(&[("ip_local_reserved_ports", ""), ("tcp_timestamps", "1")]);
    settings.values.extend(self::settings(values).values);
    PortSettings::of(&settings).expect("the range is known")
}

fn socket(source: &str, port: u16, (to, to_port): (&str, u16), state: State, origin: Origin) -> PortUse {
    PortUse {
        netns: Some(9),
        interface: 0,
        tuple: Tuple { local_ip: ip(source), local_port: port, remote_ip: ip(to), remote_port: to_port },
        state,
        is_mini: state == State::TimeWait,
        origin,
        owner: None,
        left_ns: None,
        age_ns: None,
        timestamps: None,
    }
}

const CONNECTED: Origin = Origin::Connected { bound: Some(false) };
const BOUND_FIRST: Origin = Origin::Connected { bound: Some(true) };

/// Begun `age` s ago, and there for 61 s.
fn time_wait(port: u16, to: (&str, u16), age: f64) -> PortUse {
    let source = if to.0.starts_with("127.") { "127.0.0.1" } else { "10.9.0.1" };
    let age_ns = (age * 1e9) as u64;
    let left_ns = Some((61 * S).saturating_sub(age_ns));
    PortUse { left_ns, age_ns: Some(age_ns), ..socket(source, port, to, State::TimeWait, CONNECTED) }
}

fn time_waits(count: u16, to: (&str, u16), age: f64) -> Vec<PortUse> {
    (40_000..40_000 + count).map(|port| time_wait(port, to, age)).collect()
}

fn ports(settings: PortSettings, uses: Vec<PortUse>) -> Ports {
    Ports::new([(Some(9), settings)], uses, true)
}

fn only(ports: &Ports, measured: Measured) -> Budget {
    let keys: Vec<Key> = ports.keys().collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    ports.budget(&keys[0], measured).expect("a budget")
}

fn rate(per_second: f64) -> Measured {
    Measured { rate: Some(Rate { opened: (per_second * 1_000.0) as u64, window_ns: 1_000 * S }), time_wait_ns: None }
}

/// Each bind() in the range takes a port from everybody, whatever its address and family.
#[rstest]
#[case::nothing_else("", "", 100)]
#[case::reserved("", "40010-40018,40020", 90)]
#[case::reserved_elsewhere("", "8080,39990-40000", 99)]
#[case::a_listener("127.0.0.1 listener", "", 99)]
#[case::bound_and_never_connected("127.0.0.9 bound", "", 99)]
#[case::of_ipv6_only("::1 listener", "", 99)]
#[case::reserved_and_listening("127.0.0.1 listener", "40050", 99)]
fn usable_ports(#[case] other: &str, #[case] reserved: &str, #[case] usable: u32) {
    let mut uses = time_waits(1, ("127.0.0.1", 7_000), 0.0);
    uses[0].tuple.local_port = 40_099;
    if let Some((address, what)) = other.split_once(' ') {
        let (state, origin) = match what {
            "listener" => (State::Listen, Origin::Listener),
            _ => (State::Closed, Origin::BoundOnly),
        };
        uses.push(socket(address, 40_050, ("::", 0), state, origin));
    }
    let settings = of(&[("ip_local_port_range", "40000 40099"), ("ip_local_reserved_ports", reserved)]);
    let budget = only(&ports(settings, uses), Measured::default());
    assert_eq!((budget.range, budget.usable, budget.usable_at_most), (100, usable, false));
    assert_eq!(budget.range - budget.reserved - budget.blocked, usable);
    assert_eq!((budget.taken, budget.free), (1, usable - 1));
}

/// 100 for each destination port, each destination address and each source address.
#[test]
fn each_destination_has_its_own() {
    let mut uses = time_waits(100, SERVER, 0.0);
    uses.extend(time_waits(1, ("127.0.0.1", 7_001), 0.0));
    uses.extend(time_waits(1, ("127.0.0.2", 7_000), 0.0));
    uses.push(socket("127.0.0.5", 40_000, SERVER, State::Established, CONNECTED));
    let ports = ports(hundred("0"), uses);
    let mut free: Vec<u32> =
        ports.keys().filter_map(|key| ports.budget(&key, Measured::default())).map(|it| it.free).collect();
    free.sort_unstable();
    assert_eq!(free, [0, 99, 99, 99]);
}

/// What was bound before it connected takes its port from every connect(), and from bind() of the same address only.
#[rstest]
#[case::in_time_wait(State::TimeWait)]
#[case::held(State::Established)]
fn bound_before_connect(#[case] state: State) {
    let bound = |port| {
        socket("127.0.0.6", port, (["127.0.0.1", "127.0.0.2"][usize::from(port % 2)], 7_000), state, BOUND_FIRST)
    };
    let mut uses: Vec<PortUse> = (40_000..40_060).map(bound).collect();
    uses.push(time_wait(40_099, SERVER, 0.0));
    let ports = ports(hundred("2"), uses);
    let budget = only(&ports, Measured::default());
    assert_eq!((budget.blocked, budget.usable, budget.free), (60, 40, 39), "the other address has 40");
    let source = |address| ports.source(Some(9), ip(address), Measured::default()).expect("settings");
    let theirs = source("127.0.0.6");
    assert_eq!((theirs.usable, theirs.taken, theirs.free), (100, 60, 40), "tw_reuse is not for bind()");
    assert_eq!((theirs.bound, theirs.destinations), (60, 2));
    assert_eq!((source("127.0.0.1").free, source("127.0.0.7").free), (99, 100));
}

#[rstest]
#[case::any_ipv4("0.0.0.0", 99, 100)]
#[case::any("::", 99, 99)]
#[case::another("127.0.0.9", 100, 100)]
fn whom_a_listener_keeps_from_binding(#[case] address: &str, #[case] ipv4: u32, #[case] ipv6: u32) {
    let ports = ports(hundred("2"), vec![socket(address, 40_007, ("::", 0), State::Listen, Origin::Listener)]);
    let free = |address| ports.source(Some(9), ip(address), Measured::default()).map(|it| it.free);
    assert_eq!((free("127.0.0.1"), free("::1")), (Some(ipv4), Some(ipv6)));
}

/// By address, not by device; by age; and by what both ends can.
#[rstest]
#[case::over_loopback("2", SERVER, 1.2, 100, Reuse::On)]
#[case::too_young("2", SERVER, 0.9, 0, Reuse::On)]
#[case::off("0", SERVER, 1.2, 0, Reuse::Off)]
#[case::over_an_interface("2", FAR, 1.2, 0, Reuse::LoopbackOnly)]
#[case::to_the_own_address("2", ("10.9.0.1", 7_000), 1.2, 0, Reuse::LoopbackOnly)]
#[case::nobody_knows_of_timestamps("1", FAR, 1.2, 0, Reuse::Unknown)]
#[case::old("1", SERVER, 40.0, 100, Reuse::On)]
fn reusable(
    #[case] setting: &str,
    #[case] to: (&str, u16),
    #[case] age: f64,
    #[case] count: u32,
    #[case] reuse: Reuse,
) {
    let budget = only(&ports(hundred(setting), time_waits(100, to, age)), Measured::default());
    assert_eq!((budget.taken, budget.reusable, budget.free, budget.reuse), (100, count, count, reuse));
}

#[test]
fn what_reuse_needs() {
    let with = |values: &[(&str, &str)], change: &dyn Fn(&mut PortUse), age| {
        let mut uses = time_waits(100, FAR, age);
        uses.iter_mut().for_each(change);
        let settings = of(&[&[("ip_local_port_range", "40000 40099"), ("tcp_tw_reuse", "1")], values].concat());
        let budget = only(&ports(settings, uses), Measured::default());
        (budget.reusable, budget.reuse)
    };
    let seen = |it: &mut PortUse| it.timestamps = Some(true);
    assert_eq!(with(&[], &seen, 1.2), (100, Reuse::On));
    assert_eq!(with(&[("tcp_timestamps", "0")], &|_| {}, 1.2), (0, Reuse::NoTimestamps));
    assert_eq!(with(&[], &|it| it.timestamps = Some(false), 1.2), (0, Reuse::NoTimestamps));
    assert_eq!(with(&[("tcp_tw_reuse_delay", "100")], &seen, 0.15), (100, Reuse::On));
    // The peer never closes.
    let fin_wait2 = |it: &mut PortUse| {
        (it.state, it.left_ns, it.age_ns) = (State::FinWait2, None, None);
        seen(it);
    };
    assert_eq!(with(&[], &fin_wait2, 1.2), (0, Reuse::On));
}

/// After so many seconds at a rate, on 100 ports without reuse.
fn after(seconds: f64, per_second: f64) -> Budget {
    let opened = (seconds * per_second).ceil() as u16;
    let age = |nth: u16| seconds - f64::from(nth) / per_second;
    let uses = (0..opened).filter(|nth| age(*nth) < 61.0).map(|nth| time_wait(40_000 + nth % 100, SERVER, age(nth)));
    only(&ports(hundred("0"), uses.collect()), rate(per_second))
}

/// As it was measured: 62, 94, full after 50.0 s and after 20.0 s.
#[rstest]
#[case::one(20.0, 1.0, Some(0.61), None)]
#[case::one_and_a_half(20.0, 1.5, Some(0.915), None)]
#[case::two(0.5, 2.0, None, Some(49.5))]
#[case::two_later(20.0, 2.0, None, Some(30.0))]
#[case::five(1.0, 5.0, None, Some(19.0))]
#[case::five_later(20.0, 5.0, None, Some(0.0))]
fn where_a_rate_leads_to(
    #[case] seconds: f64,
    #[case] per_second: f64,
    #[case] level: Option<f64>,
    #[case] left: Option<f64>,
) {
    let budget = after(seconds, per_second);
    let forecast = budget.forecast.expect("a rate");
    let near = |one: Option<f64>, other: Option<f64>| match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() < 1e-6,
        (one, other) => one == other,
    };
    assert!(near(forecast.levels_off_at, level) && near(forecast.seconds_left, left), "{forecast:?}");
    assert!(near(Some(budget.sustainable), Some(100.0 / 61.0)), "{}", budget.sustainable);
    assert!(near(Some(forecast.demand), Some(per_second * 61.0)), "{forecast:?}");
    assert!(!budget.is_measured);
}

/// The present ones end at their own time: a burst of old ones does not add to what comes.
#[test]
fn ends_are_known_one_by_one() {
    let left = |age: f64| {
        let ports = ports(hundred("0"), time_waits(60, SERVER, age));
        only(&ports, rate(2.0)).forecast.and_then(|it| it.seconds_left).expect("too many")
    };
    assert!((left(0.0) - 20.0).abs() < 1e-6, "{}", left(0.0));
    // They are gone after 11 s, when 22 others have come.
    assert!((left(50.0) - 50.0).abs() < 1e-6, "{}", left(50.0));
}

/// 100 a second at 1,000 ms, 500 at 200 ms: as it was measured.
#[rstest]
#[case("1000", 100.0)]
#[case("200", 500.0)]
fn sustainable_with_reuse(#[case] delay: &str, #[case] expected: f64) {
    let settings = of(&[("ip_local_port_range", "40000 40099"), ("tcp_tw_reuse", "2"), ("tcp_tw_reuse_delay", delay)]);
    let budget = only(&ports(settings.clone(), time_waits(40, SERVER, 5.0)), rate(expected));
    assert!((budget.sustainable - expected).abs() < 1e-6, "{}", budget.sustainable);
    assert_eq!(budget.forecast.and_then(|it| it.seconds_left), None);
    let more = only(&ports(settings, time_waits(40, SERVER, 5.0)), rate(expected * 1.1)).forecast.expect("a rate");
    assert_eq!(more.levels_off_at, None);
}

/// The default range, and nothing else.
#[test]
fn the_default_range() {
    let settings = of(&[("ip_local_port_range", "32768 60999"), ("tcp_tw_reuse", "2")]);
    let measured = Measured { time_wait_ns: Some(61 * S), ..rate(400.0) };
    let budget = only(&ports(settings, vec![time_wait(40_000, FAR, 1.0)]), measured);
    assert_eq!((budget.usable, budget.sustainable.round()), (28_232, 463.0));
    let level = budget.forecast.and_then(|it| it.levels_off_at).expect("enough");
    assert_eq!((level * 100.0).round(), 86.0);
    assert!(budget.is_measured);
}

/// From the half on, connect() tries all of it first.
#[rstest]
#[case("40000 47999", 3_999, false)]
#[case("40000 47999", 4_000, true)]
#[case("40000 40100", 50, false)]
#[case("40000 40100", 51, true)]
fn half_walked(#[case] range: &str, #[case] taken: u16, #[case] expected: bool) {
    let budget = only(&ports(of(&[("ip_local_port_range", range)]), time_waits(taken, FAR, 1.0)), Measured::default());
    assert_eq!(budget.half_walked, expected);
}

/// The server closed first, on a port of the range: its TIME_WAITs take none of them but the one.
#[test]
fn time_waits_of_a_listening_port_take_no_port() {
    let mut uses = time_waits(3, SERVER, 0.0);
    uses.push(socket("127.0.0.1", 40_050, ("::", 0), State::Listen, Origin::Listener));
    let served = |nth: u16| PortUse {
        origin: Origin::Unknown,
        ..socket("127.0.0.1", 40_050, ("127.0.0.1", 10_000 + nth), State::TimeWait, CONNECTED)
    };
    uses.extend((0..50).map(served));
    let budget = only(&ports(hundred("0"), uses.clone()), Measured::default());
    assert_eq!((budget.usable, budget.taken, budget.usable_at_most), (99, 3, false));
    // The listener is gone, and they were seen to be its own: the port is still not for connect().
    uses.retain(|it| it.state != State::Listen);
    uses.iter_mut().filter(|it| it.origin == Origin::Unknown).for_each(|it| it.origin = Origin::Accepted);
    assert_eq!(only(&ports(hundred("0"), uses), Measured::default()).usable, 99);
}

#[test]
fn what_may_be_missing() {
    let unclear = |port| PortUse { origin: Origin::Unknown, ..time_wait(port, FAR, 0.0) };
    let at_most = |uses, knows_bound| {
        let ports = Ports::new([(Some(9), hundred("0"))], uses, knows_bound);
        let key = time_wait(1, FAR, 0.0).key();
        ports.budget(&key, Measured::default()).map(|it| it.usable_at_most)
    };
    assert_eq!(at_most(vec![unclear(40_000)], true), Some(false), "its own are counted either way");
    assert_eq!(at_most(vec![unclear(40_000)], false), Some(true));
    let elsewhere = PortUse { origin: Origin::Unknown, ..time_wait(40_001, SERVER, 0.0) };
    assert_eq!(at_most(vec![unclear(40_000), elsewhere], true), Some(true));
    assert_eq!(at_most(vec![], true), None);
}

#[test]
fn ports_outside_the_range_are_nobodys() {
    let ports = ports(hundred("0"), vec![time_wait(50_000, FAR, 0.0)]);
    assert_eq!(ports.keys().count(), 0);
    assert_eq!(Ports::new([], vec![time_wait(40_000, FAR, 0.0)], true).keys().count(), 0, "no settings");
}

#[test]
fn whose_they_are() {
    let task = |pid, tid| Task { pid, tid, comm: Comm::from("api") };
    let mut uses = time_waits(6, FAR, 0.0);
    for (it, owner) in uses.iter_mut().zip([task(5, 5), task(7, 7), task(7, 8), task(7, 7)]) {
        it.owner = Some(owner);
    }
    let owners = only(&ports(hundred("0"), uses), Measured::default()).owners;
    assert_eq!(owners, Owners { known: vec![(task(7, 7), 3), (task(5, 5), 1)], unknown: 2 });
}

#[test]
fn the_fullest_come_first() {
    let mut uses = Vec::new();
    for (count, port) in [(3, 1), (9, 2), (5, 3), (5, 4)] {
        uses.extend(time_waits(count, ("10.9.0.2", port), 0.0));
    }
    let ports = ports(hundred("0"), uses);
    let budgets = || ports.keys().filter_map(|key| ports.budget(&key, Measured::default())).collect::<Vec<_>>();
    let rows: Vec<_> = rank(budgets(), 2)
        .into_iter()
        .map(|row| match row {
            Ranked::One(it) => (u64::from(it.key.port), u64::from(it.taken)),
            Ranked::Rest(rest) => (rest.groups, rest.taken),
        })
        .collect();
    assert_eq!(rows, [(2, 9), (3, 5), (2, 8)]);
    assert_eq!((rank(budgets(), 0).len(), rank(budgets(), 4).len(), rank(budgets(), 9).len()), (0, 4, 4));
    // More than wait to be ranked at a time: it is the same as if all did.
    let many = (0..100).flat_map(|_| budgets());
    let rows = rank(many, 150);
    let others = (250, 50 * 5 + 100 * 5 + 100 * 3);
    assert_eq!(rows.len(), 151);
    assert!(matches!(rows[150], Ranked::Rest(rest) if (rest.groups, rest.taken) == others));
    assert!(matches!(&rows[99], Ranked::One(it) if it.taken == 9));
    assert!(matches!(&rows[149], Ranked::One(it) if it.taken == 5));
}

#[rstest]
#[case(&[], None)]
#[case(&[("ip_local_port_range", "60999")], None)]
#[case(&[("ip_local_port_range", "60999 32768")], None)]
#[case(&[("ip_local_port_range", "1 99999")], None)]
#[case(&[("ip_local_port_range", "0 65535")], Some(65_536))]
#[case(&[("ip_local_port_range", "32768\t60999")], Some(28_232))]
fn ranges(#[case] values: &[(&str, &str)], #[case] expected: Option<u32>) {
    assert_eq!(PortSettings::of(&settings(values)).map(|it| it.range.count()), expected);
}

#[rstest]
#[case("", Some(vec![]))]
#[case("1,5-7", Some(vec![1, 5, 6, 7]))]
#[case("7-5", Some(vec![]))]
#[case("65535", Some(vec![65_535]))]
#[case("1,x", None)]
fn lists(#[case] value: &str, #[case] expected: Option<Vec<u16>>) {
    let settings = settings(&[("ip_local_port_range", "1 2"), ("ip_local_reserved_ports", value)]);
    let reserved = PortSettings::of(&settings).and_then(|it| it.reserved);
    assert_eq!(reserved, expected.map(|ports| ports.into_iter().collect()));
}

#[rstest]
#[case(State::Listen, Kept::Held, Side::Unknown, Origin::Listener)]
#[case(State::SynRecv, Kept::Queued, Side::Unknown, Origin::Accepted)]
#[case(State::Established, Kept::Queued, Side::Unknown, Origin::Accepted)]
#[case(State::Established, Kept::Held, Side::Unknown, Origin::Unknown)]
#[case(State::Established, Kept::Held, Side::Server, Origin::Accepted)]
#[case(State::SynSent, Kept::Held, Side::Unknown, Origin::Connected { bound: None })]
#[case(State::TimeWait, Kept::Mini { due_ns: 20 * S }, Side::Client, Origin::Connected { bound: None })]
fn where_a_port_is_from(#[case] state: State, #[case] kept: Kept, #[case] side: Side, #[case] expected: Origin) {
    assert_eq!(usage::origin(state, kept, side), expected);
}

#[test]
fn what_a_trace_tells() {
    let open = |state, age| Connection {
        status: Status::Open { state, age: Held::AtLeast(age), accepted: None },
        ..samples::connection()
    };
    let of = |row: &Connection, bound| {
        PortUse::of_connection(row, bound).map(|it| (it.origin, it.is_mini, it.left_ns, it.age_ns))
    };
    let client = Origin::Connected { bound: Some(true) };
    assert_eq!(of(&open(State::Established, 5 * S), Some(true)), Some((client, false, None, None)));
    assert_eq!(of(&open(State::TimeWait, 5 * S), Some(true)), Some((client, true, Some(56 * S), Some(5 * S))));
    assert_eq!(of(&samples::connection(), None), None, "it has ended");
    let mut served = open(State::Established, S);
    served.identity.side = Side::Server;
    assert_eq!(of(&served, None), Some((Origin::Accepted, false, None, None)));
    let bound = Bound { ip: ip("127.0.0.9"), port: 40_000, netns: Some(9) };
    let ports = ports(hundred("0"), vec![PortUse::of_bound(&bound, None), time_wait(40_001, FAR, 0.0)]);
    assert_eq!(only(&ports, Measured::default()).usable, 99);
}

/// Every destination of a busy client, and every socket: none is counted twice.
#[test]
fn a_hundred_thousand_sockets() {
    let uses: Vec<_> = (0..100_000_u32)
        .map(|nth| {
            let (port, to) = (32_768 + (nth % 28_000) as u16, 1 + (nth / 28_000) as u16);
            PortUse { origin: Origin::Unknown, ..time_wait(port, ("10.9.0.2", to), f64::from(nth % 61)) }
        })
        .collect();
    let ports = ports(of(&[("ip_local_port_range", "32768 60999")]), uses);
    let budgets: Vec<_> = ports.keys().filter_map(|key| ports.budget(&key, rate(10.0))).collect();
    assert_eq!(budgets.iter().map(|it| it.taken).sum::<u32>(), 100_000);
}

fn any_use() -> impl Strategy<Value = PortUse> {
    let states = prop::sample::select(State::ALL.to_vec());
    let origins = [None, Some(false), Some(true)].map(|bound| Origin::Connected { bound });
    let others = [Origin::Unknown, Origin::Listener, Origin::BoundOnly, Origin::Accepted];
    let origins = prop::sample::select([&origins[..], &others[..]].concat());
    let times = (any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<bool>>());
    (39_990_u16..40_030, 1_u16..3, states, origins, any::<bool>(), times).prop_map(
        |(port, to, state, origin, is_mini, (left_ns, age_ns, timestamps))| {
            let it = socket("10.9.0.1", port, ("10.9.0.2", to), state, origin);
            PortUse { is_mini, left_ns, age_ns, timestamps, ..it }
        },
    )
}

proptest! {
    /// Whatever is there and whatever was measured.
    #[test]
    fn figures_agree(
        uses in prop::collection::vec(any_use(), 0..80),
        tw_reuse in 0_u8..3,
        delay in any::<u64>(),
        reserved in 39_990_u16..40_030,
        opened in any::<u64>(),
        window_ns in any::<u64>(),
        time_wait_ns in any::<Option<u64>>(),
    ) {
        let settings = of(&[
            ("ip_local_port_range", "40000 40019"),
            ("tcp_tw_reuse", &tw_reuse.to_string()),
            ("tcp_tw_reuse_delay", &delay.to_string()),
            ("ip_local_reserved_ports", &reserved.to_string()),
        ]);
        let measured = Measured { rate: Some(Rate { opened, window_ns }), time_wait_ns };
        let ports = ports(settings, uses);
        for key in ports.keys() {
            let it = ports.budget(&key, measured).expect("a budget");
            prop_assert_eq!(it.range, it.reserved + it.blocked + it.usable);
            prop_assert_eq!(it.taken, it.open + it.fin_wait2 + it.time_wait);
            prop_assert!(0 < it.taken && it.taken <= it.usable && it.reusable <= it.time_wait);
            prop_assert_eq!(it.free, it.usable - it.taken + it.reusable);
            prop_assert!((0.0..=1.0).contains(&it.share) && it.sustainable >= 0.0);
            if let Some(forecast) = it.forecast {
                prop_assert_eq!(forecast.seconds_left.is_none(), forecast.demand <= f64::from(it.usable));
                prop_assert_eq!(forecast.seconds_left.is_none(), forecast.levels_off_at.is_some());
                let holds = it.holds_ns.max(1_000_000) as f64 / 1e9;
                prop_assert!(forecast.seconds_left.is_none_or(|left| (0.0..=holds).contains(&left)), "{:?}", forecast);
            }
        }
        let source = ports.source(Some(9), ip("10.9.0.1"), measured).expect("settings");
        prop_assert_eq!(source.free + source.taken, source.usable);
        prop_assert!(source.bound <= source.taken);
    }

    /// At no moment before the last port is taken are as many taken.
    #[test]
    fn nothing_fails_before_it_is_full(ages in prop::collection::vec(0.0..61.0_f64, 0..100), per_second in 1.7..20.0_f64) {
        let uses = (40_000..).zip(&ages).map(|(port, age)| time_wait(port, SERVER, *age)).collect::<Vec<_>>();
        prop_assume!(!uses.is_empty());
        let measured = rate(per_second);
        let forecast = only(&ports(hundred("0"), uses), measured).forecast.expect("a rate");
        let full = forecast.seconds_left.expect("more than 100 / 61");
        let taken = |at: f64| ages.iter().filter(|age| 61.0 - **age > at).count() as f64 + forecast.rate * at;
        for part in 0..100 {
            let at = full * f64::from(part) / 100.0;
            prop_assert!(taken(at) <= 100.0 + 1e-6, "{} taken after {at} of {full} s", taken(at));
        }
        prop_assert!(taken(full) + 1.0 + 1e-6 >= 100.0, "{} taken after {full} s", taken(full));
    }
}
