//! What network namespaces and the host are set to, as far as TCP depends on it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::time::{ClockId, clock_getres};
use nix::unistd::{SysconfVar, sysconf};

use super::namespaces::Namespaces;
use super::visit::visit;
use crate::model::facts::Settings;

/// Settings of a network namespace, by the names that `sysctl` has for them.
const OF_NAMESPACE: [&str; 45] = [
    "net.core.somaxconn",
    "net.ipv4.ip_autobind_reuse",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_challenge_ack_limit",
    "net.ipv4.tcp_fastopen",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_orphan_retries",
    "net.ipv4.tcp_retries1",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_rfc1337",
    "net.ipv4.tcp_syn_linear_timeouts",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_timestamps",
    // Gone since 4.12.
    "net.ipv4.tcp_tw_recycle",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_tw_reuse_delay",
    // Only kernels of some vendors have it.
    "net.ipv4.tcp_tw_timeout",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst",
    "net.netfilter.nf_conntrack_tcp_loose",
    "net.netfilter.nf_conntrack_tcp_max_retrans",
    "net.netfilter.nf_conntrack_tcp_timeout_close",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "net.netfilter.nf_conntrack_tcp_timeout_fin_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_last_ack",
    "net.netfilter.nf_conntrack_tcp_timeout_max_retrans",
    "net.netfilter.nf_conntrack_tcp_timeout_syn_recv",
    "net.netfilter.nf_conntrack_tcp_timeout_syn_sent",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
    "net.netfilter.nf_conntrack_tcp_timeout_unacknowledged",
];

/// Settings of the host as a whole. Those of `net` show in the first network namespace only.
const OF_HOST: [&str; 4] = ["fs.file-max", "fs.nr_open", "net.ipv4.tcp_max_orphans", "net.ipv4.tcp_mem"];

/// One of them that does.
const OF_FIRST: &str = "net.ipv4.tcp_mem";

/// Ticks of the kernel's timers in a second. `sysctl` does not show it.
const HZ: &str = "kernel.hz";

/// Bytes of a page, which is the unit of `tcp_mem`; and of all memory. Nor does it show these.
const PAGE_SIZE: &str = "kernel.page_size";
const MEMORY: &str = "kernel.memory";
/// Inode number of the first network namespace: the one that shows settings of the host.
const FIRST: &str = "kernel.first_netns";

/// Longer values are left out.
const LONGEST: usize = 4 << 10;

/// Reads the settings of the network namespace that the calling thread is in, whose inode number is `netns`.
pub fn settings_here(netns: u32, at: u64) -> Settings {
    let mut settings = Settings { at, netns: Some(netns), ..Settings::default() };
    add(&OF_NAMESPACE, &mut settings);
    settings
}

/// Reads those settings of the host that `settings` does not have yet, as far as the network namespace shows them that the
/// calling thread is in.
pub fn add_host_settings(settings: &mut Settings) {
    let knows = |settings: &Settings| settings.values.contains_key(OF_FIRST);
    let knew = knows(settings);
    add(&OF_HOST, settings);
    let is_first = !knew && knows(settings);
    let facts: [(&str, Option<u64>); 4] = [
        (HZ, hz()),
        (PAGE_SIZE, system(SysconfVar::PAGE_SIZE)),
        (MEMORY, memory()),
        (FIRST, Namespaces::own_namespace().filter(|_| is_first).map(u64::from)),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            settings.values.entry(name.into()).or_insert_with(|| value.to_string().into());
        }
    }
}

/// Adds what only the first network namespace shows, if that was not visited. Brings the calling thread home.
///
/// # Errors
/// When there is no way home.
pub fn complete_host_settings(settings: &mut Settings) -> io::Result<()> {
    // The parent of all threads of the kernel is in it; where that is hidden, the first process usually is, too.
    for holder in ["/proc/2/ns/net", "/proc/1/ns/net"] {
        if settings.values.contains_key(OF_FIRST) {
            break;
        }
        let home = File::open("/proc/thread-self/ns/net")?;
        let there = File::open(holder);
        if there.is_ok_and(|there| setns(there, CloneFlags::CLONE_NEWNET).is_ok()) {
            add_host_settings(settings);
            setns(home, CloneFlags::CLONE_NEWNET)?;
        }
    }
    Ok(())
}

fn system(name: SysconfVar) -> Option<u64> {
    u64::try_from(sysconf(name).ok()??).ok()
}

/// In bytes.
fn memory() -> Option<u64> {
    system(SysconfVar::_PHYS_PAGES)?.checked_mul(system(SysconfVar::PAGE_SIZE)?)
}

/// Reads the settings of the host, and those of each of these network namespaces, or of those in `only`, if it is not empty; with
/// `now` as the clock. Changes the network namespace of the calling thread, and brings it home.
///
/// # Errors
/// When there is no way home.
pub fn settings(namespaces: &Namespaces, only: &[u32], now: &dyn Fn() -> u64) -> io::Result<Vec<Settings>> {
    let mut host = Settings { at: now(), ..Settings::default() };
    let mut all = Vec::new();
    let closed = visit(namespaces, only, |netns| {
        all.push(settings_here(netns, now()));
        add_host_settings(&mut host);
    })?;
    for (netns, error) in closed {
        log::warn!("cannot read the settings of network namespace {netns}: {error}");
    }
    complete_host_settings(&mut host)?;
    all.insert(0, host);
    Ok(all)
}

