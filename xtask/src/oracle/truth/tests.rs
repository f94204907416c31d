use super::super::packets::{ACK, FIN, Packet, RST, SYN};
use super::*;

const CLIENT: &str = "127.0.0.1:40000";
const SERVER: &str = "127.1.0.0:7000";
const GONE: Range = (40 * SECOND, 50 * SECOND);

/// Each segment is seen when it leaves, and when it arrives 1 ms later. Fields: sender, time in ms, flags, length, and
/// sequence numbers relative to the initial ones.
fn conversation(segments: &[(Who, u64, u8, u32, [u32; 2])]) -> Vec<Conversation> {
    let [client, server] = [CLIENT, SERVER].map(|address| address.parse().expect("an address"));
    let seen = |is_outgoing: bool| {
        segments.iter().map(move |&(who, ms, flags, len, [seq, ack])| {
            let (from, to) = if who == Who::Client { (client, server) } else { (server, client) };
            let at = (ms + u64::from(!is_outgoing)) * MS;
            Packet { at, is_outgoing, from, to, seq, ack, flags, len }
        })
    };
    let mut packets: Vec<_> = seen(true).chain(seen(false)).collect();
    packets.sort_by_key(|packet| packet.at);
    super::super::conversation::sort(&packets).remove(&server).expect("a conversation")
}

fn call(who: Who, name: &str, ms: u64) -> Call {
    let [client, server] = [CLIENT, SERVER].map(|address| address.parse().ok());
    let (local, remote) = if who == Who::Client { (client, server) } else { (server, client) };
    let (pid, cookie) = if who == Who::Client { (1, 10) } else { (2, 20) };
    let (from, to) = (ms * MS, Some(ms * MS + 2 * MS));
    Call { life: 0, who, name: name.to_owned(), pid, from, to, errno: 0, cookie, local, remote, number: 0 }
}

const HANDSHAKE: [(Who, u64, u8, u32, [u32; 2]); 3] =
    [(Who::Client, 101, SYN, 0, [0, 0]), (Who::Server, 102, SYN | ACK, 0, [0, 1]), (Who::Client, 103, ACK, 0, [1, 1])];

fn opening() -> Vec<Call> {
    vec![call(Who::Server, "listen", 50), call(Who::Client, "connect", 100), call(Who::Server, "accept", 120)]
}

fn states(end: &Expected) -> Vec<&str> {
    end.states.iter().map(|stay| stay.state).collect()
}

#[test]
fn who_closes_first_waits() {
    let mut segments = HANDSHAKE.to_vec();
    segments.extend([
        (Who::Client, 201, FIN | ACK, 0, [1, 1]),
        (Who::Server, 202, ACK, 0, [1, 2]),
        (Who::Server, 301, FIN | ACK, 0, [1, 2]),
        (Who::Client, 302, ACK, 0, [2, 2]),
    ]);
    let mut calls = opening();
    calls.extend([call(Who::Client, "close", 200), call(Who::Server, "close", 300)]);
    let ends = of_life(&calls, &conversation(&segments), GONE);
    let [client, server] = &ends[..] else { unreachable!("two ends") };
    assert_eq!(states(client), ["SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"]);
    assert_eq!((&client.closer[..], &client.end[..]), (&["active"][..], &["fin"][..]));
    assert_eq!((&client.time_wait_end[..], &client.closers[..]), (&[Some("netns_gone")][..], &[1][..]));
    assert_eq!(client.states[3].begin, (203 * MS, 203 * MS));
    assert_eq!(client.states[3].end, (302 * MS, 302 * MS));
    assert_eq!(states(server), ["SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK"]);
    assert_eq!((&server.closer[..], &server.end[..], &server.owner[..]), (&["passive"][..], &["fin"][..], &[2][..]));
    assert!(client.unsure.is_none() && server.unsure.is_none());
}

/// Each FIN acknowledges only what had arrived.
#[test]
fn fins_that_cross() {
    let mut segments = HANDSHAKE.to_vec();
    segments.extend([
        (Who::Client, 201, FIN | ACK, 0, [1, 1]),
        (Who::Server, 201, FIN | ACK, 0, [1, 1]),
        (Who::Client, 203, ACK, 0, [2, 2]),
        (Who::Server, 203, ACK, 0, [2, 2]),
    ]);
    let mut calls = opening();
    calls.extend([call(Who::Client, "close", 200), call(Who::Server, "close", 200)]);
    for end in of_life(&calls, &conversation(&segments), GONE) {
        assert_eq!(states(&end)[1..], ["ESTABLISHED", "FIN_WAIT1", "CLOSING", "TIME_WAIT"]);
        assert_eq!(end.closer, ["simultaneous"]);
    }
}

