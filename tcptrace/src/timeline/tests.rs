//! What is drawn.

use jiff::tz::TimeZone;

use super::samples::{client, origin, server, stuck};
use super::{Axis, Options, Peers, Selection, Sort, layout, write};
use crate::lifecycle::Connection;

fn options(width: usize) -> Options {
    Options { width, ascii: false, axis: Axis::Auto, zone: TimeZone::UTC }
}

fn drawn(connections: &[Connection], options: &Options, colour: bool) -> String {
    let mut selection = Selection::new(Sort::Lifetime, 20);
    connections.iter().for_each(|connection| selection.offer(connection, &origin()));
    let groups = Peers::of(selection.into_items()).into_groups();
    let mut out = Vec::new();
    write(&mut out, &layout(&groups, options), colour).expect("written");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn both_ends_are_drawn_to_scale() {
    insta::assert_snapshot!(drawn(&[server(), stuck(), client()], &options(100), false), @r"
    from 2025-01-02 03:04:05.000000, 30.0s in all, 312ms a column
       ╷03:04:05       ╷03:04:10       ╷03:04:15       ╷03:04:20       ╷03:04:25       ╷03:04:30
      bad  curl[4242]  10.0.0.1:45678 → 10.0.0.2:443  life ≥30.0s  CLOSE_WAIT ≥30.0s  open
      ‹C███████████████████████████████████████████████████████████████████████████████████████████████›
    ┌ c  curl[4242]  127.0.0.1:43892 → 127.0.0.1:7000  life 20.0s  FIN_WAIT2 8.00s
    │ TIME_WAIT 10.0s reused  active fin
    │     E▄▄▄▄▄▟2████████████████████████T███████████████████████████████
    ├ 5  nginx[80]  127.0.0.1:7000 → 127.0.0.1:43892  life 10.0s  CLOSE_WAIT 8.00s  passive fin
    └     E▄▄▄▄▄▟C████████████████████████L

    S▄ SYN_SENT  R▄ SYN_RECV  E▄ ESTABLISHED  1█ FIN_WAIT1  2█ FIN_WAIT2  C█ CLOSE_WAIT  L█ LAST_ACK
    T█ TIME_WAIT  ‹ began before  › still open  ┌└ both ends of a connection
    ");
}

#[test]
fn narrow() {
    insta::assert_snapshot!(drawn(&[server(), stuck(), client()], &options(60), false), @r"
    from 2025-01-02 03:04:05.000000, 30.0s in all, 535ms a colu…
                ╷03:04:10          ╷03:04:20         ╷03:04:30
      bad  curl[4242]  10.0.0.1:45678 → 10.0.0.2:443
      life ≥30.0s  CLOSE_WAIT ≥30.0s  open
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
    ‹ began before  › still open  ┌└ both ends of a connection
    ");
}

#[test]
fn plain_ascii() {
    let options = Options { ascii: true, ..options(140) };
    insta::assert_snapshot!(drawn(&[server(), stuck(), client()], &options, false), @r"
    from 2025-01-02 03:04:05.000000, 30.0s in all, 220ms a column
       |03:04:05             |03:04:10              |03:04:15              |03:04:20             |03:04:25              |03:04:30
      bad  curl[4242]  10.0.0.1:45678 -> 10.0.0.2:443     life >=30.0s  CLOSE_WAIT >=30.0s                                           open
      <CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC>
    / c    curl[4242]  127.0.0.1:43892 -> 127.0.0.1:7000  life 20.0s                        FIN_WAIT2 8.00s  TIME_WAIT 10.0s reused  active fin
    |      EEEEEEEEEE222222222222222222222222222222222222TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT
    | 5    nginx[80]   127.0.0.1:7000 -> 127.0.0.1:43892  life 10.0s    CLOSE_WAIT 8.00s                                             passive fin
    \      EEEEEEEEEECCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC

    S SYN_SENT  R SYN_RECV  E ESTABLISHED  1 FIN_WAIT1  2 FIN_WAIT2  C CLOSE_WAIT  L LAST_ACK  T TIME_WAIT  < began before  > still open
    /\ both ends of a connection
    ");
}
