//! Options that choose what is shown, and how.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anstream::AutoStream;
use anyhow::{Context, Result};
use clap::{Args, ColorChoice, ValueEnum};
use ipnet::{IpNet, Ipv4Net};

use super::say;
use super::words::{closers, features, states};
use crate::engine::lifecycle::Config;
use crate::kernel::{Groups, Namespaces, ResolveError, are_all_visible, probe};
use crate::model::accepts::Accepts;
use crate::model::criteria::Criteria;
use crate::model::feature::Feature;
use crate::model::tcp::{Closer, State};
use crate::output::{Format, Kind, sanitise};
use clap::error::ErrorKind;

/// Filters of connections and rows. All options must match; a repeated option matches any of its values.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Filters (all must match; repeat one to match any of its values)")]
pub(super) struct FilterArgs {
    /// Local or remote port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// Local port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    lport: Vec<u16>,
    /// Remote port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    rport: Vec<u16>,
    /// Local or remote address, or network in CIDR notation
    #[arg(long, value_name = "CIDR", value_parser = network)]
    addr: Vec<IpNet>,
    /// Process id of the owner, of a process that holds a descriptor of the socket, or of the one that closed it
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Name of the owner, of a process that holds a descriptor of the socket, or of the one that closed it
    #[arg(long, value_name = "NAME")]
    comm: Vec<String>,
    /// Match --pid and --comm against the owner only, and --cgroup, --pod, --pod-namespace and --container-name against
    /// the socket's own control group
    #[arg(long)]
    owner_only: bool,
    /// Network namespace, by name (`ip netns`), inode number (`readlink /proc/PID/ns/net`) or path (/proc/PID/ns/net);
    /// live commands look names and paths up when they start
    #[arg(long, value_name = "NETNS")]
    netns: Vec<String>,
    /// Control group of the socket, its owner, a holder of its descriptors or its closer: the path, a parent's path, a
    /// container id, or any systemd unit on the path
    #[arg(long, value_name = "CGROUP")]
    cgroup: Vec<String>,
    /// Name of the Kubernetes pod of one of these control groups
    #[arg(long, value_name = "POD")]
    pod: Vec<String>,
    /// Namespace of that pod
    #[arg(long, value_name = "NAMESPACE")]
    pod_namespace: Vec<String>,
    /// Name of the container of one of these control groups, as kubelet, Docker or Podman shows it
    #[arg(long, value_name = "NAME")]
    container_name: Vec<String>,
    /// State that a transition leaves or enters, a connection was in, or a socket is in; the spellings of `ss` work,
    /// too
    #[arg(long, value_name = "STATE", value_parser = states())]
    state: Vec<State>,
    /// Who closed first: this end (active), the peer (passive), …
    #[arg(long, value_name = "CLOSER", value_parser = closers())]
    closer: Vec<Closer>,
    /// Minimum time (10ms, 1m30s): of a transition, in the state it leaves; of a connection, in the states of --state,
    /// else its lifetime; of a socket, in its current state
    #[arg(long, value_name = "TIME", value_parser = duration)]
    min_duration: Option<Duration>,
    /// IPv4 only, IPv4-mapped IPv6 included
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only
    #[arg(short = '6')]
    ipv6: bool,
}

impl FilterArgs {
    /// # Errors
    /// When `--netns` names an unknown network namespace.
    pub(super) fn criteria(&self, namespaces: &Namespaces) -> Result<Criteria> {
        self.criteria_by(|netns| namespaces.resolve(netns))
    }

