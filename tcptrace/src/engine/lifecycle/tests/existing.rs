//! Sockets that existed before, what a gap hid, owners, and sockets that stay for too long.

use rstest::rstest;

use super::script::{open, parse, play, play_rows, play_stuck, transitions, wants_scan};
use crate::engine::lifecycle::{Config, Engine};

#[rstest]
#[case::established_before(
    "0 survey; 10 found ESTABLISHED; 11 surveyed; 11 survey_end; 500 ESTABLISHED>CLOSE_WAIT done;
     600 CLOSE_WAIT>LAST_ACK task=9 done sock; 601 LAST_ACK>CLOSED dead done acked",
    "unknown passive fin owner=9/close incomplete | ESTABLISHED ≥500 CLOSE_WAIT 100 LAST_ACK 1"
)]
#[case::time_wait_before_has_its_age_from_its_timer(
    "0 survey; 10 found TIME_WAIT mini=20000; 11 survey_end; 20010 expired TIME_WAIT",
    "unknown unknown fin tw=expired incomplete | TIME_WAIT ≥60000"
)]
#[case::time_wait_that_was_given_more_time(
    "0 survey; 10 found TIME_WAIT mini=60000; 11 survey_end; 60010 expired TIME_WAIT",
    "unknown unknown fin tw=expired incomplete | TIME_WAIT ≥60000"
)]
#[case::orphan_in_fin_wait2_before(
    "0 survey; 10 found FIN_WAIT2 mini=30000; 11 survey_end; 30010 expired FIN_WAIT2",
    "unknown active fin_wait2_timeout incomplete | FIN_WAIT2 ≥30010"
)]
#[case::listener_is_no_connection("0 survey; 10 found LISTEN; 11 survey_end; 50 LISTEN>CLOSED task=9", "")]
#[case::an_answer_does_not_bring_back_what_has_ended(
    "0 survey; 5 ESTABLISHED>CLOSED task=9 snd rcv sock linger0 rst; 5 destroy; 10 found ESTABLISHED; 11 survey_end; 12 destroy",
    "unknown reset_local reset_linger0 owner=9/close incomplete | ESTABLISHED ≥5"
)]
#[case::an_answer_does_not_undo_what_events_have_told(
    "0 survey; 5 ESTABLISHED>CLOSE_WAIT done; 10 found ESTABLISHED; 11 survey_end; 20 CLOSE_WAIT>LAST_ACK task=9 sock;
     21 LAST_ACK>CLOSED dead acked",
    "unknown passive fin owner=9/close incomplete | ESTABLISHED ≥5 CLOSE_WAIT 15 LAST_ACK 1"
)]
#[case::found_twice(
    "0 survey; 10 found ESTABLISHED; 10 found ESTABLISHED; 11 survey_end; 50 destroy",
    "unknown unknown unknown incomplete |"
)]
#[case::after_a_gap_what_is_unchanged_goes_on_as_whole(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 500 lost; 600 survey; 610 found ESTABLISHED; 611 surveyed;
     611 survey_end; 900 ESTABLISHED>CLOSED task=7 snd rcv sock linger0 rst",
    "client reset_local reset_linger0 owner=7/connect | SYN_SENT 1 ESTABLISHED 899"
)]
#[case::after_a_gap_what_has_gone_on_is_less_certain(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 500 lost; 600 survey; 610 found CLOSE_WAIT; 611 surveyed;
     611 survey_end; 910 CLOSE_WAIT>LAST_ACK task=7 sock; 911 LAST_ACK>CLOSED dead acked",
    "client passive fin owner=7/connect incomplete | SYN_SENT 1 CLOSE_WAIT ≥300 LAST_ACK 1"
)]
#[case::a_state_that_was_found_says_nothing_of_the_next_one(
    "0 survey; 10 found ESTABLISHED; 11 survey_end; 20 lost; 50 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT;
     60050 expired TIME_WAIT",
    "unknown active fin tw=expired incomplete | FIN_WAIT2 ≥30 TIME_WAIT 60000"
)]
#[case::after_a_gap_what_is_not_found_is_gone(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 500 lost; 600 survey; 611 surveyed; 611 survey_end",
    "client unknown unknown owner=7/connect incomplete | SYN_SENT 1"
)]
#[case::nothing_is_gone_that_came_during_the_survey(
    "0 lost; 600 survey; 601 CLOSED>SYN_SENT task=7; 602 SYN_SENT>ESTABLISHED; 611 surveyed; 611 survey_end;
     700 ESTABLISHED>CLOSED task=7 snd rcv sock linger0 rst",
    "client reset_local reset_linger0 owner=7/connect | SYN_SENT 1 ESTABLISHED 98"
)]
#[case::nothing_is_gone_from_a_namespace_that_was_not_surveyed(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 500 lost; 600 survey; 611 survey_end",
    ""
)]
#[case::nothing_is_gone_when_events_were_lost_during_the_survey(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 500 lost; 600 survey; 605 lost; 611 surveyed; 611 survey_end",
    ""
)]
#[case::after_a_gap_a_full_socket_is_found_as_mini_socket(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 500 lost; 600 survey; 610 found TIME_WAIT mini=59950; 611 surveyed;
     611 survey_end; 60560 expired TIME_WAIT",
    "client unknown fin tw=expired owner=7/connect incomplete | SYN_SENT 1 TIME_WAIT ≥60000"
)]
fn merging(#[case] script: &str, #[case] expected: &str) {
    let expected: Vec<_> = (!expected.is_empty()).then(|| expected.to_owned()).into_iter().collect();
    assert_eq!(play(script), expected);
}

