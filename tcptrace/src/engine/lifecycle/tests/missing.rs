//! Ends that the kernel neither reported nor counted as lost.

use rstest::rstest;

use super::script::{losses, play, rows, wants_survey};

const LAST_ACK: &str =
    "0 LISTEN>SYN_RECV; 1 SYN_RECV>ESTABLISHED; 2 accepted task=7; 5 ESTABLISHED>CLOSE_WAIT done sock;
    6 CLOSE_WAIT>LAST_ACK task=7 sock done;";

/// The kernel no longer shows it, but a survey can skip a socket: it takes two.
#[rstest]
#[case::not_found_twice(
    "10000 survey; 10001 surveyed; 10001 survey_end; 11000 survey; 11001 surveyed; 11001 survey_end",
    "server passive unknown owner=7/accept incomplete | SYN_RECV 1 ESTABLISHED 4 CLOSE_WAIT 1"
)]
#[case::not_found_twice_after_it_was(
    "10000 survey; 10001 found LAST_ACK orphan; 10002 surveyed; 10002 survey_end; 11000 survey; 11001 surveyed; 11001 survey_end;
     12000 survey; 12001 surveyed; 12001 survey_end",
    "server passive unknown owner=7/accept incomplete | SYN_RECV 1 ESTABLISHED 4 CLOSE_WAIT 1 LAST_ACK ≥9995"
)]
#[case::not_found_once("10000 survey; 10001 surveyed; 10001 survey_end", "")]
#[case::passed_over(
    "10000 survey; 10001 surveyed; 10001 survey_end; 11000 survey; 11001 found LAST_ACK orphan; 11001 surveyed; 11001 survey_end;
     12000 survey; 12001 surveyed; 12001 survey_end",
    ""
)]
#[case::its_namespace_was_not_asked(
    "10000 survey; 10001 survey_end; 11000 survey; 11001 surveyed; 11001 survey_end; 12000 survey; 12001 survey_end;
     13000 survey; 13001 surveyed; 13001 survey_end",
    ""
)]
#[case::too_young("50 survey; 51 surveyed; 51 survey_end; 60 survey; 61 surveyed; 61 survey_end", "")]
#[case::its_end_comes_after_all(
    "10000 survey; 10001 surveyed; 10001 survey_end; 11000 survey; 11001 surveyed; 11001 LAST_ACK>CLOSED dead acked; 11002 survey_end",
    "server passive fin owner=7/accept | SYN_RECV 1 ESTABLISHED 4 CLOSE_WAIT 1 LAST_ACK 10995"
)]
#[case::part_of_an_answer_was_lost(
    "10000 survey; 10001 surveyed; 10001 survey_end; 11000 survey; 11001 lost; 11002 surveyed; 11002 survey_end;
     12000 survey; 12001 found LAST_ACK orphan; 12002 surveyed; 12002 survey_end; 13000 survey; 13001 surveyed; 13001 survey_end",
    ""
)]
fn last_ack(#[case] script: &str, #[case] expected: &str) {
    assert_eq!(play(&format!("{LAST_ACK} {script}")).join("\n"), expected);
}

#[test]
fn it_is_counted_once() {
    let script =
        "10000 survey; 10001 surveyed; 10001 survey_end; 11000 survey; 11001 surveyed; 11001 survey_end; 11002 destroy";
    assert_eq!(losses(&rows(&format!("{LAST_ACK} {script}"))), ["11000 unreported Some(1)"]);
}

/// The kernel's tables do not show these as full sockets: one with an open descriptor, and a mini-socket.
#[rstest]
#[case::descriptor_open("5 ESTABLISHED>CLOSED sock err=104; 6 receive_reset;")]
#[case::mini_socket(
    "5 ESTABLISHED>FIN_WAIT1 task=7 snd sock; 6 FIN_WAIT1>FIN_WAIT2 snd sock; 7 FIN_WAIT2>CLOSED dead done mini=TIME_WAIT;"
)]
fn what_no_survey_finds_is_left_alone(#[case] end: &str) {
    let begin = "0 CLOSED>SYN_SENT task=7; 1 SYN_SENT>ESTABLISHED;";
    let surveys = "1000 survey; 1001 surveyed; 1001 survey_end; 2000 survey; 2001 surveyed; 2001 survey_end";
    assert_eq!(losses(&rows(&format!("{begin} {end} {surveys}"))), [""; 0]);
}

#[rstest]
#[case::young("9000 advance", false)]
#[case::ten_seconds("10007 advance", true)]
#[case::asked(
    "10007 advance; 10008 survey; 10009 found LAST_ACK orphan; 10009 surveyed; 10010 survey_end; 10011 advance",
    false
)]
#[case::not_found_once("10007 advance; 10008 survey; 10009 surveyed; 10010 survey_end", true)]
#[case::not_found_twice(
    "10007 advance; 10008 survey; 10009 surveyed; 10010 survey_end; 11008 survey; 11009 surveyed; 11010 survey_end; 20100 advance",
    false
)]
#[case::doubled(
    "10007 advance; 10008 survey; 10009 found LAST_ACK orphan; 10009 surveyed; 10010 survey_end; 20100 advance",
    true
)]
#[case::ended("7 LAST_ACK>CLOSED dead acked; 10007 advance", false)]
fn surveys_are_wanted(#[case] script: &str, #[case] expected: bool) {
    assert_eq!(wants_survey(&format!("{LAST_ACK} {script}")), expected);
}
