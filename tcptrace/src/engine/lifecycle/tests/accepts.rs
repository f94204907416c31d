//! Where accepts are not seen, an unaccepted connection may have been accepted since.

use rstest::rstest;

use super::script::{open_with, stuck_with};
use crate::engine::lifecycle::Config;

const CAME_IN: &str = "0 LISTEN>SYN_RECV; 0 SYN_RECV>ESTABLISHED;";
const UNSEEN: Config = Config {
    sockets: 10,
    at_close: false,
    transitions: true,
    connections: true,
    unreleased: false,
    stuck_after: Some(1_000_000_000),
    existing: true,
    scans: true,
    resets: true,
    received_resets: true,
    fins: true,
    accepts: false,
    partial_scans: false,
};

#[rstest]
#[case::not_seen("9 advance", None)]
#[case::a_change_shows_the_process("5 ESTABLISHED>CLOSE_WAIT done sock", Some(true))]
#[case::in_the_queue_then("5 ESTABLISHED>CLOSE_WAIT done", None)]
#[case::seen_later("1 unwatched; 5 watched; 9 advance", None)]
#[case::seen_since("1 unwatched; 5 watched; 6 ESTABLISHED>CLOSE_WAIT done", Some(false))]
#[case::not_seen_any_more("1 watched; 6 ESTABLISHED>CLOSE_WAIT done; 7 unwatched", None)]
#[case::accepted_meanwhile("1 watched; 6 accepted task=8; 7 unwatched", Some(true))]
fn whether_it_was_accepted(#[case] script: &str, #[case] expected: Option<bool>) {
    assert_eq!(open_with(&format!("{CAME_IN} {script}"), UNSEEN), [expected]);
    let seen = expected.or(Some(false));
    if !script.contains("watched") {
        assert_eq!(open_with(&format!("{CAME_IN} {script}"), Config { accepts: true, ..UNSEEN }), [seen]);
    }
}

/// Nobody holds it: it is in the queue.
#[rstest]
#[case::a_scan_finds_nobody("1100 scan; 1101 scan_end", "stuck CLOSE_WAIT 1100 holders=0 accepted=false")]
#[case::nobody_looks("1100 advance; 7000 advance", "stuck CLOSE_WAIT 6999")]
fn a_scan_tells(#[case] script: &str, #[case] expected: &str) {
    let script = format!("{CAME_IN} 1 ESTABLISHED>CLOSE_WAIT done; {script}");
    assert_eq!(stuck_with(&script, UNSEEN), [expected]);
}