    /// `resolve` finds the number of the network namespace that a text names.
    ///
    /// # Errors
    /// What it says.
    pub(super) fn criteria_by(&self, resolve: impl Fn(&str) -> Result<u32, ResolveError>) -> Result<Criteria> {
        Ok(Criteria {
            ports: self.port.clone(),
            local_ports: self.lport.clone(),
            remote_ports: self.rport.clone(),
            networks: self.addr.clone(),
            pids: self.pid.clone(),
            comms: self.comm.clone(),
            owner_only: self.owner_only,
            netns: self.netns.iter().map(|netns| resolve(netns)).collect::<Result<_, _>>()?,
            cgroups: self.cgroup.clone(),
            pods: self.pod.clone(),
            pod_namespaces: self.pod_namespace.clone(),
            container_names: self.container_name.clone(),
            states: self.state.clone(),
            closers: self.closer.clone(),
            min_duration_ns: self.min_duration.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            ipv4: self.ipv4,
            ipv6: self.ipv6,
        })
    }
}

/// Ends the program if filters would make an audit incomplete.
pub(super) fn refuse_partial_audits(criteria: &Criteria) {
    let others = Criteria { netns: Vec::new(), ..criteria.clone() };
    if others != Criteria::default() {
        let message = "--audit compares whole network namespaces: --netns is the only filter that it accepts\n";
        clap::Error::raw(ErrorKind::ArgumentConflict, message).exit()
    }
}

/// The kernel reports the host's process ids, which a pid namespace does not know.
///
/// # Errors
/// When `--pid` is used in a pid namespace.
pub(super) fn refuse_foreign_pids(criteria: &Criteria) -> Result<()> {
    anyhow::ensure!(
        criteria.pids.is_empty() || are_all_visible(),
        "cannot filter by --pid in this pid namespace: the kernel reports the host's process ids; use --comm or --cgroup, \
         or run in the host's pid namespace (--pid=host)"
    );
    Ok(())
}

/// Warns of control groups in the filter that do not exist now. Unlike a network namespace, they match as soon as they
/// are created.
pub(super) fn warn_of_missing_groups(criteria: &Criteria, goes_on: bool) {
    if criteria.cgroups.is_empty() {
        return;
    }
    let Some(missing) = Groups::new().missing(&criteria.cgroups) else {
        return say(
            "cgroup2 is not mounted here, so the names of control groups are unknown: --cgroup cannot decide, and \
             hides no socket",
        );
    };
    let later = if goes_on { "; its sockets are shown once it is created" } else { "" };
    for wanted in missing {
        say(format_args!("no control group matches '{}' now{later}", sanitise(wanted.as_bytes())));
    }
}

/// How to attach to the kernel.
#[derive(Args, Clone, Debug)]
pub(super) struct ProbeArgs {
    /// Size of all ring buffers, in MiB or with a unit (256K); rounded up to a power of two. There is one for each CPU, but
    /// none is smaller than 2 MiB: CPUs share them if need be
    #[arg(long, value_name = "SIZE", default_value = "16", value_parser = ring_bytes)]
    ring_size: u32,
    /// Skip sockets that already exist; each appears when it next changes state
    #[arg(long)]
    pub(super) no_existing: bool,
    #[command(flatten)]
    accept: AcceptArgs,
    /// Use classic tracepoints only, as on a kernel without BTF: no TIME_WAIT, and no reasons why connections end
    #[arg(long)]
    no_btf: bool,
    #[command(flatten)]
    without: WithoutArgs,
    /// Load this eBPF object instead of the built-in one
    #[arg(long, value_name = "PATH", hide = true)]
    object: Option<PathBuf>,
}

/// Features to leave out. Tests compare what tcptrace then prints.
#[derive(Args, Clone, Debug)]
pub(super) struct WithoutArgs {
    /// Go without these features, as on a kernel that lacks their hooks
    #[arg(long, value_name = "FEATURE", value_delimiter = ',', value_parser = features(), hide = true)]
    pub(super) without: Vec<Feature>,
}

impl ProbeArgs {
    pub(super) fn options(&self, filter: tcptrace_common::Filter) -> probe::Options {
        let (no_btf, object) = (self.no_btf, self.object.clone());
        let accepts = self.accept.when;
        let without = self.without.without.clone();
        probe::Options { ring_bytes: self.ring_size, filter, accepts, failed_calls: false, no_btf, without, object }
    }
}