#[rstest]
#[case::accept_beats_close(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 1 accepted task=8; 9 ESTABLISHED>CLOSED task=9 snd rcv sock linger0 rst",
    "server reset_local reset_linger0 owner=8/accept closed_by=9 | SYN_RECV 0 ESTABLISHED 9"
)]
#[case::accept_beats_a_scan(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 1 scan; 2 holder ESTABLISHED task=6; 3 scan_end; 4 accepted task=8;
     9 ESTABLISHED>CLOSED task=9 snd rcv sock linger0 rst",
    "server reset_local reset_linger0 owner=8/accept closed_by=9 | SYN_RECV 0 ESTABLISHED 9"
)]
#[case::a_scan_does_not_replace_who_connected(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 scan; 3 holder ESTABLISHED task=6; 4 scan_end;
     9 ESTABLISHED>CLOSED task=6 snd rcv sock linger0 rst",
    "client reset_local reset_linger0 owner=7/connect closed_by=6 | SYN_SENT 1 ESTABLISHED 8"
)]
#[case::the_first_of_several_holders(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 1 scan; 2 holder ESTABLISHED task=5; 2 holder ESTABLISHED task=6; 3 scan_end;
     9 ESTABLISHED>CLOSED task=6 snd rcv sock linger0 rst",
    "server reset_local reset_linger0 owner=5/scan closed_by=6 | SYN_RECV 0 ESTABLISHED 9"
)]
#[case::accepted_when_it_was_over_already(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSED err=104; 6 accepted task=8; 7 destroy; 600 advance",
    "server reset_remote reset_received | SYN_RECV 0 ESTABLISHED 5"
)]
#[case::the_time_wait_keeps_its_owner(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 1 accepted task=8; 5 ESTABLISHED>FIN_WAIT1 task=9 sock;
     6 FIN_WAIT1>FIN_WAIT2 dead; 6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 60006 expired TIME_WAIT",
    "server active fin tw=expired owner=8/accept closed_by=9 | SYN_RECV 0 ESTABLISHED 5 FIN_WAIT1 1 FIN_WAIT2 0 TIME_WAIT 60000"
)]
fn owners(#[case] script: &str, #[case] expected: &str) {
    assert_eq!(play(script), [expected]);
}

const CLOSE_WAIT: &str = "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 1 ESTABLISHED>CLOSE_WAIT done sock;";

