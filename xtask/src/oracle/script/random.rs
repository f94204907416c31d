//! Random lives.

use super::{Action, Family, Life, Place, Step, Who};
use crate::attack::random::Random;

/// True with this probability.
fn chance(random: &mut Random, percent: usize) -> bool {
    random.below(100) < percent
}

fn pick<T: Copy>(random: &mut Random, things: &[T], otherwise: T) -> T {
    random.of(things).copied().unwrap_or(otherwise)
}

impl Life {
    /// A random life.
    pub(in super::super) fn random(random: &mut Random) -> Self {
        let family = pick(random, &[Family::V4, Family::V4, Family::V6, Family::Mapped], Family::V4);
        let place = match random.below(100) {
            0..=54 => Place::Loopback,
            55..=76 => Place::Veth,
            _ => Place::Relay,
        };
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
        if place == Place::Relay && chance(random, 70) {
            hold(random, &mut steps);
        }
        if chance(random, 5) {
            steps.insert(0, random_step(random, Who::Server, Action::Share));
        }
        let first = pick(random, &[Who::Client, Who::Server], Who::Client);
        for who in [first, first.peer()] {
            if chance(random, 80) {
                steps.push(random_step(random, who, Action::Close));
            }
        }
        Self { family, place, steps }
    }
}

/// Closes, and connects again between the same addresses.
fn again(random: &mut Random, steps: &mut Vec<Step>) {
    let first = pick(random, &[Who::Client, Who::Server], Who::Client);
    steps.push(random_step(random, first, Action::Close));
    steps.push(random_step(random, first.peer(), Action::Close));
    steps.push(random_step(random, Who::Client, Action::Reconnect));
    steps.push(random_step(random, Who::Server, Action::Accept));
    steps.push(random_step(random, Who::Client, Action::Send(10)));
}

/// Receives nothing for longer than keepalive waits.
fn fall_silent(random: &mut Random, steps: &mut Vec<Step>) {
    let who = pick(random, &[Who::Client, Who::Server], Who::Client);
    steps.push(random_step(random, who, Action::Keepalive));
    steps.push(random_step(random, who, Action::Drop(15)));
    steps.push(Step { wait_ms: 2_700, ..random_step(random, who, Action::Receive(1)) });
}

/// Drops some segments, for a while or to the end.
fn interfere(random: &mut Random, steps: &mut Vec<Step>) {
    let who = pick(random, &[Who::Client, Who::Server], Who::Client);
    let kinds = pick(random, &[1, 1, 2, 4, 8, 9, 15], 1);
    let from = random.below(steps.len() + 1);
    let rule = pick(random, &[Action::Drop, Action::Drop, Action::Reject, Action::Unreach], Action::Drop);
    steps.insert(from, random_step(random, who, rule(kinds)));
    if chance(random, 50) {
        let to = from + 1 + random.below(steps.len() - from);
        steps.insert(to, random_step(random, who, Action::Undrop));
    }
}

/// Delays some segments, for a while or to the end.
fn hold(random: &mut Random, steps: &mut Vec<Step>) {
    let who = pick(random, &[Who::Client, Who::Server], Who::Client);
    let kinds = pick(random, &[1, 1, 4, 8, 9, 12, 15], 1);
    let ms = pick(random, &[5, 30, 100, 300, 600], 30);
    let from = random.below(steps.len() + 1);
    steps.insert(from, random_step(random, who, Action::Hold { kinds, ms }));
    if chance(random, 40) {
        let to = from + 1 + random.below(steps.len() - from);
        steps.insert(to, random_step(random, who, Action::Hold { kinds: 15, ms: 0 }));
    }
}

fn random_step(random: &mut Random, who: Who, action: Action) -> Step {
    let wait_ms = match random.below(10) {
        0..=3 => 0,
        4..=7 => random.below(30),
        8 => random.below(150),
        _ => random.below(600),
    };
    // Every acceptor needs a connection to accept.
    let awaited =
        matches!(action, Action::Connect | Action::Accept | Action::Reconnect | Action::FastOpen(_) | Action::Drop(_))
            || matches!(action, Action::Reject(_) | Action::Unreach(_) | Action::Share | Action::Hold { .. })
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
        84..=86 => Action::Fork,
        87 => Action::Exec,
        88..=90 => Action::Pass,
        91..=92 => Action::Disconnect,
        93..=95 => Action::Unlisten,
        96 => Action::Exit,
        97..=98 => Action::Kill,
        _ => Action::Destroy,
    }
}
