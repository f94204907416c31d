//! A round: lives in several network namespaces at once, with one tcptrace and the witnesses.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::actor::{PORT, canonical, server_address};
use super::compare::{self, Compared, Finding, Kind};
use super::conversation::Conversation;
use super::destroyed::{Destroyed, Listener};
use super::log::Call;
use super::packets::Capture;
use super::relay::Relay;
use super::row::{self, Row};
use super::script::{Life, Who};
use super::snapshot::{Looker, Looks};
use super::truth::{self, Expected};
use super::{conversation, log};
use crate::attack::process::Process;
use crate::attack::words;
use crate::hidden::{self, Hidden};
use crate::stress::load::Load;

/// Lives in one network namespace.
pub(super) const GROUP: usize = 500;
/// How long the last life may take after its actors have ended: an orphan's time, and a margin.
const SETTLE: Duration = Duration::from_secs(7);
/// Long enough for every TIME_WAIT to expire.
const TIME_WAIT: Duration = Duration::from_secs(63);
/// How long network namespaces may take to be destroyed: the kernel destroys them one by one, other programs' among
/// them.
const CLEANUP: Duration = Duration::from_secs(120);
/// How long to wait for rows that may be missing because the kernel hid events.
const QUIET: Duration = Duration::from_secs(5);

/// Accuracy of clock readings, in ns.
const CLOCKS: u64 = 20_000;

/// The parameters of a round.
pub(super) struct Ground<'a> {
    pub(super) tcptrace: &'a Path,
    /// A folder for this round alone.
    pub(super) folder: &'a Path,
    /// File to which everything known about failed lives is appended.
    pub(super) evidence: &'a Path,
    /// Time in which all lives begin.
    pub(super) spread: Duration,
    /// Whether the first network namespace stays until every TIME_WAIT has expired.
    pub(super) expire: bool,
}

/// The result of a round.
pub(super) struct Outcome {
    /// By life.
    pub(super) compared: Vec<Compared>,
    /// Complaints about the whole round.
    pub(super) complaints: Vec<String>,
    /// Packets that the witness missed.
    pub(super) unseen: u32,
    pub(super) packets: usize,
    /// Number of sockets that were compared in snapshots.
    pub(super) looked_at: u64,
    /// Rows that could not be compared, by reason.
    pub(super) left_out: BTreeMap<&'static str, u64>,
}

/// A network namespace with its witnesses.
struct Namespace {
    netns: u64,
    path: PathBuf,
    watchers: Option<(Capture, Listener)>,
}

/// A group of lives in two network namespaces.
struct Group<'a> {
    lives: &'a [Life],
    load: Load,
    log: PathBuf,
    /// The namespaces of servers and of clients.
    namespaces: [Namespace; 2],
    relay: Option<Relay>,
    destroyed: Destroyed,
    packets: Vec<super::packets::Packet>,
    unseen: u32,
    gone: truth::Range,
    /// The kernel's counts of connections opened and accepted.
    opens: [u64; 2],
}

