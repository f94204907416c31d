//! The actors' log: one line for each call, appended to a file that they share.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

use super::script::Who;

/// A call of an actor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) life: usize,
    pub(super) who: Who,
    /// Name of the action; `closeref` is a close that leaves another descriptor open.
    pub(super) name: String,
    pub(super) pid: u32,
    /// Its beginning, in ns of `CLOCK_BOOTTIME`.
    pub(super) from: u64,
    /// Its end; `None` if it did not return.
    pub(super) to: Option<u64>,
    pub(super) errno: i32,
    /// Cookie of the socket; 0 without one.
    pub(super) cookie: u64,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    /// Bytes sent or received, or the value of an option.
    pub(super) number: u64,
}

/// Now, in ns of `CLOCK_BOOTTIME`.
pub(super) fn now() -> u64 {
    clock(ClockId::CLOCK_BOOTTIME)
}

/// Now, by this clock, in ns; 0 if it cannot be read, with which no test passes.
pub(super) fn clock(id: ClockId) -> u64 {
    let at = clock_gettime(id).map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

impl Call {
    /// Appends it in one write.
    pub(super) fn write(&self, mut log: &File) {
        let who = self.who.letter();
        let address = |address: Option<SocketAddr>| address.map_or_else(|| "-".to_owned(), |to| to.to_string());
        let line = format!(
            "{} {who} {} {} {} {} {} {} {} {} {}\n",
            self.life,
            self.name,
            self.pid,
            self.from,
            self.to.unwrap_or(0),
            self.errno,
            self.cookie,
            address(self.local),
            address(self.remote),
            self.number,
        );
        // An actor cannot report a failure here; a missing line makes the witness unsure.
        let _ = log.write_all(line.as_bytes());
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let life = words.next()?.parse().ok()?;
        let who = if words.next()? == "c" { Who::Client } else { Who::Server };
        let name = words.next()?.to_owned();
        let pid = words.next()?.parse().ok()?;
        let from = words.next()?.parse().ok()?;
        let to = words.next()?.parse().ok().filter(|to| *to > 0);
        let errno = words.next()?.parse().ok()?;
        let cookie = words.next()?.parse().ok()?;
        let local = words.next()?.parse().ok();
        let remote = words.next()?.parse().ok();
        let number = words.next()?.parse().ok()?;
        Some(Self { life, who, name, pid, from, to, errno, cookie, local, remote, number })
    }
}

/// All calls by life, each in the order in which they began.
pub(super) fn read(file: &Path, lives: usize) -> Result<Vec<Vec<Call>>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut calls = vec![Vec::new(); lives];
    for line in text.lines() {
        let call = Call::parse(line).with_context(|| format!("an actor wrote `{line}`"))?;
        calls.get_mut(call.life).with_context(|| format!("there is no life {}", call.life))?.push(call);
    }
    for calls in &mut calls {
        calls.sort_by_key(|call: &Call| call.from);
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let call = Call {
            life: 1,
            who: Who::Server,
            name: "accept".to_owned(),
            pid: 7,
            from: 10,
            to: None,
            errno: 104,
            cookie: 99,
            local: "127.0.0.1:80".parse().ok(),
            remote: None,
            number: 3,
        };
        call.write(&File::create(&path).expect("a file"));
        assert_eq!(read(&path, 2).expect("a log"), [vec![], vec![call]]);
        read(&path, 1).expect_err("no such life");
    }
}
