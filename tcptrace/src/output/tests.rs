//! The same rows in every format.

mod width;

use std::io::{self, Write};

use insta::assert_snapshot;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use rstest::rstest;

use super::fields::{CONNECTION, TRANSITION};
use super::samples::{self, CONTEXT};
use super::{Context, Format, Json, Kind, Printed, Printer, TextOptions, aside};
use crate::model::row::{Connection, Held, Identity, Owner, Row, Status, Transition};
use crate::model::tcp::{Comm, End, OwnerSource, State};

const PLAIN: TextOptions =
    TextOptions { colour: false, states: false, zone: TimeZone::UTC, width: None, height: None, full: false };

fn rendered(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    render(&mut out).expect("a Vec takes everything");
    String::from_utf8(out).expect("UTF-8")
}

/// Prints rows. A format prints either all rows of a kind or none.
fn all(printer: &mut dyn Printer, rows: impl Iterator<Item = Row>) -> io::Result<()> {
    let printed = rows.map(|row| printer.row(&row, &CONTEXT)).collect::<io::Result<Vec<_>>>()?;
    assert!(printed.windows(2).all(|pair| pair[0] == pair[1]), "{printed:?}");
    Ok(())
}

fn transitions(format: Format, options: TextOptions) -> String {
    rendered(|out| {
        let mut printer = format.printer(out, options);
        printer.header(Kind::Transition)?;
        all(&mut *printer, samples::transitions().into_iter().map(Row::Transition))?;
        printer.header(Kind::Transition)?;
        printer.flush()
    })
}

fn connections(format: Format, options: TextOptions) -> String {
    rendered(|out| {
        let mut printer = format.printer(out, options);
        printer.header(Kind::Connection)?;
        all(&mut *printer, samples::connections().into_iter().map(Row::Connection))?;
        printer.header(Kind::Connection)?;
        printer.flush()
    })
}

fn sockets(format: Format, options: TextOptions) -> String {
    rendered(|out| {
        let mut printer = format.lister(out, options);
        printer.header(Kind::Socket)?;
        samples::sockets().iter().try_for_each(|row| printer.socket(row, &CONTEXT))?;
        printer.flush()
    })
}

fn counts(format: Format) -> String {
    rendered(|out| {
        let mut printer = format.lister(out, PLAIN);
        printer.header(Kind::Count)?;
        samples::counts().iter().try_for_each(|row| printer.count(row, &CONTEXT))?;
        printer.flush()
    })
}

fn ports(format: Format, options: TextOptions) -> String {
    rendered(|out| {
        let mut printer = format.lister(out, options);
        printer.header(Kind::Ports)?;
        samples::ports().iter().try_for_each(|row| printer.ports(row, &CONTEXT))?;
        printer.flush()
    })
}

fn losses(format: Format, options: TextOptions) -> String {
    rendered(|out| {
        let mut printer = format.printer(out, options);
        all(&mut *printer, samples::losses().into_iter().map(Row::Loss))?;
        printer.flush()
    })
}

#[test]
fn ports_as_text() {
    assert_snapshot!(ports(Format::Text, PLAIN), @r#"
    LOCAL                 REMOTE                USABLE TAKEN  SHARE MAX/S     LEFT     PID COMM            NOTE
    10.0.0.1:*            10.0.0.9:6379         ≤28229 16903  59.8% 462.7        -    4242 api             connect slows down
    10.0.0.1:*            10.0.0.9:6379         ≤28229 16903 100.0% 462.7      now    4242 api             no port is left
    10.0.0.1:*            10.0.0.9:6379         ≤28229 16903  59.8% 462.7    41.0s    4242 api             connect slows down
    [::1]:*               [::1]:443              28229 16903   0.3% 28225.0  at 0.7%      13 =\x1b[2J\x0a"\… 16800 reusable, several owners
    -                     -                          -     7      -       -        -       - -               the sum of 3 more destinations
    -                     -                          -     7      -       -        -       - -               the sum of 1 more destination
    "#);
}

#[rstest]
#[case::json(Format::Json, "ports_as_json")]
#[case::csv(Format::Csv, "ports_as_csv")]
fn ports_for_programs(#[case] format: Format, #[case] name: &str) {
    assert_snapshot!(name, ports(format, PLAIN));
}

#[test]
fn losses_as_text() {
    assert_snapshot!(losses(Format::Text, PLAIN), @"
    03:04:06.234 10 events lost: cause not recorded
    03:04:06.234 100 events lost: ring buffer full, try --ring-size
    03:04:06.234 1000 events lost: output not taken fast enough
    03:04:06.234 10000 events lost: program was running already
    03:04:06.234 100000 events lost: not written
    03:04:06.234 1000000 events lost: trace damaged
    03:04:06.234 10000000 sockets forgotten, try --max-sockets
    03:04:06.234 100000000 events lost: not reported by the kernel
    03:04:06.234 1000000000 events lost: unaccounted for by the audit
    03:04:06.234 10000000000 events lost: rows held back too long for the filter
    03:04:06.234 events lost: trace damaged
    ");
    let coloured = losses(Format::Text, TextOptions { colour: true, ..PLAIN });
    assert!(coloured.starts_with("03:04:06.234 \x1b["), "{coloured:?}");
}

#[test]
fn losses_as_json() {
    assert_snapshot!(losses(Format::Json, PLAIN), @r#"
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"unknown","count":10}
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"ring_full","count":100}
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"output_slow","count":1000}
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"recursion","count":10000}
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"disk","count":100000}
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"damage","count":1000000}
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"evicted","count":10000000}
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"unreported","count":100000000}
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"unaccounted","count":1000000000}
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"filter_full","count":10000000000}
    {"event":"lost","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"cause":"damage","count":null}
    "#);
}

/// Their columns differ from those of other rows.
#[test]
fn losses_are_no_rows_of_csv() {
    assert_eq!(losses(Format::Csv, PLAIN), "");
}

/// No row is dropped silently: a row that a format does not print has a message. Audits have a table instead.
#[rstest]
#[case(Format::Text, false, true)]
#[case(Format::Json, true, true)]
#[case(Format::Csv, false, false)]
fn what_is_not_printed_can_be_said(#[case] format: Format, #[case] audits: bool, #[case] losses: bool) {
    let printed = |row: &Row| {
        let printed = format.printer(io::sink(), PLAIN).row(row, &CONTEXT).expect("a sink takes everything");
        (printed == Printed::Yes, aside(row, &CONTEXT.names).is_some())
    };
    let (loss, increase) = (samples::losses()[0], samples::increases()[0]);
    assert_eq!(printed(&Row::Loss(loss)), (losses, true));
    assert_eq!(printed(&Row::Counter(increase)), (losses, true));
    assert_eq!(printed(&Row::Audit(samples::findings()[0])), (audits, false));
    assert_eq!(printed(&Row::Transition(samples::transition())), (true, false));
    assert_eq!(printed(&Row::Connection(samples::connection())), (true, false));
}

fn closings(format: Format) -> String {
    rendered(|out| {
        let mut printer = format.printer(out, PLAIN);
        samples::closings().iter().try_for_each(|row| printer.closing(row))?;
        printer.flush()
    })
}