/// Makes the lives, and compares the rows.
pub(super) fn run(ground: &Ground, lives: &[Life]) -> Result<Outcome> {
    if ground.folder.exists() {
        fs::remove_dir_all(ground.folder).context("cannot remove the folder of an earlier run")?;
    }
    fs::create_dir_all(ground.folder).context("cannot create a folder")?;
    let mut groups: Vec<Group> = lives
        .chunks(GROUP)
        .enumerate()
        .map(|(number, lives)| Group::prepare(ground, number, lives))
        .collect::<Result<_>>()?;
    let tcptrace = start(ground, &groups)?;
    groups.iter_mut().try_for_each(Group::watch)?;
    let hidden = Hidden::count(&[hidden::TRANSITIONS, hidden::ENDS], &[]);
    for group in &mut groups {
        group.load.begin()?;
    }
    let first = usize::from(ground.expire);
    let rows = ground.folder.join("rows");
    // Groups whose network namespaces stay, with a process in them all the time.
    let staying = &groups[..groups.len() - usize::from(groups.len() > 1)];
    let namespaces = staying.iter().map(|group| &group.namespaces[0]).map(|it| (it.path.clone(), it.netns)).collect();
    let looker = Looker::start(ground.tcptrace, namespaces);
    // The last group's namespaces are destroyed while orphans live.
    if let [_, .., last] = &mut groups[..] {
        last.load.wait()?;
        last.settle()?;
        last.end()?;
    }
    for group in groups.iter_mut().filter(|group| group.gone == (0, 0)) {
        group.load.wait()?;
    }
    sleep(SETTLE);
    let looks = looker.stop()?;
    groups.iter_mut().try_for_each(Group::settle)?;
    let since = Instant::now();
    groups.iter_mut().skip(first).try_for_each(Group::end)?;
    if ground.expire {
        sleep(TIME_WAIT.saturating_sub(since.elapsed()));
        groups[0].end()?;
    }
    wait_for_rows(&groups, &rows, hidden.as_ref())?;
    groups.iter_mut().for_each(|group| group.gone.1 = log::now());
    let ended = tcptrace.end(Signal::SIGINT)?;
    let hidden = hidden.map(|hidden| hidden.sockets()).unwrap_or_default();
    let mut complaints = Vec::new();
    // A reported loss shows as incomplete rows.
    let is_loss = ended.status == 3 && ended.figures().is_ok_and(|figures| figures.lost > 0);
    if ended.status != 0 && !is_loss {
        complaints.push(format!("tcptrace ended with {}: {}", ended.status, words::tail(&ended.said)));
    }
    let (live, lines) = (row::read(&rows)?, fs::read_to_string(&rows).context("cannot read the rows")?);
    complaints.extend(replay(ground, &lines)?);
    let evidence = OpenOptions::new().create(true).append(true).open(ground.evidence);
    let mut evidence = evidence.context("cannot open the file for evidence")?;
    let mut compared = Vec::new();
    let mut left_out = BTreeMap::new();
    let is_theirs = |row: &&Row| groups.iter().any(|group| group.has(row.netns));
    let mut strange: Vec<&Row> = live.values().flatten().filter(|row| !is_theirs(row)).collect();
    for group in &groups {
        for row in group.rows(&live) {
            match group.beside(row) {
                Beside::Life(_) => {}
                Beside::Nothing(why) => *left_out.entry(why).or_default() += 1,
                Beside::Unknown => strange.push(row),
            }
        }
        compared.extend(group.compare(&live, &looks, &hidden, &mut evidence)?);
    }
    if let Some(row) = strange.first() {
        complaints.push(format!("{} rows belong to no life, such as {}", strange.len(), row.value));
    }
    excuse(&mut compared, ended.figures().map_or(0, |figures| figures.lost));
    complaints.extend(groups.iter().filter_map(Group::counters));
    Ok(Outcome {
        compared,
        complaints,
        unseen: groups.iter().map(|group| group.unseen).sum(),
        packets: groups.iter().map(|group| group.packets.len()).sum(),
        looked_at: looks.sockets,
        left_out,
    })
}

fn start(ground: &Ground, groups: &[Group]) -> Result<Process> {
    let mut command = Command::new(ground.tcptrace);
    command.args(["connections", "--format", "json", "--no-existing", "--record"]);
    command.arg(ground.folder.join("trace")).stdin(Stdio::null());
    for group in groups {
        for namespace in &group.namespaces {
            command.arg("--netns").arg(namespace.netns.to_string());
        }
    }
    command.stdout(File::create(ground.folder.join("rows")).context("cannot create a file for the rows")?);
    Process::ready(&mut command, &ground.folder.join("said"))
}

/// A connection has no row if its end is among the events that tcptrace reports as lost.
fn excuse(compared: &mut [Compared], mut lost: u64) {
    let is_missing = |finding: &&mut Finding| finding.kind == Kind::Wrong && finding.what.ends_with(" missing");
    for finding in compared.iter_mut().flat_map(|life| &mut life.findings).filter(is_missing) {
        if lost == 0 {
            return;
        }
        lost -= 1;
        finding.kind = Kind::Unknown;
        finding.what += ", with a loss that is reported";
    }
}

/// Checks that the trace recorded at the same time replays to the same rows.
fn replay(ground: &Ground, live: &str) -> Result<Option<String>> {
    let output = Command::new(ground.tcptrace)
        .args(["replay", "--rows", "connections", "--format", "json"])
        .arg(ground.folder.join("trace"))
        .stdin(Stdio::null())
        .output()
        .context("cannot replay the trace")?;
    let replayed = String::from_utf8_lossy(&output.stdout);
    let sorted = |text: &str| {
        let mut rows: Vec<String> =
            text.lines().filter(|line| line.contains(r#""event":"connection""#)).map(str::to_owned).collect();
        rows.sort();
        rows
    };
    let (live, replayed) = (sorted(live), sorted(&replayed));
    let other = |ours: &[String], theirs: &[String]| {
        ours.iter().filter(|row| theirs.binary_search(row).is_err()).map(String::clone).collect::<Vec<_>>()
    };
    let (only_live, only_replayed) = (other(&live, &replayed), other(&replayed, &live));
    if live.len() == replayed.len() && only_live.is_empty() && only_replayed.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "{} rows live, {} replayed ({}); {} differ: {} / {}",
        live.len(),
        replayed.len(),
        output.status,
        only_live.len().max(only_replayed.len()),
        only_live.first().map_or("-", String::as_str),
        only_replayed.first().map_or("-", String::as_str),
    )))
}

