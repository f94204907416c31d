//! Reads the trace events as a viewer does.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::*;
use crate::model::event::Cause;
use crate::model::stream::Lost;
use crate::output::fields::CONNECTION;

fn perfetto(rows: &[Connection], origins: &[Origin]) -> Value {
    serde_json::from_slice(&perfetto_text(rows, origins)).expect("JSON")
}

fn perfetto_text(rows: &[Connection], origins: &[Origin]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut perfetto = Perfetto::new(&mut out);
    for (row, origin) in rows.iter().zip(origins.iter().cycle()) {
        perfetto.row(&Row::Connection(row.clone()), origin).expect("written");
    }
    let hosts = origins.iter().map(|origin| origin.host.clone()).collect();
    let lost = vec![Lost { cause: Cause::RingFull, events: 3, at_least: false }];
    let exported = perfetto.finish(&Summary { hosts, lost, ..Summary::default() }).expect("written");
    assert_eq!(exported.rows, rows.len() as u64);
    out
}

/// Checks the rules of the format, and builds a stack of slices for each asynchronous track, as a reader does.
fn assert_sound(trace: &Value) {
    let mut stacks: HashMap<(u64, String), Vec<(String, f64)>> = HashMap::new();
    let mut introduced = HashSet::new();
    for event in trace["traceEvents"].as_array().expect("events") {
        let pid = event["pid"].as_u64().expect("a process");
        assert!(pid > 0 && u32::try_from(pid).is_ok());
        let name = event["name"].as_str().expect("a name");
        let phase = event["ph"].as_str().expect("a phase");
        assert!(event["args"].is_object());
        if phase == "M" {
            assert_eq!(name, "process_name");
            assert!(event["args"]["name"].is_string());
            assert!(introduced.insert(pid), "introduced twice");
            continue;
        }
        assert!(introduced.contains(&pid), "not introduced");
        assert_eq!(event["cat"], "tcp");
        let ts = event["ts"].as_f64().expect("a time");
        assert!(ts >= 0.0);
        let stack = stacks.entry((pid, event["id2"]["local"].as_str().expect("an id").to_owned())).or_default();
        match phase {
            "b" => {
                assert!(stack.last().is_none_or(|(_, begin)| *begin <= ts));
                stack.push((name.to_owned(), ts));
            }
            "e" => {
                let (begun, at) = stack.pop().expect("begun");
                assert!(begun == name && at <= ts, "{begun} at {at} ends as {name} at {ts}");
            }
            "n" => assert!(!stack.is_empty()),
            other => unreachable!("phase {other}"),
        }
    }
    assert!(stacks.values().all(Vec::is_empty), "not ended: {stacks:?}");
    assert!(trace["otherData"]["version"].as_str().expect("a version").starts_with("tcptrace "));
}

#[test]
fn a_connection_is_a_stack_of_slices() {
    let rows = [samples::connection()];
    let text = String::from_utf8(perfetto_text(&rows, &[origin()])).expect("UTF-8");
    assert_sound(&serde_json::from_str(&text).expect("JSON"));
    let arguments = String::from_utf8({
        let mut line = Vec::new();
        Json::new(&mut line).object(&CONNECTION, &rows[0], &CONTEXT).expect("written");
        line
    });
    let text = text.replace(arguments.expect("UTF-8").trim_end(), "{…}");
    insta::assert_snapshot!(text, @r#"
    {"traceEvents":[
    {"name":"process_name","ph":"M","pid":1,"args":{"name":"curl[4242] on web-1"}},
    {"name":"client of 10.0.0.2:443","cat":"tcp","ph":"b","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651046000000.000,"args":{…}},
    {"name":"SYN_SENT","cat":"tcp","ph":"b","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651046000000.000,"args":{"at_least":false,"ns":400000}},
    {"name":"SYN_SENT","cat":"tcp","ph":"e","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651046000400.000,"args":{}},
    {"name":"ESTABLISHED","cat":"tcp","ph":"b","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651046000400.000,"args":{"at_least":false,"ns":1200000000}},
    {"name":"ESTABLISHED","cat":"tcp","ph":"e","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651047200400.000,"args":{}},
    {"name":"FIN_WAIT1","cat":"tcp","ph":"b","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651047200400.000,"args":{"at_least":false,"ns":100000}},
    {"name":"FIN_WAIT1","cat":"tcp","ph":"e","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651047200500.000,"args":{}},
    {"name":"FIN_WAIT2","cat":"tcp","ph":"b","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651047200500.000,"args":{"at_least":false,"ns":2000000000}},
    {"name":"FIN_WAIT2","cat":"tcp","ph":"e","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651049200500.000,"args":{}},
    {"name":"TIME_WAIT","cat":"tcp","ph":"b","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651049200500.000,"args":{"at_least":false,"ns":61300000000}},
    {"name":"TIME_WAIT","cat":"tcp","ph":"e","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651110500500.000,"args":{}},
    {"name":"client of 10.0.0.2:443","cat":"tcp","ph":"e","id2":{"local":"0-a1b2"},"pid":1,"tid":1,"ts":8651110500500.000,"args":{}}
    ],"otherData":{"damaged_places":0,"events_lost":{"ring_full":3},"events_lost_at_least":false,"hosts":["web-1"],"version":"tcptrace 0.1.0","zero_unix_ns":1727136000000000000}}
    "#);
}

#[test]
fn a_reset_is_an_instant() {
    let rows = samples::connections();
    let trace = perfetto(&rows, &[origin()]);
    let instants = trace["traceEvents"].as_array().expect("events").iter().filter(|event| event["ph"] == "n");
    assert_eq!(
        instants.map(|event| event["name"].as_str()).collect::<Vec<_>>(),
        [Some("reset_unread_data"), Some("reset_received")]
    );
}

#[test]
fn hosts_and_processes_do_not_clash() {
    let other = Origin { number: 1, host: "web-2".into(), ..origin() };
    let unknown = Connection { identity: samples::strange_identity(), ..samples::connection() };
    let rows = [samples::connection(), samples::connection(), unknown.clone(), unknown, samples::connection()];
    let trace = perfetto(&rows, &[origin(), other]);
    assert_sound(&trace);
    let named = trace["traceEvents"].as_array().expect("events").iter().filter(|event| event["ph"] == "M");
    let named: Vec<_> =
        named.map(|event| (event["pid"].as_u64(), event["args"]["name"].as_str().expect("a name"))).collect();
    let expected = [
        (Some(1), "curl[4242] on web-1"),
        (Some(2), "curl[4242] on web-2"),
        (Some(3), "no owner on web-1"),
        (Some(4), "no owner on web-2"),
    ];
    assert_eq!(named, expected);
}

proptest! {
    /// For any trace, the result is JSON, each slice ends, and none ends before it starts.
    #[test]
    fn any_row_makes_sound_events(rows in prop::collection::vec(any_connection(), 0..20), host: String) {
        let origin = Origin { host: host.into(), ..origin() };
        let trace = perfetto(&rows, &[origin]);
        assert_sound(&trace);
        prop_assert_eq!(trace["traceEvents"].as_array().expect("events").is_empty(), rows.is_empty());
    }
}