/// Only rows about stuck sockets.
#[rstest]
#[case::held(
    "2 accepted task=8; 1100 scan; 1101 holder CLOSE_WAIT task=8 fd=12; 1102 scan_end",
    &["stuck CLOSE_WAIT 1101 held_by=8:12 holders=1 accepted=true"]
)]
#[case::two_have_it(
    "1100 scan; 1101 holder CLOSE_WAIT task=8 fd=12; 1101 holder CLOSE_WAIT task=9 fd=3; 1102 scan_end",
    &["stuck CLOSE_WAIT 1101 held_by=8:12 holders=2 accepted=true"]
)]
#[case::not_yet("900 advance", &[])]
#[case::moved_on_in_time("900 CLOSE_WAIT>LAST_ACK task=8 sock; 901 LAST_ACK>CLOSED dead acked; 1100 scan; 1102 scan_end", &[])]
#[case::moved_on_before_the_answer(
    "1100 scan; 1101 CLOSE_WAIT>CLOSED task=8 snd rcv sock linger0 rst; 1102 holder CLOSE_WAIT task=8; 1103 destroy; 1104 scan_end", &[]
)]
#[case::once_per_doubling(
    "1100 scan; 1101 scan_end; 2100 advance; 2300 scan; 2301 scan_end; 4000 advance; 4700 scan; 4701 scan_end",
    &["stuck CLOSE_WAIT 1100 holders=0 accepted=true", "stuck CLOSE_WAIT 2300 holders=0 accepted=true",
      "stuck CLOSE_WAIT 4700 holders=0 accepted=true"]
)]
#[case::nobody_looks("1100 advance; 7000 advance", &["stuck CLOSE_WAIT 6999 accepted=true"])]
fn waiting(#[case] script: &str, #[case] expected: &[&str]) {
    assert_eq!(stuck(&format!("{CLOSE_WAIT} {script}")), expected);
}

/// While data still flows in one direction, there is nothing to report; once it has stopped for the requested time,
/// there is.
#[rstest]
#[case::flows(
    "500 scan; 501 flow acked=10; 502 scan_end; 1050 scan; 1051 flow acked=90; 1052 scan_end; 1900 scan;
     1901 flow acked=95 unacked=3; 1902 scan_end; 2060 scan; 2061 flow acked=99; 2062 scan_end",
    &[]
)]
#[case::has_stopped(
    "500 scan; 501 flow acked=10; 502 scan_end; 1050 scan; 1051 flow acked=90 unacked=7; 1052 scan_end; 2055 scan;
     2056 flow acked=90 unacked=7; 2057 scan_end",
    &["stuck CLOSE_WAIT 2056 holders=0 accepted=true unacked=7 since=80"]
)]
#[case::an_answer_from_before_says_nothing_of_this_state(
    "500 scan; 501 flow acked=10; 502 scan_end; 900 scan; 901 CLOSE_WAIT>LAST_ACK sock; 902 flow acked=10; 903 scan_end;
     1500 scan; 1501 flow acked=11; 1502 scan_end; 1950 scan; 1951 flow acked=11; 1952 scan_end",
    &["stuck LAST_ACK 1051 holders=0 accepted=true unacked=0 since=0"]
)]
#[case::one_look_says_nothing(
    "1050 scan; 1051 flow acked=10; 1052 scan_end; 1400 scan; 1401 flow acked=11; 1402 scan_end", &[]
)]
#[case::looks_in_quick_succession_say_nothing(
    "1050 scan; 1051 flow acked=10; 1052 scan_end; 1055 scan; 1056 flow acked=10; 1057 scan_end; 1310 scan;
     1311 flow acked=11; 1312 scan_end", &[]
)]
#[case::nothing_flows_between_such_looks_and_a_later_one(
    "1050 scan; 1051 flow acked=10; 1052 scan_end; 1055 scan; 1056 flow acked=10; 1057 scan_end; 1310 scan;
     1311 flow acked=10; 1312 scan_end",
    &["stuck CLOSE_WAIT 1311 holders=0 accepted=true unacked=0 since=0"]
)]
#[case::one_look_in_all_that_time(
    "1050 scan; 1051 flow acked=10; 1052 scan_end; 6060 advance",
    &["stuck CLOSE_WAIT 6059 holders=0 accepted=true unacked=0 since=0"]
)]
#[case::never_flowed(
    "500 scan; 501 flow acked=10 received=1; 502 scan_end; 1050 scan; 1051 flow acked=10 received=1; 1052 scan_end",
    &["stuck CLOSE_WAIT 1051 holders=0 accepted=true unacked=0 since=0"]
)]
#[case::on_time_when_it_has_been_looked_at_before(
    "500 scan; 501 holder CLOSE_WAIT task=8 fd=12; 502 scan_end; 700 scan; 701 holder CLOSE_WAIT task=8 fd=12; 702 scan_end;
     1001 advance; 1051 advance; 1500 advance",
    &["stuck CLOSE_WAIT 1050 held_by=8:12 holders=1 accepted=true"]
)]
fn half_closed(#[case] script: &str, #[case] expected: &[&str]) {
    assert_eq!(stuck(&format!("{CLOSE_WAIT} {script}")), expected);
}