/// Closing a listener resets a connection that was never accepted; unread data resets an accepted one.
#[test]
fn resets() {
    let mut segments = HANDSHAKE.to_vec();
    segments.extend([(Who::Client, 150, ACK, 5, [1, 1]), (Who::Server, 201, RST | ACK, 0, [1, 6])]);
    let never = [opening().remove(0), opening().remove(1), call(Who::Server, "unlisten", 200)];
    let accepted: Vec<_> = opening().into_iter().chain([call(Who::Server, "close", 200)]).collect();
    for (calls, why) in [(&never[..], "never_accepted"), (&accepted[..], "reset_unread_data")] {
        let ends = of_life(calls, &conversation(&segments), GONE);
        assert_eq!((&ends[0].closer[..], &ends[0].end[..]), (&["reset_remote"][..], &["reset_received"][..]));
        assert_eq!((&ends[1].closer[..], &ends[1].end[..]), (&["reset_local"][..], &[why][..]));
        assert_eq!((ends[0].sent, ends[1].received.1), ((5, 5), 5));
    }
}

/// Data that arrives as a close begins may not be in the socket yet: the reset of the close says what it had received.
#[test]
fn a_reset_says_what_was_unread() {
    let mut calls = opening();
    calls.extend([call(Who::Client, "linger", 140), call(Who::Client, "close", 200)]);
    for (acknowledged, why) in [(1, "reset_linger0"), (6, "reset_unread_data")] {
        let mut segments = HANDSHAKE.to_vec();
        segments.extend([(Who::Server, 199, ACK, 5, [1, 1]), (Who::Client, 201, RST | ACK, 0, [1, acknowledged])]);
        let client = &of_life(&calls, &conversation(&segments), GONE)[0];
        assert_eq!((&client.closer[..], &client.end[..]), (&["reset_local"][..], &[why][..]));
        assert_eq!(client.unsure, None);
    }
}

/// While one CPU still sends the reset of the close, another one answers data for a socket that is gone.
#[test]
fn an_answer_overtakes_the_reset_of_a_close() {
    let mut calls = opening();
    calls.extend([call(Who::Client, "linger", 140), call(Who::Client, "close", 200)]);
    let mut segments = HANDSHAKE.to_vec();
    segments.extend([
        (Who::Server, 199, ACK, 5, [1, 1]),
        (Who::Client, 201, RST, 0, [1, 0]),
        (Who::Client, 202, RST | ACK, 0, [1, 1]),
    ]);
    let client = &of_life(&calls, &conversation(&segments), GONE)[0];
    assert_eq!((&client.closer[..], &client.end[..]), (&["reset_local"][..], &["reset_linger0"][..]));
    assert_eq!(client.unsure, None);
}

#[test]
fn an_orphan_does_not_wait_for_ever() {
    let mut segments = HANDSHAKE.to_vec();
    segments.extend([(Who::Client, 201, FIN | ACK, 0, [1, 1]), (Who::Server, 202, ACK, 0, [1, 2])]);
    let mut calls = opening();
    calls.push(call(Who::Client, "close", 200));
    let ends = of_life(&calls, &conversation(&segments), GONE);
    assert_eq!((&ends[0].closer[..], &ends[0].end[..]), (&["active"][..], &["fin_wait2_timeout"][..]));
    assert_eq!(states(&ends[0])[2..], ["FIN_WAIT1", "FIN_WAIT2"]);
    assert!(ends[1].unsure.is_some(), "nobody closes the other");
}

/// A rule answers the client's FIN, which never reaches the server: the server did not send the reset.
#[test]
fn a_reset_by_a_rule() {
    let mut segments = HANDSHAKE.to_vec();
    segments.extend([(Who::Client, 201, FIN | ACK, 0, [1, 1]), (Who::Server, 203, RST, 0, [1, 0])]);
    let mut calls = opening();
    calls.push(Call { number: 1, ..call(Who::Server, "reject", 150) });
    calls.push(call(Who::Client, "close", 200));
    let mut conversations = conversation(&segments);
    conversations.iter_mut().for_each(|conversation| conversation.drop_by_rules(&calls));
    let ends = of_life(&calls, &conversations, GONE);
    assert_eq!((&ends[0].closer[..], &ends[0].end[..]), (&["active"][..], &["reset_received"][..]));
    assert_eq!(states(&ends[1]), ["SYN_RECV", "ESTABLISHED"]);
    assert_eq!(ends[1].unsure, Some("it has not ended"));
}

