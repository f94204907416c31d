//! A running tcptrace, and its output so far.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::ability;
use crate::namespace::{Namespace, go_home};
use crate::process::aside;
use crate::program::{Finished, binary};

/// Longest wait for a row: a TIME_WAIT and a margin.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The text on stderr of `watch`, `connections` and `record` when every probe is attached.
const READY: &str = "tcptrace: ready";

/// Key of rows that name no network namespace.
const NOWHERE: u64 = 0;

static WATCH: LazyLock<Tracer> = LazyLock::new(|| Tracer::launch(&["watch", "--format", "json"], Keep::OurRows));
static CONNECTIONS: LazyLock<Tracer> =
    LazyLock::new(|| Tracer::launch(&["connections", "--format", "json"], Keep::OurRows));

/// A command that runs its arguments where tracefs is mounted, for them alone if it is not mounted here.
pub fn with_tracefs() -> Command {
    const SCRIPT: &str =
        "[ -e /sys/kernel/tracing/trace ] || mount -t tracefs tracefs /sys/kernel/tracing && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]);
    command
}

/// A running `tcptrace`. It is killed on drop, and when the test process dies.
pub struct Tracer {
    pid: Pid,
    feed: Arc<Feed>,
}

#[derive(Default)]
struct Feed {
    output: Mutex<Output>,
    grown: Condvar,
}

/// The kept part of a tracer's stdout: a tracer that runs for long also reports everything else on this machine.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Everything,
    OurRows,
}

#[derive(Default)]
struct Output {
    stdout: Vec<u8>,
    /// Rows by network namespace.
    rows: HashMap<u64, Vec<Value>>,
    stderr: String,
    status: Option<ExitStatus>,
}

