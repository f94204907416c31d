//! The drawing, and the choice of its connections.

mod pair;

use anstyle::AnsiColor;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use rstest::rstest;

use super::{Axis, Line, Options, layout, write};
use crate::model::life::Life;
use crate::model::row::{Connection, Held, Identity, Stay};
use crate::model::stream::Origin;
use crate::model::tcp::State;
use crate::output::width;
use crate::study::timeline::samples::{MS, S, client, hostile, origin, server, stuck, whole};
use crate::study::timeline::{Group, Peers, Selection, Sort};

fn options(width: usize) -> Options {
    Options { width, ascii: false, axis: Axis::Auto, zone: TimeZone::UTC }
}

pub(super) fn groups(connections: &[Connection]) -> Vec<Group> {
    let mut selection = Selection::new(Sort::Lifetime, 20);
    connections.iter().for_each(|connection| selection.offer(connection, &origin()));
    Peers::of(selection.into_items()).into_groups()
}

fn drawn(connections: &[Connection], options: &Options) -> String {
    printed(&layout(&groups(connections), options), false)
}

fn printed(lines: &[Line], colour: bool) -> String {
    let mut out = Vec::new();
    write(&mut out, lines, colour).expect("written");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn both_ends_are_drawn_to_scale() {
    insta::assert_snapshot!(drawn(&[server(), stuck(), client()], &options(100)), @r"
    from 2025-01-02 03:04:05.000000, 30.0s total, 312ms/column
       ╷03:04:05       ╷03:04:10       ╷03:04:15       ╷03:04:20       ╷03:04:25       ╷03:04:30
      bad  curl[4242]  10.0.0.1:45678 → 10.0.0.2:443  life ≥30.0s  CLOSE_WAIT ≥30.0s  passive, open
      ‹C███████████████████████████████████████████████████████████████████████████████████████████████›
    ┌ c  curl[4242]  127.0.0.1:43892 → 127.0.0.1:7000  life 20.0s  FIN_WAIT2 8.00s
    │ TIME_WAIT 10.0s reused  active fin
    │     E▄▄▄▄▄▟2████████████████████████T███████████████████████████████
    ├ 5  nginx[80]  127.0.0.1:7000 → 127.0.0.1:43892  life 10.0s  CLOSE_WAIT 8.00s  passive fin
    └     E▄▄▄▄▄▟C████████████████████████L

    S▄ SYN_SENT  R▄ SYN_RECV  E▄ ESTABLISHED  1█ FIN_WAIT1  2█ FIN_WAIT2  C█ CLOSE_WAIT  L█ LAST_ACK
    T█ TIME_WAIT  ‹ opened earlier  › open  ┌└ both ends of a connection
    ");
}

#[test]
fn what_does_not_fit_is_in_the_next_line() {
    insta::assert_snapshot!(drawn(&[server(), stuck(), client()], &options(60)), @r"
    from 2025-01-02 03:04:05.000000, 30.0s total, 535ms/column
                ╷03:04:10          ╷03:04:20         ╷03:04:30
      bad  curl[4242]  10.0.0.1:45678 → 10.0.0.2:443
      life ≥30.0s  CLOSE_WAIT ≥30.0s  passive, open
      ‹C███████████████████████████████████████████████████████›
    ┌ c  curl[4242]  127.0.0.1:43892 → 127.0.0.1:7000
    │ life 20.0s  FIN_WAIT2 8.00s  TIME_WAIT 10.0s reused
    │ active fin
    │    E▄▄▟2██████████████T█████████████████
    ├ 5  nginx[80]  127.0.0.1:7000 → 127.0.0.1:43892  life 10.0s
    │ CLOSE_WAIT 8.00s  passive fin
    └    E▄▄▟C█████████████▌

    S▄ SYN_SENT  R▄ SYN_RECV  E▄ ESTABLISHED  1█ FIN_WAIT1
    2█ FIN_WAIT2  C█ CLOSE_WAIT  L█ LAST_ACK  T█ TIME_WAIT
    ‹ opened earlier  › open  ┌└ both ends of a connection
    ");
}

#[test]
fn plain_ascii() {
    let options = Options { ascii: true, ..options(140) };
    insta::assert_snapshot!(drawn(&[server(), stuck(), client()], &options), @r"
    from 2025-01-02 03:04:05.000000, 30.0s total, 220ms/column
       |03:04:05             |03:04:10              |03:04:15              |03:04:20             |03:04:25              |03:04:30
      bad  curl[4242]  10.0.0.1:45678 -> 10.0.0.2:443  life >=30.0s  CLOSE_WAIT >=30.0s  passive, open
      <CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC>
    / c  curl[4242]  127.0.0.1:43892 -> 127.0.0.1:7000  life 20.0s  FIN_WAIT2 8.00s  TIME_WAIT 10.0s reused  active fin
    |      EEEEEEEEEE222222222222222222222222222222222222TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT
    | 5  nginx[80]  127.0.0.1:7000 -> 127.0.0.1:43892  life 10.0s  CLOSE_WAIT 8.00s  passive fin
    \      EEEEEEEEEECCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC

    S SYN_SENT  R SYN_RECV  E ESTABLISHED  1 FIN_WAIT1  2 FIN_WAIT2  C CLOSE_WAIT  L LAST_ACK  T TIME_WAIT  < opened earlier  > open
    /\ both ends of a connection
    ");
}

/// Two lives of a second, an hour apart.
#[test]
fn what_would_be_short_by_the_clock_begins_at_the_left() {
    let second = [(State::SynSent, 500 * MS), (State::Established, 500 * MS)];
    let lives = [whole(1, S, &second), whole(2, 3_600 * S, &second)];
    insta::assert_snapshot!(drawn(&lives, &options(60)), @r"
    from the start of each, 1.00s total, 17.8ms/column
       ╷0         ╷+200ms    ╷+400ms    ╷+600ms     ╷+800ms
      1  curl[4242]  10.0.0.1:45678 → 10.0.0.2:443
      from 01-02 03:04:06.000  life 1.00s  active fin
       S▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄E▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄
      2  curl[4242]  10.0.0.1:45678 → 10.0.0.2:443
      from 01-02 04:04:05.000  life 1.00s  active fin
       S▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄E▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄

    S▄ SYN_SENT  E▄ ESTABLISHED
    ");
    let by_clock = drawn(&lives, &Options { axis: Axis::Clock, ..options(60) });
    insta::assert_snapshot!(by_clock.lines().take(7).collect::<Vec<_>>().join("\n"), @r"
    from 2025-01-02 03:04:06.000000, 1h00m total, 64.2s/column
                 ╷03:15:00     ╷03:30:00     ╷03:45:00
      1  curl[4242]  10.0.0.1:45678 → 10.0.0.2:443  life 1.00s
      active fin
       E
      2  curl[4242]  10.0.0.1:45678 → 10.0.0.2:443  life 1.00s
      active fin
    ");
}

/// Names come from traces, which are untrusted.
#[rstest]
#[case(false)]
#[case(true)]
fn names_cannot_steer_a_terminal(#[case] ascii: bool) {
    let connection = hostile();
    let evil = Origin { number: 1, host: "\x1b]0;\u{202e}\u{7}".into(), ..origin() };
    let mut selection = Selection::new(Sort::Lifetime, 20);
    selection.offer(&connection, &evil);
    selection.offer(&client(), &origin());
    let groups = Peers::of(selection.into_items()).into_groups();
    let text = printed(&layout(&groups, &Options { ascii, ..options(100) }), false);
    assert!(text.contains("\\x1b]0;") && text.contains("=\\x1b[2J"), "{text}");
    assert!(text.chars().all(|it| it == '\n' || !it.is_control() && it != '\u{202e}'), "{text:?}");
    assert!(!ascii || text.is_ascii(), "{text}");
}

#[test]
fn states_that_hurt_are_coloured() {
    let lines = layout(&groups(&[server()]), &options(60));
    let (plain, coloured) = (printed(&lines, false), printed(&lines, true));
    assert_ne!(plain, coloured);
    let magenta = AnsiColor::Magenta.on_default().bold();
    assert!(coloured.contains(&format!("{magenta}CLOSE_WAIT 8.00s{magenta:#}")), "{coloured}");
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
}

#[test]
fn what_is_shorter_than_a_cell_is_its_longest_state() {
    let short = whole(9, 0, &[(State::SynSent, MS), (State::Established, 5 * MS), (State::FinWait1, MS)]);
    let text = drawn(&[short, whole(8, 0, &[(State::Established, 100 * S)])], &options(60));
    let lines: Vec<&str> = text.lines().collect();
    let label = lines.iter().position(|line| line.trim_start().starts_with("9 ")).expect("a label");
    assert!(lines[label..].contains(&"   E"), "{text}");
}

#[test]
fn nothing_is_drawn_of_nothing() {
    assert_eq!(layout(&[], &options(80)), []);
}

#[rstest]
#[case(Sort::TimeWait, &[0xc])]
#[case(Sort::CloseWait, &[0xbad, 5])]
#[case(Sort::Lifetime, &[0xbad, 0xc, 5])]
#[case(Sort::Opened, &[0xbad, 5, 0xc])]
fn sorting(#[case] sort: Sort, #[case] expected: &[u64]) {
    let mut selection = Selection::new(sort, 20);
    [server(), stuck(), client()].iter().for_each(|connection| selection.offer(connection, &origin()));
    assert_eq!(selection.offered(), expected.len() as u64);
    let conns: Vec<u64> = selection.into_items().iter().map(|item| item.connection.identity.conn).collect();
    assert_eq!(conns, expected);
}

fn stay() -> impl Strategy<Value = Stay> {
    (0..State::ALL.len(), 0_u32..44, any::<bool>()).prop_map(|(state, bits, exact)| {
        let ns = 1_u64 << bits;
        Stay { state: State::ALL[state], held: if exact { Held::Exactly(ns) } else { Held::AtLeast(ns) } }
    })
}

prop_compose! {
    fn any_connection()(
        conn in any::<u64>(),
        opened in proptest::option::of(0..u64::MAX),
        lasted in any::<u64>(),
        stays in proptest::collection::vec(stay(), 0..6),
        complete in any::<bool>(),
    ) -> Connection {
        let boot_ns = opened.unwrap_or(0).saturating_add(lasted >> (conn % 64));
        let identity = Identity { conn, ..client().identity };
        Connection { identity, opened_ns: opened, boot_ns, stays, complete, ..client() }
    }
}

prop_compose! {
    /// Seen from start to end.
    fn any_whole()(
        ns in proptest::array::uniform6(0_u32..40),
        opened in 0..1_u64 << 40,
        passive in any::<bool>(),
    ) -> Connection {
        use State::{CloseWait, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent, TimeWait};
        let active = [SynSent, Established, FinWait1, FinWait2, TimeWait];
        let path = if passive { &[SynRecv, Established, CloseWait, LastAck][..] } else { &active[..] };
        let stays: Vec<_> = path.iter().zip(ns).map(|(state, bits)| (*state, 1_u64 << bits)).collect();
        whole(ns.iter().fold(0, |conn, bits| conn * 40 + u64::from(*bits)), opened, &stays)
    }
}

proptest! {
    /// For any trace.
    #[test]
    fn no_line_is_wider_than_wanted(
        connections in proptest::collection::vec(any_connection(), 0..6),
        columns in 20_usize..200,
        ascii in any::<bool>(),
        axis in prop_oneof![Just(Axis::Auto), Just(Axis::Clock), Just(Axis::Own)],
    ) {
        let text = drawn(&connections, &Options { width: columns, ascii, axis, zone: TimeZone::UTC });
        for line in text.lines() {
            prop_assert!(width(line) <= columns, "{} columns: {line}", width(line));
        }
    }

    #[test]
    fn every_stay_of_a_cell_is_seen(connection in any_whole(), columns in 20_usize..200, ascii in any::<bool>()) {
        let text = drawn(std::slice::from_ref(&connection), &Options { ascii, ..options(columns) });
        let (drawing, _legend) = text.rsplit_once("\n\n").expect("a legend");
        let bar = drawing.lines().last().expect("a bar");
        let life = Life::of(&connection);
        let cell = life.length().div_ceil(columns as u64 - 4);
        for span in life.spans.iter().filter(|span| span.to - span.from >= cell) {
            let letter = super::glyphs::letter(span.state);
            prop_assert!(bar.contains(letter), "no {letter} in {bar}, {life:?}");
        }
    }

    /// For any limit, the first of all, in order.
    #[test]
    fn selecting_is_sorting_and_cutting(lengths in proptest::collection::vec(0_u64..20, 0..40), limit in 0_usize..10) {
        let connections: Vec<_> =
            (0..).zip(&lengths).map(|(conn, length)| whole(conn, 0, &[(State::Established, *length)])).collect();
        let mut selection = Selection::new(Sort::Lifetime, limit);
        connections.iter().for_each(|connection| selection.offer(connection, &origin()));
        let conns: Vec<u64> = selection.into_items().iter().map(|item| item.connection.identity.conn).collect();
        let mut expected: Vec<_> = connections.iter().collect();
        expected.sort_by_key(|connection| std::cmp::Reverse(connection.boot_ns));
        let expected: Vec<u64> = expected.iter().take(limit).map(|connection| connection.identity.conn).collect();
        prop_assert_eq!(conns, expected);
    }
}