/// During a connect, only a reset that acknowledges the SYN refuses it.
#[test]
fn an_old_reset_refuses_nothing() {
    let mut segments = vec![(Who::Client, 101, SYN, 0, [0, 0]), (Who::Server, 102, RST, 0, [77, 0])];
    segments.extend(HANDSHAKE[1..].iter().map(|&(who, ms, flags, len, numbers)| (who, ms + 10, flags, len, numbers)));
    let ends = of_life(&opening(), &conversation(&segments), GONE);
    assert_eq!(states(&ends[0]), ["SYN_SENT", "ESTABLISHED"]);
}

/// After both FINs, the peer's first, a disconnect sends nothing.
#[test]
fn a_disconnect_in_last_ack() {
    let mut segments = HANDSHAKE.to_vec();
    segments.extend([
        (Who::Server, 201, FIN | ACK, 0, [1, 1]),
        (Who::Client, 203, ACK, 0, [1, 2]),
        (Who::Client, 211, FIN | ACK, 0, [1, 2]),
    ]);
    let mut calls = opening();
    calls.extend([
        call(Who::Server, "close", 200),
        call(Who::Client, "shutwr", 210),
        call(Who::Client, "disconnect", 220),
    ]);
    let client = &of_life(&calls, &conversation(&segments), GONE)[0];
    assert_eq!(states(client)[1..], ["ESTABLISHED", "CLOSE_WAIT", "LAST_ACK"]);
    assert_eq!((&client.closer[..], &client.end[..]), (&["passive"][..], &["disconnected"][..]));
}

/// The FIN waits behind data. The answer to a segment acknowledges nothing; the reset of a close does.
#[test]
fn a_reset_while_the_fin_waits() {
    let close = call(Who::Client, "close", 200);
    let calls: Vec<_> = opening().into_iter().chain([close]).collect();
    let reset_by = |arrival: u64, flags: u8| {
        let mut segments = HANDSHAKE.to_vec();
        segments.extend([(Who::Client, 150, ACK, 1_000, [1, 1]), (Who::Server, arrival, ACK, 5, [1, 1])]);
        segments.push((Who::Client, 202, flags, 0, [1, 6]));
        of_life(&calls, &conversation(&segments), GONE).remove(0)
    };
    let drawn = reset_by(200, RST);
    assert_eq!(states(&drawn), ["SYN_SENT", "ESTABLISHED", "FIN_WAIT1"]);
    assert_eq!((&drawn.closer[..], &drawn.end[..]), (&["active"][..], &["reset_data_after_close"][..]));
    assert_eq!(drawn.unsure, None);
    let unread = reset_by(180, RST | ACK);
    assert_eq!(states(&unread), ["SYN_SENT", "ESTABLISHED"]);
    assert_eq!((&unread.closer[..], &unread.end[..]), (&["reset_local"][..], &["reset_unread_data"][..]));
    assert_eq!(unread.unsure, None);
}

/// A FIN with data has waited: whether the peer's FIN came before the close is unknown.
#[test]
fn a_fin_that_comes_while_one_waits() {
    let mut segments = HANDSHAKE.to_vec();
    segments.extend([
        (Who::Client, 150, ACK, 1_000, [1, 1]),
        (Who::Server, 201, FIN | ACK, 0, [1, 1]),
        (Who::Client, 203, FIN | ACK, 72, [1_001, 2]),
        (Who::Server, 205, ACK, 0, [2, 1_074]),
    ]);
    let mut calls = opening();
    calls.push(Call { to: None, ..call(Who::Client, "exit", 200) });
    let client = &of_life(&calls, &conversation(&segments), GONE)[0];
    assert_eq!(client.unsure, Some("a FIN that comes while it is closed with data unsent"));
}

/// A segment that arrives while a mini-socket replaces the socket is lost.
#[test]
fn a_reset_while_the_socket_gives_way() {
    let mut segments = HANDSHAKE.to_vec();
    segments.extend([
        (Who::Client, 201, FIN | ACK, 0, [1, 1]),
        (Who::Server, 202, ACK, 0, [1, 2]),
        (Who::Server, 299, RST | ACK, 0, [1, 2]),
    ]);
    let unsure = |closed: u64| {
        let mut calls = opening();
        calls.extend([call(Who::Client, "shutwr", 200), call(Who::Client, "close", closed)]);
        of_life(&calls, &conversation(&segments), GONE)[0].unsure
    };
    assert_eq!(unsure(300), Some("a reset that comes while it is closed"));
    assert_eq!(unsure(250), None);
}