impl Tracer {
    /// The one `tcptrace watch` that all tests of this process share.
    pub fn watch() -> &'static Self {
        &WATCH
    }

    /// The one `tcptrace connections` that all tests of this process share.
    pub fn connections() -> &'static Self {
        &CONNECTIONS
    }

    /// Starts both shared tracers, before there is anything to trace.
    pub fn start_shared() {
        Self::watch();
        Self::connections();
    }

    /// Drops the shared tracers' rows of an earlier namespace with the same number.
    pub(crate) fn forget(inode: u64) {
        for tracer in [&WATCH, &CONNECTIONS] {
            tracer.feed.lock().rows.remove(&inode);
        }
    }

    /// Starts a tracer, and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        Self::launch(args, Keep::Everything)
    }

    /// Starts a tracer without BTF, with tracefs mounted where it looks. It does not know namespaces.
    pub fn start_without_btf(args: &[&str]) -> Self {
        let mut command = with_tracefs();
        command.arg(binary()).args(args).arg("--no-btf");
        Self::follow(command)
    }

    fn launch(args: &[&str], keep: Keep) -> Self {
        let mut command = Command::new(binary());
        command.args(args);
        Self::wait_for(command, keep)
    }

    /// Starts one with these arguments, and does not wait.
    pub fn launched(args: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(args);
        Self::spawn(command, Keep::Everything)
    }

    /// Runs a command that starts a tracer, and waits until it is ready.
    pub fn follow(command: Command) -> Self {
        Self::wait_for(command, Keep::Everything)
    }

    fn wait_for(command: Command, keep: Keep) -> Self {
        let what = format!("{command:?} to be ready");
        let tracer = Self::spawn(command, keep);
        tracer.expect(&what, |output| output.stderr.lines().any(|line| line == READY).then_some(()));
        tracer
    }

    /// Starts a tracer that reports one namespace only, and waits until it is ready.
    pub fn start_in(net: &Namespace, args: &[&str]) -> Self {
        Self::start(&[args, &["--netns", &net.inode().to_string()]].concat())
    }

    /// Starts a tracer.
    fn spawn(mut command: Command, keep: Keep) -> Self {
        ability::need_root();
        let feed = Arc::new(Feed::default());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let (started, start) = channel();
        let reader = Arc::clone(&feed);
        // The kernel sends the signal when the thread that started the process ends, so that thread waits for the
        // process.
        drop(aside(move || {
            go_home();
            let mut child = command.spawn().expect("start tcptrace");
            started.send(child.id()).expect("a starter that waits");
            reader.follow(&mut child, keep);
        }));
        let pid = start.recv().expect("a started tcptrace");
        Self { pid: Pid::from_raw(pid.cast_signed()), feed }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for a row about a namespace.
    pub fn row(&self, net: &Namespace, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.rows(net, what, |rows| rows.iter().find(|row| wanted(row)).cloned())
    }

    /// Waits until the rows of a namespace so far satisfy `find`.
    pub fn rows<T>(&self, net: &Namespace, what: &str, find: impl FnMut(&[Value]) -> Option<T>) -> T {
        self.find(net, find).unwrap_or_else(|vain| panic!("{vain} {what}; seen here:\n{}", self.told(net)))
    }

    /// The rows of a namespace so far.
    pub fn rows_now(&self, net: &Namespace) -> Vec<Value> {
        self.feed.lock().rows_of(net).to_vec()
    }

    fn find<T>(&self, net: &Namespace, mut find: impl FnMut(&[Value]) -> Option<T>) -> Result<T, String> {
        // Every row of every test wakes all waiting threads; most rows are about other namespaces.
        let mut looked_at = None;
        self.wait(|output| {
            let rows = output.rows_of(net);
            let is_news = looked_at.replace(rows.len()) != Some(rows.len());
            if is_news { find(rows) } else { None }
        })
    }

    fn told(&self, net: &Namespace) -> String {
        self.rows_now(net).iter().fold(self.complaints(), |text, row| text + &brief(row) + "\n")
    }

    /// Waits for a text on stdout, and returns everything up to it.
    pub fn text(&self, wanted: &str) -> String {
        self.expect(wanted, |output| {
            let text = String::from_utf8_lossy(&output.stdout);
            text.contains(wanted).then(|| text.into_owned())
        })
    }

    /// Stops it: events pile up in the kernel.
    pub fn pause(&self) {
        kill(self.pid, Signal::SIGSTOP).expect("a tcptrace to stop");
    }

    /// Continues it.
    pub fn resume(&self) {
        kill(self.pid, Signal::SIGCONT).expect("a tcptrace to go on");
    }

    /// Sends it SIGINT, and waits until it ends.
    pub fn interrupt(&self) -> Finished {
        self.signal(Signal::SIGINT);
        self.finish()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("a tcptrace that runs");
    }

    /// Waits for its end.
    pub fn finish(&self) -> Finished {
        self.expect("its end", |output| {
            let status = output.status?;
            Some(Finished { status, stdout: output.stdout.clone(), stderr: output.stderr.clone() })
        })
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.feed.lock().status.is_some()
    }

    /// Its stderr so far.
    pub fn complaints(&self) -> String {
        self.feed.lock().stderr.clone()
    }

    fn expect<T>(&self, what: &str, find: impl FnMut(&Output) -> Option<T>) -> T {
        self.wait(find).unwrap_or_else(|vain| panic!("{vain} {what}\n{}", self.complaints()))
    }

    fn wait<T>(&self, mut find: impl FnMut(&Output) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut output = self.feed.lock();
        loop {
            if let Some(found) = find(&output) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("waited in vain for".into());
            }
            if let Some(status) = output.status {
                return Err(format!("tcptrace ended ({status}) before"));
            }
            output = self.feed.grown.wait_timeout(output, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if self.feed.lock().status.is_none() {
            let _already_dead = kill(self.pid, Signal::SIGKILL);
        }
    }
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Output)) {
        change(&mut self.lock());
        self.grown.notify_all();
    }

    /// Reads all output of a process until it ends.
    fn follow(self: Arc<Self>, child: &mut Child, keep: Keep) {
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let other = Arc::clone(&self);
        let complaints = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                other.change(|output| output.stderr += &(line + "\n"));
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            // Rows that no test waits for wake no thread: there can be many of them.
            let concerns = |row: &Value, inode| Namespace::is_ours(inode, row["boot_ns"].as_u64().unwrap_or(0));
            let row = parse(&line).filter(|(inode, row)| keep == Keep::Everything || concerns(row, *inode));
            if keep == Keep::Everything || row.is_some() {
                self.change(|output| output.take(&line, row, keep));
            }
            line.clear();
        }
        complaints.join().expect("read stderr");
        let status = child.wait().expect("wait for tcptrace");
        self.change(|output| output.status = Some(status));
    }
}

impl Output {
    /// The rows of a namespace, or all rows of a tracer that does not know namespaces.
    fn rows_of(&self, net: &Namespace) -> &[Value] {
        self.rows.get(&net.inode()).or_else(|| self.rows.get(&NOWHERE)).map_or(&[], Vec::as_slice)
    }

    fn take(&mut self, line: &[u8], row: Option<(u64, Value)>, keep: Keep) {
        if let Some((inode, row)) = row {
            self.rows.entry(inode).or_default().push(row);
        }
        if keep == Keep::Everything {
            self.stdout.extend(line);
        }
    }
}

fn parse(line: &[u8]) -> Option<(u64, Value)> {
    let row: Value = serde_json::from_slice(line).ok()?;
    let inode = row["netns"].as_u64().unwrap_or(NOWHERE);
    Some((inode, row))
}

/// The most informative fields of a row, in one line.
pub fn brief(row: &Value) -> String {
    const DULL: [&str; 9] = ["event", "time", "opened", "closed", "protocol", "family", "uid", "cgroup", "tid"];
    let fields = row.as_object().expect("a row").iter();
    let telling = fields.filter(|(name, value)| !DULL.contains(&name.as_str()) && !value.is_null());
    telling.map(|(name, value)| format!("{name}={value} ")).collect()
}
