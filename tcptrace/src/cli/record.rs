//! `record`: from the kernel to a trace.

mod armed;
mod child;
mod progress;
mod starter;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, ValueHint};
use indicatif::HumanBytes;
use tokio::signal::unix::{Signal, SignalKind};
use tokio::time::Instant;

use self::armed::{Armed, Exec, Watch, split};
use self::child::Running;
use self::progress::Shown;
use self::starter::{Programs, Starter};
use super::privileges::{Files, PrivilegeArgs};
use super::rows::say_audit;
use super::run::{Stop, handler, reached, runtime};
use super::select::{
    FilterArgs, ProbeArgs, bytes, duration, refuse_foreign_pids, refuse_partial_audits, warn_of_missing_groups,
};
use super::{Outcome, say, say_ready, tell};
use crate::kernel::Namespaces;
use crate::live::{Audited, Besides, Source};
use crate::model::criteria::Criteria;
use crate::output::export::folder;
use crate::output::lost;
use crate::study::when::{Condition, Figure, Known, WhenError};
use crate::trace::write::{Memory, Plan, Recorded, Recorder, Rotate, Store, Target, Written};

/// The default of `--output`.
const DEFAULT_FILE: &str = "tcptrace.tct";

/// Arguments of `record`.
#[derive(Args, Debug)]
pub(super) struct RecordArgs {
    /// Trace to write, readable by its owner only; `-` is standard output [default: tcptrace.tct; an existing one is
    /// renamed to tcptrace.tct.old]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Stop after this time (10s, 5m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Start a new file after this size or time (100M, 1h). Files are numbered (web.0001.tct); each can be read alone
    #[arg(long, value_name = "SIZE|TIME", value_parser = rotate)]
    rotate: Option<Rotate>,
    /// Keep at most this many files, and remove the oldest
    #[arg(long, value_name = "N", requires = "rotate", value_parser = clap::value_parser!(u32).range(1..))]
    max_files: Option<u32>,
    /// Keep at most this much (500M, 2G). With --rotate, remove the oldest files; with --last, drop the oldest events;
    /// otherwise, stop recording
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    max_size: Option<u64>,
    /// Flight recorder: keep only the last part (5m) in memory, at most 256M or --max-size. SIGUSR1 writes it to FILE
    /// and recording continues; Ctrl-C writes it and ends. Later files are numbered from 2 (FILE.0002)
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "rotate")]
    last: Option<Duration>,
    /// With --last: write FILE as soon as this holds: rules of `diagnose` and figures, joined by `and`, `or`, `not` and
    /// parentheses: 'close-wait-leak or CLOSE_WAIT > 500'. `critical`, `warning` and `note` stand for every rule that finds
    /// something as bad. Figures are the number of sockets in a state, counters of the kernel in a second
    /// (TcpExt.ListenOverflows > 10), and levels (sockstat.TCP.orphan). The file has the finding, and nothing is written at
    /// the end
    #[arg(long, value_name = "CONDITION", requires = "last", value_parser = condition)]
    when: Option<Condition>,
    /// With --when: write the next file after this time at the earliest
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m", requires = "when")]
    when_pause: Duration,
    /// With --when: run this command for each file. Its words are separated by spaces, and no shell reads them; the path of
    /// the file follows as the last one. Standard input has the finding as a line of JSON
    #[arg(long, value_name = "CMD", requires = "when", value_hint = ValueHint::CommandString)]
    exec: Option<String>,
    /// At the end, compare the events with the kernel's own counters in every network namespace; the trace includes the
    /// result
    #[arg(long)]
    audit: bool,
    /// Leave out what only `diagnose` reads: the kernel's counters, settings, accept queues and limits, looked at once a second or
    /// less often, and a closer look at sockets when recording begins and ends
    #[arg(long)]
    no_facts: bool,
    /// Record, too, which calls of bind, listen and accept fail for TCP sockets, and by whom: ports that are taken, descriptors
    /// that have run out. Every system call of the machine takes a little longer meanwhile
    #[arg(long)]
    failed_calls: bool,
    #[command(flatten)]
    probe: ProbeArgs,
    #[command(flatten)]
    privileges: PrivilegeArgs,
    /// Run this command and record until it exits. tcptrace exits with its status, with 3 instead of 0 if events were
    /// lost, and with 126 or 127 if it cannot run. A signal to end goes to the command, which is killed 5 seconds later
    #[arg(last = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
    #[command(flatten)]
    filter: FilterArgs,
}

fn rotate(text: &str) -> Result<Rotate> {
    match (bytes(text), duration(text)) {
        // A bare letter `M` counts bytes, `m` counts minutes.
        (Ok(bytes), _) => Ok(Rotate::Bytes(bytes)),
        (Err(_), Ok(time)) if !time.is_zero() => Ok(Rotate::Ns(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))),
        _ => anyhow::bail!("'{text}' is neither a size such as 100M nor a time such as 1h"),
    }
}

/// Reads a condition with the names that this kernel has; without /proc, each name may be one.
fn condition(text: &str) -> Result<Condition, WhenError> {
    let (counters, levels) = crate::kernel::counter_names();
    let known = Known { counters, levels };
    Condition::parse(text, Some(&known).filter(|known| !known.counters.is_empty()))
}