/// Waits until all expected rows are there, or until no more come and hidden events explain the missing ones.
fn wait_for_rows(groups: &[Group], rows: &Path, hidden: Option<&Hidden>) -> Result<()> {
    let expected: usize = groups.iter().map(Group::rows_at_least).sum();
    let of_life = format!(":{PORT}\"");
    let begun = Instant::now();
    let mut before = 0;
    let mut changed = Instant::now();
    while begun.elapsed() < CLEANUP {
        let text = fs::read(rows).context("cannot read the rows")?;
        // Other programs use other ports.
        let count = String::from_utf8_lossy(&text).lines().filter(|line| line.contains(&of_life)).count();
        if count != before {
            (before, changed) = (count, Instant::now());
        }
        let quiet = changed.elapsed();
        let missing = expected.saturating_sub(count) as u64;
        let is_explained = || quiet > QUIET && missing <= hidden.map_or(0, Hidden::so_far);
        if missing == 0 && quiet > Duration::from_secs(1) || is_explained() {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Everything known about a life: the actors' calls, the packets, and the expected outcome.
struct Witnessed {
    calls: Vec<Call>,
    conversations: Vec<Conversation>,
    expected: Vec<Expected>,
}

/// The truth that a row is compared with.
enum Beside {
    Life(usize),
    /// The witnesses cannot know anything, for this reason.
    Nothing(&'static str),
    Unknown,
}

impl<'a> Group<'a> {
    fn prepare(ground: &Ground, number: usize, lives: &'a [Life]) -> Result<Self> {
        let scripts = ground.folder.join(format!("scripts-{number}"));
        let log = ground.folder.join(format!("log-{number}"));
        let lines: String = lives.iter().map(|life| format!("{life}\n")).collect();
        fs::write(&scripts, lines).context("cannot write the scripts")?;
        let count = f64::from(u32::try_from(lives.len())?);
        let rate = (count / ground.spread.as_secs_f64()).max(1.0);
        let argument = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let arguments = [argument("scripts", &scripts), argument("log", &log), format!("--rate={rate}")];
        let load = Load::start_as("oracle-play", &arguments)?;
        let clients = &load.said["clients"];
        let [of_clients, fd] = [&clients["netns"], &clients["fd"]].map(|value| value.as_u64().unwrap_or(0));
        let process = PathBuf::from(format!("/proc/{}", load.pid()));
        let namespaces = [(load.netns, process.join("ns/net")), (of_clients, process.join(format!("fd/{fd}")))]
            .map(|(netns, path)| Namespace { netns, path, watchers: None });
        Ok(Self {
            lives,
            load,
            log,
            namespaces,
            relay: None,
            destroyed: Destroyed::new(),
            packets: Vec::new(),
            unseen: 0,
            gone: (0, 0),
            opens: [0; 2],
        })
    }

    /// Starts witnesses, and the relay, in the network namespaces.
    fn watch(&mut self) -> Result<()> {
        let [servers, clients] = self.namespaces.each_ref().map(|namespace| namespace.path.clone());
        let orders = self.load.said["orders"].as_u64().context("the load has no pipe for orders")?;
        let orders = PathBuf::from(format!("/proc/{}/fd/{orders}", self.load.pid()));
        self.relay = Some(Relay::start(servers, clients, orders)?);
        for namespace in &mut self.namespaces {
            let capture = Capture::start(namespace.path.clone())?;
            namespace.watchers = Some((capture, Listener::start(namespace.path.clone())?));
        }
        Ok(())
    }

    /// Waits until all lives are over, except what the kernel does later. Does nothing the second time.
    fn settle(&mut self) -> Result<()> {
        let Some(relay) = self.relay.take() else { return Ok(()) };
        for namespace in &mut self.namespaces {
            let (capture, listener) = namespace.watchers.take().context("nobody watches")?;
            let seen = capture.stop()?;
            self.packets.extend(seen.packets);
            self.unseen += seen.dropped;
            self.opens.iter_mut().zip(seen.opens).for_each(|(opens, more)| *opens += more);
            self.destroyed.extend(listener.stop()?);
        }
        // A segment that leaves one namespace arrives later in the other, even if their clocks are read at different
        // times.
        self.packets.sort_by_key(|packet| packet.at + if packet.is_outgoing { 0 } else { CLOCKS });
        relay.stop()
    }

    /// Ends the network namespaces. Does nothing the second time.
    fn end(&mut self) -> Result<()> {
        if self.gone != (0, 0) {
            return Ok(());
        }
        let begun = log::now();
        self.load.end()?;
        self.gone = (begun, u64::MAX);
        Ok(())
    }

    /// A witness of the client's side and one of the server's side.
    fn rows_at_least(&self) -> usize {
        usize::try_from(self.opens[0] + self.opens[1]).unwrap_or(0)
    }

    fn has(&self, netns: u64) -> bool {
        self.namespaces.iter().any(|namespace| namespace.netns == netns)
    }

    /// The rows of its network namespaces.
    fn rows<'rows>(&self, rows: &'rows HashMap<u64, Vec<Row>>) -> impl Iterator<Item = &'rows Row> {
        let of = self.namespaces.each_ref().map(|namespace| rows.get(&namespace.netns));
        of.into_iter().flatten().flatten()
    }

    fn beside(&self, row: &Row) -> Beside {
        let life = row.life().filter(|life| *life < self.lives.len());
        match life {
            // Another network namespace may reuse its number.
            Some(_) if row.begun > self.gone.0 => {
                Beside::Nothing("a connection of a life, begun after its network namespace was ended")
            }
            None if row.begun > self.gone.0 => {
                Beside::Nothing("a connection of no life, begun after its network namespace was ended")
            }
            Some(life) => Beside::Life(life),
            None => Beside::Unknown,
        }
    }

    fn witnessed(&self) -> Result<Vec<Witnessed>> {
        let calls = log::read(&self.log, self.lives.len())?;
        let mut sorted = conversation::sort(&self.packets);
        let of = |((index, life), calls): ((usize, &Life), Vec<Call>)| {
            let server = canonical(server_address(life, index));
            let mut conversations = sorted.remove(&server).unwrap_or_default();
            conversations.iter_mut().for_each(|conversation| conversation.drop_by_rules(&calls));
            let mut expected = truth::of_life(&calls, &conversations, self.gone);
            for end in &mut expected {
                end.counted = end.cookie.and_then(|cookie| self.destroyed.get(&cookie).copied());
            }
            Witnessed { calls, conversations, expected }
        };
        Ok(self.lives.iter().enumerate().zip(calls).map(of).collect())
    }

    fn compare(
        &self,
        rows: &HashMap<u64, Vec<Row>>,
        looks: &Looks,
        hidden: &HashSet<(SocketAddr, SocketAddr)>,
        evidence: &mut File,
    ) -> Result<Vec<Compared>> {
        let mut of_life: HashMap<usize, Vec<Row>> = HashMap::new();
        for row in self.rows(rows) {
            if let Beside::Life(life) = self.beside(row) {
                of_life.entry(life).or_default().push(row.clone());
            }
        }
        let mut all = Vec::new();
        for (index, Witnessed { calls, conversations, expected }) in self.witnessed()?.iter().enumerate() {
            let rows = of_life.get(&index).map_or(&[][..], Vec::as_slice);
            let mut compared = compare::life(expected, rows, hidden);
            let is_hidden = |end: &Expected| end.local.is_some_and(|local| hidden.contains(&(local, end.remote)));
            if !expected.iter().any(is_hidden) {
                let netns = self.namespaces.iter().map(|namespace| namespace.netns);
                netns.for_each(|netns| looks.add_of_life(&mut compared, netns, index));
                looks.add_of_rows(&mut compared, rows);
            }
            if compared.findings.iter().any(|finding| finding.kind == Kind::Wrong) {
                let findings = &compared.findings;
                writeln!(evidence, "{}\n{findings:#?}\n{calls:#?}\n{conversations:#?}", self.lives[index])
                    .and_then(|()| rows.iter().try_for_each(|row| writeln!(evidence, "{}", row.value)))
                    .and_then(|()| writeln!(evidence, "----"))
                    .context("cannot write evidence")?;
            }
            all.push(compared);
        }
        Ok(all)
    }

    /// Checks that the witnesses agree with the kernel's counters.
    fn counters(&self) -> Option<String> {
        let witnessed = self.witnessed().ok()?;
        let ends = || witnessed.iter().flat_map(|life| &life.expected);
        let is_counted = |end: &&Expected| end.end != ["no_local_port"];
        let count = |who| ends().filter(|end| end.who == who).filter(is_counted).count() as u64;
        let counted = [count(Who::Client), count(Who::Server)];
        let unsure = ends().filter(|end| end.unsure.is_some()).count() as u64;
        let is_near = counted.iter().zip(self.opens).all(|(counted, open)| counted.abs_diff(open) <= unsure);
        (!is_near).then(|| {
            format!("the witnesses disagree: {counted:?} clients and servers, the kernel counts {:?}", self.opens)
        })
    }
}
