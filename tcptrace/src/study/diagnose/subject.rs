//! Whom a finding is about, compared with what is asked for.

use std::net::{IpAddr, SocketAddr};

use super::finding::{Example, Finding};
use crate::model::criteria::Criteria;
use crate::model::names::Names;
use crate::model::tcp::Comm;

impl Finding {
    /// Whether it is about what is asked for. A criterion that it says nothing of does not hide it: a setting of a network
    /// namespace concerns every process there.
    pub fn is_about(&self, criteria: &Criteria, names: &Names) -> bool {
        self.is_of_process(criteria, names) && self.is_at_place(criteria) && self.is_in_state(criteria)
    }

    fn is_of_process(&self, criteria: &Criteria, names: &Names) -> bool {
        let task = self.subject.task;
        let of_example = |it: &Example| it.pid;
        let pids = task.map(|task| task.pid).into_iter().chain(self.examples.iter().filter_map(of_example));
        let comm = task.map(|task| task.comm);
        let is_in = || {
            let own = self.subject.cgroup.and_then(|id| names.group(id)).map(|group| criteria.wants_group(group));
            own.or_else(|| names.is_process_where(task?.pid, |group| criteria.wants_group(group)))
        };
        any(&criteria.pids, pids)
            && (criteria.comms.is_empty()
                || comm.is_none_or(|comm| criteria.comms.iter().any(|it| Comm::from(it.as_str()) == cut(comm))))
            && (!criteria.ask_groups() || is_in() != Some(false))
    }

    fn is_at_place(&self, criteria: &Criteria) -> bool {
        let subject = &self.subject;
        let locals = subject.local.into_iter().chain(self.examples.iter().map(|it| it.local));
        let remotes = subject.remote.into_iter().chain(self.examples.iter().map(|it| it.remote));
        let port = |end: SocketAddr| Some(end.port()).filter(|port| *port != 0);
        let local_ports = subject.lport.into_iter().chain(locals.clone().filter_map(port));
        let remote_ports = remotes.clone().filter_map(port);
        let known = |end: SocketAddr| Some(end.ip()).filter(|ip| !ip.is_unspecified());
        let ips = || locals.clone().chain(remotes.clone()).filter_map(known);
        let is_in = |ip: IpAddr| criteria.networks.iter().any(|network| network.contains(&ip));
        let is_wanted_family = |ip: IpAddr| if ip.is_ipv4() { criteria.ipv4 } else { criteria.ipv6 };
        any(&criteria.netns, subject.netns.into_iter())
            && any(&criteria.local_ports, local_ports.clone())
            && any(&criteria.remote_ports, remote_ports.clone())
            && any(&criteria.ports, local_ports.chain(remote_ports))
            && (criteria.networks.is_empty() || ips().next().is_none() || ips().any(is_in))
            && (criteria.ipv4 == criteria.ipv6 || ips().next().is_none() || ips().any(is_wanted_family))
    }

    fn is_in_state(&self, criteria: &Criteria) -> bool {
        let states = self.examples.iter().map(|it| it.state);
        let ages = self.examples.iter().filter_map(|it| it.age.known_ns());
        let long_enough = |least: u64| ages.clone().next().is_none() || ages.clone().any(|age| age >= least);
        any(&criteria.states, states) && criteria.min_duration_ns.is_none_or(long_enough)
    }
}

/// Whether one of the values is wanted; so if nothing is asked, or there is no value.
fn any<T: PartialEq>(wanted: &[T], values: impl Iterator<Item = T> + Clone) -> bool {
    wanted.is_empty() || values.clone().next().is_none() || values.into_iter().any(|value| wanted.contains(&value))
}

/// Without what is behind the first NUL.
fn cut(comm: Comm) -> Comm {
    let mut bytes = [0; 16];
    bytes[..comm.bytes().len()].copy_from_slice(comm.bytes());
    Comm(bytes)
}
