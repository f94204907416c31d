//! Connections that are refused, and those that nobody answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tcptrace_tests::Namespace;
use tcptrace_tests::program::binary;
use tcptrace_tests::sockets::{listen, start_connecting};

use super::{Both, assert_is, findings, loses};

/// For what takes three seconds.
const LONGEST: Duration = Duration::from_secs(30);

/// Nobody listens on one port, and SYNs to another one are dropped.
#[test]
fn nobody_listens_or_answers() {
    binary();
    let net = Namespace::enter_unwatched();
    // Two SYNs, three seconds.
    net.sysctl("ipv4/tcp_syn_retries", "1");
    net.drop_arriving("tcp dport 7001");
    let [refused, silent] = [7_000, 7_001].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let _other = listen("127.0.0.1");
    let both = Both::look(&net, &["--only", "connect-refused,connect-timeout"]);
    let waiting: Vec<_> = (0..3).map(|_| start_connecting(silent)).collect();
    for _ in 0..5 {
        let error = std::net::TcpStream::connect(refused).expect_err("nobody listens");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    for (socket, _) in &waiting {
        let began = Instant::now();
        while socket.take_error().expect("read SO_ERROR").is_none() {
            assert!(began.elapsed() < LONGEST, "connect() goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    for rows in both.rows(4) {
        let found = findings(&net, &rows);
        let ids: Vec<_> = found.iter().map(|row| &row["id"]).collect();
        assert_eq!(ids, ["connect-refused", "connect-timeout"], "{found:#?}");
        let figures = [
            ("refused", json!(5)),
            ("opened", json!(5)),
            ("refused_share", json!(1.0)),
            ("is_listening", json!(false)),
        ];
        assert_is(found[0], ["critical", "certain"], &figures);
        assert_eq!(found[0]["subject"]["remote"], refused.to_string(), "{found:#?}");
        let figures =
            [("timed_out", json!(3)), ("established", json!(0)), ("opened", json!(3)), ("abandoned", json!(0))];
        // Where events were lost, one may have got through.
        let severity = if loses(&rows) { "warning" } else { "critical" };
        assert_is(found[1], [severity, "certain"], &figures);
        assert_eq!(found[1]["subject"]["remote"], silent.to_string(), "{found:#?}");
    }
}
