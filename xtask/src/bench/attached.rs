//! What tcptrace has attached, taken over after it has ended: each of its programs can be attached alone.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::bpf::{self, Ring};
use super::proc;

/// Interval of emptying the ring buffers, as tcptrace does under load.
const EVERY: Duration = Duration::from_millis(10);

/// What a process has attached, by the kernel's ids.
#[derive(Debug, Default, PartialEq)]
struct Listed {
    /// For each program, its tracepoints, in the order of their links.
    programs: BTreeMap<u32, Vec<Point>>,
    /// Ring buffers, each with its size.
    rings: Vec<(u32, usize)>,
}

/// A tracepoint.
#[derive(Clone, Debug, PartialEq)]
enum Point {
    /// The program names it; it has access to the arguments by type.
    Typed(String),
    /// A classic tracepoint of a system call.
    Classic(String),
}

impl Point {
    fn name(&self) -> &str {
        match self {
            Self::Typed(name) | Self::Classic(name) => name,
        }
    }
}

/// A program with its tracepoints.
pub(super) struct Hook {
    /// The names of its tracepoints.
    pub(super) name: String,
    program: OwnedFd,
    points: Vec<Point>,
}

impl Hook {
    /// Attaches it, until what is returned is dropped.
    pub(super) fn attach(&self) -> Result<Vec<OwnedFd>> {
        let attach = |point: &Point| match point {
            Point::Typed(_) => bpf::attach_typed(&self.program),
            Point::Classic(name) => bpf::attach_classic(&self.program, "syscalls", name),
        };
        let attached = self.points.iter().map(attach).collect::<Result<_>>();
        attached.with_context(|| format!("cannot attach the program of {}", self.name))
    }
}

/// Programs that stay loaded, and a thread that empties their ring buffers.
pub(super) struct Held {
    pub(super) hooks: Vec<Hook>,
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Held {
    /// Takes over the programs of a process, which must end before they are attached.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let listed = list(&proc::descriptors(pid)?);
        ensure!(!listed.programs.is_empty() && !listed.rings.is_empty(), "no programs with a ring buffer are attached");
        let hooks = listed.programs.into_iter().map(|(id, points)| {
            let names: Vec<_> = points.iter().map(Point::name).collect();
            Ok(Hook { name: names.join(", "), program: bpf::program(id)?, points })
        });
        let hooks = hooks.collect::<Result<_>>()?;
        let rings = listed.rings.iter().map(|&(id, size)| Ring::open(id, size)).collect::<Result<Vec<_>>>()?;
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let reader = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                rings.iter().for_each(Ring::drain);
                sleep(EVERY);
            }
        });
        Ok(Self { hooks, over, reader: Some(reader) })
    }

    /// Ends the reader.
    pub(super) fn close(mut self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        let reader = self.reader.take().map_or(Ok(()), JoinHandle::join);
        reader.map_err(|_| anyhow!("the reader of the ring buffers has panicked"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Reads the texts of `/proc/PID/fdinfo/*`.
fn list(infos: &[String]) -> Listed {
    /// `BPF_MAP_TYPE_RINGBUF`.
    const RING: u32 = 27;
    let mut listed = Listed::default();
    for info in infos {
        let value = |key: &str| {
            let mut fields = info.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(name, _)| *name == key).map(|(_, value)| value.trim())
        };
        let number = |key| value(key).and_then(|number| number.parse::<u32>().ok());
        if let (Some(id), Some(kind), Some(name)) = (number("prog_id"), value("link_type"), value("tp_name")) {
            let name = name.to_owned();
            let point = if kind == "perf" { Point::Classic(name) } else { Point::Typed(name) };
            listed.programs.entry(id).or_default().push(point);
        }
        if let (Some(RING), Some(id), Some(size)) = (number("map_type"), number("map_id"), number("max_entries")) {
            listed.rings.push((id, size as usize));
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_ring_buffers_are_listed() {
        let infos = [
            "pos:\t0\nlink_type:\traw_tracepoint\nlink_id:\t9\nprog_id:\t71\ntp_name:\ttimer_start\ncookie:\t0\n",
            "prog_type:\t26\nprog_id:\t71\nrun_time_ns:\t4200\nrun_cnt:\t42\n",
            "link_type:\tperf\nlink_id:\t10\nprog_id:\t80\ntp_name:\tsys_exit_accept\nevent_type:\ttracepoint\n",
            "link_type:\tperf\nlink_id:\t11\nprog_id:\t80\ntp_name:\tsys_exit_accept4\nevent_type:\ttracepoint\n",
            "map_type:\t27\nkey_size:\t0\nmax_entries:\t16777216\nmap_id:\t56695\n",
            "map_type:\t2\nkey_size:\t4\nmax_entries:\t1\nmap_id:\t56693\n",
        ];
        let listed = list(&infos.map(str::to_owned));
        let accept = ["sys_exit_accept", "sys_exit_accept4"].map(|name| Point::Classic(name.to_owned()));
        let typed = Point::Typed("timer_start".to_owned());
        assert_eq!(listed.programs, BTreeMap::from([(71, vec![typed]), (80, accept.to_vec())]));
        assert_eq!(listed.rings, [(56695, 16_777_216)]);
    }
}
