//! Scripts of lives: the actions of both ends of a connection, as one line that can be printed and run again.
//!
//! `v4 c.connect s.accept c.send=100 s.close@20 c.close&`: the client connects, the server accepts, …; `@20` waits 20
//! ms before the step, and with `&` later steps do not wait for it. `v4 veth …` and `v4 relay …` are lives between two
//! network namespaces.

mod random;

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};

/// One life.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Life {
    pub(super) family: Family,
    pub(super) place: Place,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Family {
    V4,
    V6,
    /// Both ends are IPv6 sockets with IPv4-mapped addresses.
    Mapped,
}

/// The link between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Both ends are in one network namespace.
    Loopback,
    /// Each end is in a network namespace of its own; a veth pair joins them.
    Veth,
    /// The same with a relay in place of the pair, which may hold segments.
    Relay,
}

impl Place {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Loopback => None,
            Self::Veth => Some("veth"),
            Self::Relay => Some("relay"),
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Veth, Self::Relay].into_iter().find(|place| place.name() == Some(word))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Client,
    Server,
}

impl Who {
    pub(super) fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::Client => "c",
            Self::Server => "s",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) who: Who,
    pub(super) action: Action,
    /// Delay before it, in ms.
    pub(super) wait_ms: u32,
    /// Whether later steps of the peer wait for it.
    pub(super) awaited: bool,
}

/// An action of an actor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    /// Makes a socket, and connects.
    Connect,
    /// Makes a socket, binds it to the previous local address, and connects.
    Reconnect,
    Accept,
    Send(u32),
    /// Receives up to this many bytes.
    Receive(u32),
    /// Receives until the peer's FIN.
    ReceiveEnd,
    ShutWrite,
    ShutRead,
    ShutBoth,
    Close,
    Linger(u32),
    /// `TCP_LINGER2`, in seconds; 0 stands for -1 (no wait).
    Linger2(u32),
    /// `TCP_USER_TIMEOUT`, in ms.
    UserTimeout(u32),
    /// Keepalive after a second, with one probe.
    Keepalive,
    /// Duplicates the descriptor, so that the next close does not close the socket.
    Duplicate,
    /// Forks: the child goes on, and the parent exits.
    Fork,
    /// Passes the descriptor through a Unix socket to another process, which goes on.
    Pass,
    /// `connect(AF_UNSPEC)`.
    Disconnect,
    /// Closes the listener.
    Unlisten,
    Exit,
    Kill,
    /// Destroys its socket, or its mini-socket, with `ss -K`.
    Destroy,
    /// Makes a socket, and connects with data in the SYN.
    FastOpen(u32),
    /// Drops incoming segments, as a sum of kinds: 1 with FIN, 2 with SYN, 4 with RST, 8 all others.
    Drop(u32),
    /// Answers them with a reset instead.
    Reject(u32),
    /// Answers them with an ICMP error (port unreachable) instead.
    Unreach(u32),
    /// Removes all such rules.
    Undrop,
    /// Makes the relay hold them for this time.
    Hold {
        kinds: u32,
        ms: u32,
    },
    /// A second process listens at the same address (`SO_REUSEPORT`), and accepts one connection.
    Share,
    /// Goes on as another program with the same descriptors.
    Exec,
}

impl Action {
    fn parts(self) -> (&'static str, Option<u32>) {
        match self {
            Self::Reject(kinds) => ("reject", Some(kinds)),
            Self::Unreach(kinds) => ("unreach", Some(kinds)),
            Self::Hold { kinds, .. } => ("hold", Some(kinds)),
            Self::Share => ("share", None),
            Self::Exec => ("exec", None),
            Self::Connect => ("connect", None),
            Self::Reconnect => ("reconnect", None),
            Self::Accept => ("accept", None),
            Self::Send(bytes) => ("send", Some(bytes)),
            Self::Receive(bytes) => ("recv", Some(bytes)),
            Self::ReceiveEnd => ("eof", None),
            Self::ShutWrite => ("shutwr", None),
            Self::ShutRead => ("shutrd", None),
            Self::ShutBoth => ("shutrdwr", None),
            Self::Close => ("close", None),
            Self::Linger(seconds) => ("linger", Some(seconds)),
            Self::Linger2(seconds) => ("linger2", Some(seconds)),
            Self::UserTimeout(ms) => ("usertimeout", Some(ms)),
            Self::Keepalive => ("keepalive", None),
            Self::Duplicate => ("dup", None),
            Self::Fork => ("fork", None),
            Self::Pass => ("pass", None),
            Self::Disconnect => ("disconnect", None),
            Self::Unlisten => ("unlisten", None),
            Self::Exit => ("exit", None),
            Self::Kill => ("kill", None),
            Self::Destroy => ("ssk", None),
            Self::FastOpen(bytes) => ("fastopen", Some(bytes)),
            Self::Drop(kinds) => ("drop", Some(kinds)),
            Self::Undrop => ("undrop", None),
        }
    }