/// When accepts are seen.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct AcceptArgs {
    /// When to watch calls of accept, which show the process that accepts a connection. Meanwhile every system call of the
    /// machine takes a little longer, unless `tcptrace check` names a function (fentry) for it. Without it, the owner of a
    /// server connection is who closes it or holds it; before that it is unknown
    #[arg(long = "accept", id = "accept", value_enum, value_name = "WHEN", default_value_t)]
    pub(super) when: Accepts,
}

/// How to follow connections.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct EngineArgs {
    /// Follow at most this many sockets; beyond that, forget the one that has been idle longest
    #[arg(long, value_name = "N", default_value_t = Config::default().sockets)]
    pub(super) max_sockets: usize,
    /// Report a socket that is stuck for this time (30s, 5m), and again whenever the time has doubled. Stuck means: in
    /// a passing state (any but ESTABLISHED, LISTEN and TIME_WAIT, unless it is half-closed and data still flows), in
    /// ESTABLISHED with a peer that acknowledges nothing, or still open after its connection has ended
    #[arg(long, value_name = "TIME", value_parser = duration)]
    report_stuck: Option<Duration>,
}

impl EngineArgs {
    /// For rows of one kind.
    pub(super) fn config(&self, kind: Kind, at_close: bool) -> Config {
        Config {
            sockets: self.max_sockets,
            at_close,
            transitions: kind == Kind::Transition,
            connections: kind == Kind::Connection,
            stuck_after: self.report_stuck.map(|after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)),
            ..Config::default()
        }
    }
}

/// Kinds of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RowKind {
    /// One row per state transition, as `watch` prints
    Transitions,
    /// One row per connection, as `connections` prints
    Connections,
}

impl RowKind {
    /// The same for printers and the engine.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Transitions => Kind::Transition,
            Self::Connections => Kind::Connection,
        }
    }
}

/// How rows of connections are shown.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct ConnectionRows {
    /// Print a connection when its socket is closed, instead of waiting for the end of its TIME_WAIT
    #[arg(long)]
    pub(super) at_close: bool,
    /// Add a line with the time in each state (text only; other formats always include it)
    #[arg(long)]
    pub(super) states: bool,
}

/// How rows are printed.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct OutputArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
    #[command(flatten)]
    colours: ColourArgs,
}

/// Whether what is printed has colours.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct ColourArgs {
    /// When to use colour: `auto` means on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: ColorChoice,
    /// Older spelling of `--color never`.
    #[arg(long, hide = true)]
    no_color: bool,
}

impl OutputArgs {
    /// See [`ColourArgs::colour`].
    pub(super) fn colour(&self) -> bool {
        self.colours.colour()
    }
}

impl ColourArgs {
    /// Whether to colour standard output.
    pub(super) fn colour(&self) -> bool {
        match self.color {
            ColorChoice::Auto if !self.no_color => AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
            choice => choice == ColorChoice::Always && !self.no_color,
        }
    }
}

/// A time with its unit.
pub(super) fn duration(text: &str) -> Result<Duration> {
    let time: jiff::SignedDuration =
        text.parse().with_context(|| format!("'{text}' is not a time such as 250ms, 10s or 1m30s"))?;
    Duration::try_from(time).with_context(|| format!("'{text}' is negative"))
}

/// A size in bytes; `K`, `M` and `G` are powers of 1024, as for other tools.
pub(super) fn bytes(text: &str) -> Result<u64> {
    let number = text.strip_suffix('B').unwrap_or(text);
    let number = number.strip_suffix('i').unwrap_or(number);
    let (number, shift) = match number.char_indices().next_back() {
        Some((end, 'k' | 'K')) => (&number[..end], 10),
        Some((end, 'M')) => (&number[..end], 20),
        Some((end, 'G')) => (&number[..end], 30),
        Some((end, 'T')) => (&number[..end], 40),
        _ => (number, 0),
    };
    let wrong = || format!("'{text}' is not a size such as 4096, 100M or 2G");
    let number: u64 = number.parse().with_context(wrong)?;
    number.checked_mul(1 << shift).filter(|size| *size > 0).with_context(wrong)
}

