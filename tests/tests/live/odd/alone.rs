//! The clock steps, a processor goes away and comes back, and what tcptrace reads is unmounted or hidden: in a virtual
//! machine, where nobody else is disturbed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tcptrace_tests::ability::need_alone;
use tcptrace_tests::attempt::skip;
use tcptrace_tests::sockets::pair;
use tcptrace_tests::{End, Namespace, Tracer};

/// What happens must be noticed within this time.
const SOON: Duration = Duration::from_secs(10);
const COMMAND: [&str; 5] = ["connections", "--no-existing", "--at-close", "--format", "json"];

fn only_alone() {
    need_alone("it disturbs the whole machine");
}

/// Makes a connection that the client closes first, and waits until both ends are told.
fn make_one(net: &Namespace, tracer: &Tracer) -> [Value; 2] {
    let (mut client, mut server) = pair();
    let ends = [client.name(), server.name()];
    client.finish_sending();
    server.receive_end();
    server.close();
    client.receive_end();
    client.close();
    ends.map(|end: End| tracer.row(net, "a connection", |row| net.is_about(row, &end)))
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

/// Puts something back as it was.
struct Undo<F: FnMut()>(F);

impl<F: FnMut()> Drop for Undo<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

const YEAR: i64 = 365 * 86_400;

fn step_clock(seconds: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("read the clock");
    let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).expect("set the clock");
}

/// Rows have the new time soon, and durations do not change.
#[test]
fn the_clock_steps() {
    only_alone();
    let net = Namespace::enter();
    let tracer = Tracer::start_in(&net, &COMMAND);
    let year = || {
        let [client, _] = make_one(&net, &tracer);
        client["closed"].as_str().and_then(|time| time.get(..4)?.parse::<i64>().ok()).expect("a year")
    };
    let before = year();
    for step in [5, -10, 5] {
        let expected = year() + step;
        step_clock(step * YEAR);
        let begun = Instant::now();
        // A step of years is not a whole number of them where one is a leap year.
        while year().abs_diff(expected) > 1 {
            assert!(begun.elapsed() < SOON, "rows do not have the new time");
        }
    }
    assert!(year().abs_diff(before) <= 1);
    let finished = tracer.interrupt();
    for row in finished.rows() {
        let stays = row["states"].as_array().expect("its states").iter();
        let held: u64 = stays.filter_map(|stay| stay["ns"].as_u64()).sum();
        assert!(Duration::from_nanos(held) < SOON, "{row}");
    }
    assert_eq!((finished.status.code(), finished.stderr.matches("clock").count()), (Some(0), 0), "{}", finished.stderr);
}

fn on_processor(number: usize) {
    let mut only = CpuSet::new();
    only.set(number).expect("a processor");
    sched_setaffinity(Pid::from_raw(0), &only).expect("run there");
}

/// Nothing is missed where a processor stops and begins again.
#[test]
fn a_processor_goes_away_and_comes_back() {
    only_alone();
    let online = Path::new("/sys/devices/system/cpu/cpu1/online");
    if !online.exists() {
        skip("there is one processor, or it cannot be switched off");
    }
    let net = Namespace::enter();
    let tracer = Tracer::start_in(&net, &COMMAND);
    on_processor(1);
    make_one(&net, &tracer);
    on_processor(0);
    let _again = Undo(|| fs::write(online, "1").expect("switch it on"));
    for _ in 0..3 {
        fs::write(online, "0").expect("switch it off");
        make_one(&net, &tracer);
        fs::write(online, "1").expect("switch it on");
        on_processor(1);
        make_one(&net, &tracer);
        on_processor(0);
    }
    let finished = tracer.interrupt();
    assert_eq!(
        (finished.status.code(), finished.summary()["lost"].clone()),
        (Some(0), json!({})),
        "{}",
        finished.stderr
    );
    assert_eq!(finished.rows().len(), 14);
}

const TRACEFS: &str = "/sys/kernel/tracing";

/// Hooks stay attached. A new tracer mounts tracefs for itself.
#[test]
fn tracefs_is_unmounted() {
    only_alone();
    let net = Namespace::enter();
    let mount = || run("mount", &["-t", "tracefs", "tracefs", TRACEFS]);
    let is_mounted = || Path::new(TRACEFS).join("events").exists();
    if !is_mounted() && !mount() {
        skip("tracefs cannot be mounted here");
    }
    let before = Tracer::start_in(&net, &COMMAND);
    make_one(&net, &before);
    let _again = Undo(|| assert!(is_mounted() || mount()));
    while run("umount", &["--lazy", "/sys/kernel/debug/tracing"]) {}
    assert!(run("umount", &["--lazy", TRACEFS]) && !is_mounted(), "it stays mounted");
    let after = Tracer::start_in(&net, &COMMAND);
    let (mut client, mut server) = pair();
    let ends = [client.name(), server.name()];
    client.close();
    server.receive_end();
    server.close();
    for tracer in [&before, &after] {
        let rows = ends.each_ref().map(|end| tracer.row(&net, "a connection", |row| net.is_about(row, end)));
        assert_eq!(rows.map(|row| row["pid"].clone()), [(); 2].map(|()| json!(std::process::id())));
        assert_eq!(tracer.interrupt().status.code(), Some(0));
    }
}

/// Root sees every process all the same.
#[test]
fn processes_are_hidden() {
    only_alone();
    let net = Namespace::enter();
    let tracer = Tracer::start_in(&net, &COMMAND);
    make_one(&net, &tracer);
    assert!(run("mount", &["-o", "remount,hidepid=2", "/proc"]));
    let _again = Undo(|| assert!(run("mount", &["-o", "remount,hidepid=0", "/proc"])));
    let [client, server] = make_one(&net, &tracer);
    assert_eq!([&client["pid"], &server["pid"]], [&json!(std::process::id()); 2]);
    let later = Tracer::start_in(&net, &COMMAND);
    let [client, server] = make_one(&net, &later);
    assert_eq!([&client["pid"], &server["pid"]], [&json!(std::process::id()); 2]);
    for tracer in [tracer, later] {
        let finished = tracer.interrupt();
        assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    }
}
