//! A socket in every state.

use std::net::TcpListener;

use socket2::Socket;

use crate::sockets::{address, connect, listen, start_connecting};
use crate::{End, Namespace, pair};

/// Sockets of this process in every state but CLOSED, some of them in several ways: owned by the process, in the accept
/// queue, orphaned, and as mini-sockets. They stay so for some seconds at least.
pub struct Zoo {
    /// The listener with connections in its queue.
    pub listener: TcpListener,
    /// In SYN_SENT.
    pub syn_sent: End,
    /// In ESTABLISHED, and its peer.
    pub established: (End, End),
    /// In FIN_WAIT2, and its peer in CLOSE_WAIT.
    pub half_closed: (End, End),
    /// In CLOSE_WAIT; its peer is an orphan in FIN_WAIT2.
    pub close_wait: End,
    /// An orphan in FIN_WAIT2.
    pub fin_wait2: End,
    /// In CLOSE_WAIT, in the accept queue.
    pub never_accepted: End,
    /// In TIME_WAIT.
    pub time_wait: End,
    /// In FIN_WAIT1, an orphan.
    pub fin_wait1: End,
    /// In CLOSING.
    pub closing: End,
    /// In LAST_ACK.
    pub last_ack: End,
    _connecting: Socket,
    _peers: Vec<End>,
    _listeners: Vec<TcpListener>,
}

impl Zoo {
    /// Makes them in a namespace.
    pub fn fill(net: &Namespace) -> Self {
        let (busy, listener) = (listen("127.0.0.1"), listen("127.0.0.1"));
        let mut peers = Vec::new();

        let (half, half_peer) = connect(&busy);
        half.finish_sending();
        half_peer.receive_end();

        let (mut closed, close_wait) = connect(&busy);
        closed.close();
        close_wait.receive_end();

        let (mut waits, mut last) = connect(&busy);
        waits.close();
        last.receive_end();
        last.close();

        let mut queued = End::from(std::net::TcpStream::connect(address(&listener)).expect("connect"));
        queued.close();

        // A peer that never answers.
        let deaf = listen("127.0.0.1");
        net.drop_arriving(&format!("tcp dport {} tcp flags & (syn|ack) == syn", address(&deaf).port()));
        let (connecting, syn_sent) = start_connecting(address(&deaf));
        let mute = listen("127.0.0.1");
        net.drop_arriving(&format!("tcp dport {} tcp flags & (syn|ack) == ack", address(&mute).port()));
        peers.push(End::from(std::net::TcpStream::connect(address(&mute)).expect("connect")));

        let (mut fin_wait1, peer) = connect(&busy);
        cut(net, &fin_wait1);
        fin_wait1.close();
        peers.push(peer);

        let (closing, peer) = connect(&busy);
        cut(net, &closing);
        closing.finish_sending();
        peer.finish_sending();
        closing.receive_end();
        peers.push(peer);

        let (peer, mut last_ack) = connect(&busy);
        peer.finish_sending();
        last_ack.receive_end();
        cut(net, &last_ack);
        last_ack.close();
        peers.push(peer);

        let (v6, v6_peer) = connect(&listen("::1"));
        peers.extend([v6, v6_peer]);

        Self {
            syn_sent,
            established: pair(),
            half_closed: (half, half_peer),
            never_accepted: End::named(queued.remote, queued.local),
            fin_wait2: closed.name(),
            close_wait,
            time_wait: waits.name(),
            fin_wait1: fin_wait1.name(),
            closing,
            last_ack: last_ack.name(),
            listener,
            _connecting: connecting,
            _peers: peers,
            _listeners: vec![busy, deaf, mute],
        }
    }
}

/// From now on, drops everything that this end sends.
fn cut(net: &Namespace, end: &End) {
    net.drop_arriving(&format!("tcp sport {} tcp dport {}", end.local.port(), end.remote.port()));
}
