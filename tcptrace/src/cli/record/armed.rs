//! A flight recorder that writes its part by itself when a condition holds.

mod exec;
mod figures;
mod rules;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) use self::exec::{Exec, split};
use self::figures::Figures;
use self::rules::Rules;
use super::progress::Shown;
use crate::cli::say;
use crate::engine::lifecycle::Config;
use crate::kernel::thread_time;
use crate::live::Source;
use crate::model::criteria::Criteria;
use crate::model::fired::Fired;
use crate::model::sink::{Sink, Wishes};
use crate::model::stream::{Clock, Head, Item};
use crate::model::transition::Transition;
use crate::output;
use crate::study::diagnose::finding::{Finding, Id, Subject};
use crate::study::diagnose::may_explain;
use crate::study::when::{Alarm, Atom, Condition, Ground, News};

/// How often a condition is checked that needs figures only, and one that needs rules.
const CHECK: Duration = Duration::from_secs(1);
const CHECK_RULES: Duration = Duration::from_secs(5);
/// The pause after a slow check, as a multiple of the CPU time that it took: checks take at most a twentieth of one CPU. A busy
/// machine, on which a check waits for a CPU, is where a condition should not be looked at less often.
const REST: u32 = 20;

/// A recorder with a status line, and what watches for it.
pub(super) struct Armed {
    pub(super) shown: Shown,
    watch: Option<Watch>,
}

/// Watches for a condition.
pub(super) struct Watch {
    alarm: Alarm,
    /// Follows connections, if the condition has rules.
    rules: Option<Rules>,
    /// What the rules found when they decided last, and what of that waits for its cause.
    found: Found,
    early: Vec<Finding>,
    figures: Figures,
    clock: Clock,
    host: String,
    exec: Option<Exec>,
    /// When to check next, in ns of `CLOCK_BOOTTIME`.
    due: u64,
    /// How many times there was a reason to write, and how many files were written.
    fired: u64,
    files: u64,
}

/// Findings, by rule and by whom they are about.
type Found = HashSet<(Id, String)>;

/// How to watch.
pub(super) struct Plan<'a> {
    pub(super) condition: &'a Condition,
    /// The shortest time between two files.
    pub(super) pause: Duration,
    pub(super) criteria: &'a Criteria,
    pub(super) exec: Option<Exec>,
}

impl Watch {
    pub(super) fn begin(plan: Plan<'_>, source: &Source) -> Result<Self> {
        let figures = Figures::begin(plan.condition, &plan.criteria.netns, source)?;
        Ok(Self::with(plan, source.head()?, source.engine_config(rules::rows()), figures))
    }

    fn with(plan: Plan<'_>, head: Head, config: Config, figures: Figures) -> Self {
        let Plan { condition, pause, criteria, exec } = plan;
        let (ids, host) = (condition.rules(), head.host.clone());
        let mut rules = (!ids.is_empty()).then(|| Rules::new(ids, criteria.clone(), config));
        if let Some(rules) = &mut rules {
            rules.take(&[Item::Head(Box::new(head))]);
        }
        let alarm = Alarm::new(condition.clone(), ns(pause));
        let (clock, found, early) = (Clock::default(), Found::new(), Vec::new());
        Self { alarm, rules, found, early, figures, clock, host, exec, due: 0, fired: 0, files: 0 }
    }

