//! Control groups with hostile names, and the load that makes connections from them.

use std::ffi::{CString, OsString};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context as _, Result};
use nix::sys::prctl;
use serde_json::json;

use crate::stress::load::{FIRST, enter_new_namespace, say};

/// Names that a terminal, a spreadsheet, a browser or a line-based parser may misread. A process gets the first 15
/// bytes.
pub(super) const HOSTILE: [&str; 14] = [
    "a\x1b[31mred",
    "\x1b]0;title\x07",
    "\u{202e}gnp.exe",
    "\u{2066}a\u{2069}",
    "\u{9b}31mred",
    "a\rb",
    "\x07\x08\x7f",
    "a\tb",
    "=1+1",
    "@SUM(A1)",
    "-2+3",
    "+4",
    "<b>&\"'",
    "a,b\"c",
];

/// Options of the hidden subcommand.
#[derive(clap::Args)]
pub(crate) struct LoadArgs {
    /// The control group below which to make others
    #[arg(long)]
    base: Option<PathBuf>,
    /// Make a connection from each of this many control groups
    #[arg(long, default_value_t = 0)]
    groups: u32,
    /// Length of their names
    #[arg(long, default_value_t = 20)]
    length: usize,
    /// How many of them exist at a time
    #[arg(long, default_value_t = 100)]
    keep: u32,
    /// First make one from a deeply nested control group: this many levels, each with a name of 250 bytes
    #[arg(long, default_value_t = 0)]
    depth: u32,
    /// Make one from a process with each hostile name, in a control group of that name
    #[arg(long)]
    hostile: bool,
    /// Then make connections from the original control group for this many seconds
    #[arg(long, default_value_t = 0.0)]
    after: f64,
}

/// Makes the connections. It speaks the same protocol as the load of `stress`.
pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    enter_new_namespace()?;
    let mut maker = Maker::new()?;
    let netns = fs::metadata("/proc/self/ns/net").context("cannot look at the network namespace")?.ino();
    if let Some(base) = &args.base {
        fs::create_dir(base).with_context(|| format!("cannot create {}", base.display()))?;
    }
    say(&json!({ "netns": netns, "ports": [maker.port] }))?;
    let mut input = io::stdin();
    input.read_line(&mut String::new()).context("cannot wait for the order to begin")?;
    let begun = Instant::now();
    let made = maker.make(args);
    maker.go_home()?;
    made?;
    say(&json!({ "connections": maker.made, "seconds": begun.elapsed().as_secs_f64() }))?;
    input.read_to_end(&mut Vec::new()).context("cannot wait for the order to end")?;
    if let Some(base) = &args.base {
        remove(base);
    }
    Ok(())
}

struct Maker {
    listener: TcpListener,
    port: u16,
    made: u32,
    /// The original control group of this process.
    home: Option<PathBuf>,
}

impl Maker {
    fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen on loopback")?;
        let port = listener.local_addr()?.port();
        let own = fs::read_to_string("/proc/self/cgroup").context("cannot tell this control group")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        Ok(Self { listener, port, made: 0, home: hierarchy().zip(own).map(|(root, own)| root.join(own)) })
    }

    fn make(&mut self, args: &LoadArgs) -> Result<()> {
        if let Some(base) = &args.base {
            self.connect_deep(base, args.depth)?;
            self.connect_in_groups(base, args)?;
            if args.hostile {
                self.connect_with_hostile_names(base)?;
            }
        }
        let begun = Instant::now();
        while begun.elapsed().as_secs_f64() < args.after {
            self.connect()?;
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn connect_deep(&mut self, base: &Path, depth: u32) -> Result<()> {
        let name = "d".repeat(250);
        // The path is longer than PATH_MAX.
        env::set_current_dir(base).context("cannot enter the control group")?;
        for _ in 0..depth {
            fs::create_dir(&name).context("cannot create a control group")?;
            env::set_current_dir(&name).context("cannot enter the control group")?;
        }
        if depth > 0 {
            enter(Path::new("."))?;
            self.connect()?;
        }
        env::set_current_dir("/").context("cannot go back")
    }

    fn connect_in_groups(&mut self, base: &Path, args: &LoadArgs) -> Result<()> {
        let group = |number: u32| base.join(format!("{number:c<length$}", length = args.length));
        for number in 0..args.groups {
            let own = group(number);
            fs::create_dir(&own).context("cannot create a control group")?;
            enter(&own)?;
            self.connect()?;
            if number >= args.keep {
                fs::remove_dir(group(number - args.keep)).context("cannot remove a control group")?;
            }
        }
        self.go_home()
    }

    fn connect_with_hostile_names(&mut self, base: &Path) -> Result<()> {
        for name in HOSTILE {
            let group = base.join(name);
            fs::create_dir(&group).with_context(|| format!("cannot create the control group {name:?}"))?;
            enter(&group)?;
            prctl::set_name(&CString::new(name)?).with_context(|| format!("cannot be called {name:?}"))?;
            self.connect()?;
        }
        Ok(())
    }

    /// Makes a connection that the client closes first. Each 4-tuple is used once.
    fn connect(&mut self) -> Result<()> {
        let to = SocketAddrV4::new(Ipv4Addr::from(u32::from(FIRST) + self.made), self.port);
        let client = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        let (mut server, _) = self.listener.accept().context("cannot accept")?;
        drop(client);
        server.read(&mut [0; 1]).context("cannot read")?;
        self.made += 1;
        Ok(())
    }

    fn go_home(&self) -> Result<()> {
        self.home.as_deref().map_or(Ok(()), enter)
    }
}

/// Moves this process into a control group.
fn enter(group: &Path) -> Result<()> {
    fs::write(group.join("cgroup.procs"), "0").context("cannot enter a control group")
}

/// Mount point of the unified hierarchy of control groups.
pub(super) fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read("/proc/self/mounts").ok()?;
    mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let path = fields.nth(1)?;
        (fields.next() == Some(b"cgroup2")).then(|| OsString::from_vec(path.to_vec()).into())
    })
}

/// Removes a control group with everything in it, processes included.
pub(super) fn remove(group: &Path) {
    // Killed processes leave the group a moment later.
    const TRIES: u32 = 100;
    for _ in 0..TRIES {
        if !group.exists() {
            return;
        }
        // Kernels before 5.14 have no such file; the group is empty there, unless something failed.
        let _ = fs::write(group.join("cgroup.kill"), "1");
        if remove_tree(group).is_ok() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
}

/// Walks by descriptors, because paths may be too long.
fn remove_tree(group: &Path) -> io::Result<()> {
    let folder = fs::File::open(group)?;
    let here = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    for entry in fs::read_dir(&here)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&here.join(entry.file_name()))?;
        }
    }
    fs::remove_dir(group)
}