/// No event shows it.
#[rstest]
#[case::acknowledged(
    "500 scan; 501 flow acked=1 unacked=5; 502 scan_end; 1600 scan; 1601 flow acked=6 unacked=5; 1602 scan_end; 2500 scan;
     2501 flow acked=11; 2502 scan_end; 4000 scan; 4001 flow acked=11; 4002 scan_end",
    &[]
)]
#[case::not_acknowledged(
    "500 scan; 501 holder ESTABLISHED task=7 fd=4; 502 flow acked=1 unacked=5; 503 scan_end; 1000 scan;
     1001 holder ESTABLISHED task=7 fd=4; 1002 flow acked=1 received=9 unacked=5; 1003 scan_end; 1600 scan;
     1601 holder ESTABLISHED task=7 fd=4; 1602 flow acked=1 received=20 unacked=8; 1603 scan_end; 2000 scan;
     2001 flow acked=1 unacked=8; 2002 scan_end; 2800 scan; 2801 holder ESTABLISHED task=7 fd=4; 2802 flow acked=1 unacked=8;
     2803 scan_end",
    &["stuck ESTABLISHED ≥1101 held_by=7:4 holders=1 unacked=8 since=20",
      "stuck ESTABLISHED ≥2301 held_by=7:4 holders=1 unacked=8 since=0"]
)]
fn data_that_the_peer_does_not_take(#[case] script: &str, #[case] expected: &[&str]) {
    assert_eq!(stuck(&format!("0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED sock; {script}")), expected);
}

#[rstest]
#[case::fin_wait1(
    "5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 500 scan; 501 flow acked=1 unacked=900; 502 scan_end; 1100 scan;
     1101 flow acked=1 unacked=900; 1102 scan_end",
    &["stuck FIN_WAIT1 1097 holders=0 unacked=900 since=0"]
)]
#[case::closing("5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock; 6 FIN_WAIT1>CLOSING dead; 1100 scan; 1101 scan_end",
    &["stuck CLOSING 1095 holders=0"]
)]
fn orphans(#[case] script: &str, #[case] expected: &[&str]) {
    assert_eq!(stuck(&format!("0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; {script}")), expected);
}

#[test]
fn a_handshake_that_does_not_end() {
    let expected = ["stuck SYN_RECV 1101 holders=0 accepted=true"];
    assert_eq!(stuck("0 LISTEN>SYN_RECV sock; 1100 scan; 1101 scan_end"), expected);
}

