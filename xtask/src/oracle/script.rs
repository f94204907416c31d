//! Scripts of lives: what the two ends of a connection do, as one line that can be printed and run again.
//!
//! `v4 c.connect s.accept c.send=100 s.close@20 c.close&`: the client connects, the server accepts, …; `@20` waits so many
//! ms before, and nobody waits for a step with `&`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};

use crate::attack::random::Random;

/// One life.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Life {
    pub(super) family: Family,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Family {
    V4,
    V6,
    /// Both ends are IPv6 sockets with IPv4-mapped addresses.
    Mapped,
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
    /// How long the actor waits before.
    pub(super) wait_ms: u32,
    /// Whether later steps of the peer wait for it.
    pub(super) awaited: bool,
}

/// What an actor does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    /// Makes a socket, and connects.
    Connect,
    /// Makes a socket, binds it to the local address of the one before, and connects.
    Reconnect,
    Accept,
    Send(u32),
    /// Receives so many bytes, fewer if they do not come.
    Receive(u32),
    /// Receives until the peer's FIN.
    ReceiveEnd,
    ShutWrite,
    ShutRead,
    ShutBoth,
    Close,
    Linger(u32),
    /// `TCP_LINGER2`, in seconds; 0 is -1: none.
    Linger2(u32),
    /// `TCP_USER_TIMEOUT`, in ms.
    UserTimeout(u32),
    /// Keepalive with one probe, after a second.
    Keepalive,
    /// Duplicates the descriptor, so that the next close is none.
    Duplicate,
    /// A child goes on, and its parent exits.
    Fork,
    /// Another process gets the descriptor through a Unix socket and goes on.
    Pass,
    /// `connect(AF_UNSPEC)`.
    Disconnect,
    /// Closes the listener.
    Unlisten,
    Exit,
    Kill,
    /// Has `ss -K` destroy its socket, or what is left of it.
    Destroy,
    /// Makes a socket, and connects with a SYN that brings data.
    FastOpen(u32),
    /// Drops segments that come to it: 1 with FIN, 2 with SYN, 4 with RST, 8 all others, or several of them.
    Drop(u32),
    /// Drops them no more.
    Undrop,
}

impl Action {
    fn parts(self) -> (&'static str, Option<u32>) {
        match self {
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
            "undrop" => Self::Undrop,
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
        let number = number.map(str::parse).transpose().with_context(|| format!("no number in `{word}`"))?;
        let wait_ms = wait.parse().with_context(|| format!("no time in `{word}`"))?;
        Ok(Self { who, action: Action::parse(name, number)?, wait_ms, awaited })
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.family {
            Family::V4 => "v4",
            Family::V6 => "v6",
            Family::Mapped => "mapped",
        })?;
        self.steps.iter().try_for_each(|step| write!(f, " {step}"))
    }
}

impl FromStr for Life {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let family = match words.next() {
            Some("v4") => Family::V4,
            Some("v6") => Family::V6,
            Some("mapped") => Family::Mapped,
            _ => bail!("`{line}` does not begin with v4, v6 or mapped"),
        };
        Ok(Self { family, steps: words.map(str::parse).collect::<Result<_>>()? })
    }
}

/// Whether something happens that is this likely.
fn chance(random: &mut Random, percent: usize) -> bool {
    random.below(100) < percent
}

fn pick<T: Copy>(random: &mut Random, things: &[T], otherwise: T) -> T {
    random.of(things).copied().unwrap_or(otherwise)
}

