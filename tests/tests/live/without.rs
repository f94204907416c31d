//! On a kernel that lacks hooks, tcptrace says less, and nothing wrong: each feature is switched off in turn, and what is
//! told then is compared with what is told with all of them.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use tcptrace_tests::sockets::pair;
use tcptrace_tests::{End, Namespace, Tracer};

/// Features that can be missing, as `tcptrace check` names them; at the end, all that kernels before 5.18 lack at once.
const CASES: [&str; 10] = [
    "destroy",
    "reset_sent",
    "reset_received",
    "time_wait_created",
    "time_wait_expired",
    "time_wait_killed",
    "fin_wait2_to_time_wait",
    "accept",
    "holders",
    "reset_sent,reset_received,time_wait_created,time_wait_expired,time_wait_killed,fin_wait2_to_time_wait",
];

const HOLD: Duration = Duration::from_millis(300);
/// Each program reads the clock for itself.
const TOLERANCE_NS: u64 = 50_000_000;

#[test]
fn less_is_told_and_nothing_wrong() {
    let net = Namespace::enter();
    let command = ["connections", "--no-existing", "--format", "json"];
    let full = Tracer::start_in(&net, &command);
    let poor = CASES.map(|case| (case, Tracer::start_in(&net, &[&command[..], &["--without", case]].concat())));
    let ends = make_connections(&net);
    let told = ends.map(|(what, end)| {
        let row = full.row(&net, what, |row| net.is_about(row, &end));
        (what, end, row)
    });
    let mut wrong = String::new();
    for (case, tracer) in poor {
        let rows = tracer.interrupt().rows();
        for (what, end, full) in &told {
            let of: Vec<_> = rows.iter().filter(|row| net.is_about(row, end)).collect();
            match of[..] {
                [row] => wrong += &differences(&format!("without {case}: {what}"), full, row),
                _ => wrong += &format!("without {case}: {what} is told {} times\n", of.len()),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Connections that open and end in many ways, and the end of each that is of interest.
fn make_connections(net: &Namespace) -> [(&'static str, End); 9] {
    let names = |client: &End, server: &End| (client.name(), server.name());
    // The active side waits for a minute; its peer is done at once.
    let (mut client, mut server) = pair();
    let closing = names(&client, &server);
    client.finish_sending();
    server.receive_end();
    sleep(HOLD);
    server.close();
    client.receive_end();
    client.close();
    // Nobody holds the socket of the active side when the peer closes.
    let (mut client, mut server) = pair();
    let orphan = names(&client, &server);
    client.close();
    server.receive_end();
    net.transition(&orphan.0, "FIN_WAIT1", "FIN_WAIT2");
    sleep(HOLD);
    server.close();
    // A TIME_WAIT that is cut short.
    let (mut client, mut server) = pair();
    let killed = names(&client, &server);
    client.finish_sending();
    server.receive_end();
    server.close();
    client.receive_end();
    net.transition(&killed.0, "FIN_WAIT2", "TIME_WAIT");
    client.close();
    net.run("ss", &["-K", "-tn", "state", "time-wait", "sport", "=", &format!(":{}", killed.0.local.port())]);
    // A reset.
    let (mut client, mut server) = pair();
    let reset = names(&client, &server);
    client.reset();
    server.receive_reset();
    server.close();
    // Data that nobody reads.
    let (mut client, mut server) = pair();
    let unread = names(&client, &server);
    client.send(1);
    server.leave_unread();
    server.close();
    client.receive_reset();
    client.close();
    [
        ("an active close", closing.0),
        ("a passive close", closing.1),
        ("an orphan", orphan.0),
        ("the peer of an orphan", orphan.1),
        ("a killed TIME_WAIT", killed.0),
        ("who sends a reset", reset.0),
        ("who receives a reset", reset.1),
        ("who leaves data unread", unread.1),
        ("who is not heard", unread.0),
    ]
}

/// What a row with less knowledge says that the full one does not.
fn differences(what: &str, full: &Value, less: &Value) -> String {
    let ends_early = less["time_wait_end"] == "unknown" && full["time_wait_end"] != "unknown";
    let fields = full.as_object().expect("a row").iter();
    let wrong = fields.filter(|(name, full)| match (name.as_str(), &less[name.as_str()]) {
        _ if less[name.as_str()].is_null() || less[name.as_str()] == "unknown" => false,
        // The end of a TIME_WAIT that nobody watches is unknown: such a row ends with its socket.
        ("boot_ns" | "closed", _) if ends_early => false,
        ("boot_ns" | "closed" | "opened", less) => !is_same_time(full, less),
        ("states", less) => !agree(full, less),
        // Another way to know it. A scan names any thread of the process.
        ("tid", _) if less["owner_source"] == "scan" => false,
        ("owner_source", less) => !["close", "holder", "scan"].contains(&less.as_str().unwrap_or("")) && *full != less,
        ("complete", less) => *full != less && *less != json!(false),
        (name, less) if name.ends_with("_ns") => !is_near(full.as_u64(), less.as_u64()),
        (_, less) => *full != less,
    });
    wrong.map(|(name, value)| format!("{what}: {name} is {}, and in truth {value}\n", less[name.as_str()])).collect()
}

/// States in the same order, without some of the last ones or some in between: none lasted longer than it is said to have
/// lasted at most, or shorter than it is said to have lasted at least.
fn agree(full: &Value, less: &Value) -> bool {
    let mut full = full.as_array().expect("states").iter();
    less.as_array().expect("states").iter().all(|less| {
        let Some(full) = full.find(|full| full["state"] == less["state"]) else { return false };
        let [full, held] = [&full["ns"], &less["ns"]].map(Value::as_u64);
        let is_within = full.zip(held).is_some_and(|(full, held)| held <= full + TOLERANCE_NS);
        if less["at_least"] == true { is_within } else { is_near(full, held) }
    })
}

fn is_near(full: Option<u64>, less: Option<u64>) -> bool {
    full.zip(less).is_some_and(|(full, less)| full.abs_diff(less) <= TOLERANCE_NS)
}

/// To the second: each program reads the clock for itself.
fn is_same_time(full: &Value, less: &Value) -> bool {
    match (full.as_u64(), less.as_u64()) {
        (None, None) => {
            let second = |time: &Value| time.as_str().and_then(|time| time.get(17..19)?.parse::<u32>().ok());
            let apart = second(full).zip(second(less)).map(|(one, other)| one.abs_diff(other));
            apart.is_some_and(|apart| apart <= 1 || apart == 59)
        }
        (full, less) => is_near(full, less),
    }
}