fn add(names: &[&str], to: &mut Settings) {
    for name in names {
        if !to.values.contains_key(*name)
            && let Some(value) = read(&path(name))
        {
            to.values.insert((*name).into(), value);
        }
    }
}

/// Whether tcptrace reads this setting.
pub(super) fn is_known(name: &str) -> bool {
    OF_NAMESPACE.contains(&name) || OF_HOST.contains(&name)
}

/// Whether the calling thread is in the first network namespace, which shows settings of the host.
pub(super) fn shows_host() -> bool {
    Path::new(&path(OF_FIRST)).exists()
}

pub(super) fn path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// `None` where there is none, or it may not be read.
pub(super) fn read(path: &str) -> Option<Box<str>> {
    let mut text = [0; LONGEST + 1];
    // At once: the kernel cuts off what does not fit, and has nothing to add when it is asked for the rest.
    let length = File::open(path).and_then(|mut file| file.read(&mut text)).ok()?;
    let text = text.get(..length).filter(|text| text.len() <= LONGEST)?;
    Some(collapsed(&String::from_utf8_lossy(text)))
}

/// With each run of white space as one blank.
fn collapsed(text: &str) -> Box<str> {
    text.split_whitespace().collect::<Vec<_>>().join(" ").into()
}

/// The coarse clocks go on with each tick, and have its length as their resolution.
fn hz() -> Option<u64> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).ok()?;
    let ns = u64::try_from(tick.tv_nsec()).ok().filter(|ns| *ns > 0 && tick.tv_sec() == 0)?;
    Some((1_000_000_000 + ns / 2) / ns)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;

    use super::*;
    use crate::kernel::testing::{Named, in_new_namespace};

    #[rstest]
    #[case("4096\n", "4096")]
    #[case("32768\t60999\n", "32768 60999")]
    #[case(" 1  2 \t3\n", "1 2 3")]
    #[case("\n", "")]
    fn white_space_is_a_blank(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(&*collapsed(text), expected);
    }

    #[test]
    fn names_are_in_order_and_paths_are_theirs() {
        assert!(OF_NAMESPACE.is_sorted() && OF_HOST.is_sorted());
        assert_eq!(path("net.ipv4.tcp_mem"), "/proc/sys/net/ipv4/tcp_mem");
    }

    #[test]
    fn ticks_are_counted() {
        let hz = hz().expect("the resolution of a clock");
        assert!([100, 250, 300, 1000, 1024].contains(&hz), "{hz}");
    }

    fn value<'s>(settings: &'s Settings, name: &str) -> Option<&'s str> {
        settings.values.get(name).map(|value| &**value)
    }

    #[tcptrace_tests::test]
    fn each_namespace_has_its_own() {
        let named = Named::new("settings");
        let ports = (1..1000).map(|number| (20_000 + 2 * number).to_string()).collect::<Vec<_>>();
        let (few, many) = (ports[..100].join(","), ports.join(","));
        in_new_namespace(|| {
            let own = Namespaces::own_namespace().expect("its number");
            fs::write(path("net.ipv4.tcp_fin_timeout"), "17").expect("set it");
            fs::write(path("net.ipv4.ip_local_port_range"), "40000 40009").expect("set it");
            fs::write(path("net.ipv4.ip_local_reserved_ports"), &few).expect("set it");
            let all = settings(&Namespaces::find(), &[], &|| 7).expect("a way home");
            assert_eq!(Namespaces::own_namespace(), Some(own));
            let of = |netns| all.iter().find(|settings| settings.netns == netns).expect("it was read");
            let (ours, other, host) = (of(Some(own)), of(Some(named.inode())), of(None));
            assert_eq!((ours.at, value(ours, "net.ipv4.tcp_fin_timeout")), (7, Some("17")));
            assert_eq!(value(ours, "net.ipv4.ip_local_port_range"), Some("40000 40009"));
            assert_eq!(value(ours, "net.ipv4.ip_local_reserved_ports"), Some(&*few), "all of it");
            assert_ne!(value(other, "net.ipv4.tcp_fin_timeout"), Some("17"));
            assert_eq!(value(other, "net.ipv4.ip_local_reserved_ports"), Some(""));
            let of_host: Vec<_> = host.values.keys().map(|name| &**name).collect();
            let expected =
                ["fs.file-max", "fs.nr_open", FIRST, HZ, MEMORY, PAGE_SIZE, "net.ipv4.tcp_max_orphans", OF_FIRST];
            assert_eq!(of_host, expected, "the first namespace is among them");
            let first = value(host, FIRST).and_then(|first| first.parse().ok());
            assert!(all.iter().any(|it| it.netns == first) && first != Some(own), "{first:?}");

            let only_ours = settings(&Namespaces::find(), &[own], &|| 7).expect("a way home");
            assert_eq!(only_ours.iter().map(|it| it.netns).collect::<Vec<_>>(), [None, Some(own)]);
            assert_eq!(only_ours[0].values, host.values, "the first namespace is none of them");
            assert_eq!(Namespaces::own_namespace(), Some(own));

            fs::write(path("net.ipv4.ip_local_reserved_ports"), &many).expect("set it");
            assert_eq!(value(&settings_here(own, 7), "net.ipv4.ip_local_reserved_ports"), None, "it is too long");
        });
    }
}
