//! A flight recorder that stays armed with every rule while the scenarios run: it writes a file for each disease, and none
//! for a twin.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::said::{Want, rank};
use crate::command;

/// How severe a finding must be for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Severity {
    Note,
    Warning,
    Critical,
}

/// How long to wait for a file that is due: rules decide every 5 s about the last 10 to 20, and less often on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long to wait for one that must not come.
const TWIN: Duration = Duration::from_secs(7);
/// Interval of polling.
const POLL: Duration = Duration::from_millis(100);

/// The recorder.
pub(super) struct Armed {
    child: Child,
    folder: PathBuf,
    severity: &'static str,
    known: BTreeSet<PathBuf>,
    pub(super) counts: Counts,
}

/// What it has written in all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Parts that are to have a file, and those of them that have one.
    due: usize,
    done: usize,
    /// Files of those parts, and of others.
    files: usize,
    twins: usize,
}

impl Armed {
    /// Starts it, with a program that keeps each finding beside its file.
    pub(super) fn start(tcptrace: &Path, folder: &Path, severity: Severity) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let keep = folder.join("keep");
        fs::write(&keep, "#!/bin/sh\ncat > \"$1.part\"\nmv \"$1.part\" \"$1.json\"\n")
            .context("cannot write a program")?;
        fs::set_permissions(&keep, fs::Permissions::from_mode(0o755)).context("cannot write a program")?;
        let severity = match severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        };
        let log = folder.join("record.log");
        let mut command = Command::new(tcptrace);
        command.args(["record", "--last", "1m", "--when", severity, "--when-pause", "0s", "--failed-calls", "--exec"]);
        command.arg(&keep).arg("-o").arg(folder.join("armed.tct")).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).context("cannot write a log")?);
        command::dies_with_us(&mut command);
        let child = command.spawn().context("cannot run tcptrace")?;
        let folder = folder.to_owned();
        let mut armed = Self { child, folder, severity, known: BTreeSet::new(), counts: Counts::default() };
        let begun = Instant::now();
        while !fs::read_to_string(&log)?.contains("tcptrace: ready\n") {
            ensure!(armed.child.try_wait()?.is_none(), "the flight recorder has ended; see {}", log.display());
            ensure!(begun.elapsed() < PATIENCE, "the flight recorder is not ready; see {}", log.display());
            sleep(POLL);
        }
        Ok(armed)
    }

    /// Forgets what others have made it write.
    pub(super) fn forget(&mut self) {
        self.fresh();
    }

    /// The findings of new files.
    fn fresh(&mut self) -> Vec<Value> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|file| file.path());
        let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
        files.retain(|path| !self.known.contains(path));
        files.sort();
        let rows = files.iter().filter_map(|path| serde_json::from_str(&fs::read_to_string(path).ok()?).ok()).collect();
        self.known.extend(files);
        rows
    }

    /// Waits for what it makes of a part, and says what was written, and what is wrong with that.
    pub(super) fn judge(
        &mut self,
        wants: &[Want],
        is_here: impl Fn(&Value) -> bool,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let least = rank(self.severity);
        // What one part is to have of it: the causes, not what they explain.
        let due: Vec<&Want> = wants.iter().filter(|want| want.is_cause() && want.rank() >= least).collect();
        let (mut rows, begun): (Vec<Value>, _) = (Vec::new(), Instant::now());
        let lacks = |rows: &[Value], want: &Want| !rows.iter().any(|row| row["rule"] == want.id);
        loop {
            rows.extend(self.fresh().into_iter().filter(|row| is_here(&row["finding"]["subject"])));
            let is_complete = !due.is_empty() && !due.iter().any(|want| lacks(&rows, want));
            if is_complete || begun.elapsed() > if due.is_empty() { TWIN } else { PATIENCE } {
                break;
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the flight recorder has ended ({status}); see {}", self.folder.display());
            }
            sleep(POLL);
        }
        let said = |row: &Value| {
            let word = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
            let file = word(row, "file");
            let file = Path::new(&file).file_name().unwrap_or_default().display().to_string();
            format!("{file}: {} {}: {}", word(&row["finding"], "severity"), word(row, "rule"), word(row, "headline"))
        };
        let lines: Vec<_> = rows.iter().map(said).collect();
        let lacking = due.iter().filter(|want| lacks(&rows, want));
        let mut complaints: Vec<_> = lacking.map(|want| format!("no file was written for {}", want.id)).collect();
        let odd = rows.iter().filter(|row| !wants.iter().any(|want| want.allows(&row["finding"])));
        complaints.extend(odd.map(|row| format!("a file was written for {}", row["rule"])));
        let roots = wants.iter().filter(|want| want.may_be_cause()).count();
        if rows.len() > roots.max(1) {
            complaints.push(format!("{} files were written", rows.len()));
        }
        let counts = &mut self.counts;
        counts.due += usize::from(!due.is_empty());
        counts.done += usize::from(!due.is_empty() && !due.iter().any(|want| lacks(&rows, want)));
        *if due.is_empty() { &mut counts.twins } else { &mut counts.files } += rows.len();
        Ok((lines, complaints))
    }

    /// Ends it, and says what it has done in all.
    pub(super) fn finish(mut self) -> Result<String> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGINT).context("the flight recorder is gone")?;
        self.child.wait().context("cannot wait for the flight recorder")?;
        let Counts { due, done, files, twins } = self.counts;
        let log = fs::read_to_string(self.folder.join("record.log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        Ok(format!(
            "Armed with '{}': {done} of {due} parts that have it were written down, in {files} files; {twins} files for the \
             others.\n{last}",
            self.severity
        ))
    }
}