    pub(super) fn name(self) -> &'static str {
        self.parts().0
    }

    fn parse(name: &str, number: Option<u32>) -> Result<Self> {
        let given = || number.with_context(|| format!("`{name}` needs a number"));
        Ok(match name {
            "connect" => Self::Connect,
            "reconnect" => Self::Reconnect,
            "accept" => Self::Accept,
            "send" => Self::Send(given()?),
            "recv" => Self::Receive(given()?),
            "eof" => Self::ReceiveEnd,
            "shutwr" => Self::ShutWrite,
            "shutrd" => Self::ShutRead,
            "shutrdwr" => Self::ShutBoth,
            "close" => Self::Close,
            "linger" => Self::Linger(given()?),
            "linger2" => Self::Linger2(given()?),
            "usertimeout" => Self::UserTimeout(given()?),
            "keepalive" => Self::Keepalive,
            "dup" => Self::Duplicate,
            "fork" => Self::Fork,
            "pass" => Self::Pass,
            "disconnect" => Self::Disconnect,
            "unlisten" => Self::Unlisten,
            "exit" => Self::Exit,
            "kill" => Self::Kill,
            "ssk" => Self::Destroy,
            "fastopen" => Self::FastOpen(given()?),
            "drop" => Self::Drop(given()?),
            "reject" => Self::Reject(given()?),
            "unreach" => Self::Unreach(given()?),
            "undrop" => Self::Undrop,
            "hold" => Self::Hold { kinds: given()?, ms: 0 },
            "share" => Self::Share,
            "exec" => Self::Exec,
            _ => bail!("no action is called `{name}`"),
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, number) = self.action.parts();
        write!(f, "{}.{name}", self.who.letter())?;
        if let Some(number) = number {
            write!(f, "={number}")?;
        }
        if let Action::Hold { ms, .. } = self.action {
            write!(f, "/{ms}")?;
        }
        if self.wait_ms > 0 {
            write!(f, "@{}", self.wait_ms)?;
        }
        f.write_str(if self.awaited { "" } else { "&" })
    }
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let (rest, awaited) = word.strip_suffix('&').map_or((word, true), |rest| (rest, false));
        let (rest, wait) = rest.split_once('@').unwrap_or((rest, "0"));
        let (who, action) = rest.split_once('.').with_context(|| format!("`{word}` does not say who acts"))?;
        let who = match who {
            "c" => Who::Client,
            "s" => Who::Server,
            _ => bail!("`{who}` is neither c nor s"),
        };
        let (name, number) = action.split_once('=').map_or((action, None), |(name, number)| (name, Some(number)));
        let (number, ms) = number.map_or((None, None), |number| match number.split_once('/') {
            Some((number, ms)) => (Some(number), Some(ms)),
            None => (Some(number), None),
        });
        let parse =
            |number: Option<&str>| number.map(str::parse).transpose().with_context(|| format!("no number in `{word}`"));
        let action = match (Action::parse(name, parse(number)?)?, parse(ms)?) {
            (Action::Hold { kinds, .. }, Some(ms)) => Action::Hold { kinds, ms },
            (action, _) => action,
        };
        let wait_ms = wait.parse().with_context(|| format!("no time in `{word}`"))?;
        Ok(Self { who, action, wait_ms, awaited })
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.family {
            Family::V4 => "v4",
            Family::V6 => "v6",
            Family::Mapped => "mapped",
        })?;
        if let Some(place) = self.place.name() {
            write!(f, " {place}")?;
        }
        self.steps.iter().try_for_each(|step| write!(f, " {step}"))
    }
}

impl FromStr for Life {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace().peekable();
        let family = match words.next() {
            Some("v4") => Family::V4,
            Some("v6") => Family::V6,
            Some("mapped") => Family::Mapped,
            _ => bail!("`{line}` does not begin with v4, v6 or mapped"),
        };
        let place = words.peek().and_then(|word| Place::parse(word));
        if place.is_some() {
            words.next();
        }
        let place = place.unwrap_or(Place::Loopback);
        Ok(Self { family, place, steps: words.map(str::parse).collect::<Result<_>>()? })
    }
}

impl Life {
    /// Shorter variants of the life, the most promising first.
    pub(super) fn simpler(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let count = self.steps.len();
        let mut width = count / 2;
        while width > 0 {
            for from in (0..count).step_by(width) {
                let mut life = self.clone();
                life.steps.drain(from..(from + width).min(count));
                all.push(life);
            }
            width /= 2;
        }
        if self.family != Family::V4 {
            all.push(Self { family: Family::V4, ..self.clone() });
        }
        if self.place != Place::Loopback {
            all.push(Self { place: Place::Loopback, ..self.clone() });
        }
        for at in 0..count {
            if !self.steps[at].awaited {
                let mut life = self.clone();
                life.steps[at].awaited = true;
                all.push(life);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::random::Random;

    #[test]
    fn a_script_is_read_as_it_is_printed() {
        let mut random = Random::new(1);
        for _ in 0..1_000 {
            let life = Life::random(&mut random);
            assert_eq!(life.to_string().parse::<Life>().expect("a script"), life);
        }
        "v4 x.connect".parse::<Life>().expect_err("nobody acts");
        "v4 c.send".parse::<Life>().expect_err("no number");
    }

    #[test]
    fn simpler_lives_are_shorter_or_of_another_kind() {
        let life: Life = "v6 c.connect s.accept c.close& s.close".parse().expect("a script");
        let simpler = life.simpler();
        assert!(simpler.iter().all(|other| *other != life));
        assert!(simpler.iter().any(|other| other.to_string() == "v6 c.connect s.accept"));
        assert!(simpler.iter().any(|other| other.family == Family::V4));
    }
}