    fn take(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Clocks(clocks) => self.clock = clocks.clock(),
                Item::Counters(sample) => self.figures.take(sample),
                _ => {}
            }
        }
        if let Some(rules) = &mut self.rules {
            rules.take(items);
        }
    }

    /// Why to write now; `None`: there is no reason.
    fn check(&mut self, now: u64) -> Option<Fired> {
        if now < self.due {
            return None;
        }
        let begun = thread_time();
        let period = if self.rules.is_some() { CHECK_RULES } else { CHECK };
        let mut findings = self.rules.as_mut().map(|rules| rules.diagnose(now)).unwrap_or_default();
        let condition = self.alarm.condition();
        let asked = condition.rules();
        // What has waited and is no finding any more has happened all the same.
        let is_there =
            |known: &Finding| findings.iter().any(|found| (found.id, whom_of(found)) == (known.id, whom_of(known)));
        let gone: Vec<Finding> = std::mem::take(&mut self.early).into_iter().filter(|known| !is_there(known)).collect();
        findings.extend(gone);
        let is_early = |found: &Finding| is_early(found, &asked, &self.found);
        let grounds = |atom: &Atom| match atom {
            Atom::Rule(id, least) => {
                let found = findings.iter().filter(|found| found.id == *id && found.severity >= *least);
                let found = found.filter(|found| !is_early(found));
                found.map(|found| ground(found, &asked)).collect()
            }
            Atom::Figure(figure, operator, number) => {
                let holds = operator.holds(self.figures.of(figure, now), *number);
                let ground = Ground { whom: Box::default(), is_effect: false };
                holds.then_some(ground).into_iter().collect()
            }
        };
        let atoms: Vec<Vec<Ground>> = condition.atoms().iter().map(grounds).collect();
        let early = findings.iter().filter(|found| is_early(found)).cloned().collect();
        let news = self.alarm.check(now, &atoms);
        self.early = early;
        self.found = findings.iter().map(|found| (found.id, whom_of(found))).collect();
        let fired = news.map(|news| self.fired(now, &findings, &news));
        self.fired += u64::from(fired.is_some());
        self.due = now + ns(period.max(thread_time().saturating_sub(begun) * REST));
        fired
    }

    fn fired(&self, at: u64, findings: &[Finding], news: &News) -> Fired {
        let condition = self.alarm.condition();
        let figures: BTreeMap<Box<str>, f64> = condition
            .figures()
            .filter_map(|figure| Some((figure.to_string().into(), self.figures.of(figure, at)?)))
            .collect();
        let is_news = |found: &&Finding| {
            let is_it = |place: &usize| matches!(&condition.atoms()[*place], Atom::Rule(id, least) if *id == found.id && *least <= found.severity);
            news.iter().any(|(place, whom)| is_it(place) && **whom == *whom_of(found))
        };
        // The most severe one comes first. Where a figure is news, no finding is.
        let newest = findings.iter().find(is_news).or_else(|| findings.first().filter(|_| news.is_empty()));
        let (rule, headline, finding) = match (newest, &self.rules) {
            (Some(found), Some(rules)) => {
                let row = output::finding(&self.host, found, rules.context());
                (Some(found.id.into()), found.headline.clone(), row)
            }
            _ => (None, in_words(&figures), Value::Null),
        };
        Fired { at, when: condition.text().into(), rule, headline: headline.into(), finding, figures }
    }

    /// A file is there.
    fn written(&mut self, path: &std::path::Path, fired: &Fired) {
        self.files += 1;
        let time = Timestamp::from_nanosecond(self.clock.unix_ns(fired.at).into()).unwrap_or_default();
        let Some(exec) = &mut self.exec else { return };
        let Fired { when, rule, headline, finding, figures, .. } = fired;
        let row = json!({
            "event": "fired", "time": time.to_string(), "host": output::sanitise(self.host.as_bytes()), "when": when, "rule": rule,
            "headline": output::sanitise_message(headline), "file": path.to_string_lossy(), "figures": figures,
            "finding": finding,
        });
        exec.run(path, &row);
    }

    fn wishes(&mut self) -> Wishes {
        let rules = self.rules.as_mut().map(Rules::wishes).unwrap_or_default();
        rules.and(Wishes { settle_by: Some(self.due), ..Wishes::default() })
    }
}

impl Armed {
    pub(super) fn new(shown: Shown, watch: Option<Watch>) -> Self {
        Self { shown, watch }
    }

    /// Ends the watch: waits for the file that is being written, and for `--exec` to take it. Returns how many times the
    /// condition came to hold, and how many files were written because of that; `None` if there is no condition.
    pub(super) fn stand_down(&mut self) -> Result<Option<[u64; 2]>> {
        if self.watch.is_some() {
            self.shown.recorder.finish_dump()?;
            self.hand_on();
        }
        let Some(watch) = &mut self.watch else { return Ok(None) };
        if let Some(exec) = &mut watch.exec {
            exec.finish();
        }
        Ok(Some([watch.fired, watch.files]))
    }

    fn hand_on(&mut self) {
        let Self { shown, watch } = self;
        while let (Some(watch), Some((path, fired))) = (&mut *watch, shown.recorder.take_written()) {
            watch.written(&path, &fired);
        }
    }
}