#[rstest]
#[case::never_accepted(
    "0 other CLOSED>LISTEN task=5; 1 LISTEN>SYN_RECV; 1 SYN_RECV>ESTABLISHED; 2 ESTABLISHED>CLOSE_WAIT done;
     1100 scan; 1101 scan_end",
    &["stuck CLOSE_WAIT 1099 holders=0 accepted=false listener=5"]
)]
#[case::several_listen(
    "0 other CLOSED>LISTEN task=5; 0 third CLOSED>LISTEN task=6; 1 LISTEN>SYN_RECV; 1 SYN_RECV>ESTABLISHED;
     2 ESTABLISHED>CLOSE_WAIT done; 1100 scan; 1101 scan_end",
    &["stuck CLOSE_WAIT 1099 holders=0 accepted=false"]
)]
#[case::the_listener_is_gone(
    "0 other CLOSED>LISTEN task=5; 1 LISTEN>SYN_RECV; 1 SYN_RECV>ESTABLISHED; 2 ESTABLISHED>CLOSE_WAIT done;
     3 other LISTEN>CLOSED task=5; 1100 scan; 1101 scan_end",
    &["stuck CLOSE_WAIT 1099 holders=0 accepted=false"]
)]
#[case::found_in_a_queue(
    "0 survey; 1 other found LISTEN; 1 found CLOSE_WAIT queued; 2 survey_end; 2 scan; 3 other holder LISTEN task=5;
     3 scan_end; 1100 scan; 1101 scan_end",
    &["stuck CLOSE_WAIT ≥1101 holders=0 accepted=false listener=5"]
)]
#[case::found_held(
    "0 survey; 1 found CLOSE_WAIT; 2 survey_end; 1100 scan; 1101 holder CLOSE_WAIT task=5 fd=9; 1102 scan_end",
    &["stuck CLOSE_WAIT ≥1102 held_by=5:9 holders=1 accepted=true"]
)]
#[case::syn_sent("0 CLOSED>SYN_SENT task=7; 1100 scan; 1101 holder SYN_SENT task=7 fd=4; 1102 scan_end",
    &["stuck SYN_SENT 1102 held_by=7:4 holders=1"]
)]
#[case::last_ack(
    "0 CLOSE_WAIT>LAST_ACK task=7 sock; 1100 scan; 1102 scan_end",
    &["stuck LAST_ACK 1102 holders=0 accepted=true"]
)]
#[case::orphan_in_fin_wait2(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock;
     6 FIN_WAIT1>FIN_WAIT2 dead; 6 FIN_WAIT2>CLOSED dead mini=FIN_WAIT2; 1100 scan; 1101 scan_end",
    &["stuck FIN_WAIT2 1094"]
)]
#[case::time_wait_waits_for_nobody(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>FIN_WAIT1 task=7 snd rcv sock;
     6 FIN_WAIT1>FIN_WAIT2 dead; 6 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 1100 scan; 1101 scan_end", &[]
)]
#[case::reset_while_the_descriptor_is_open(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>CLOSED sock err=104; 1100 scan;
     1101 holder CLOSED task=7 fd=4; 1102 scan_end; 1500 destroy",
    &["stuck CLOSED 1097 reset_received held_by=7:4 holders=1", "released CLOSED 1495 reset_received"]
)]
#[case::reset_and_soon_closed(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>CLOSED sock err=104; 6 destroy; 1100 scan; 1102 scan_end",
    &[]
)]
#[case::time_wait_while_the_descriptor_is_open(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 2 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 3 FIN_WAIT1>FIN_WAIT2 snd sock;
     800 FIN_WAIT2>CLOSED done snd rcv sock mini=TIME_WAIT; 1900 scan; 1901 holder CLOSED task=7 fd=4; 1902 scan_end;
     60800 expired TIME_WAIT; 61000 destroy",
    &["stuck CLOSED 1102 fin held_by=7:4 holders=1", "stuck CLOSED 60200 fin held_by=7:4 holders=1",
      "released CLOSED 60200 fin"]
)]
#[case::a_descriptor_whose_connection_ended_before(
    "0 scan; 1 holder CLOSED task=7 fd=4; 2 scan_end; 1100 scan; 1101 holder CLOSED task=7 fd=4; 1102 scan_end",
    &["stuck CLOSED ≥1102 unknown held_by=7:4 holders=1 accepted=true"]
)]
#[case::the_age_of_a_descriptor_is_not_that_of_its_mini_socket(
    "0 survey; 1 found TIME_WAIT mini=59000; 2 survey_end; 500 scan; 501 holder CLOSED task=7 fd=4; 502 scan_end; 1700 scan;
     1701 holder CLOSED task=7 fd=4; 1702 scan_end",
    &["stuck CLOSED ≥1201 unknown held_by=7:4 holders=1 accepted=true"]
)]
#[case::established_subflow_of_a_connection_in_close_wait(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 1 accepted task=7; 100 scan; 101 subflow ESTABLISHED; 102 scan_end;
     500 scan; 501 subflow CLOSE_WAIT; 502 holder ESTABLISHED task=7 fd=4; 503 scan_end;
     1600 scan; 1601 subflow CLOSE_WAIT; 1602 holder ESTABLISHED task=7 fd=4; 1603 scan_end;
     1800 scan; 1801 subflow CLOSE_WAIT; 1802 scan_end; 3900 scan; 3901 subflow CLOSE_WAIT; 3902 scan_end;
     4100 scan; 4102 scan_end",
    &["stuck ESTABLISHED ≥1102 held_by=7:4 holders=1 accepted=true mptcp=CLOSE_WAIT",
      "stuck ESTABLISHED ≥3401 holders=0 accepted=true mptcp=CLOSE_WAIT"]
)]
#[case::subflow_that_waits_itself(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 1 accepted task=7; 2 ESTABLISHED>CLOSE_WAIT sock; 1100 scan;
     1101 subflow ESTABLISHED; 1102 scan_end",
    &["stuck CLOSE_WAIT 1100 holders=0 accepted=true mptcp=ESTABLISHED"]
)]
fn stuck_rows(#[case] script: &str, #[case] expected: &[&str]) {
    assert_eq!(stuck(script), expected);
}

