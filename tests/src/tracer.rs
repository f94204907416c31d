//! The real program, running, and what it printed so far.

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::namespace::{Namespace, go_home};
use crate::process::{output, spawn};

/// How long a row may be waited for: a TIME_WAIT and something on top.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What `watch`, `connections` and `record` say on stderr when every probe is attached.
const READY: &str = "tcptrace: ready";

static WATCH: LazyLock<Tracer> = LazyLock::new(|| Tracer::launch(&["watch", "--format", "json"], Keep::OurRows));
static CONNECTIONS: LazyLock<Tracer> =
    LazyLock::new(|| Tracer::launch(&["connections", "--format", "json"], Keep::OurRows));

/// A running `tcptrace`. It is killed on drop, and when the test process dies.
pub struct Tracer {
    pid: Pid,
    feed: Arc<Feed>,
}

/// What a `tcptrace` left behind.
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything it printed on stdout.
    pub stdout: Vec<u8>,
    /// Everything it printed on stderr.
    pub stderr: String,
}

#[derive(Default)]
struct Feed {
    output: Mutex<Output>,
    grown: Condvar,
}

/// What is kept of a tracer's stdout: one that runs for long also tells of everything else on this machine.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Everything,
    OurRows,
}

#[derive(Default)]
struct Output {
    stdout: Vec<u8>,
    /// By network namespace.
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

    /// Starts both shared tracers, before there is something to trace.
    pub fn start_shared() {
        Self::watch();
        Self::connections();
    }

    /// Starts one, and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        Self::launch(args, Keep::Everything)
    }

    fn launch(args: &[&str], keep: Keep) -> Self {
        let tracer = Self::spawn(args, keep);
        tracer.expect(&format!("{args:?} to be ready"), |output| {
            output.stderr.lines().any(|line| line == READY).then_some(())
        });
        tracer
    }

    /// Starts one that reports about a namespace only, and waits until it is ready.
    pub fn start_in(net: &Namespace, args: &[&str]) -> Self {
        Self::start(&[args, &["--netns", &net.inode().to_string()]].concat())
    }

    /// Starts one.
    fn spawn(args: &[&str], keep: Keep) -> Self {
        let feed = Arc::new(Feed::default());
        let mut command = Command::new(binary());
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let (started, start) = std::sync::mpsc::channel();
        let reader = Arc::clone(&feed);
        // The signal comes when the thread that started the process ends, so that thread stays until the process ends.
        thread::spawn(move || {
            go_home();
            let mut child = spawn(&mut command);
            started.send(child.id()).expect("a starter that waits");
            reader.follow(&mut child, keep);
        });
        let pid = start.recv().expect("a started tcptrace");
        Self { pid: Pid::from_raw(pid.cast_signed()), feed }
    }

    /// Waits for a row about a namespace.
    pub fn row(&self, net: &Namespace, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.rows(net, what, |rows| rows.iter().find(|row| wanted(row)).cloned())
    }

    /// Waits until the rows about a namespace that came so far have something to find.
    pub fn rows<T>(&self, net: &Namespace, what: &str, find: impl FnMut(&[Value]) -> Option<T>) -> T {
        self.find(net, find).unwrap_or_else(|vain| panic!("{vain} {what}; seen here:\n{}", self.told(net)))
    }

    /// The rows about a namespace that came so far.
    pub fn rows_now(&self, net: &Namespace) -> Vec<Value> {
        self.feed.lock().rows.get(&net.inode()).cloned().unwrap_or_default()
    }

    fn find<T>(&self, net: &Namespace, mut find: impl FnMut(&[Value]) -> Option<T>) -> Result<T, String> {
        self.wait(|output| find(output.rows.get(&net.inode()).map_or(&[], Vec::as_slice)))
    }

    fn told(&self, net: &Namespace) -> String {
        self.rows_now(net).iter().fold(self.complaints(), |text, row| text + &brief(row) + "\n")
    }

    /// Waits for a text on stdout, and returns everything up to then.
    pub fn text(&self, wanted: &str) -> String {
        self.expect(wanted, |output| {
            let text = String::from_utf8_lossy(&output.stdout);
            text.contains(wanted).then(|| text.into_owned())
        })
    }

    /// Sends it a Ctrl-C, and waits for its end.
    pub fn interrupt(&self) -> Finished {
        kill(self.pid, Signal::SIGINT).expect("a tcptrace to interrupt");
        self.finish()
    }

    /// Waits for its end.
    pub fn finish(&self) -> Finished {
        self.expect("its end", |output| {
            let status = output.status?;
            Some(Finished { status, stdout: output.stdout.clone(), stderr: output.stderr.clone() })
        })
    }

    /// What it printed on stderr so far.
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

    /// Reads all that a process prints, until it ends.
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
            self.change(|output| output.take(&line, keep));
            line.clear();
        }
        complaints.join().expect("read stderr");
        let status = child.wait().expect("wait for tcptrace");
        self.change(|output| output.status = Some(status));
    }
}

impl Output {
    fn take(&mut self, line: &[u8], keep: Keep) {
        if let Some((inode, row)) = parse(line)
            && (keep == Keep::Everything || Namespace::is_ours(inode))
        {
            self.rows.entry(inode).or_default().push(row);
        }
        if keep == Keep::Everything {
            self.stdout.extend(line);
        }
    }
}

fn parse(line: &[u8]) -> Option<(u64, Value)> {
    let row: Value = serde_json::from_slice(line).ok()?;
    Some((row["netns"].as_u64()?, row))
}

/// The telling fields of a row, in one line.
pub fn brief(row: &Value) -> String {
    const DULL: [&str; 9] = ["event", "time", "opened", "closed", "protocol", "family", "uid", "cgroup", "tid"];
    let fields = row.as_object().expect("a row").iter();
    let telling = fields.filter(|(name, value)| !DULL.contains(&name.as_str()) && !value.is_null());
    telling.map(|(name, value)| format!("{name}={value} ")).collect()
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Finished {
    run_command(Command::new(binary()).args(args))
}

/// Runs a command to its end.
pub fn run_command(command: &mut Command) -> Finished {
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Finished { status: output.status, stdout: output.stdout, stderr }
}

impl Finished {
    /// Its stdout as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("UTF-8 on stdout")
    }

    /// Its exit code; fails when a signal ended it.
    pub fn code(&self) -> i32 {
        let signal = self.status.signal();
        self.status.code().unwrap_or_else(|| panic!("ended by signal {signal:?}\n{}", self.stderr))
    }
}

/// The program under test: `TCPTRACE_BIN`, or what cargo builds in the profile of this test.
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os("TCPTRACE_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let profile_dir = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let (target_dir, dir_name) = (profile_dir.parent(), profile_dir.file_name());
    let target_dir = target_dir.expect("target");
    let profile = dir_name.and_then(|name| name.to_str()).expect("a profile's name");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "tcptrace", "--profile", profile.replace("debug", "dev").as_str()]);
    command.arg("--target-dir").arg(target_dir).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = output(&mut command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    profile_dir.join("tcptrace")
}
