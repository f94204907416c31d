//! What was compared, in lines that are always the same: what they say is how much there is of what can run out or fail.

use super::budgets;
use super::evidence::{Descriptors, Evidence, Listener, Pair};
use super::need::Need;
use super::say;
use super::settings::defaults;
use crate::model::tcp::{End, Side, State};

/// A mini-socket of the kernel, as its slab has it (`tw_sock_TCP`).
const MINI_BYTES: u64 = 256;
/// How many settings are named.
const NAMED: usize = 4;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// What it is about.
    pub name: &'static str,
    /// The figures, or why there are none.
    pub text: String,
}

/// The figures of a line, or why there are none.
type Figures = fn(&Evidence) -> Result<String, String>;

/// What was compared. The lines are always these, in this order.
pub fn compared(evidence: &Evidence) -> Vec<Compared> {
    let lines: [(&str, Figures); 8] = [
        ("TIME_WAIT", time_wait),
        ("ports", ports),
        ("CLOSE_WAIT", close_wait),
        ("descriptors", descriptors),
        ("accept queue", accept_queue),
        ("failures", failures),
        ("counters", counters),
        ("settings", settings),
    ];
    let line = |(name, text): (&'static str, Figures)| {
        let text = text(evidence).unwrap_or_else(|reason| format!("unknown: {reason}"));
        Compared { name, text }
    };
    lines.into_iter().map(line).collect()
}

fn expect(evidence: &Evidence, need: Need) -> Result<(), String> {
    evidence.lacks(need).map_or(Ok(()), Err)
}

fn time_wait(evidence: &Evidence) -> Result<String, String> {
    const LIMIT: &str = "net.ipv4.tcp_max_tw_buckets";
    expect(evidence, Need::Sockets)?;
    let all = || evidence.sockets.iter().filter(|socket| socket.state == State::TimeWait);
    let count = all().count() as u64;
    let places = &evidence.about.namespaces;
    let limit = places.iter().filter_map(|netns| evidence.number(Some(*netns), LIMIT)).min();
    let limit = limit.and_then(|limit| u64::try_from(limit).ok());
    let each = if places.len() > 1 { " in each namespace" } else { "" };
    let limit = limit.map_or(String::new(), |limit| format!(", {} allowed{each}", say::count(limit)));
    if count == 0 {
        return Ok(format!("0{limit}"));
    }
    let of = |side| all().filter(|socket| socket.side == side).count() as u64;
    let (servers, clients) = (of(Side::Server), of(Side::Client));
    let memory = say::bytes(count * MINI_BYTES);
    let sides = format!("{} on listening ports, {} on client ports", say::count(servers), say::count(clients));
    Ok(format!("{} ({memory} of memory){limit}; {sides}; end after 61s by themselves", say::count(count)))
}

fn ports(evidence: &Evidence) -> Result<String, String> {
    expect(evidence, Need::Sockets)?;
    expect(evidence, Need::Settings)?;
    let Some(budget) = budgets::fullest(evidence) else { return Ok("no destination takes a local port".into()) };
    let owners = &budget.owners;
    let ends = budget.key.ends();
    let who = match owners.known.first() {
        Some((task, _)) if owners.known.len() == 1 && owners.unknown == 0 => say::process(*task),
        _ => ends.local().ip().to_string(),
    };
    let level = match budget.forecast {
        None => String::new(),
        Some(forecast) => match forecast.levels_off_at {
            Some(share) => format!(", levels off at {}", say::percent(share)),
            None => ", and the rate takes all of them".into(),
        },
    };
    let at_most = if budget.usable_at_most { "≤" } else { "" };
    Ok(format!(
        "fullest: {who} → {} takes {} of {at_most}{} ({}){level}",
        ends.remote(),
        say::count(budget.taken),
        say::count(budget.usable),
        say::percent(budget.share)
    ))
}

fn close_wait(evidence: &Evidence) -> Result<String, String> {
    expect(evidence, Need::Sockets)?;
    let all = || evidence.sockets.iter().filter(|socket| socket.state == State::CloseWait);
    let oldest = all().max_by_key(|socket| socket.age_ns()).filter(|socket| socket.age_ns() > 0);
    let oldest = oldest.map_or(String::new(), |socket| format!(", oldest {}", socket.age));
    Ok(format!("{}{oldest}", say::count(all().count())))
}

