//! What a network namespace says of the ports that it gives out.

use std::net::Ipv6Addr;

use super::set::PortSet;
use crate::model::facts::Settings;
use crate::model::tcp::Tuple;

/// `tcp_tw_reuse_delay` where the kernel has no such setting (before 6.14).
const REUSE_DELAY_MS: u64 = 1_000;

/// The settings of a network namespace on which its ports depend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// `ip_local_port_range`: the ports that connect() may choose, and bind() of port 0.
    pub range: PortSet,
    /// `ip_local_reserved_ports`, which neither chooses; `None` when unknown.
    pub reserved: Option<PortSet>,
    /// `tcp_tw_reuse`.
    pub tw_reuse: TwReuse,
    /// `tcp_tw_reuse_delay`: how old a TIME_WAIT must be for that, in ms.
    pub tw_reuse_delay_ms: u64,
    /// `tcp_timestamps`; `None` when unknown.
    pub timestamps: Option<bool>,
}

/// Which TIME_WAITs connect() may take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwReuse {
    /// None.
    Off,
    /// Any.
    On,
    /// Those of the loopback: of its addresses, or bound to its device.
    Loopback,
}

impl PortSettings {
    /// Reads them. `None` where the range is unknown, without which nothing can be said.
    pub fn of(settings: &Settings) -> Option<Self> {
        let value = |name: &str| settings.values.get(format!("net.ipv4.{name}").as_str()).map(|value| value.trim());
        Some(Self {
            range: range(value("ip_local_port_range")?)?,
            reserved: value("ip_local_reserved_ports").and_then(list),
            tw_reuse: match value("tcp_tw_reuse") {
                Some("1") => TwReuse::On,
                Some("2") => TwReuse::Loopback,
                _ => TwReuse::Off,
            },
            tw_reuse_delay_ms: value("tcp_tw_reuse_delay")
                .and_then(|delay| delay.parse().ok())
                .unwrap_or(REUSE_DELAY_MS),
            timestamps: value("tcp_timestamps").map(|value| value != "0"),
        })
    }
}

/// `32768 60999`: the first and the last.
fn range(value: &str) -> Option<PortSet> {
    let (first, last) = value.split_once(char::is_whitespace)?;
    let (first, last): (u16, u16) = (first.parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then(|| (first..=last).collect())
}

/// `8080,50000-50010`; empty for none.
fn list(value: &str) -> Option<PortSet> {
    let mut ports = PortSet::new();
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first..=last).for_each(|port| ports.add(port));
    }
    Some(ports)
}

/// Whether an end has an address of the loopback. Other addresses of the host do not count, though their packets take the
/// same device.
pub(super) fn is_loopback(tuple: &Tuple) -> bool {
    let is_loopback = |ip: Ipv6Addr| ip.to_canonical().is_loopback();
    is_loopback(tuple.local_ip) || is_loopback(tuple.remote_ip)
}
