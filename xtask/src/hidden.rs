//! Counts the events that a kernel hides from every eBPF program. The kernels of some sandboxes run no eBPF program
//! while process 1 is on the CPU, not even for packets that interrupt it, and do not count that. Ftrace, which is not
//! eBPF, sees these events.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const INSTANCES: &str = "/sys/kernel/tracing/instances";
/// What the name of an instance begins with; the id of the process follows that counts by it.
const NAME: &str = "tcptrace-hidden-";

/// Changes of state.
pub(crate) const TRANSITIONS: &str = "events/sock/inet_sock_set_state";
/// The destruction of a socket.
pub(crate) const ENDS: &str = "events/tcp/tcp_destroy_sock";

/// Counts events that happen while process 1 is on the CPU.
pub(crate) struct Hidden {
    /// A private tracing instance.
    folder: PathBuf,
    events: &'static [&'static str],
    /// The sockets that count have one of these ports, if there are any.
    ports: Vec<u64>,
    /// Threads that process 1 has, or has had.
    threads: BTreeSet<u32>,
}

impl Hidden {
    /// Starts counting, for sockets with these ports or for all. `None` if ftrace cannot do that.
    pub(crate) fn count(events: &'static [&'static str], ports: &[u64]) -> Option<Self> {
        remove_leftovers();
        let folder = PathBuf::from(format!("{INSTANCES}/{NAME}{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let mut hidden = Self { folder, events, ports: ports.to_vec(), threads: BTreeSet::new() };
        hidden
            .look_for_threads()
            .inspect_err(|error| eprintln!("cannot count the events that the kernel hides: {error:#}"))
            .ok()?;
        Some(hidden)
    }

    /// Takes in the threads that process 1 has started since. A count that takes long has to look now and then.
    ///
    /// # Errors
    /// When ftrace takes no filter.
    pub(crate) fn look_for_threads(&mut self) -> Result<()> {
        let threads = fs::read_dir("/proc/1/task").context("cannot list the threads of process 1")?;
        let known = self.threads.len();
        self.threads.extend(threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()));
        if self.threads.len() == known {
            return Ok(());
        }
        let filter = filter(&self.threads, &self.ports);
        for event in self.events {
            fs::write(self.folder.join(event).join("filter"), &filter).context("cannot filter")?;
            fs::write(self.folder.join(event).join("enable"), "1").context("cannot enable the event")?;
        }
        Ok(())
    }

    /// Their number so far.
    pub(crate) fn so_far(&self) -> u64 {
        let cpus = fs::read_dir(self.folder.join("per_cpu")).into_iter().flatten().flatten();
        let stats = cpus.filter_map(|cpu| fs::read_to_string(cpu.path().join("stats")).ok());
        stats.map(|stats| counted(&stats)).sum()
    }

    /// Local and remote addresses of the sockets of these events, without those that were overwritten.
    pub(crate) fn sockets(&self) -> HashSet<(SocketAddr, SocketAddr)> {
        let trace = fs::read_to_string(self.folder.join("trace")).unwrap_or_default();
        trace.lines().filter_map(addresses).collect()
    }
}

/// Removes what killed processes have left behind: each of them makes every change of state a little slower.
fn remove_leftovers() {
    for entry in fs::read_dir(INSTANCES).into_iter().flatten().flatten() {
        let is_leftover = entry.file_name().to_str().and_then(counter).is_some_and(is_gone);
        if is_leftover {
            // Another process may be quicker.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The process that counts by the instance with this name.
fn counter(name: &str) -> Option<u32> {
    name.strip_prefix(NAME)?.parse().ok()
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Chooses the events of these threads that are about these ports.
fn filter(threads: &BTreeSet<u32>, ports: &[u64]) -> String {
    let threads: Vec<String> = threads.iter().map(|thread| format!("common_pid == {thread}")).collect();
    let threads = format!("({})", threads.join(" || "));
    if ports.is_empty() {
        return threads;
    }
    let ports: Vec<String> = ports.iter().map(|port| format!("sport == {port} || dport == {port}")).collect();
    format!("{threads} && ({})", ports.join(" || "))
}

/// Local and remote address of a socket, as ftrace prints an event.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let value = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let address = |address: &str, port: &str| {
        let address: IpAddr = value(address)?.parse().ok()?;
        Some(SocketAddr::new(address.to_canonical(), value(port)?.parse().ok()?))
    };
    Some((address("saddrv6", "sport")?, address("daddrv6", "dport")?))
}

/// The number of events in the buffer, and of those that were overwritten.
fn counted(stats: &str) -> u64 {
    let numbers = stats.lines().filter_map(|line| {
        let (name, number) = line.split_once(": ")?;
        matches!(name, "entries" | "overrun").then(|| number.trim().parse::<u64>().ok()).flatten()
    });
    numbers.sum()
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // The next count removes a leftover, and a destructor cannot report it.
        for event in self.events {
            let _ = fs::write(self.folder.join(event).join("enable"), "0");
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_what_dead_processes_have_left_is_removed() {
        assert_eq!(super::counter("tcptrace-hidden-12"), Some(12));
        assert_eq!(super::counter("tcptrace-hidden-"), None);
        assert_eq!(super::counter("somebody-12"), None);
        assert!(!super::is_gone(std::process::id()));
        // Process ids end before that.
        assert!(super::is_gone(u32::MAX));
    }

    #[test]
    fn threads_and_ports_choose() {
        let threads = std::collections::BTreeSet::from([1, 59]);
        assert_eq!(super::filter(&threads, &[]), "(common_pid == 1 || common_pid == 59)");
        let both = "(common_pid == 1 || common_pid == 59) && (sport == 80 || dport == 80)";
        assert_eq!(super::filter(&threads, &[80]), both);
    }

    #[test]
    fn what_was_overwritten_counts() {
        let stats = "entries: 12\noverrun: 3\ncommit overrun: 0\nbytes: 700\ndropped events: 0\nread events: 0\n";
        assert_eq!(super::counted(stats), 15);
    }

    #[test]
    fn an_event_says_which_socket_it_is_about() {
        let line = "  tokio-rt-worker-75      [000] .Ns1.  7560.628131: inet_sock_set_state: family=AF_INET6 \
                    protocol=IPPROTO_TCP sport=33950 dport=7000 saddr=127.0.0.1 daddr=127.1.0.13 \
                    saddrv6=::ffff:127.0.0.1 daddrv6=::ffff:127.1.0.13 oldstate=TCP_LAST_ACK newstate=TCP_CLOSE";
        let [local, remote] =
            ["127.0.0.1:33950", "127.1.0.13:7000"].map(|address| address.parse().expect("an address"));
        assert_eq!(super::addresses(line), Some((local, remote)));
        assert_eq!(super::addresses("# tracer: nop"), None);
    }
}
