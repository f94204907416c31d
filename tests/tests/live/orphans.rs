//! Sockets whose process is gone, and whose peer has not closed yet.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use tcptrace_tests::{Namespace, TimeWaitClock, pair};

/// Closes the client, and after that time the server.
fn assert_orphan_waits(wait: Duration) {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let clock = TimeWaitClock::of_port(&net, client.local.port());
    let begun = Instant::now();
    client.close();
    server.receive_end();
    sleep(wait);
    server.close();
    let longest = begun.elapsed();

    let told = net.life(&client);
    told.went("FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSED").ended("active", "fin").ours_by("connect");
    // The peer acknowledges our FIN at once or a little later.
    told.was_orphan_in("FIN_WAIT2").held("FIN_WAIT2", wait / 2..=longest).waited_out(clock);
    let told = net.life(&server);
    told.went("CLOSE_WAIT LAST_ACK CLOSED")
        .ended("passive", "fin")
        .ours_by("accept")
        .held("CLOSE_WAIT", wait..=longest);
}

#[test]
fn orphan_waits_for_the_peer_shortly() {
    assert_orphan_waits(Duration::from_millis(200));
}

#[test]
fn orphan_waits_for_the_peer_for_seconds() {
    assert_orphan_waits(Duration::from_millis(3_500));
}

/// `shutdown`, then `close` before the peer has closed: the socket becomes an orphan in FIN_WAIT2.
#[test]
fn half_close_becomes_an_orphan() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    let clock = TimeWaitClock::of_port(&net, client.local.port());
    let begun = Instant::now();
    client.finish_sending();
    server.receive_end();
    net.transition(&client, "FIN_WAIT1", "FIN_WAIT2");
    client.close();
    sleep(Duration::from_millis(1_500));
    server.close();
    let longest = begun.elapsed();

    let told = net.life(&client);
    told.went("FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSED").ended("active", "fin").ours_by("connect").waited_out(clock);
    told.was_orphan_in("FIN_WAIT2").held("FIN_WAIT2", Duration::from_millis(1_500)..=longest);
}

/// The peer never closes: `tcp_fin_timeout` ends the wait, and there is no TIME_WAIT.
#[test]
fn orphan_runs_out() {
    let net = Namespace::enter();
    net.sysctl("ipv4/tcp_fin_timeout", "2");
    let (mut client, mut server) = pair();
    client.close();
    server.receive_end();

    let told = net.life(&client);
    told.went("FIN_WAIT1 FIN_WAIT2 CLOSED").ended("active", "fin_wait2_timeout").ours_by("connect");
    told.was_orphan_in("FIN_WAIT2").held("FIN_WAIT2", Duration::from_millis(1_990)..Duration::from_secs(3));
    told.has(json!({"time_wait_ns": null, "time_wait_end": null}));
    server.close();
    net.life(&server).went("CLOSE_WAIT LAST_ACK CLOSED").held("CLOSE_WAIT", Duration::from_secs(2)..);
}

/// The peer sends data to an orphan, whose kernel answers with a reset.
#[test]
fn data_after_close() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.close();
    server.receive_end();
    net.transition(&client, "FIN_WAIT1", "FIN_WAIT2");
    server.send(1);
    server.receive_reset();
    server.close();

    let told = net.life(&client);
    told.went("FIN_WAIT1 FIN_WAIT2 CLOSED").ended("active", "reset_data_after_close").ours_by("connect");
    told.has(json!({"time_wait_ns": null, "time_wait_end": null}));
    net.life(&server).went("CLOSE_WAIT CLOSED").ended("passive", "reset_received");
}

/// The same, but the data arrive before our FIN is acknowledged, while the socket is still a full one.
#[test]
fn data_before_the_acknowledgement() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    net.drop_arriving(&format!("tcp sport {}", client.local.port()));
    client.close();
    net.transition(&client, "ESTABLISHED", "FIN_WAIT1");
    server.send(1);
    net.heal();
    server.receive_reset();
    server.close();

    let told = net.life(&client);
    told.went("FIN_WAIT1 CLOSED").ended("active", "reset_data_after_close").ours_by("connect");
    net.life(&server).went("CLOSED").ended("reset_remote", "reset_received");
}

/// The same, when the data and the acknowledgement of our FIN come in one segment.
#[test]
fn data_with_the_acknowledgement() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    net.drop_arriving(&format!("tcp sport {} tcp flags & psh == 0", server.local.port()));
    client.close();
    server.receive_end();
    server.send(1);
    server.receive_reset();
    server.close();

    let told = net.life(&client);
    told.went("FIN_WAIT1 FIN_WAIT2 CLOSED").ended("active", "reset_data_after_close").ours_by("connect");
    told.has(json!({"time_wait_ns": null, "time_wait_end": null}));
    net.life(&server).went("CLOSE_WAIT CLOSED").ended("passive", "reset_received");
}

/// Our FIN is never acknowledged, and no process has the socket.
#[test]
fn orphan_never_acknowledged() {
    let net = Namespace::enter();
    net.sysctl("ipv4/tcp_orphan_retries", "1");
    let (mut client, mut server) = pair();
    net.drop_arriving(&format!("tcp sport {}", client.local.port()));
    client.close();

    let told = net.life(&client);
    told.went("FIN_WAIT1 CLOSED").ended("active", "retransmit_timeout").ours_by("connect");
    net.heal();
    server.reset();
}

/// `tcp_max_orphans` and the end of a network namespace also kill orphans; neither can be tested without disturbing
/// other tests. `ss -K` on an unacknowledged FIN_WAIT1 is similar.
#[test]
fn orphan_killed_by_an_administrator() {
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    net.drop_arriving(&format!("tcp sport {}", client.local.port()));
    client.close();
    net.transition(&client, "ESTABLISHED", "FIN_WAIT1");
    net.run("ss", &["-K", "-tn", "sport", "=", &format!(":{}", client.local.port())]);

    net.life(&client).went("FIN_WAIT1 CLOSED").ended("active", "killed").ours_by("connect");
    net.heal();
    server.reset();
}
