//! Sockets by the end that repeats: a server's port, or the destination of clients.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use foldhash::fast::FixedState;

use super::{By, Count, Shares, Who, counted};
use crate::model::event::Kept;
use crate::model::row::Entry;
use crate::model::tcp::{State, Tuple};

#[derive(Debug, Default)]
pub(super) struct Ends(Vec<Member>);

#[derive(Clone, Copy, Debug)]
struct Member {
    state: State,
    netns: Option<u32>,
    tuple: Tuple,
    who: Who,
    kept: Kept,
    is_served: bool,
}

/// Properties that sockets can have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    LocalPort(u16),
    Remote(Ipv6Addr, u16),
    RemoteIp(Ipv6Addr),
}

type Key = (State, Option<u32>, End);

impl Ends {
    pub(super) fn add(&mut self, socket: &Entry, who: Who, is_served: bool) {
        let Entry { state, kept, .. } = *socket;
        let (netns, tuple) = (socket.identity.netns, socket.identity.tuple);
        self.0.push(Member { state, netns, tuple, who, kept, is_served });
    }

    /// The groups; each socket is in one of them.
    pub(super) fn groups(&self) -> Vec<Count> {
        let sizes = self.sizes();
        let mut groups: HashMap<Key, Group, FixedState> = HashMap::default();
        for member in &self.0 {
            let new = || Group { shares: Shares::default(), ends: member.tuple, who: Some(member.who) };
            groups.entry(member.key(&sizes)).or_insert_with(new).add(member);
        }
        groups.into_iter().map(|((state, netns, _), group)| group.row(state, netns)).collect()
    }

    fn sizes(&self) -> HashMap<Key, u64, FixedState> {
        let mut sizes = HashMap::default();
        for member in &self.0 {
            for end in member.ends() {
                *sizes.entry(member.with(end)).or_default() += 1;
            }
        }
        sizes
    }
}

impl Member {
    /// The more specific end comes first, in case both repeat equally often. The remote address alone comes last.
    fn ends(&self) -> [End; 3] {
        let Tuple { local_port, remote_ip, remote_port, .. } = self.tuple;
        let (local, remote) = (End::LocalPort(local_port), End::Remote(remote_ip, remote_port));
        let [first, second] = if self.is_served { [local, remote] } else { [remote, local] };
        [first, second, End::RemoteIp(remote_ip)]
    }

    fn with(&self, end: End) -> Key {
        (self.state, self.netns, end)
    }

    /// The end that most sockets share. The address alone says less: it counts only if no port repeats.
    fn key(&self, sizes: &HashMap<Key, u64, FixedState>) -> Key {
        let size = |end: &End| sizes.get(&self.with(*end)).copied().unwrap_or(0);
        let [first, second, address] = self.ends();
        let port = if size(&second) > size(&first) { second } else { first };
        self.with(if size(&port) > 1 { port } else { address })
    }
}

/// Sockets that share one end.
struct Group {
    shares: Shares,
    /// The parts of both ends that all have in common.
    ends: Tuple,
    /// The owner, if it is the same for all.
    who: Option<Who>,
}

impl Group {
    fn add(&mut self, member: &Member) {
        self.shares.add(member.kept);
        self.who = self.who.filter(|who| *who == member.who);
        let (ends, tuple) = (&mut self.ends, &member.tuple);
        ends.local_ip = common_ip(ends.local_ip, tuple.local_ip);
        ends.remote_ip = common_ip(ends.remote_ip, tuple.remote_ip);
        ends.local_port = common_port(ends.local_port, tuple.local_port);
        ends.remote_port = common_port(ends.remote_port, tuple.remote_port);
    }

    fn row(self, state: State, netns: Option<u32>) -> Count {
        let row = Count { ends: Some(self.ends), netns, ..counted(By::Remote, Some(state), self.shares) };
        match self.who {
            Some(who) => who.fill(row),
            None => Count { several_owners: true, ..row },
        }
    }
}

/// The address if both are equal, else unspecified.
fn common_ip(one: Ipv6Addr, other: Ipv6Addr) -> Ipv6Addr {
    match (one.to_ipv4_mapped(), other.to_ipv4_mapped()) {
        _ if one == other => one,
        (Some(_), Some(_)) => Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(),
        _ => Ipv6Addr::UNSPECIFIED,
    }
}

/// The port if both are equal, else 0.
fn common_port(one: u16, other: u16) -> u16 {
    if one == other { one } else { 0 }
}