fn descriptors(evidence: &Evidence) -> Result<String, String> {
    expect(evidence, Need::Limits)?;
    let used = |it: &Descriptors| Some((it.last.1.descriptors?, it.last.1.soft?));
    let share = |(open, limit): (u64, u64)| open as f64 / limit.max(1) as f64;
    let known = evidence.limits.iter().filter_map(|it| Some((it, used(it)?)));
    let fullest = known.max_by(|(_, one), (_, other)| share(*one).total_cmp(&share(*other)));
    let (it, (open, limit)) = fullest.ok_or("no process with a limit has sockets")?;
    let who = it.task.map_or_else(|| format!("process {}", it.pid), say::process);
    let share = say::percent(share((open, limit)));
    Ok(format!("fullest: {who} {} of {} ({share})", say::count(open), say::count(limit)))
}

fn accept_queue(evidence: &Evidence) -> Result<String, String> {
    expect(evidence, Need::AcceptQueues)?;
    let overflows = match evidence.lacks(Need::Counters) {
        Some(_) => "overflows unknown".to_owned(),
        None => say::counted(grown(evidence, &["TcpExt.ListenOverflows"]), "overflow"),
    };
    let share = |it: &Listener| f64::from(it.most_queued) / f64::from(it.queue.limit.max(1));
    let fullest = evidence.listeners.iter().max_by(|one, other| share(one).total_cmp(&share(other)));
    let Some(fullest) = fullest else { return Ok(format!("no listener; {overflows}")) };
    let (end, who) = (say::end(fullest.queue.ip, fullest.queue.port), fullest.task.map(say::process));
    let who = who.map_or(String::new(), |who| format!(" ({who})"));
    let (most, limit) = (fullest.most_queued, fullest.queue.limit);
    Ok(format!("fullest: {end}{who} {} of {}; {overflows}", say::count(most), say::count(limit)))
}

fn failures(evidence: &Evidence) -> Result<String, String> {
    expect(evidence, Need::Events)?;
    let sum = |of: &dyn Fn(&Pair) -> u64| evidence.pairs.iter().map(of).sum::<u64>();
    let by = |end: End| sum(&|pair| pair.ended_by(end));
    let timed_out = by(End::ConnectTimeout) + by(End::RetransmitTimeout) + by(End::KeepaliveTimeout);
    let resets = sum(&|pair| {
        let resets = pair.ends.iter().filter(|(end, ..)| end.is_reset());
        resets.map(|(_, _, ended)| ended.count).sum()
    });
    let share = if evidence.about.ended == 0 { 0.0 } else { resets as f64 / evidence.about.ended as f64 };
    let share = if resets == 0 { String::new() } else { format!(" ({})", say::percent(share)) };
    let at_least = if evidence.about.lost > 0 { "≥" } else { "" };
    let refused = say::count(by(End::Refused));
    let (timed_out, portless) = (say::count(timed_out + by(End::UserTimeout)), say::count(by(End::NoLocalPort)));
    let resets = say::counted(resets, "reset");
    Ok(format!(
        "{at_least}{refused} refused, {at_least}{timed_out} timed out, {at_least}{portless} without a port, \
         {at_least}{resets}{share}"
    ))
}

fn counters(evidence: &Evidence) -> Result<String, String> {
    expect(evidence, Need::Counters)?;
    let of = |names: &[&str]| say::count(grown(evidence, names));
    let paws = of(&["TcpExt.PAWSActive", "TcpExt.PAWSEstab", "TcpExt.PAWSOldAck", "TcpExt.PAWSTimewait"]);
    let cookies = of(&["TcpExt.SyncookiesSent"]);
    let (memory, timeout) = (of(&["TcpExt.TCPAbortOnMemory"]), of(&["TcpExt.TCPAbortOnTimeout"]));
    Ok(format!("PAWS {paws}, SYN cookies {cookies}, aborts by memory {memory}, by timeout {timeout}"))
}

/// By how much counters have grown, in all network namespaces together.
fn grown(evidence: &Evidence, names: &[&str]) -> u64 {
    let places = evidence.counters.keys();
    places.flat_map(|netns| names.iter().map(|name| evidence.grown(*netns, name))).sum()
}