/// The size of a ring buffer: a bare number counts MiB.
pub(super) fn ring_bytes(text: &str) -> Result<u32> {
    const MOST: u64 = 1 << 30;
    let size = if text.bytes().all(|byte| byte.is_ascii_digit()) { bytes(&format!("{text}M")) } else { bytes(text) };
    let size = size?;
    anyhow::ensure!((4096..=MOST).contains(&size), "'{text}' is not between 4K and 1024M");
    Ok(u32::try_from(size)?)
}

/// An address or a network. An IPv4-mapped IPv6 network becomes its IPv4 network, as rows show it.
fn network(text: &str) -> Result<IpNet, String> {
    let given = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let given = given.map_err(|_| format!("'{text}' is neither an address nor a network such as 10.0.0.0/8"))?;
    let mapped = |length: u8| match given.addr().to_canonical() {
        IpAddr::V4(ip) => Ipv4Net::new(ip, length).ok().map(IpNet::from),
        IpAddr::V6(_) => None,
    };
    Ok(given.prefix_len().checked_sub(96).filter(|_| given.addr().is_ipv6()).and_then(mapped).unwrap_or(given))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        output: OutputArgs,
    }

    #[rstest]
    #[case::always(&["--color", "always"], true)]
    #[case::never(&["--color=never"], false)]
    #[case::never_as_it_was_called_before(&["--no-color"], false)]
    #[case::both(&["--color=always", "--no-color"], false)]
    fn colours_are_chosen(#[case] args: &[&str], #[case] expected: bool) {
        let typed = Typed::parse_from([&["tcptrace"], args].concat());
        assert_eq!(typed.output.colour(), expected);
    }

    #[rstest]
    #[case("10.0.0.0/8", "10.0.0.0/8")]
    #[case("10.1.2.3", "10.1.2.3/32")]
    #[case("::1", "::1/128")]
    #[case("2001:db8::/32", "2001:db8::/32")]
    #[case::mapped_addresses_are_shown_as_ipv4("::ffff:10.0.0.0/104", "10.0.0.0/8")]
    #[case::wider_than_the_mapped_ones("::/0", "::/0")]
    fn networks(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(network(text).expect("it is a network").to_string(), expected);
    }

    #[rstest]
    #[case("10.0.0.0/33")]
    #[case("example.org")]
    #[case("")]
    fn not_networks(#[case] text: &str) {
        assert!(network(text).is_err());
    }

    #[rstest]
    #[case("4096", 4096)]
    #[case("100M", 100 << 20)]
    #[case("2G", 2 << 30)]
    #[case("1KiB", 1024)]
    #[case("1kB", 1024)]
    fn sizes(#[case] text: &str, #[case] expected: u64) {
        assert_eq!(bytes(text).expect("it is a size"), expected);
    }

    #[rstest]
    #[case("16", Some(probe::DEFAULT_RING_BYTES))]
    #[case("1024", Some(1 << 30))]
    #[case("256K", Some(256 << 10))]
    #[case("4096B", Some(4096))]
    #[case("1025", None)]
    #[case("2K", None)]
    #[case("0", None)]
    #[case("", None)]
    fn sizes_of_ring_buffers(#[case] text: &str, #[case] expected: Option<u32>) {
        assert_eq!(ring_bytes(text).ok(), expected);
    }

    #[rstest]
    #[case("")]
    #[case("M")]
    #[case("0")]
    #[case("-1")]
    #[case("1h")]
    #[case("5m")]
    #[case("99999999999T")]
    fn not_sizes(#[case] text: &str) {
        assert!(bytes(text).is_err());
    }

    #[test]
    fn times_have_a_unit_and_a_direction() {
        assert_eq!(duration("1m30s").expect("it is a time"), Duration::from_secs(90));
        assert_eq!(duration("250ms").expect("it is a time"), Duration::from_millis(250));
        assert!(duration("10").is_err());
        assert!(duration("-1s").is_err());
    }
}