impl Life {
    /// A random one.
    pub(super) fn random(random: &mut Random) -> Self {
        let family = pick(random, &[Family::V4, Family::V4, Family::V6, Family::Mapped], Family::V4);
        let first = if chance(random, 6) { Action::FastOpen(100) } else { Action::Connect };
        let mut steps = vec![random_step(random, Who::Client, first)];
        let mut accepts = !chance(random, 8);
        if accepts && chance(random, 70) {
            steps.push(random_step(random, Who::Server, Action::Accept));
            accepts = false;
        }
        for _ in 0..random.below(9) {
            let who = pick(random, &[Who::Client, Who::Server], Who::Client);
            let action = random_action(random);
            if accepts && chance(random, 40) {
                steps.push(random_step(random, Who::Server, Action::Accept));
                accepts = false;
            }
            let action = if action == Action::Unlisten && who == Who::Client { Action::ShutWrite } else { action };
            steps.push(random_step(random, who, action));
        }
        if chance(random, 12) {
            again(random, &mut steps);
        }
        if chance(random, 2) {
            fall_silent(random, &mut steps);
        }
        if chance(random, 15) {
            interfere(random, &mut steps);
        }
        let first = pick(random, &[Who::Client, Who::Server], Who::Client);
        for who in [first, first.peer()] {
            if chance(random, 80) {
                steps.push(random_step(random, who, Action::Close));
            }
        }
        Self { family, steps }
    }

    /// The same life with less in it, most promising first.
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

/// Closes, and connects once more between the same addresses.
fn again(random: &mut Random, steps: &mut Vec<Step>) {
    let first = pick(random, &[Who::Client, Who::Server], Who::Client);
    steps.push(random_step(random, first, Action::Close));
    steps.push(random_step(random, first.peer(), Action::Close));
    steps.push(random_step(random, Who::Client, Action::Reconnect));
    steps.push(random_step(random, Who::Server, Action::Accept));
    steps.push(random_step(random, Who::Client, Action::Send(10)));
}

/// Hears nothing for longer than keepalive waits.
fn fall_silent(random: &mut Random, steps: &mut Vec<Step>) {
    let who = pick(random, &[Who::Client, Who::Server], Who::Client);
    steps.push(random_step(random, who, Action::Keepalive));
    steps.push(random_step(random, who, Action::Drop(15)));
    steps.push(Step { wait_ms: 2_700, ..random_step(random, who, Action::Receive(1)) });
}

/// Has some segments dropped, for some time or to the end.
fn interfere(random: &mut Random, steps: &mut Vec<Step>) {
    let who = pick(random, &[Who::Client, Who::Server], Who::Client);
    let kinds = pick(random, &[1, 1, 2, 4, 8, 9, 15], 1);
    let from = random.below(steps.len() + 1);
    steps.insert(from, random_step(random, who, Action::Drop(kinds)));
    if chance(random, 50) {
        let to = from + 1 + random.below(steps.len() - from);
        steps.insert(to, random_step(random, who, Action::Undrop));
    }
}

fn random_step(random: &mut Random, who: Who, action: Action) -> Step {
    let wait_ms = match random.below(10) {
        0..=3 => 0,
        4..=7 => random.below(30),
        8 => random.below(150),
        _ => random.below(600),
    };
    // Whoever accepts has to have something to accept.
    let awaited =
        matches!(action, Action::Connect | Action::Accept | Action::Reconnect | Action::FastOpen(_) | Action::Drop(_))
            || chance(random, 75);
    Step { who, action, wait_ms: u32::try_from(wait_ms).unwrap_or(0), awaited }
}

fn random_action(random: &mut Random) -> Action {
    let bytes = pick(random, &[1, 100, 1_000, 20_000, 60_000], 1);
    match random.below(100) {
        0..=24 => Action::Send(bytes),
        25..=44 => Action::Receive(bytes),
        45..=49 => Action::ReceiveEnd,
        50..=57 => Action::ShutWrite,
        58..=60 => Action::ShutRead,
        61..=64 => Action::ShutBoth,
        65..=70 => Action::Close,
        71..=76 => Action::Linger(pick(random, &[0, 0, 1], 0)),
        77..=78 => Action::Linger2(pick(random, &[0, 1, 3], 1)),
        79 => Action::UserTimeout(700),
        80..=83 => Action::Duplicate,
        84..=87 => Action::Fork,
        88..=90 => Action::Pass,
        91..=92 => Action::Disconnect,
        93..=95 => Action::Unlisten,
        96 => Action::Exit,
        97..=98 => Action::Kill,
        _ => Action::Destroy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