/// Two processes listen; one waits longer, and gets the second connection from the same port.
#[test]
fn who_accepts_first_has_the_first() {
    let mut segments = HANDSHAKE.to_vec();
    segments.extend([
        (Who::Client, 201, RST | ACK, 0, [1, 1]),
        (Who::Client, 301, SYN, 0, [9_000_000, 0]),
        (Who::Server, 302, SYN | ACK, 0, [9_000_000, 9_000_001]),
        (Who::Client, 303, ACK, 0, [9_000_001, 9_000_001]),
    ]);
    let accepts = |from: u64, to: u64, cookie| Call { to: Some(to * MS), cookie, ..call(Who::Server, "accept", from) };
    let mut calls = vec![opening().remove(0), opening().remove(0), opening().remove(1)];
    calls.extend([accepts(90, 310, 21), accepts(110, 120, 20), call(Who::Client, "reconnect", 300)]);
    let ends = of_life(&calls, &conversation(&segments), GONE);
    let servers: Vec<_> = ends.iter().filter(|end| end.who == Who::Server).map(|end| end.cookie).collect();
    assert_eq!(servers, [Some(20), Some(21)]);
}

/// A socket that retransmits in vain may have given up before the reset arrived.
#[test]
fn a_reset_after_the_last_try() {
    let unsure = |tries: usize, reset: u64| {
        let mut segments = HANDSHAKE.to_vec();
        segments.extend([(Who::Client, 201, FIN | ACK, 0, [1, 1]), (Who::Client, 401, FIN | ACK, 0, [1, 1])]);
        segments.extend((tries > 1).then_some((Who::Client, 801, FIN | ACK, 0, [1, 1])));
        segments.push((Who::Server, reset, RST | ACK, 0, [1, 1]));
        let mut calls = opening();
        calls.push(call(Who::Client, "close", 200));
        of_life(&calls, &conversation(&segments), GONE)[0].unsure
    };
    assert_eq!(unsure(2, 2_000), Some("a reset that may have come after the last try"));
    assert_eq!(unsure(2, 850), None);
    assert_eq!(unsure(1, 2_000), None);
}

/// A rule answers a SYN with an ICMP error, unless the kernel's rate limit suppresses it.
#[test]
fn an_error_that_may_have_been_left_out() {
    let segments = [(Who::Client, 101, SYN, 0, [0, 0])];
    let unsure = |server: Option<&str>| {
        let mut conversations = conversation(&segments);
        let conversation = &mut conversations[0];
        conversation.segments[0].received = None;
        conversation.segments[0].is_unreachable = true;
        conversation.server = server.unwrap_or(SERVER).parse().expect("an address");
        of_life(&opening()[..2], &conversations, GONE)[0].unsure
    };
    assert_eq!(unsure(None), None);
    assert_eq!(unsure(Some("10.64.0.1:7000")), Some("an error that may have been left out"));
}

/// A Fast Open's socket is ended by an ICMP error, and the SYN that is repeated makes another one.
#[test]
fn a_server_that_was_asked_twice() {
    const OTHER: u32 = 1 << 20;
    let segments = [
        (Who::Client, 101, SYN, 100, [0, 0]),
        (Who::Server, 102, SYN | ACK, 0, [0, 101]),
        (Who::Client, 1101, SYN, 0, [0, 0]),
        (Who::Server, 1102, SYN | ACK, 0, [OTHER, 1]),
        (Who::Server, 2102, SYN | ACK, 0, [OTHER, 1]),
        (Who::Client, 2103, ACK, 0, [1, OTHER + 1]),
    ];
    let mut conversations = conversation(&segments);
    conversations[0].drop_by_rules(&[]);
    let ends = of_life(&opening(), &conversations, GONE);
    let servers: Vec<_> = ends.iter().filter(|end| end.who == Who::Server).collect();
    assert_eq!(servers.iter().map(|end| end.opened.0).collect::<Vec<_>>(), [102 * MS, 1102 * MS]);
    assert!(servers.iter().all(|end| end.unsure == Some("a server that was asked twice")), "{servers:?}");
}