#[test]
fn the_last_row_is_one_of_json_only() {
    assert_snapshot!(closings(Format::Json), @r#"
    {"event":"summary","seen":10,"events":12,"lost":{},"lost_at_least":false,"damaged":0,"followed":2,"filtered":1,"undecided":0,"undecided_shown":0,"exit":0}
    {"event":"summary","seen":10,"events":12,"lost":{"ring_full":17,"damage":0},"lost_at_least":true,"damaged":1,"followed":2,"filtered":1,"undecided":7,"undecided_shown":3,"exit":3}
    "#);
    assert_eq!(closings(Format::Csv) + &closings(Format::Text), "");
}

fn increases(format: Format) -> String {
    rendered(|out| {
        let mut printer = format.printer(out, PLAIN);
        all(&mut *printer, samples::increases().into_iter().map(Row::Counter))?;
        printer.flush()
    })
}

#[test]
fn counters_as_text() {
    assert_snapshot!(increases(Format::Text), @r"
    03:04:06.234 netns blue\x1b[2J: 10 SYN cookies sent (SyncookiesSent): the SYN queue is full or tcp_syncookies is 2
    03:04:06.234 netns blue\x1b[2J: 100 ACKs without a valid SYN cookie (SyncookiesFailed): the kernel answers them with a reset
    03:04:06.234 netns blue\x1b[2J: 1,000 SYNs dropped (TCPReqQFullDrop): the SYN queue is full and SYN cookies are off
    03:04:06.234 netns blue\x1b[2J: 10,000 SYNs and ACKs dropped (ListenOverflows): the accept queue is full
    03:04:06.234 netns blue\x1b[2J: 100,000 SYNs and ACKs dropped by listeners (ListenDrops): for any reason (full queues included)
    03:04:06.234 netns blue\x1b[2J: 1,000,000 half-open connections reset (EmbryonicRsts): by clients or by tcp_abort_on_overflow
    03:04:06.234 netns blue\x1b[2J: 10,000,000 packets dropped by connection tracking (conntrack.drop): its table is full or a helper refused them
    03:04:06.234 netns blue\x1b[2J: 100,000,000 tracked connections removed early (conntrack.early_drop): the connection tracking table is full
    03:04:06.234 netns 1: 1 SYN or ACK dropped (ListenOverflows, since the namespace was created): the accept queue is full
    ");
}

#[test]
fn counters_as_json() {
    assert_snapshot!(increases(Format::Json), @r#"
    {"event":"counter","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":4026532000,"netns_name":"blue\\x1b[2J","counter":"SyncookiesSent","increase":10,"over_ns":1000000000,"what":"SYN cookies sent","meaning":"the SYN queue is full or tcp_syncookies is 2"}
    {"event":"counter","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":4026532000,"netns_name":"blue\\x1b[2J","counter":"SyncookiesFailed","increase":100,"over_ns":1000000000,"what":"ACKs without a valid SYN cookie","meaning":"the kernel answers them with a reset"}
    {"event":"counter","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":4026532000,"netns_name":"blue\\x1b[2J","counter":"TCPReqQFullDrop","increase":1000,"over_ns":1000000000,"what":"SYNs dropped","meaning":"the SYN queue is full and SYN cookies are off"}
    {"event":"counter","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":4026532000,"netns_name":"blue\\x1b[2J","counter":"ListenOverflows","increase":10000,"over_ns":1000000000,"what":"SYNs and ACKs dropped","meaning":"the accept queue is full"}
    {"event":"counter","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":4026532000,"netns_name":"blue\\x1b[2J","counter":"ListenDrops","increase":100000,"over_ns":1000000000,"what":"SYNs and ACKs dropped by listeners","meaning":"for any reason (full queues included)"}
    {"event":"counter","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":4026532000,"netns_name":"blue\\x1b[2J","counter":"EmbryonicRsts","increase":1000000,"over_ns":1000000000,"what":"half-open connections reset","meaning":"by clients or by tcp_abort_on_overflow"}
    {"event":"counter","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":4026532000,"netns_name":"blue\\x1b[2J","counter":"conntrack.drop","increase":10000000,"over_ns":1000000000,"what":"packets dropped by connection tracking","meaning":"its table is full or a helper refused them"}
    {"event":"counter","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":4026532000,"netns_name":"blue\\x1b[2J","counter":"conntrack.early_drop","increase":100000000,"over_ns":1000000000,"what":"tracked connections removed early","meaning":"the connection tracking table is full"}
    {"event":"counter","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":1,"netns_name":null,"counter":"ListenOverflows","increase":1,"over_ns":null,"what":"SYNs and ACKs dropped","meaning":"the accept queue is full"}
    "#);
    assert_eq!(increases(Format::Csv), "", "they would not fit among the columns of other rows");
}

#[test]
fn an_audit_for_people() {
    let lines = super::audit_lines(&samples::findings(), &CONTEXT.names);
    assert_snapshot!(lines.join("\n"), @r"
    NETNS      COUNTER                    SEEN    EXPECTED  DIFFERENCE
    4026532000 ActiveOpens             1000000     1000000           0 blue\x1b[2J
    1          TCPTimeWaitOverflow           7     1000000      999993 within ±3
    4026532000 SyncookiesSent                -       19982           - not visible in events (SYN cookies sent), blue\x1b[2J
    2 network namespaces compared, 1 gone before the end, 0 unclear; 500 transitions seen in them, 10 lost (12 events), 999978 unaccounted for
    ");
    assert!(super::audit_lines(&[], &CONTEXT.names).is_empty());
}

#[test]
fn an_audit_for_programs() {
    let print = |format: Format| {
        rendered(|out| {
            let mut printer = format.printer(out, PLAIN);
            all(&mut *printer, samples::findings().into_iter().map(Row::Audit))?;
            printer.flush()
        })
    };
    assert_snapshot!(print(Format::Json), @r#"
    {"event":"audit","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":4026532000,"netns_name":"blue\\x1b[2J","counter":"ActiveOpens","seen":1000000,"expected":1000000,"difference":0,"within":0}
    {"event":"audit","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":1,"netns_name":null,"counter":"TCPTimeWaitOverflow","seen":7,"expected":1000000,"difference":999993,"within":3}
    {"event":"unseen","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"netns":4026532000,"netns_name":"blue\\x1b[2J","counter":"SyncookiesSent","increase":19982,"over_ns":1000000000,"what":"SYN cookies sent","meaning":"the SYN queue is full or tcp_syncookies is 2"}
    {"event":"audited","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"namespaces":2,"gone":1,"unclear":0,"transitions":500,"lost":12,"lost_transitions":10,"unexplained":999978}
    "#);
    assert_eq!([print(Format::Text), print(Format::Csv)], ["", ""], "it goes to standard error");
}

#[test]
fn sockets_as_text() {
    assert_snapshot!(sockets(Format::Text, PLAIN), @r#"
    STATE           PID COMM            LOCAL                 REMOTE                    AGE  LEFT RECV-Q SEND-Q TIMER            NOTE
    ESTABLISHED    4242 curl            10.0.0.1:45678        10.0.0.2:443                -     -     17 1048576 -                fd 12
    LISTEN           13 =\x1b[2J\x0a"\… [::]:22               [::]:*                      -     -     17 1048576 -                fd 12 and 3 more, accept queue 17/1048576
    SYN_SENT       4242 curl            10.0.0.1:45678        10.0.0.2:443                -     -     17 1048576 on 3.21s ×2      fd 12
    FIN_WAIT1         - -               [2001:db8:1234:5678:9abc:def0:1234:5678]:45678 [::1]:80                    -     -     17 1048576 -                orphan
    FIN_WAIT2         - -               10.0.0.1:45678                                 10.0.0.2:443                -     -     17 1048576 timewait 1.00ms  orphan, mini-socket
    TIME_WAIT         - -               10.0.0.1:45678                                 10.0.0.2:443           ≥14.3s 45.6s     17 1048576 -
    CLOSE_WAIT        - -               10.0.0.1:45678                                 10.0.0.2:443            31.2s     -     17 1048576 -                never accepted, listener nginx[80]
    SYN_RECV          - -               10.0.0.1:45678                                 10.0.0.2:443                -     -     17 1048576 -
    ESTABLISHED    4242 curl            10.0.0.1:45678                                 10.0.0.2:443                -     -     17 1048576 -                fd 12, MPTCP subflow of 1a0e7afa in CLOSE_WAIT
    ESTABLISHED    4242 curl            [fe80::1%eth0]:45678                           [fe80::2%eth0]:443          -     -     17 1048576 -                fd 12
    LISTEN         4242 curl            10.0.0.1:45678                                 10.0.0.2:443                -     -      5       4 -                fd 12, accept queue 5/4, full
    ESTABLISHED    4242 curl            10.0.0.1:45678                                 10.0.0.2:443                -     -     17 1048576 -                fd 12, idle 1h02m
    "#);
}

#[test]
fn sockets_as_json() {
    assert_snapshot!(sockets(Format::Json, PLAIN), @r#"
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"ESTABLISHED","kept":"held","age_ns":null,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":17,"send_queue":1048576,"timer":null,"timer_left_ns":null,"retransmits":0,"pid":4242,"comm":"curl","fd":12,"holders":1,"owner_source":"connect","inode":4711,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":null,"listener_comm":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv6","local":"[::]:22","remote":"[::]:0","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"LISTEN","kept":"held","age_ns":null,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":17,"send_queue":1048576,"timer":null,"timer_left_ns":null,"retransmits":0,"pid":13,"comm":"=\\x1b[2J\\x0a\"\\\\,\\xff\\u{202e};x","fd":12,"holders":4,"owner_source":"scan","inode":4711,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":null,"listener_comm":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"SYN_SENT","kept":"held","age_ns":null,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":17,"send_queue":1048576,"timer":"on","timer_left_ns":3210000000,"retransmits":2,"pid":4242,"comm":"curl","fd":12,"holders":1,"owner_source":"connect","inode":4711,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":null,"listener_comm":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"7","protocol":"tcp","family":"ipv6","local":"[2001:db8:1234:5678:9abc:def0:1234:5678]:45678","remote":"[::1]:80","netns":null,"netns_name":null,"state":"FIN_WAIT1","kept":"orphan","age_ns":null,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":17,"send_queue":1048576,"timer":null,"timer_left_ns":null,"retransmits":0,"pid":null,"comm":null,"fd":null,"holders":null,"owner_source":"unknown","inode":null,"uid":null,"cgroup":null,"cgroup_id":null,"container":null,"unit":null,"listener_pid":null,"listener_comm":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":null,"pod":null,"pod_namespace":null,"container_name":null}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"FIN_WAIT2","kept":"mini","age_ns":null,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":17,"send_queue":1048576,"timer":"timewait","timer_left_ns":1000000,"retransmits":0,"pid":null,"comm":null,"fd":null,"holders":null,"owner_source":"unknown","inode":null,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":null,"listener_comm":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"TIME_WAIT","kept":"mini","age_ns":14322000000,"age_at_least":true,"time_wait_left_ns":45678000000,"recv_queue":17,"send_queue":1048576,"timer":"timewait","timer_left_ns":45678000000,"retransmits":0,"pid":null,"comm":null,"fd":null,"holders":null,"owner_source":"unknown","inode":null,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":null,"listener_comm":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"CLOSE_WAIT","kept":"queued","age_ns":31200000000,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":17,"send_queue":1048576,"timer":null,"timer_left_ns":null,"retransmits":0,"pid":null,"comm":null,"fd":null,"holders":null,"owner_source":"unknown","inode":null,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":80,"listener_comm":"nginx","mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"SYN_RECV","kept":"queued","age_ns":null,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":17,"send_queue":1048576,"timer":null,"timer_left_ns":null,"retransmits":0,"pid":null,"comm":null,"fd":null,"holders":null,"owner_source":"unknown","inode":null,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":null,"listener_comm":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"ESTABLISHED","kept":"held","age_ns":null,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":17,"send_queue":1048576,"timer":null,"timer_left_ns":null,"retransmits":0,"pid":4242,"comm":"curl","fd":12,"holders":1,"owner_source":"connect","inode":4711,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":null,"listener_comm":null,"mptcp_subflow":true,"mptcp_token":"1a0e7afa","mptcp_state":"CLOSE_WAIT","idle_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv6","local":"[fe80::1%eth0]:45678","remote":"[fe80::2%eth0]:443","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"ESTABLISHED","kept":"held","age_ns":null,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":17,"send_queue":1048576,"timer":null,"timer_left_ns":null,"retransmits":0,"pid":4242,"comm":"curl","fd":12,"holders":1,"owner_source":"connect","inode":4711,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":null,"listener_comm":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"LISTEN","kept":"held","age_ns":null,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":5,"send_queue":4,"timer":null,"timer_left_ns":null,"retransmits":0,"pid":4242,"comm":"curl","fd":12,"holders":1,"owner_source":"connect","inode":4711,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":null,"listener_comm":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"socket","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"netns_name":"blue\\x1b[2J","state":"ESTABLISHED","kept":"held","age_ns":null,"age_at_least":false,"time_wait_left_ns":null,"recv_queue":17,"send_queue":1048576,"timer":null,"timer_left_ns":null,"retransmits":0,"pid":4242,"comm":"curl","fd":12,"holders":1,"owner_source":"connect","inode":4711,"uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","listener_pid":null,"listener_comm":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null,"idle_ns":3723004000000,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    "#);
}

#[test]
fn sockets_as_csv() {
    assert_snapshot!(sockets(Format::Csv, PLAIN), @r#"
    event,time,boot_ns,conn,protocol,family,local,remote,netns,netns_name,state,kept,age_ns,age_at_least,time_wait_left_ns,recv_queue,send_queue,timer,timer_left_ns,retransmits,pid,comm,fd,holders,owner_source,inode,uid,cgroup,cgroup_id,container,unit,listener_pid,listener_comm,mptcp_subflow,mptcp_token,mptcp_state,idle_ns,pod,pod_namespace,container_name
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,blue\x1b[2J,ESTABLISHED,held,,false,,17,1048576,,,0,4242,curl,12,1,connect,4711,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,,,false,,,,web-5d9,shop\x1b[2J,nginx
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv6,[::]:22,[::]:0,4026532000,blue\x1b[2J,LISTEN,held,,false,,17,1048576,,,0,13,"'=\x1b[2J\x0a""\\,\xff\u{202e};x",12,4,scan,4711,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,,,false,,,,web-5d9,shop\x1b[2J,nginx
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,blue\x1b[2J,SYN_SENT,held,,false,,17,1048576,on,3210000000,2,4242,curl,12,1,connect,4711,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,,,false,,,,web-5d9,shop\x1b[2J,nginx
    socket,2025-01-02T03:04:06.234567890Z,1234567890,7,tcp,ipv6,[2001:db8:1234:5678:9abc:def0:1234:5678]:45678,[::1]:80,,,FIN_WAIT1,orphan,,false,,17,1048576,,,0,,,,,unknown,,,,,,,,,false,,,,,,
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,blue\x1b[2J,FIN_WAIT2,mini,,false,,17,1048576,timewait,1000000,0,,,,,unknown,,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,,,false,,,,web-5d9,shop\x1b[2J,nginx
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,blue\x1b[2J,TIME_WAIT,mini,14322000000,true,45678000000,17,1048576,timewait,45678000000,0,,,,,unknown,,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,,,false,,,,web-5d9,shop\x1b[2J,nginx
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,blue\x1b[2J,CLOSE_WAIT,queued,31200000000,false,,17,1048576,,,0,,,,,unknown,,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,80,nginx,false,,,,web-5d9,shop\x1b[2J,nginx
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,blue\x1b[2J,SYN_RECV,queued,,false,,17,1048576,,,0,,,,,unknown,,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,,,false,,,,web-5d9,shop\x1b[2J,nginx
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,blue\x1b[2J,ESTABLISHED,held,,false,,17,1048576,,,0,4242,curl,12,1,connect,4711,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,,,true,1a0e7afa,CLOSE_WAIT,,web-5d9,shop\x1b[2J,nginx
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv6,[fe80::1%eth0]:45678,[fe80::2%eth0]:443,4026532000,blue\x1b[2J,ESTABLISHED,held,,false,,17,1048576,,,0,4242,curl,12,1,connect,4711,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,,,false,,,,web-5d9,shop\x1b[2J,nginx
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,blue\x1b[2J,LISTEN,held,,false,,5,4,,,0,4242,curl,12,1,connect,4711,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,,,false,,,,web-5d9,shop\x1b[2J,nginx
    socket,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,blue\x1b[2J,ESTABLISHED,held,,false,,17,1048576,,,0,4242,curl,12,1,connect,4711,1000,/system.slice/docker-0123abcd.scope,77,0123abcd,docker-0123abcd.scope,,,false,,,3723004000000,web-5d9,shop\x1b[2J,nginx
    "#);
}

#[test]
fn counts_as_text() {
    assert_snapshot!(counts(Format::Text), @r##"
    STATE         TOTAL    HELD  QUEUED  ORPHAN    MINI
    CLOSE_WAIT       10       1       2       3       4
    CLOSED            -       -       -       -       -

    STATE         TOTAL     PID COMM            NOTE
    CLOSE_WAIT       10      13 =\x1b[2J\x0a"\…
    CLOSE_WAIT       10       - -               never accepted, listener nginx[80]
    CLOSE_WAIT       10       - -               holder not found, orphans
    -                 7       - -               the sum of 3 more owners

    STATE         TOTAL     PID COMM            LOCAL                 REMOTE                NOTE
    CLOSE_WAIT       10       - -               10.0.0.1:80           10.0.0.2:*            several owners
    CLOSE_WAIT       10    4242 curl            [::1]:*               [::1]:443
    CLOSE_WAIT       10       - -               -                     -                     the sum of 1 more end
    "##);
}

#[test]
fn counts_as_json() {
    assert_snapshot!(counts(Format::Json), @r##"
    {"event":"count","by":"state","state":"CLOSE_WAIT","total":10,"held":1,"queued":2,"orphan":3,"mini":4,"pid":null,"comm":null,"listener_pid":null,"listener_comm":null,"local":null,"remote":null,"netns":null,"several_owners":false,"groups":null}
    {"event":"count","by":"state","state":"CLOSED","total":null,"held":null,"queued":null,"orphan":null,"mini":null,"pid":null,"comm":null,"listener_pid":null,"listener_comm":null,"local":null,"remote":null,"netns":null,"several_owners":false,"groups":null}
    {"event":"count","by":"owner","state":"CLOSE_WAIT","total":10,"held":0,"queued":0,"orphan":0,"mini":0,"pid":13,"comm":"=\\x1b[2J\\x0a\"\\\\,\\xff\\u{202e};x","listener_pid":null,"listener_comm":null,"local":null,"remote":null,"netns":null,"several_owners":false,"groups":null}
    {"event":"count","by":"owner","state":"CLOSE_WAIT","total":10,"held":0,"queued":0,"orphan":0,"mini":0,"pid":null,"comm":null,"listener_pid":80,"listener_comm":"nginx","local":null,"remote":null,"netns":null,"several_owners":false,"groups":null}
    {"event":"count","by":"owner","state":"CLOSE_WAIT","total":10,"held":1,"queued":0,"orphan":2,"mini":0,"pid":null,"comm":null,"listener_pid":null,"listener_comm":null,"local":null,"remote":null,"netns":null,"several_owners":false,"groups":null}
    {"event":"count","by":"owner","state":null,"total":7,"held":0,"queued":0,"orphan":0,"mini":0,"pid":null,"comm":null,"listener_pid":null,"listener_comm":null,"local":null,"remote":null,"netns":null,"several_owners":false,"groups":3}
    {"event":"count","by":"remote","state":"CLOSE_WAIT","total":10,"held":1,"queued":2,"orphan":3,"mini":4,"pid":null,"comm":null,"listener_pid":null,"listener_comm":null,"local":"10.0.0.1:80","remote":"10.0.0.2:0","netns":4026532000,"several_owners":true,"groups":null}
    {"event":"count","by":"remote","state":"CLOSE_WAIT","total":10,"held":1,"queued":2,"orphan":3,"mini":4,"pid":4242,"comm":"curl","listener_pid":null,"listener_comm":null,"local":"[::1]:0","remote":"[::1]:443","netns":4026532000,"several_owners":false,"groups":null}
    {"event":"count","by":"remote","state":"CLOSE_WAIT","total":10,"held":1,"queued":2,"orphan":3,"mini":4,"pid":null,"comm":null,"listener_pid":null,"listener_comm":null,"local":null,"remote":null,"netns":null,"several_owners":false,"groups":1}
    "##);
}

#[test]
fn counts_as_csv() {
    assert_snapshot!(counts(Format::Csv), @r##"
    event,by,state,total,held,queued,orphan,mini,pid,comm,listener_pid,listener_comm,local,remote,netns,several_owners,groups
    count,state,CLOSE_WAIT,10,1,2,3,4,,,,,,,,false,
    count,state,CLOSED,,,,,,,,,,,,,false,
    count,owner,CLOSE_WAIT,10,0,0,0,0,13,"'=\x1b[2J\x0a""\\,\xff\u{202e};x",,,,,,false,
    count,owner,CLOSE_WAIT,10,0,0,0,0,,,80,nginx,,,,false,
    count,owner,CLOSE_WAIT,10,1,0,2,0,,,,,,,,false,
    count,owner,,7,0,0,0,0,,,,,,,,false,3
    count,remote,CLOSE_WAIT,10,1,2,3,4,,,,,10.0.0.1:80,10.0.0.2:0,4026532000,true,
    count,remote,CLOSE_WAIT,10,1,2,3,4,4242,curl,,,[::1]:0,[::1]:443,4026532000,false,
    count,remote,CLOSE_WAIT,10,1,2,3,4,,,,,,,,false,1
    "##);
}

#[test]
fn transitions_as_text() {
    assert_snapshot!(transitions(Format::Text, PLAIN), @r##"
    TIME             PID COMM            LOCAL                 REMOTE                OLD         → NEW            HELD NOTE
    03:04:06.234    4242 curl            127.0.0.1:-           127.0.0.1:80          CLOSED      → SYN_SENT          -
    03:04:06.234     700 sshd            0.0.0.0:22            0.0.0.0:*             CLOSED      → LISTEN       12.3ms
    03:04:06.234    4242 curl            10.0.0.1:45678        10.0.0.2:443          ESTABLISHED → FIN_WAIT1    12.3ms active close
    03:04:06.234    4242 curl            10.0.0.1:45678        10.0.0.2:443          FIN_WAIT1   → FIN_WAIT2     420µs active close, orphan
    03:04:06.234       - -               [2001:db8:1234:5678:9abc:def0:1234:5678]:45678 [::1]:80              ESTABLISHED → CLOSE_WAIT   ≥61.8s passive close
    03:04:06.234    4242 curl            10.0.0.1:45678                                 10.0.0.2:443          TIME_WAIT   → CLOSED        60.0s expired
    03:04:06.234    4242 curl            10.0.0.1:45678                                 10.0.0.2:443          FIN_WAIT2   → CLOSED       12.3ms TIME_WAIT refused
    03:04:06.234    4242 curl            10.0.0.1:45678                                 10.0.0.2:443          ESTABLISHED → CLOSED        2m03s reset: unread data
    03:04:06.234      13 =\x1b[2J\x0a"\… 10.0.0.1:45678                                 10.0.0.2:443          SYN_SENT    → CLOSED       12.3ms refused
    03:04:06.234    4242 curl            10.0.0.1:45678                                 10.0.0.2:443          LAST_ACK    → CLOSED       12.3ms passive close, closed by worker[99]
    03:04:06.234    4242 curl            10.0.0.1:45678                                 10.0.0.2:443          CLOSE_WAIT  → …             31.2s passive close, held by nginx[80] fd 12, 4321 bytes not acknowledged
    03:04:06.234    4242 curl            10.0.0.1:45678                                 10.0.0.2:443          CLOSE_WAIT  → …             31.2s passive close, held by nginx[80] fd 12 and 2 more, 4321 bytes not acknowledged
    03:04:06.234    4242 curl            10.0.0.1:45678                                 10.0.0.2:443          CLOSE_WAIT  → …             31.2s passive close, never accepted, listener nginx[80], 4321 bytes not acknowledged
    03:04:06.234    4242 curl            10.0.0.1:45678                                 10.0.0.2:443          CLOSE_WAIT  → …             31.2s passive close, held by nginx[80] fd 12, 4321 bytes not acknowledged, MPTCP subflow of 1a0e7afa in CLOSE_WAIT
    03:04:06.234    4242 curl            10.0.0.1:45678                                 10.0.0.2:443          CLOSED      → …             31.2s reset: received, still held by nginx[80] fd 12
    03:04:06.234    4242 curl            10.0.0.1:45678                                 10.0.0.2:443          CLOSED      → …             31.2s reset: received, descriptor closed
    03:04:06.234    4242 curl            [fe80::1%eth0]:45678                           [fe80::2%eth0]:443    ESTABLISHED → FIN_WAIT1    12.3ms active close
    "##);
}

#[test]
fn connections_as_text() {
    assert_snapshot!(connections(Format::Text, PLAIN), @r##"
    TIME         SIDE    CLOSER            END                         PID COMM            LOCAL                 REMOTE                  ESTAB CLOSE_WAIT TIME_WAIT           SENT  RECV NOTE
    03:05:10.500 client  active            fin                        4242 curl            10.0.0.1:45678        10.0.0.2:443            1.20s          - 61.3s               1.2K  3.4M
    03:05:10.500 unknown passive           fin                           - -               [2001:db8:1234:5678:9abc:def0:1234:5678]:45678 [::1]:80              ≥12.0ms      1h00m -                      -     -
    03:05:10.500 client  active            fin                        4242 curl            10.0.0.1:45678                                 10.0.0.2:443                -          - 1.20s reused        1.2K  3.4M
    03:05:10.500 client  active            fin                        4242 curl            10.0.0.1:45678                                 10.0.0.2:443           5.00ms          - refused             1.2K  3.4M
    03:05:10.500 client  reset_local       reset_unread_data            13 =\x1b[2J\x0a"\… 10.0.0.1:45678                                 10.0.0.2:443           5.00ms          - -                   1.2K  3.4M
    03:05:10.500 client  never_established no_local_port              4242 curl            127.0.0.1:-                                    127.0.0.1:80                -          - -                      0     0
    03:05:10.500 client  passive           -                          4242 curl            10.0.0.1:45678                                 10.0.0.2:443                -     ≥31.2s -                      -     - held by nginx[80] fd 12, 4321 bytes not acknowledged
    03:05:10.500 client  reset_remote      reset_received             4242 curl            10.0.0.1:45678                                 10.0.0.2:443           5.00ms          - -                   1.2K  3.4M still held by nginx[80] fd 12
    03:05:10.500 client  active            fin                        4242 curl            [fe80::1%eth0]:45678                           [fe80::2%eth0]:443     5.00ms          - -                   1.2K  3.4M
    03:05:10.500 client  active            fin                        4242 curl            [fe80::1%3]:45678                              [fe80::2%3]:443        5.00ms          - -                   1.2K  3.4M
    "##);
}

#[test]
fn connections_as_text_with_states() {
    assert_snapshot!(connections(Format::Text, TextOptions { states: true, ..PLAIN }), @r##"
    TIME         SIDE    CLOSER            END                         PID COMM            LOCAL                 REMOTE                  ESTAB CLOSE_WAIT TIME_WAIT           SENT  RECV NOTE
    03:05:10.500 client  active            fin                        4242 curl            10.0.0.1:45678        10.0.0.2:443            1.20s          - 61.3s               1.2K  3.4M
                 SYN_SENT 400µs › ESTABLISHED 1.20s › FIN_WAIT1 100µs › FIN_WAIT2 2.00s › TIME_WAIT 61.3s
    03:05:10.500 unknown passive           fin                           - -               [2001:db8:1234:5678:9abc:def0:1234:5678]:45678 [::1]:80              ≥12.0ms      1h00m -                      -     -
                 ESTABLISHED ≥12.0ms › CLOSE_WAIT 1h00m › LAST_ACK 50.0µs
    03:05:10.500 client  active            fin                        4242 curl            10.0.0.1:45678                                 10.0.0.2:443                -          - 1.20s reused        1.2K  3.4M
                 TIME_WAIT 1.20s
    03:05:10.500 client  active            fin                        4242 curl            10.0.0.1:45678                                 10.0.0.2:443           5.00ms          - refused             1.2K  3.4M
                 ESTABLISHED 5.00ms
    03:05:10.500 client  reset_local       reset_unread_data            13 =\x1b[2J\x0a"\… 10.0.0.1:45678                                 10.0.0.2:443           5.00ms          - -                   1.2K  3.4M
                 ESTABLISHED 5.00ms
    03:05:10.500 client  never_established no_local_port              4242 curl            127.0.0.1:-                                    127.0.0.1:80                -          - -                      0     0
    03:05:10.500 client  passive           -                          4242 curl            10.0.0.1:45678                                 10.0.0.2:443                -     ≥31.2s -                      -     - held by nginx[80] fd 12, 4321 bytes not acknowledged
                 CLOSE_WAIT ≥31.2s
    03:05:10.500 client  reset_remote      reset_received             4242 curl            10.0.0.1:45678                                 10.0.0.2:443           5.00ms          - -                   1.2K  3.4M still held by nginx[80] fd 12
                 ESTABLISHED 5.00ms
    03:05:10.500 client  active            fin                        4242 curl            [fe80::1%eth0]:45678                           [fe80::2%eth0]:443     5.00ms          - -                   1.2K  3.4M
                 ESTABLISHED 5.00ms
    03:05:10.500 client  active            fin                        4242 curl            [fe80::1%3]:45678                              [fe80::2%3]:443        5.00ms          - -                   1.2K  3.4M
                 ESTABLISHED 5.00ms
    "##);
}

#[test]
fn transitions_as_json() {
    assert_snapshot!(transitions(Format::Json, PLAIN), @r#"
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"127.0.0.1:0","remote":"127.0.0.1:80","netns":4026532000,"old":"CLOSED","new":"SYN_SENT","held_ns":null,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":null,"reason":null,"orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"0.0.0.0:22","remote":"0.0.0.0:0","netns":4026532000,"old":"CLOSED","new":"LISTEN","held_ns":12345678,"held_at_least":false,"pid":700,"tid":701,"comm":"sshd","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"listen","side":"server","closer":null,"reason":null,"orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"ESTABLISHED","new":"FIN_WAIT1","held_ns":12345678,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"active","reason":null,"orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"FIN_WAIT1","new":"FIN_WAIT2","held_ns":420000,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"active","reason":null,"orphan":true,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"7","protocol":"tcp","family":"ipv6","local":"[2001:db8:1234:5678:9abc:def0:1234:5678]:45678","remote":"[::1]:80","netns":null,"old":"ESTABLISHED","new":"CLOSE_WAIT","held_ns":61850000000,"held_at_least":true,"pid":null,"tid":null,"comm":null,"uid":null,"cgroup":null,"owner_source":"unknown","side":"unknown","closer":"passive","reason":null,"orphan":false,"netns_name":null,"cgroup_id":null,"container":null,"unit":null,"close_pid":null,"close_comm":null,"pod":null,"pod_namespace":null,"container_name":null}
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"TIME_WAIT","new":"CLOSED","held_ns":60012000000,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"active","reason":"expired","orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"FIN_WAIT2","new":"CLOSED","held_ns":12345678,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"active","reason":"refused","orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"ESTABLISHED","new":"CLOSED","held_ns":123000000000,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"reset_local","reason":"reset_unread_data","orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"SYN_SENT","new":"CLOSED","held_ns":12345678,"held_at_least":false,"pid":13,"tid":14,"comm":"=\\x1b[2J\\x0a\"\\\\,\\xff\\u{202e};x","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"scan","side":"client","closer":"never_established","reason":"refused","orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"LAST_ACK","new":"CLOSED","held_ns":12345678,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"passive","reason":"fin","orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":99,"close_comm":"worker","pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"stuck","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"CLOSE_WAIT","new":"CLOSE_WAIT","held_ns":31200000000,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"passive","reason":null,"orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx","holder_pid":80,"holder_comm":"nginx","fd":12,"holders":1,"accepted":true,"listener_pid":null,"listener_comm":null,"bytes_unacked":4321,"bytes_since":0,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null}
    {"event":"stuck","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"CLOSE_WAIT","new":"CLOSE_WAIT","held_ns":31200000000,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"passive","reason":null,"orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx","holder_pid":80,"holder_comm":"nginx","fd":12,"holders":3,"accepted":true,"listener_pid":null,"listener_comm":null,"bytes_unacked":4321,"bytes_since":0,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null}
    {"event":"stuck","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"CLOSE_WAIT","new":"CLOSE_WAIT","held_ns":31200000000,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"passive","reason":null,"orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx","holder_pid":null,"holder_comm":null,"fd":null,"holders":0,"accepted":false,"listener_pid":80,"listener_comm":"nginx","bytes_unacked":4321,"bytes_since":0,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null}
    {"event":"stuck","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"CLOSE_WAIT","new":"CLOSE_WAIT","held_ns":31200000000,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"passive","reason":null,"orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx","holder_pid":80,"holder_comm":"nginx","fd":12,"holders":1,"accepted":true,"listener_pid":null,"listener_comm":null,"bytes_unacked":4321,"bytes_since":0,"mptcp_subflow":true,"mptcp_token":"1a0e7afa","mptcp_state":"CLOSE_WAIT"}
    {"event":"stuck","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"CLOSED","new":"CLOSED","held_ns":31200000000,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"passive","reason":"reset_received","orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx","holder_pid":80,"holder_comm":"nginx","fd":12,"holders":1,"accepted":true,"listener_pid":null,"listener_comm":null,"bytes_unacked":null,"bytes_since":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null}
    {"event":"released","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"old":"CLOSED","new":"CLOSED","held_ns":31200000000,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"passive","reason":"reset_received","orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx","holder_pid":null,"holder_comm":null,"fd":null,"holders":null,"accepted":true,"listener_pid":null,"listener_comm":null,"bytes_unacked":null,"bytes_since":null,"mptcp_subflow":null,"mptcp_token":null,"mptcp_state":null}
    {"event":"transition","time":"2025-01-02T03:04:06.234567890Z","boot_ns":1234567890,"conn":"a1b2","protocol":"tcp","family":"ipv6","local":"[fe80::1%eth0]:45678","remote":"[fe80::2%eth0]:443","netns":4026532000,"old":"ESTABLISHED","new":"FIN_WAIT1","held_ns":12345678,"held_at_least":false,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"active","reason":null,"orphan":false,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","close_pid":null,"close_comm":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    "#);
}

#[test]
fn connections_as_json() {
    assert_snapshot!(connections(Format::Json, PLAIN), @r#"
    {"event":"connection","opened":"2025-01-02T03:04:06.000000000Z","closed":"2025-01-02T03:05:10.500500000Z","boot_ns":65500500000,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"active","end":"fin","states":[{"state":"SYN_SENT","ns":400000,"at_least":false},{"state":"ESTABLISHED","ns":1200000000,"at_least":false},{"state":"FIN_WAIT1","ns":100000,"at_least":false},{"state":"FIN_WAIT2","ns":2000000000,"at_least":false},{"state":"TIME_WAIT","ns":61300000000,"at_least":false}],"established_ns":1200000000,"close_wait_ns":null,"time_wait_ns":61300000000,"time_wait_end":"expired","bytes_sent":1234,"bytes_received":3600000,"bytes_unread":17,"retransmits":3,"srtt_us":250,"close_pid":4242,"close_tid":4243,"close_comm":"curl","complete":true,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","in_flight":false,"retransmits_unanswered":0,"reset_received":false,"idle_before_close_ns":1004000000,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"connection","opened":null,"closed":"2025-01-02T03:05:10.500500000Z","boot_ns":65500500000,"conn":"7","protocol":"tcp","family":"ipv6","local":"[2001:db8:1234:5678:9abc:def0:1234:5678]:45678","remote":"[::1]:80","netns":null,"pid":null,"tid":null,"comm":null,"uid":null,"cgroup":null,"owner_source":"unknown","side":"unknown","closer":"passive","end":"fin","states":[{"state":"ESTABLISHED","ns":12000000,"at_least":true},{"state":"CLOSE_WAIT","ns":3600000000000,"at_least":false},{"state":"LAST_ACK","ns":50000,"at_least":false}],"established_ns":12000000,"close_wait_ns":3600000000000,"time_wait_ns":null,"time_wait_end":null,"bytes_sent":null,"bytes_received":null,"bytes_unread":null,"retransmits":null,"srtt_us":null,"close_pid":null,"close_tid":null,"close_comm":null,"complete":false,"netns_name":null,"cgroup_id":null,"container":null,"unit":null,"in_flight":null,"retransmits_unanswered":null,"reset_received":null,"idle_before_close_ns":null,"pod":null,"pod_namespace":null,"container_name":null}
    {"event":"connection","opened":"2025-01-02T03:04:06.000000000Z","closed":"2025-01-02T03:05:10.500500000Z","boot_ns":65500500000,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"active","end":"fin","states":[{"state":"TIME_WAIT","ns":1200000000,"at_least":false}],"established_ns":null,"close_wait_ns":null,"time_wait_ns":1200000000,"time_wait_end":"reused","bytes_sent":1234,"bytes_received":3600000,"bytes_unread":17,"retransmits":3,"srtt_us":250,"close_pid":4242,"close_tid":4243,"close_comm":"curl","complete":true,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","in_flight":false,"retransmits_unanswered":0,"reset_received":false,"idle_before_close_ns":1004000000,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"connection","opened":"2025-01-02T03:04:06.000000000Z","closed":"2025-01-02T03:05:10.500500000Z","boot_ns":65500500000,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"active","end":"fin","states":[{"state":"ESTABLISHED","ns":5000000,"at_least":false}],"established_ns":5000000,"close_wait_ns":null,"time_wait_ns":null,"time_wait_end":"refused","bytes_sent":1234,"bytes_received":3600000,"bytes_unread":17,"retransmits":3,"srtt_us":250,"close_pid":4242,"close_tid":4243,"close_comm":"curl","complete":true,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","in_flight":false,"retransmits_unanswered":0,"reset_received":false,"idle_before_close_ns":1004000000,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"connection","opened":"2025-01-02T03:04:06.000000000Z","closed":"2025-01-02T03:05:10.500500000Z","boot_ns":65500500000,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"pid":13,"tid":14,"comm":"=\\x1b[2J\\x0a\"\\\\,\\xff\\u{202e};x","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"scan","side":"client","closer":"reset_local","end":"reset_unread_data","states":[{"state":"ESTABLISHED","ns":5000000,"at_least":false}],"established_ns":5000000,"close_wait_ns":null,"time_wait_ns":null,"time_wait_end":null,"bytes_sent":1234,"bytes_received":3600000,"bytes_unread":17,"retransmits":3,"srtt_us":250,"close_pid":13,"close_tid":14,"close_comm":"=\\x1b[2J\\x0a\"\\\\,\\xff\\u{202e};x","complete":true,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","in_flight":false,"retransmits_unanswered":0,"reset_received":false,"idle_before_close_ns":1004000000,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"connection","opened":"2025-01-02T03:04:06.000000000Z","closed":"2025-01-02T03:05:10.500500000Z","boot_ns":65500500000,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"127.0.0.1:0","remote":"127.0.0.1:80","netns":4026532000,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"never_established","end":"no_local_port","states":[],"established_ns":null,"close_wait_ns":null,"time_wait_ns":null,"time_wait_end":null,"bytes_sent":0,"bytes_received":0,"bytes_unread":0,"retransmits":0,"srtt_us":null,"close_pid":4242,"close_tid":4243,"close_comm":"curl","complete":true,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","in_flight":false,"retransmits_unanswered":0,"reset_received":null,"idle_before_close_ns":null,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"stuck","opened":"2025-01-02T03:04:06.000000000Z","closed":null,"boot_ns":65500500000,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"passive","end":null,"states":[{"state":"CLOSE_WAIT","ns":31200000000,"at_least":true}],"established_ns":null,"close_wait_ns":31200000000,"time_wait_ns":null,"time_wait_end":null,"bytes_sent":null,"bytes_received":null,"bytes_unread":null,"retransmits":null,"srtt_us":null,"close_pid":null,"close_tid":null,"close_comm":null,"complete":true,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","in_flight":null,"retransmits_unanswered":null,"reset_received":null,"idle_before_close_ns":1004000000,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx","state":"CLOSE_WAIT","age_ns":31200000000,"age_at_least":false,"holder_pid":80,"holder_comm":"nginx","fd":12,"holders":1,"accepted":true,"listener_pid":null,"listener_comm":null,"bytes_unacked":4321,"bytes_since":0,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null}
    {"event":"stuck","opened":"2025-01-02T03:04:06.000000000Z","closed":null,"boot_ns":65500500000,"conn":"a1b2","protocol":"tcp","family":"ipv4","local":"10.0.0.1:45678","remote":"10.0.0.2:443","netns":4026532000,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"reset_remote","end":"reset_received","states":[{"state":"ESTABLISHED","ns":5000000,"at_least":false}],"established_ns":5000000,"close_wait_ns":null,"time_wait_ns":null,"time_wait_end":null,"bytes_sent":1234,"bytes_received":3600000,"bytes_unread":17,"retransmits":3,"srtt_us":250,"close_pid":null,"close_tid":null,"close_comm":null,"complete":true,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","in_flight":false,"retransmits_unanswered":0,"reset_received":false,"idle_before_close_ns":1004000000,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx","state":"CLOSED","age_ns":31200000000,"age_at_least":false,"holder_pid":80,"holder_comm":"nginx","fd":12,"holders":1,"accepted":true,"listener_pid":null,"listener_comm":null,"bytes_unacked":null,"bytes_since":null,"mptcp_subflow":false,"mptcp_token":null,"mptcp_state":null}
    {"event":"connection","opened":"2025-01-02T03:04:06.000000000Z","closed":"2025-01-02T03:05:10.500500000Z","boot_ns":65500500000,"conn":"a1b2","protocol":"tcp","family":"ipv6","local":"[fe80::1%eth0]:45678","remote":"[fe80::2%eth0]:443","netns":4026532000,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"active","end":"fin","states":[{"state":"ESTABLISHED","ns":5000000,"at_least":false}],"established_ns":5000000,"close_wait_ns":null,"time_wait_ns":null,"time_wait_end":"expired","bytes_sent":1234,"bytes_received":3600000,"bytes_unread":17,"retransmits":3,"srtt_us":250,"close_pid":4242,"close_tid":4243,"close_comm":"curl","complete":true,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","in_flight":false,"retransmits_unanswered":0,"reset_received":false,"idle_before_close_ns":1004000000,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    {"event":"connection","opened":"2025-01-02T03:04:06.000000000Z","closed":"2025-01-02T03:05:10.500500000Z","boot_ns":65500500000,"conn":"a1b2","protocol":"tcp","family":"ipv6","local":"[fe80::1%3]:45678","remote":"[fe80::2%3]:443","netns":4026532000,"pid":4242,"tid":4243,"comm":"curl","uid":1000,"cgroup":"/system.slice/docker-0123abcd.scope","owner_source":"connect","side":"client","closer":"active","end":"fin","states":[{"state":"ESTABLISHED","ns":5000000,"at_least":false}],"established_ns":5000000,"close_wait_ns":null,"time_wait_ns":null,"time_wait_end":"expired","bytes_sent":1234,"bytes_received":3600000,"bytes_unread":17,"retransmits":3,"srtt_us":250,"close_pid":4242,"close_tid":4243,"close_comm":"curl","complete":true,"netns_name":"blue\\x1b[2J","cgroup_id":77,"container":"0123abcd","unit":"docker-0123abcd.scope","in_flight":false,"retransmits_unanswered":0,"reset_received":false,"idle_before_close_ns":1004000000,"pod":"web-5d9","pod_namespace":"shop\\x1b[2J","container_name":"nginx"}
    "#);
}

/// A healthy connection is open; only one that waits too long is stuck.
#[rstest]
#[case::ended(samples::ended(End::Fin, None), "connection")]
#[case::open(Status::Open { state: State::Established, age: Held::Unknown, accepted: None }, "open")]
#[case::waiting(Status::Waiting { state: State::CloseWait, age: Held::Unknown, report: Box::default() }, "stuck")]
#[case::unreleased(
    Status::Unreleased { ending: End::Fin.into(), age: Held::Unknown, report: Box::default() },
    "stuck"
)]
#[case::released(Status::Released { ending: End::Fin.into(), age: Held::Unknown, accepted: None }, "released")]
fn what_has_become_of_a_connection(#[case] status: Status, #[case] event: &str) {
    let row = Connection { status, ..samples::connection() };
    let text = rendered(|out| Json::new(out).object(&CONNECTION, &row, &CONTEXT));
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["event"], event);
    assert_eq!(json["closed"].is_null(), event != "connection", "{json}");
    assert_eq!(json["end"].is_null(), row.is_open(), "{json}");
    assert_eq!(json.get("state").is_some(), event != "connection", "{json}");
}

#[test]
fn transitions_as_csv() {
    assert_snapshot!(transitions(Format::Csv, PLAIN), @r#"
    event,time,boot_ns,conn,protocol,family,local,remote,netns,old,new,held_ns,held_at_least,pid,tid,comm,uid,cgroup,owner_source,side,closer,reason,orphan,netns_name,cgroup_id,container,unit,close_pid,close_comm,pod,pod_namespace,container_name,holder_pid,holder_comm,fd,holders,accepted,listener_pid,listener_comm,bytes_unacked,bytes_since,mptcp_subflow,mptcp_token,mptcp_state
    transition,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,127.0.0.1:0,127.0.0.1:80,4026532000,CLOSED,SYN_SENT,,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,,,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,
    transition,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,0.0.0.0:22,0.0.0.0:0,4026532000,CLOSED,LISTEN,12345678,false,700,701,sshd,1000,/system.slice/docker-0123abcd.scope,listen,server,,,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,
    transition,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,ESTABLISHED,FIN_WAIT1,12345678,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,active,,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,
    transition,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,FIN_WAIT1,FIN_WAIT2,420000,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,active,,true,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,
    transition,2025-01-02T03:04:06.234567890Z,1234567890,7,tcp,ipv6,[2001:db8:1234:5678:9abc:def0:1234:5678]:45678,[::1]:80,,ESTABLISHED,CLOSE_WAIT,61850000000,true,,,,,,unknown,unknown,passive,,false,,,,,,,,,,,,,,,,,,,,,
    transition,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,TIME_WAIT,CLOSED,60012000000,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,active,expired,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,
    transition,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,FIN_WAIT2,CLOSED,12345678,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,active,refused,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,
    transition,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,ESTABLISHED,CLOSED,123000000000,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,reset_local,reset_unread_data,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,
    transition,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,SYN_SENT,CLOSED,12345678,false,13,14,"'=\x1b[2J\x0a""\\,\xff\u{202e};x",1000,/system.slice/docker-0123abcd.scope,scan,client,never_established,refused,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,
    transition,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,LAST_ACK,CLOSED,12345678,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,passive,fin,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,99,worker,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,
    stuck,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,CLOSE_WAIT,CLOSE_WAIT,31200000000,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,passive,,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,80,nginx,12,1,true,,,4321,0,false,,
    stuck,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,CLOSE_WAIT,CLOSE_WAIT,31200000000,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,passive,,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,80,nginx,12,3,true,,,4321,0,false,,
    stuck,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,CLOSE_WAIT,CLOSE_WAIT,31200000000,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,passive,,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,0,false,80,nginx,4321,0,false,,
    stuck,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,CLOSE_WAIT,CLOSE_WAIT,31200000000,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,passive,,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,80,nginx,12,1,true,,,4321,0,true,1a0e7afa,CLOSE_WAIT
    stuck,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,CLOSED,CLOSED,31200000000,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,passive,reset_received,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,80,nginx,12,1,true,,,,,false,,
    released,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,CLOSED,CLOSED,31200000000,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,passive,reset_received,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,,true,,,,,,,
    transition,2025-01-02T03:04:06.234567890Z,1234567890,a1b2,tcp,ipv6,[fe80::1%eth0]:45678,[fe80::2%eth0]:443,4026532000,ESTABLISHED,FIN_WAIT1,12345678,false,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,active,,false,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,
    "#);
}

#[test]
fn connections_as_csv() {
    assert_snapshot!(connections(Format::Csv, PLAIN), @r#"
    event,opened,closed,boot_ns,conn,protocol,family,local,remote,netns,pid,tid,comm,uid,cgroup,owner_source,side,closer,end,states,established_ns,close_wait_ns,time_wait_ns,time_wait_end,bytes_sent,bytes_received,bytes_unread,retransmits,srtt_us,close_pid,close_tid,close_comm,complete,netns_name,cgroup_id,container,unit,in_flight,retransmits_unanswered,reset_received,idle_before_close_ns,pod,pod_namespace,container_name,state,age_ns,age_at_least,holder_pid,holder_comm,fd,holders,accepted,listener_pid,listener_comm,bytes_unacked,bytes_since,mptcp_subflow,mptcp_token,mptcp_state
    connection,2025-01-02T03:04:06.000000000Z,2025-01-02T03:05:10.500500000Z,65500500000,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,active,fin,SYN_SENT:400000;ESTABLISHED:1200000000;FIN_WAIT1:100000;FIN_WAIT2:2000000000;TIME_WAIT:61300000000,1200000000,,61300000000,expired,1234,3600000,17,3,250,4242,4243,curl,true,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,false,0,false,1004000000,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,,,,
    connection,,2025-01-02T03:05:10.500500000Z,65500500000,7,tcp,ipv6,[2001:db8:1234:5678:9abc:def0:1234:5678]:45678,[::1]:80,,,,,,,unknown,unknown,passive,fin,ESTABLISHED:12000000+;CLOSE_WAIT:3600000000000;LAST_ACK:50000,12000000,3600000000000,,,,,,,,,,,false,,,,,,,,,,,,,,,,,,,,,,,,,,
    connection,2025-01-02T03:04:06.000000000Z,2025-01-02T03:05:10.500500000Z,65500500000,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,active,fin,TIME_WAIT:1200000000,,,1200000000,reused,1234,3600000,17,3,250,4242,4243,curl,true,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,false,0,false,1004000000,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,,,,
    connection,2025-01-02T03:04:06.000000000Z,2025-01-02T03:05:10.500500000Z,65500500000,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,active,fin,ESTABLISHED:5000000,5000000,,,refused,1234,3600000,17,3,250,4242,4243,curl,true,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,false,0,false,1004000000,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,,,,
    connection,2025-01-02T03:04:06.000000000Z,2025-01-02T03:05:10.500500000Z,65500500000,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,13,14,"'=\x1b[2J\x0a""\\,\xff\u{202e};x",1000,/system.slice/docker-0123abcd.scope,scan,client,reset_local,reset_unread_data,ESTABLISHED:5000000,5000000,,,,1234,3600000,17,3,250,13,14,"'=\x1b[2J\x0a""\\,\xff\u{202e};x",true,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,false,0,false,1004000000,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,,,,
    connection,2025-01-02T03:04:06.000000000Z,2025-01-02T03:05:10.500500000Z,65500500000,a1b2,tcp,ipv4,127.0.0.1:0,127.0.0.1:80,4026532000,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,never_established,no_local_port,,,,,,0,0,0,0,,4242,4243,curl,true,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,false,0,,,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,,,,
    stuck,2025-01-02T03:04:06.000000000Z,,65500500000,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,passive,,CLOSE_WAIT:31200000000+,,31200000000,,,,,,,,,,,true,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,,,,1004000000,web-5d9,shop\x1b[2J,nginx,CLOSE_WAIT,31200000000,false,80,nginx,12,1,true,,,4321,0,false,,
    stuck,2025-01-02T03:04:06.000000000Z,,65500500000,a1b2,tcp,ipv4,10.0.0.1:45678,10.0.0.2:443,4026532000,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,reset_remote,reset_received,ESTABLISHED:5000000,5000000,,,,1234,3600000,17,3,250,,,,true,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,false,0,false,1004000000,web-5d9,shop\x1b[2J,nginx,CLOSED,31200000000,false,80,nginx,12,1,true,,,,,false,,
    connection,2025-01-02T03:04:06.000000000Z,2025-01-02T03:05:10.500500000Z,65500500000,a1b2,tcp,ipv6,[fe80::1%eth0]:45678,[fe80::2%eth0]:443,4026532000,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,active,fin,ESTABLISHED:5000000,5000000,,,expired,1234,3600000,17,3,250,4242,4243,curl,true,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,false,0,false,1004000000,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,,,,
    connection,2025-01-02T03:04:06.000000000Z,2025-01-02T03:05:10.500500000Z,65500500000,a1b2,tcp,ipv6,[fe80::1%3]:45678,[fe80::2%3]:443,4026532000,4242,4243,curl,1000,/system.slice/docker-0123abcd.scope,connect,client,active,fin,ESTABLISHED:5000000,5000000,,,expired,1234,3600000,17,3,250,4242,4243,curl,true,blue\x1b[2J,77,0123abcd,docker-0123abcd.scope,false,0,false,1004000000,web-5d9,shop\x1b[2J,nginx,,,,,,,,,,,,,,,
    "#);
}

/// Removes SGR sequences.
fn without_colour(text: &str) -> String {
    let mut pieces = text.split("\x1b[");
    let first = pieces.next().unwrap_or_default().to_owned();
    first + &pieces.map(|piece| piece.split_once('m').expect("an SGR sequence").1).collect::<String>()
}

#[test]
fn colour_changes_nothing_but_colour() {
    let options = TextOptions { colour: true, states: true, ..PLAIN };
    let plain = TextOptions { states: true, ..PLAIN };
    let coloured = transitions(Format::Text, options.clone());
    assert!(coloured.contains("\x1b[33mTIME_WAIT"));
    assert_eq!(without_colour(&coloured), transitions(Format::Text, PLAIN));
    assert_eq!(without_colour(&sockets(Format::Text, options.clone())), sockets(Format::Text, PLAIN));
    assert_eq!(without_colour(&connections(Format::Text, options)), connections(Format::Text, plain));
}

#[test]
fn text_is_in_the_zone_it_is_told() {
    let zone = TimeZone::fixed(jiff::tz::offset(-5));
    let text = transitions(Format::Text, TextOptions { zone, ..PLAIN });
    assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("22:04:06.234 ")), "{text}");
}

/// Fails like a pipe whose reader has closed it.
struct ClosedPipe;

impl Write for ClosedPipe {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[rstest]
fn a_closed_pipe_is_known_as_one(#[values(Format::Text, Format::Json, Format::Csv)] format: Format) {
    let mut printer = format.printer(ClosedPipe, PLAIN);
    // CSV has a buffer of its own, which fills up or is flushed.
    let mut write = || {
        (0..1000).try_for_each(|_| printer.row(&Row::Transition(samples::transition()), &CONTEXT).map(drop))?;
        printer.flush()
    };
    assert_eq!(write().map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
}

fn named(comm: Comm) -> [Row; 2] {
    let owner = Owner { task: samples::task(1, comm), source: OwnerSource::Connect };
    let identity = Identity { owner: Some(owner), ..samples::identity() };
    let closed_by = Some(owner.task);
    [
        Row::Transition(Transition { identity, ..samples::transition() }),
        Row::Connection(Connection { identity, closed_by, ..samples::connection() }),
    ]
}

fn render_named(format: Format, comm: Comm, kind: usize) -> String {
    rendered(|out| {
        let mut printer = format.printer(out, TextOptions { states: true, ..PLAIN });
        assert_eq!(printer.row(&named(comm)[kind], &CONTEXT)?, Printed::Yes);
        printer.flush()
    })
}

/// Undoes [`super::sanitise`].
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        rest = match escaped.as_bytes()[0] {
            b'\\' => {
                bytes.push(b'\\');
                &escaped[1..]
            }
            b'x' => {
                bytes.push(u8::from_str_radix(&escaped[1..3], 16).expect("two hex digits"));
                &escaped[3..]
            }
            _ => {
                let (number, rest) = escaped[2..].split_once('}').expect("a closing brace");
                let character = u32::from_str_radix(number, 16).ok().and_then(char::from_u32).expect("a character");
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest
            }
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Random bytes, and characters known to be harmful.
fn any_comm() -> impl Strategy<Value = Comm> {
    let harm = ["\x1b]0;", "\u{9b}", "\u{202e}", "\u{200d}", "\n", "\r\n", "=", "-", "\"", "'", ",", "\\", "\u{3164}"];
    let pieces = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<char>().prop_map(|character| character.to_string().into_bytes()),
        prop::sample::select(harm.to_vec()).prop_map(|harm| harm.as_bytes().to_vec()),
    ];
    prop::collection::vec(pieces, 0..16).prop_map(|pieces| {
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(pieces.into_iter().flatten()) {
            *to = from;
        }
        Comm(comm)
    })
}

proptest! {
    #[test]
    fn no_name_reaches_the_terminal_raw(comm in any_comm(), kind in 0_usize..2) {
        for format in [Format::Text, Format::Json, Format::Csv] {
            let line = render_named(format, comm, kind);
            let raw = |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let lines = if format == Format::Text { 1 + kind } else { 1 };
            prop_assert_eq!(line.lines().count(), lines);
            prop_assert!(line.ends_with('\n') && !line.replace('\n', "").contains(raw), "{:?}", line);
        }
    }

    #[test]
    fn any_name_keeps_text_aligned(comm in any_comm(), kind in 0_usize..2) {
        let column = |text: String, what: &str| text.find(what).map(|at| super::width(&text[..at]));
        let (any, curl) = (render_named(Format::Text, comm, kind), render_named(Format::Text, Comm::from("curl"), kind));
        prop_assert_eq!(column(any, "10.0.0.1"), column(curl, "10.0.0.1"));
    }

    #[test]
    fn any_name_can_be_read_back_from_json(comm in any_comm(), kind in 0_usize..2) {
        let line = render_named(Format::Json, comm, kind);
        let row: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        prop_assert_eq!(row["comm"].as_str().map_or(vec![], unescape), comm.bytes());
    }

    #[test]
    fn any_name_is_one_harmless_cell_of_csv(comm in any_comm(), kind in 0_usize..2) {
        let line = render_named(Format::Csv, comm, kind);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("CSV");
        prop_assert_eq!(records.len(), 1);
        let transition = TRANSITION.all().map(|field| field.name);
        let connection = CONNECTION.all().map(|field| field.name);
        let names = [transition.collect::<Vec<_>>(), connection.collect()];
        prop_assert_eq!(records[0].len(), names[kind].len());
        let cell = names[kind].iter().position(|&name| name == "comm").map_or("", |place| &records[0][place]);
        prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']));
        prop_assert_eq!(unescape(cell.strip_prefix('\'').filter(|_| comm.0[0] != b'\'').unwrap_or(cell)), comm.bytes());
    }
}

#[test]
fn json_says_null_for_what_is_unknown() {
    let line = rendered(|out| Json::new(out).object(&CONNECTION, &samples::connections()[1], &Context::default()));
    let row: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let nulls = "opened netns uid pid tid comm cgroup time_wait_ns time_wait_end bytes_sent bytes_received bytes_unread \
                 retransmits srtt_us close_pid close_tid close_comm netns_name cgroup_id container unit \
                 in_flight retransmits_unanswered reset_received";
    for name in nulls.split_whitespace() {
        assert!(row.get(name).is_some_and(serde_json::Value::is_null), "{name} in {line}");
    }
    assert_eq!(row["owner_source"], "unknown");
}
