//! Where a part of a scenario takes place: a network namespace and a folder of its own.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, exit};
use std::sync::Mutex;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::Pid;
use serde_json::Value;

use super::said::Said;
use crate::command;

/// Longest time for anything to begin or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Interval of polling.
const POLL: Duration = Duration::from_millis(20);

/// Inode numbers of the network namespaces, for the clean-up when a signal ends this process.
static NETS: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// A network namespace with loopback, and the processes in it. All end when it is dropped.
pub(super) struct Net {
    tcptrace: PathBuf,
    /// For configurations, data and logs.
    pub(super) folder: PathBuf,
    namespace: File,
    inode: u64,
    children: RefCell<Vec<Child>>,
}

impl Net {
    pub(super) fn new(tcptrace: &Path, folder: &Path) -> Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok::<_, anyhow::Error>(File::open("/proc/thread-self/ns/net")?)
        };
        let made = thread::spawn(make).join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        let namespace = made.context("cannot make a network namespace")?;
        let inode = namespace.metadata().context("cannot look at the network namespace")?.ino();
        if let Ok(mut nets) = NETS.lock() {
            nets.insert(inode);
        }
        let (tcptrace, folder) = (tcptrace.to_owned(), folder.to_owned());
        let net = Self { tcptrace, folder, namespace, inode, children: RefCell::default() };
        net.set_up("ip", &["link", "set", "lo", "up"])?;
        // tcptrace enters namespaces by their processes: here is always one.
        net.start("sleep", &["infinity"])?;
        Ok(net)
    }

    /// What keeps its number from being given to another one: what a recorder still knows of it would be told of that.
    pub(super) fn number(&self) -> Result<File> {
        self.namespace.try_clone().context("cannot name the network namespace")
    }

    /// Writes a file into the folder, and returns its path.
    pub(super) fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// A setting of the namespace.
    pub(super) fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.set_up("sysctl", &["--quiet", "--write", &format!("{name}={value}")])
    }

    /// The host 10.77.0.9, which is gone: packets to it leave, and nobody takes them.
    pub(super) fn void(&self) -> Result<()> {
        let lines = [
            "link add void type veth peer name nobody",
            "addr add 10.77.0.1/24 dev void",
            "link set void up",
            "link set nobody up",
            "neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev void",
        ];
        lines.iter().try_for_each(|line| self.set_up("ip", &line.split(' ').collect::<Vec<_>>()))
    }

    /// Another host, with a link to this one; each has one of these addresses. It goes when it is dropped.
    pub(super) fn neighbour(&self, own: &str, its: &str) -> Result<Self> {
        let there = Self::new(&self.tcptrace, &self.folder)?;
        let pid = there.start("sleep", &["infinity"])?.to_string();
        self.set_up("ip", &["link", "add", "there", "type", "veth", "peer", "name", "there", "netns", &pid])?;
        for (net, address) in [(self, own), (&there, its)] {
            net.set_up("ip", &["addr", "add", address, "dev", "there"])?;
            net.set_up("ip", &["link", "set", "there", "up"])?;
        }
        Ok(there)
    }

    /// From now on, applies this verdict to incoming packets that match this nft expression.
    pub(super) fn treat(&self, expression: &str, verdict: &str) -> Result<()> {
        let chain = format!("chain input {{ type filter hook input priority 0; {expression} {verdict}; }}");
        self.set_up("nft", &[&format!("table inet scenario {{ {chain}; }}")])
    }

    /// Runs a program that must succeed.
    fn set_up(&self, program: &str, arguments: &[&str]) -> Result<()> {
        command::output(&mut self.command(program, arguments)?).map(drop)
    }

    /// A program in the namespace and the folder. It ends with this process.
    pub(super) fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let found = command::find(program).with_context(|| format!("{program} is not installed"))?;
        let mut command = Command::new(found);
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        let namespace = self.namespace.try_clone().context("cannot name the network namespace")?;
        // SAFETY: between fork and exec this makes one system call, and touches no memory but its own stack.
        unsafe { command.pre_exec(move || Ok(setns(&namespace, CloneFlags::CLONE_NEWNET)?)) };
        command::dies_with_us(&mut command);
        Ok(command)
    }

    /// Runs a program to its end, whatever its status, and returns what it printed.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.finish(self.spawn(program, arguments)?)
    }

    /// Starts a program, and returns its id.
    pub(super) fn start(&self, program: &str, arguments: &[&str]) -> Result<u32> {
        let Started { child, .. } = self.spawn(program, arguments)?;
        let pid = child.id();
        self.children.borrow_mut().push(child);
        Ok(pid)
    }

    /// Starts a program, and returns when it listens on these ports.
    pub(super) fn serve(&self, program: &str, arguments: &[&str], ports: &[u16]) -> Result<u32> {
        let pid = self.start(program, arguments)?;
        for port in ports {
            self.wait_until(&format!("{program} listens on port {port}"), || {
                ensure!(!self.has_ended(pid)?, "{program} has ended; see {}", self.folder.display());
                Ok(self.listens(*port))
            })?;
        }
        Ok(pid)
    }

    fn has_ended(&self, pid: u32) -> Result<bool> {
        let mut children = self.children.borrow_mut();
        let child = children.iter_mut().find(|child| child.id() == pid).context("not a program of this scenario")?;
        Ok(child.try_wait().context("cannot wait for a program")?.is_some())
    }

    /// Starts a program that runs while something else happens.
    pub(super) fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Started> {
        let count = self.children.borrow().len();
        let name = Path::new(program).file_name().unwrap_or_default().display().to_string();
        let log = (0..).map(|number| self.folder.join(format!("{name}-{count}-{number}.log")));
        let log = log.into_iter().find(|path| !path.exists()).context("no name for a log")?;
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = self.command(program, arguments)?;
        command.stdout(file.try_clone().context("cannot write a log")?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot run `{}`", command::line(&command)))?;
        Ok(Started { child, log })
    }

    /// Waits for its end, and returns what it printed.
    pub(super) fn finish(&self, mut started: Started) -> Result<String> {
        let begun = Instant::now();
        while started.child.try_wait().context("cannot wait for a program")?.is_none() {
            if begun.elapsed() > PATIENCE {
                started.child.kill().context("cannot end a program")?;
                bail!("{} has not ended within {} s", started.log.display(), PATIENCE.as_secs());
            }
            sleep(POLL);
        }
        Ok(String::from_utf8_lossy(&fs::read(&started.log).context("cannot read a log")?).into_owned())
    }

    pub(super) fn signal(&self, pid: u32, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(pid.cast_signed()), signal).context("a program is gone")
    }

    pub(super) fn wait_until(&self, what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !is_so()? {
            if begun.elapsed() > PATIENCE {
                bail!("{} s have passed before {what}; see {}", PATIENCE.as_secs(), self.folder.display());
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Number of sockets in this state, as `/proc/net/tcp` numbers it.
    pub(super) fn sockets(&self, state: &str) -> usize {
        self.table().iter().filter(|fields| fields.get(3).is_some_and(|it| it == state)).count()
    }

    fn listens(&self, port: u16) -> bool {
        let port = format!(":{port:04X}");
        let is_it = |fields: &Vec<String>| fields.get(1).is_some_and(|it| it.ends_with(&port)) && fields[3] == "0A";
        self.table().iter().any(is_it)
    }

    /// Whether a finding is about this namespace, or about no namespace and no process: a setting of the host. Other
    /// things run on this machine.
    pub(super) fn is_here(&self, subject: &Value) -> bool {
        match (subject["netns"].as_u64(), subject["pid"].as_i64()) {
            (Some(netns), _) => netns == self.inode,
            (None, Some(pid)) => processes_in(self.inode).iter().any(|it| i64::from(*it) == pid),
            (None, None) => true,
        }
    }

    /// The fields of `/proc/net/tcp` and `tcp6`, as a process in the namespace sees them.
    fn table(&self) -> Vec<Vec<String>> {
        let Some(pid) = processes_in(self.inode).into_iter().next() else { return Vec::new() };
        let files = ["tcp", "tcp6"].map(|file| fs::read_to_string(format!("/proc/{pid}/net/{file}")));
        let files: Vec<String> = files.into_iter().flatten().collect();
        let lines = files.iter().flat_map(|file| file.lines().skip(1));
        lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }

    /// Looks for so many seconds, while the load runs. The text of the findings goes to `diagnose.txt`.
    pub(super) fn diagnose(&self, seconds: u64, load: impl FnOnce() -> Result<Vec<String>>) -> Result<Said> {
        let begin = |format: &str| {
            let path = |end: &str| self.folder.join(format!("diagnose.{end}"));
            let create = |end: &str| File::create(path(end)).context("cannot write what is said");
            let (said, errors) = (format!("{format}.txt"), format!("{format}.err"));
            let mut command = Command::new(&self.tcptrace);
            command.args(["diagnose", "--all", "--fail-on", "never", "--color", "never", "--format", format]);
            command.arg(format!("--duration={seconds}s")).arg(format!("--netns={}", self.inode));
            command.stdin(Stdio::null()).stdout(create(&said)?).stderr(create(&errors)?);
            command::dies_with_us(&mut command);
            let child = command.spawn().context("cannot run tcptrace")?;
            let errors = path(&errors);
            self.wait_until("tcptrace is ready", || Ok(fs::read_to_string(&errors)?.contains("tcptrace: ready\n")))?;
            Ok::<_, anyhow::Error>(Started { child, log: path(&said) })
        };
        let both = [begin("text")?, begin("json")?];
        let measured = load()?;
        let [_, json] = both.map(|one| self.finish(one));
        let mut said = Said::read(&json?)?;
        said.keep(|subject| self.is_here(subject));
        ensure!(!said.lines().is_empty(), "tcptrace printed nothing; see {}", self.folder.display());
        said.measured = measured;
        Ok(said)
    }
}

/// A running program, and where its output goes.
pub(super) struct Started {
    child: Child,
    log: PathBuf,
}

impl Drop for Net {
    fn drop(&mut self) {
        end(self.inode);
        for mut child in self.children.take() {
            // It has been killed.
            let _ = child.wait();
        }
        if let Ok(mut nets) = NETS.lock() {
            nets.remove(&self.inode);
        }
    }
}

/// Ends every process in the namespaces when a signal ends this one: workers do not end with their master.
pub(super) fn on_signals() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    // Programs are started with none of them blocked.
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).context("cannot block signals")?;
    thread::spawn(move || {
        let signal = signals.wait();
        if let Ok(nets) = NETS.lock() {
            nets.iter().for_each(|inode| end(*inode));
        }
        exit(128 + signal.map_or(0, |signal| signal as i32));
    });
    Ok(())
}

/// Kills every process in a network namespace, and those that they start meanwhile.
fn end(inode: u64) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let left = processes_in(inode);
        if left.is_empty() {
            return;
        }
        for pid in left {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        sleep(POLL);
    }
}

/// The processes in a network namespace; those that have ended have none.
fn processes_in(inode: u64) -> Vec<i32> {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|it| it.ino() == inode)).collect()
}