impl Sink for Armed {
    fn take(&mut self, items: &[Item]) -> Result<()> {
        if let Some(watch) = &mut self.watch {
            watch.take(items);
        }
        self.shown.take(items)
    }

    fn wants_changes(&self) -> bool {
        self.watch.as_ref().is_none_or(|watch| watch.rules.is_none()) && self.shown.wants_changes()
    }

    fn take_change(&mut self, change: &impl Transition) -> Result<()> {
        self.shown.take_change(change)
    }

    fn settle(&mut self, now: u64) -> Result<()> {
        self.shown.settle(now)?;
        if let Some(fired) = self.watch.as_mut().and_then(|watch| watch.check(now)) {
            let what = fired.rule.as_deref().map(|rule| format!("{rule}: ")).unwrap_or_default();
            say(format_args!("{what}{}", fired.headline));
            self.shown.recorder.fire(fired)?;
        }
        self.hand_on();
        Ok(())
    }

    fn misses_any(&mut self) -> bool {
        let theirs = self.watch.as_mut().is_some_and(|watch| watch.rules.as_mut().is_some_and(Rules::misses_any));
        self.shown.misses_any() || theirs
    }

    fn wishes(&mut self) -> Wishes {
        let wishes = self.shown.wishes();
        self.watch.as_mut().map(Watch::wishes).unwrap_or_default().and(wishes)
    }
}

/// What a finding makes hold. Another finding that the condition asks for, too, may explain it.
fn ground(found: &Finding, asked: &[Id]) -> Ground {
    let is_effect = found.because_of.is_some_and(|cause| asked.contains(&cause));
    Ground { whom: whom_of(found).into(), is_effect }
}

/// Whether a finding is new, and another rule of the condition may explain it, which has not found anything yet: rules that are
/// about causes often see them a few seconds later.
fn is_early(found: &Finding, asked: &[Id], before: &Found) -> bool {
    found.because_of.is_none()
        && may_explain(found.id).any(|cause| asked.contains(&cause))
        && !before.contains(&(found.id, whom_of(found)))
}

/// Whom a finding is about, without what changes while it lasts: the processes of a service come and go.
fn whom_of(found: &Finding) -> String {
    let Subject { task, netns, lport, remote, .. } = &found.subject;
    let comm = task.map(|task| task.comm);
    let place = if comm.is_some() { None } else { Some((lport, remote.map(|remote| remote.ip()))) };
    format!("{netns:?} {comm:?} {place:?}")
}

