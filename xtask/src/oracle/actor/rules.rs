//! Rules for the segments that come to an actor: in nftables, and in the relay.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use nix::errno::Errno;

use super::super::relay::Order;
use super::super::rules::{self, Verdict};
use super::super::script::Place;
use super::{Actor, canonical, server_address};

impl Actor<'_> {
    pub(super) fn set_rule(&mut self, verdict: Verdict, kinds: u32) -> Result<u64, Errno> {
        let added = kinds & !self.rules[verdict as usize];
        self.change_rules("add", verdict, added)?;
        self.rules[verdict as usize] |= kinds;
        Ok(kinds.into())
    }

    pub(super) fn forget_rules(&mut self) -> Result<u64, Errno> {
        if self.rules == [0; 3] {
            return Err(Errno::ENOENT);
        }
        for verdict in Verdict::ALL {
            let kinds = std::mem::take(&mut self.rules[verdict as usize]);
            if kinds != 0 {
                self.change_rules("delete", verdict, kinds)?;
            }
        }
        Ok(0)
    }

    fn change_rules(&self, verb: &str, verdict: Verdict, kinds: u32) -> Result<(), Errno> {
        let address = canonical(server_address(self.life, self.index)).ip();
        let of = |kind: &u32| {
            let set = rules::set(self.who, *kind, verdict, matches!(address, IpAddr::V6(_)));
            format!("{verb} element inet oracle {set} {{ {address} }};")
        };
        let changes: String = rules::KINDS.iter().filter(|kind| kinds & **kind != 0).map(of).collect();
        if changes.is_empty() {
            return Err(Errno::EEXIST);
        }
        let status = Command::new("nft").arg(changes).stdin(Stdio::null()).stderr(Stdio::null()).status();
        if status.is_ok_and(|status| status.success()) { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Makes the relay delay such segments on their way to this end.
    pub(super) fn hold(&self, kinds: u32, ms: u32) -> Result<u64, Errno> {
        if self.life.place != Place::Relay {
            return Err(Errno::ENOTSUP);
        }
        let life = u32::try_from(self.index).unwrap_or(u32::MAX);
        let order = Order { life, to: self.who, kinds, ms }.bytes();
        let mut relay = self.shared.relay;
        relay.write_all(&order).map_err(|_| Errno::EPIPE)?;
        Ok(kinds.into())
    }
}