fn settings(evidence: &Evidence) -> Result<String, String> {
    expect(evidence, Need::Settings)?;
    let mut changed: Vec<String> = Vec::new();
    for settings in evidence.settings.values() {
        for (name, default) in defaults() {
            let value = settings.values.get(name).filter(|value| value.as_ref() != default);
            let text = value.map(|value| format!("{name} {value}"));
            changed.extend(text.filter(|text| !changed.contains(text)));
        }
    }
    if changed.is_empty() {
        return Ok("all at their known defaults".into());
    }
    let more = changed.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    changed.truncate(NAMED);
    Ok(format!("changed: {}{more}", changed.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::Gatherer;
    use super::super::rules::testing::{NETNS, S, nothing, pair_ended, standing, with_settings};
    use super::*;
    use crate::model::facts::{AcceptQueue, Limit};
    use crate::model::tcp::{Comm, Task};
    use crate::study::diagnose::evidence::{Budgets, Counted};

    fn text(evidence: &Evidence) -> String {
        compared(evidence).iter().map(|line| format!("{:<12} {}\n", line.name, line.text)).collect()
    }

    fn nginx() -> Task {
        Task { pid: 812, tid: 812, comm: Comm::from("nginx") }
    }

    #[test]
    fn every_line_has_its_figures() {
        let mut evidence = with_settings(&[
            ("net.ipv4.tcp_max_tw_buckets", "131072"),
            ("net.core.somaxconn", "65535"),
            ("net.ipv4.ip_local_port_range", "32768 60999"),
        ]);
        evidence.sockets = (1..=8).map(|conn| standing(conn, State::TimeWait, 3)).collect();
        evidence.sockets[0].side = Side::Server;
        evidence.sockets.push(standing(9, State::CloseWait, 2));
        let limit = Limit { pid: 812, descriptors: Some(1_310), soft: Some(65_536), hard: None };
        evidence.limits.push(Descriptors { pid: 812, task: Some(nginx()), first: (0, limit), last: (S, limit) });
        let ip = std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
        let queue = AcceptQueue { conn: 1, ip, port: 443, queued: 1, limit: 511, requests: None, autobound: None };
        evidence.listeners.push(Listener {
            netns: Some(NETNS),
            queue,
            task: Some(nginx()),
            most_queued: 3,
            waiting_since: None,
            accepted: 0,
            accepted_at: None,
            is_old: true,
            most_requests: 0,
        });
        evidence.pairs = vec![pair_ended(End::ResetReceived, 4), pair_ended(End::Fin, 316)];
        evidence.about.ended = 320;
        let counted = Counted { grown: [("TcpExt.PAWSEstab".into(), 2)].into(), ..Counted::default() };
        evidence.counters.insert(NETNS, counted);
        evidence.budgets = Budgets::of(&evidence);
        insta::assert_snapshot!(text(&evidence), @r"
        TIME_WAIT    8 (2.0 KiB of memory), 131,072 allowed; 1 on listening ports, 7 on client ports; end after 61s by themselves
        ports        fullest: api[4711] → 10.0.0.9:6379 takes 8 of ≤28,231 (0.0 %)
        CLOSE_WAIT   1, oldest ≥2.00s
        descriptors  fullest: nginx[812] 1,310 of 65,536 (2.0 %)
        accept queue fullest: 0.0.0.0:443 (nginx[812]) 3 of 511; 0 overflows
        failures     0 refused, 0 timed out, 0 without a port, 4 resets (1.2 %)
        counters     PAWS 2, SYN cookies 0, aborts by memory 0, by timeout 0
        settings     changed: net.core.somaxconn 65535
        ");
    }

    /// Nothing is called healthy that nobody has looked at.
    #[test]
    fn what_is_missing_says_why() {
        let evidence = Gatherer::new(false).finish([], false);
        insta::assert_snapshot!(text(&evidence), @r"
        TIME_WAIT    unknown: sockets could not be listed
        ports        unknown: sockets could not be listed
        CLOSE_WAIT   unknown: sockets could not be listed
        descriptors  unknown: the limits of no process could be read (root reads those of other users)
        accept queue unknown: listeners could not be listed
        failures     unknown: needs time (--duration 10s)
        counters     unknown: counters could not be read
        settings     unknown: settings could not be read
        ");
    }

    #[test]
    fn lost_events_make_lower_bounds() {
        let mut evidence = nothing();
        evidence.about.lost = 3;
        assert_eq!(failures(&evidence).as_deref(), Ok("≥0 refused, ≥0 timed out, ≥0 without a port, ≥0 resets"));
    }
}