/// `CLOSE_WAIT is 512`.
fn in_words(figures: &BTreeMap<Box<str>, f64>) -> String {
    let all: Vec<_> = figures.iter().map(|(name, figure)| format!("{name} is {figure}")).collect();
    if all.is_empty() { "the condition holds".to_owned() } else { all.join(", ") }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model::accepts::Accepts;
    use crate::model::counters::Sample;
    use crate::model::event::Event;
    use crate::model::facts::{AcceptQueue, AcceptQueues};
    use crate::trace::Reader;
    use crate::trace::write::{self, Memory, Recorder, Store, Target};

    /// A full accept queue is seen at once, and that nobody accepts after five seconds.
    #[test]
    fn what_a_cause_may_explain_waits_for_it() {
        use crate::study::diagnose::finding::{Confidence, Severity};

        let mut found = Finding::new("accept-queue-full", Severity::Critical, Confidence::Certain, "it is full".into());
        let (none, seen) = (Found::new(), Found::from([(found.id, whom_of(&found))]));
        assert!(is_early(&found, &["accept-queue-full", "never-accepted"], &none));
        assert!(!is_early(&found, &["accept-queue-full", "never-accepted"], &seen));
        assert!(!is_early(&found, &["accept-queue-full"], &none), "nobody asks for its causes");
        found.because_of = Some("never-accepted");
        assert!(!is_early(&found, &["accept-queue-full", "never-accepted"], &none));
    }

    /// A queue overflows, and is looked at again after 6 s.
    #[rstest]
    #[case::the_cause_comes("accept-queue-full or never-accepted", 6, [None, Some("never-accepted"), None])]
    #[case::it_does_not("accept-queue-full or never-accepted", 0, [None, Some("accept-queue-full"), None])]
    #[case::nobody_asks_for_it("accept-queue-full", 6, [Some("accept-queue-full"), None, None])]
    fn a_finding_waits_one_check_for_its_cause(
        #[case] when: &str,
        #[case] queued_later: u32,
        #[case] expected: [Option<&str>; 3],
    ) {
        const S: u64 = 1_000_000_000;
        let condition: Condition = when.parse().expect("a condition");
        let (figures, criteria) = (Figures::new(&condition), Criteria::default());
        let plan = Plan { condition: &condition, pause: Duration::ZERO, criteria: &criteria, exec: None };
        let head = Head { accepts: Accepts::Always, ..Head::default() };
        let config = Config { scans: true, ..rules::rows() };
        let mut watch = Watch::with(plan, head, config, figures);
        let queues = |at, queued| {
            let ip = std::net::Ipv6Addr::LOCALHOST;
            let queue = AcceptQueue { conn: 1, ip, port: 80, queued, limit: 5, requests: None, autobound: None };
            Item::AcceptQueues(Box::new(AcceptQueues { at, netns: 7, queues: vec![queue], gone: Vec::new() }))
        };
        let counts = [("TcpExt.ListenOverflows".into(), 20)].into();
        let sample = Sample { at: 2 * S, since: Some(S), netns: 7, counts, ..Sample::default() };
        let passed = |at| Item::Event(Event::Passed { at });
        watch.take(&[Item::Event(Event::Started { at: S }), Item::Counters(Box::new(sample)), queues(2 * S, 6)]);
        let fired = [5, 11, 17].map(|second| {
            watch.take(&[passed(second * S)]);
            let fired = watch.check(second * S);
            watch.take(&[queues(second * S + 1, queued_later)]);
            fired.and_then(|fired| fired.rule)
        });
        assert_eq!(fired.each_ref().map(Option::as_deref), expected);
    }

    /// The first block says why the file was written, whatever happens to the rest.
    #[test]
    fn the_head_of_a_file_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let plan = write::Plan { path: folder.path().join("t.tct"), ..write::Plan::default() };
        let memory = Memory::new(plan, Duration::from_secs(60), 1 << 20, |_| {}).expect("a file");
        let target = Target::Memory(memory);
        let mut recorder = Recorder::new(target, Head::default(), Criteria::default(), |_| {}).expect("a recorder");
        for second in 1..3 {
            recorder.take(&[Item::Event(Event::Passed { at: second * 1_000_000_000 })]).expect("there is memory");
            // What comes later is in a block of its own.
            (0..2).for_each(|more| recorder.settle(second * 2_000_000_000 + more * 1_000_000_000).expect("memory"));
        }
        let fired = Fired { at: 2_000_000_000, rule: Some("fd-limit".into()), ..Fired::default() };
        recorder.fire(fired.clone()).expect("it can be packed");
        recorder.finish_dump().expect("it is written");
        let (path, written) = recorder.take_written().expect("a file");
        assert_eq!(written, fired);
        let file = std::fs::File::open(path).expect("a file");
        let (mut reader, mut blocks) = (Reader::new(file).expect("memory"), Vec::new());
        let mut items = Vec::new();
        while reader.next(|_| true, &mut items).expect("it can be read").is_some() {
            blocks.push(std::mem::take(&mut items));
        }
        let says: Vec<bool> =
            blocks.iter().map(|block| block.contains(&Item::Fired(Box::new(fired.clone())))).collect();
        assert_eq!(says, [true, false, true]);
        assert!(matches!(blocks[0][0], Item::Head(_)), "{:?}", blocks[0]);
    }

    /// Nobody makes events of changes for a recorder on which no rule waits.
    #[test]
    fn a_plain_recorder_takes_changes_themselves() {
        let folder = tempfile::tempdir().expect("a folder");
        let plan = write::Plan { path: folder.path().join("t.tct"), ..write::Plan::default() };
        let store = Store::create(&plan).expect("a file");
        let target = Target::Files { store, rotate: None, most_bytes: None };
        let recorder = Recorder::new(target, Head::default(), Criteria::default(), |_| {}).expect("a recorder");
        assert!(Armed::new(Shown::new(recorder), None).wants_changes());
    }
}