pub(super) fn run(args: &RecordArgs) -> Result<Outcome> {
    if let Err(error) = child::look_for(&args.command) {
        say(&error);
        return Ok(Outcome::Of(error.status));
    }
    let namespaces = Namespaces::find();
    let criteria = args.filter.criteria(&namespaces)?;
    if args.audit {
        refuse_partial_audits(&criteria);
    }
    refuse_foreign_pids(&criteria)?;
    warn_of_missing_groups(&criteria, true);
    let exec = match args.exec() {
        Ok(exec) => exec,
        Err(error) => {
            say(&error);
            return Ok(Outcome::Of(error.status));
        }
    };
    let mut options = args.probe.options(criteria.kernel());
    options.failed_calls = args.failed_calls;
    args.refuse_without_facts();
    let starter = Starter::begin(&Programs {
        command: args.command.clone(),
        is_output_taken: args.is_to_stdout(),
        user: args.privileges.user().cloned(),
        exec,
    })?;
    let files = args.files();
    // Report errors with the file before attaching anything.
    let target = args.target()?;
    runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let mut dump = handler(SignalKind::user_defined1())?;
        let besides = if args.no_facts { Besides::Nothing } else { Besides::Facts };
        let mut source = Source::attach(&options, !args.probe.no_existing, true, true, besides)?;
        args.privileges.give_up(&mut source, &namespaces, files)?;
        let (command, exec) = starter.map(|starter| (starter.command, starter.exec)).unzip();
        let exec = exec.filter(|_| args.exec.is_some()).map(Exec::new);
        let recorder = Recorder::new(target, source.head()?, criteria.clone(), tell)?;
        let watch = args.watch(&criteria, exec, &source)?;
        let mut recorder = Audited::new(Armed::new(Shown::new(recorder), watch), args.audit, &source, &criteria)?;
        source.begin(&namespaces, &mut recorder)?;
        recorder.settle_down(&mut source).await?;
        let mut child = None;
        if let (Some(program), Some(starter)) = (args.command.first(), command) {
            match Running::start(starter, program).await {
                Ok(running) => child = Some(running),
                Err(error) => {
                    say(&error);
                    return Ok(Outcome::Of(error.status));
                }
            }
        }
        say_ready(&source);
        recorder.sink.shown.begin();
        let end = args.duration.map(|duration| Instant::now() + duration);
        let mut status = None;
        loop {
            match source.follow(&mut recorder, next(&mut stop, &mut dump, child.as_mut(), end)).await? {
                Some(Next::Dump) => {
                    source.take_in(&mut recorder)?;
                    recorder.sink.shown.recorder.dump()?;
                }
                Some(Next::Ended(ended)) => {
                    status = Some(ended?);
                    break;
                }
                Some(Next::Stop) | None => break,
            }
        }
        let mut armed = recorder.finish(&mut source).await?;
        let watched = armed.stand_down()?;
        let mut recorder = armed.shown.recorder;
        let (findings, names) = recorder.audited();
        say_audit(findings, &names);
        let outcome = if let Some(times) = watched {
            say_watched(&recorder.finish(), times)
        } else if write_all(&mut recorder, &mut stop).await {
            say_recorded(&recorder.finish(), args.default_file())
        } else {
            Outcome::Failed
        }
        .with_helper(&source);
        // The recording has stopped at its size limit, and the command still runs.
        if let (Some(child), None) = (&mut child, &status) {
            status = Some(child.ended(&mut stop, end).await?);
        }
        Ok(match status.map(child::exit_code) {
            None | Some(0) => outcome,
            Some(code) => Outcome::Of(code),
        })
    })
}

/// Prints what was recorded and lost, and the name of the file if it is the default.
pub(super) fn say_recorded(recorded: &Recorded, file: Option<&Path>) -> Outcome {
    let missing = recorded.lost();
    let Written { events, bytes, is_elsewhere } = recorded.written;
    let more = match recorded.of_all {
        Some(all) if events < all => format!(", the last of {all} seen"),
        _ if recorded.is_full => ", all that --max-size allows".into(),
        _ => String::new(),
    };
    let place = file.filter(|_| !is_elsewhere).map(|file| format!(" in {}", file.display())).unwrap_or_default();
    say(format_args!("{events} events recorded, {}, {}{place}{more}", lost(&missing), HumanBytes(bytes)));
    match () {
        () if is_elsewhere => Outcome::Failed,
        () if recorded.has_failed || !missing.is_empty() => Outcome::Lost,
        () => Outcome::Done,
    }
}

/// Prints what a flight recorder with a condition has come to: how many times it fired, and how many files were written.
fn say_watched(recorded: &Recorded, [fired, files]: [u64; 2]) -> Outcome {
    let missing = recorded.lost();
    let events = recorded.of_all.unwrap_or(0);
    let said = match (fired, files) {
        (0, _) => "the condition never held, so no file was written".to_owned(),
        (_, 0) => "the condition held, and no file could be written".to_owned(),
        (1, 1) => "the condition held, and a file was written".to_owned(),
        (_, 1) => format!("the condition held {fired} times, and a file was written"),
        _ => format!("the condition held {fired} times, and {files} files were written"),
    };
    say(format_args!("{events} events seen, {}; {said}", lost(&missing)));
    if fired > 0 && files == 0 {
        Outcome::Failed
    } else if recorded.has_failed || !missing.is_empty() {
        Outcome::Lost
    } else {
        Outcome::Done
    }
}