fn stuck(script: &str) -> Vec<String> {
    play_stuck(script).into_iter().filter(|row| row.starts_with("stuck") || row.starts_with("released")).collect()
}

#[rstest]
#[case::accepted("0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 1 accepted task=8; 5000 advance", false)]
#[case::not_accepted("0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5000 advance", true)]
#[case::young("0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 500 advance", false)]
#[case::asked("0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5000 advance; 5001 scan", false)]
#[case::short(
    "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED; 5 ESTABLISHED>CLOSED task=7 snd rcv sock linger0 rst; 5000 advance",
    false
)]
fn scans_are_wanted_for_what_nobody_is_known_to_own(#[case] script: &str, #[case] expected: bool) {
    assert_eq!(wants_scan(script), expected);
}

#[rstest]
#[case::from_the_beginning(
    "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED; 5 ESTABLISHED>CLOSE_WAIT; 9 advance",
    &["client passive unknown owner=7/connect | SYN_SENT 1 ESTABLISHED 4 CLOSE_WAIT ≥4"]
)]
#[case::found("0 survey; 1 found ESTABLISHED; 2 surveyed; 2 survey_end", &["unknown unknown unknown incomplete |"])]
#[case::time_wait(
    "0 survey; 1 found TIME_WAIT mini=59000; 2 surveyed; 2 survey_end; 3000 advance",
    &["unknown unknown unknown incomplete | TIME_WAIT ≥3999"]
)]
#[case::listeners_are_no_connections("0 CLOSED>LISTEN task=7; 9 advance", &[])]
#[case::over("0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>CLOSED err=111; 9 advance", &[])]
fn what_is_open(#[case] script: &str, #[case] expected: &[&str]) {
    assert_eq!(open(script), expected);
}

#[test]
fn a_scan_tells_no_transitions() {
    let script =
        "0 survey; 1 found ESTABLISHED; 2 found TIME_WAIT mini=100; 3 survey_end; 4 scan; 5 holder ESTABLISHED task=1;
                  6 scan_end";
    assert_eq!(play_rows(script), [""; 0]);
}

/// However short the requested time is, one look reports a socket once.
#[test]
fn nothing_is_reported_without_end() {
    let mut engine = Engine::new(Config { stuck_after: Some(0), ..Config::default() });
    let mut rows = Vec::new();
    for event in parse("0 survey; 0 found CLOSE_WAIT; 10 advance") {
        engine.feed(&event, &mut rows);
    }
    assert!(transitions(&rows).iter().filter(|row| row.starts_with("stuck")).count() <= 1);
}

#[test]
fn an_answer_does_not_bring_back_a_full_socket_that_its_mini_socket_has_replaced() {
    let left = open(
        "0 survey; 5 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT; 10 found FIN_WAIT2; 11 surveyed; 11 survey_end;
         60005 expired TIME_WAIT; 60006 advance",
    );
    assert!(left.is_empty(), "{left:?}");
}