impl RecordArgs {
    /// The command of `--exec`.
    fn exec(&self) -> Result<Vec<OsString>, child::CannotRun> {
        let Some(text) = &self.exec else { return Ok(Vec::new()) };
        let command = split(text);
        if command.is_empty() {
            clap::Error::raw(ErrorKind::InvalidValue, "--exec needs a command\n").exit()
        }
        child::look_for(&command)?;
        Ok(command)
    }

    /// What watches, if there is a condition.
    fn watch(&self, criteria: &Criteria, exec: Option<Exec>, source: &Source) -> Result<Option<Watch>> {
        let Some(condition) = &self.when else { return Ok(None) };
        let plan = armed::Plan { condition, pause: self.when_pause, criteria, exec };
        Ok(Some(Watch::begin(plan, source)?))
    }

    fn file(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
    }

    /// Which files are written.
    fn files(&self) -> Files<'_> {
        match self.file() {
            _ if self.is_to_stdout() => Files::None,
            file if self.last.is_some() => Files::Dumped(file),
            file if self.rotate.is_some() => Files::MadeLater(file),
            file => Files::at(file),
        }
    }

    /// The default file, if it is the only one written.
    fn default_file(&self) -> Option<&Path> {
        let is_one = self.output.is_none() && self.rotate.is_none() && self.last.is_none();
        is_one.then_some(Path::new(DEFAULT_FILE))
    }

    fn target(&self) -> Result<Target> {
        const MOST_IN_MEMORY: u64 = 256 << 20;
        let plan = Plan {
            path: self.file().to_owned(),
            force: self.force,
            keep_old: self.output.is_none(),
            numbered: self.rotate.is_some(),
            most_files: self.max_files.and_then(|files| usize::try_from(files).ok()),
            most_bytes: self.max_size.filter(|_| self.rotate.is_some()),
            owner: self.privileges.owner(),
        };
        if let Files::MadeLater(file) | Files::Dumped(file) = self.files() {
            self.privileges.expect_folder(folder(file))?;
        }
        if let Some(last) = self.last {
            self.refuse_stdout("--last");
            return Ok(Target::Memory(Memory::new(plan, last, self.max_size.unwrap_or(MOST_IN_MEMORY), tell)?));
        }
        if self.rotate.is_some() {
            self.refuse_stdout("--rotate");
        }
        let store = if self.is_to_stdout() { Store::stdout()? } else { Store::create(&plan)? };
        let most_bytes = self.max_size.filter(|_| self.rotate.is_none());
        Ok(Target::Files { store, rotate: self.rotate, most_bytes })
    }

    /// Rules and counters need what `--no-facts` leaves out.
    fn refuse_without_facts(&self) {
        let needs_facts = |condition: &Condition| {
            !condition.rules().is_empty() || condition.figures().any(|figure| !matches!(figure, Figure::Sockets(_)))
        };
        if self.no_facts && self.when.as_ref().is_some_and(needs_facts) {
            let message = "--no-facts leaves out what this --when needs: only states can be compared then\n";
            clap::Error::raw(ErrorKind::ArgumentConflict, message).exit()
        }
    }

    fn is_to_stdout(&self) -> bool {
        self.file().as_os_str() == "-"
    }

    fn refuse_stdout(&self, option: &str) {
        if self.is_to_stdout() {
            let message = format!("{option} writes files and cannot be used with -o - (standard output)\n");
            clap::Error::raw(ErrorKind::ArgumentConflict, message).exit()
        }
    }
}

/// Writes everything, and retries until it succeeds or the user asks to end. Returns whether it was written.
async fn write_all(recorder: &mut Recorder, stop: &mut Stop) -> bool {
    const AGAIN: Duration = Duration::from_secs(1);
    let mut is_said = false;
    while let Err(error) = recorder.write_all() {
        if !std::mem::replace(&mut is_said, true) {
            say(format_args!("{error:#}; retried every second until it succeeds or a second signal arrives"));
        }
        tokio::select! {
            () = stop.asked() => {
                say(format_args!("nothing was written: {error:#}"));
                return false;
            }
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    true
}

/// What interrupts the recording.
enum Next {
    Stop,
    Dump,
    Ended(Result<ExitStatus>),
}

async fn next(stop: &mut Stop, dump: &mut Signal, child: Option<&mut Running>, end: Option<Instant>) -> Next {
    match child {
        Some(child) => tokio::select! {
            ended = child.ended(stop, end) => Next::Ended(ended),
            _ = dump.recv() => Next::Dump,
        },
        None => tokio::select! {
            () = stop.asked() => Next::Stop,
            () = reached(end) => Next::Stop,
            _ = dump.recv() => Next::Dump,
        },
    }
}
