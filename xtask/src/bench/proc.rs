//! Facts from `/proc` about a process: CPU time, memory, and its BPF programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use procfs::process::{MMapPath, MemoryMaps, Process};

/// CPU time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cpu {
    /// In user mode.
    pub(crate) user: Duration,
    /// In the kernel.
    pub(crate) system: Duration,
}

impl Cpu {
    /// The CPU time between two readings.
    pub(super) fn less(self, other: Self) -> Self {
        let less = |ours: Duration, theirs| ours.saturating_sub(theirs);
        Self { user: less(self.user, other.user), system: less(self.system, other.system) }
    }
}

/// Resident memory in bytes, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// All of it, as `ps` and `top` show it.
    pub(crate) rss: u64,
    /// Maps shared with BPF programs; memory that is mapped twice counts twice.
    pub(crate) maps: u64,
    /// Pages of files: the program and its libraries.
    pub(crate) files: u64,
    /// Heap and stacks.
    pub(crate) own: u64,
    /// All but the maps, with a page of several processes shared out among them.
    pub(crate) shared_out: u64,
}

/// A BPF program, with the number and duration of its runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Program {
    /// Its id in the kernel.
    pub(super) id: u32,
    /// Its tracepoint, if the kernel names it.
    pub(super) hook: Option<String>,
    /// Runs while statistics were on.
    pub(super) runs: u64,
    /// Duration of these runs, in ns.
    pub(super) ns: u64,
}

fn process(pid: u32) -> Result<Process> {
    Process::new(i32::try_from(pid)?).with_context(|| format!("cannot look at process {pid}"))
}

/// The process, and the helper that it has if it is a live command of tcptrace.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let is_helper = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "tcptrace-helper")
    };
    std::iter::once(pid).chain(children.split(' ').filter_map(|pid| pid.parse().ok()).filter(is_helper)).collect()
}

/// User and system time so far, that of a helper included.
pub(crate) fn cpu(pid: u32) -> Result<Cpu> {
    family(pid).into_iter().map(cpu_of).try_fold(Cpu { user: Duration::ZERO, system: Duration::ZERO }, |sum, cpu| {
        let cpu = cpu?;
        Ok(Cpu { user: sum.user + cpu.user, system: sum.system + cpu.system })
    })
}

fn cpu_of(pid: u32) -> Result<Cpu> {
    let stat = process(pid)?.stat().context("cannot read the times of a process")?;
    let time = |ticks: u64| Duration::from_micros(ticks * 1_000_000 / procfs::ticks_per_second());
    Ok(Cpu { user: time(stat.utime), system: time(stat.stime) })
}

/// The largest resident set so far, in bytes, and that of a helper.
pub(super) fn peak_rss(pid: u32) -> Result<u64> {
    family(pid).into_iter().map(peak_rss_of).sum()
}

fn peak_rss_of(pid: u32) -> Result<u64> {
    let status = process(pid)?.status().context("cannot read the status of a process")?;
    Ok(1024 * status.vmhwm.unwrap_or(0))
}

/// The resident memory now, that of a helper included. What both share counts twice, except in `shared_out`.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    family(pid).into_iter().map(memory_of).try_fold(Memory::default(), |sum, memory| {
        let Memory { rss, maps, files, own, shared_out } = memory?;
        Ok(Memory {
            rss: sum.rss + rss,
            maps: sum.maps + maps,
            files: sum.files + files,
            own: sum.own + own,
            shared_out: sum.shared_out + shared_out,
        })
    })
}

fn memory_of(pid: u32) -> Result<Memory> {
    Ok(memory_in(process(pid)?.smaps().context("cannot read the mappings of a process")?))
}

fn memory_in(mappings: MemoryMaps) -> Memory {
    let mut memory = Memory::default();
    for mapping in mappings {
        let figure = |name: &str| mapping.extension.map.get(name).copied().unwrap_or(0);
        let bytes = figure("Rss");
        memory.rss += bytes;
        let place = match &mapping.pathname {
            MMapPath::Path(path) if path == Path::new("anon_inode:bpf-map") => {
                memory.maps += bytes;
                continue;
            }
            MMapPath::Path(path) if path.is_absolute() => &mut memory.files,
            _ => &mut memory.own,
        };
        *place += bytes;
        memory.shared_out += figure("Pss");
    }
    memory
}

/// The BPF programs of which a process has descriptors.
pub(super) fn programs(pid: u32) -> Result<Vec<Program>> {
    Ok(programs_in(descriptors(pid)?.into_iter()))
}

/// The texts of `/proc/PID/fdinfo/*`.
pub(super) fn descriptors(pid: u32) -> Result<Vec<String>> {
    let folder = PathBuf::from(format!("/proc/{pid}/fdinfo"));
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    // A descriptor that was closed meanwhile does not belong to an attached program.
    Ok(entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect())
}

/// Parses the text of one `/proc/PID/fdinfo/*`.
pub(super) fn program_in(info: String) -> Option<Program> {
    programs_in([info].into_iter()).pop()
}

/// Parses the texts of `/proc/PID/fdinfo/*`: those of programs count the runs, those of links name the tracepoints.
fn programs_in(infos: impl Iterator<Item = String>) -> Vec<Program> {
    let (mut programs, mut hooks) = (Vec::new(), Vec::new());
    for info in infos {
        let value = |key: &str| {
            let fields = info.lines().filter_map(|line| line.split_once(':'));
            fields.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value.trim())
        };
        let Some(id) = value("prog_id").and_then(|id| id.parse().ok()) else { continue };
        let number = |key| value(key).and_then(|number| number.parse().ok());
        match (number("run_cnt"), number("run_time_ns")) {
            (Some(runs), Some(ns)) => programs.push(Program { id, hook: None, runs, ns }),
            _ => hooks.extend(value("tp_name").map(|name| (id, name.to_owned()))),
        }
    }
    for program in &mut programs {
        program.hook = hooks.iter().find(|(id, _)| *id == program.id).map(|(_, hook)| hook.clone());
    }
    programs.sort_by_key(|program| program.id);
    programs
}

#[cfg(test)]
mod tests {
    use procfs::FromRead as _;

    use super::*;

    #[test]
    fn memory_is_told_apart_by_what_is_mapped() {
        let smaps = "\
            55d0c0000000-55d0c1000000 r-xp 00000000 fe:01 99    /usr/bin/tcptrace\n\
            Size:              16384 kB\nRss:                7000 kB\nPss:                3500 kB\n\
            55d0c2000000-55d0c3000000 rw-p 00000000 00:00 0     [heap]\n\
            Rss:                1000 kB\nPss:                1000 kB\n\
            7f656caf9000-7f656eafa000 r--s 00001000 00:10 1038                       anon_inode:bpf-map\n\
            Rss:               32772 kB\nPss:               16386 kB\nVmFlags: rd sh mr mw me ms\n\
            7f6574a00000-7f6574b00000 rw-p 00000000 00:00 0 \n\
            Rss:                  24 kB\n";
        let kib = |kib: u64| 1024 * kib;
        let [rss, maps, files, own, shared_out] = [40_796, 32_772, 7_000, 1_024, 4_500].map(kib);
        let expected = Memory { rss, maps, files, own, shared_out };
        let mappings = MemoryMaps::from_read(smaps.as_bytes()).expect("mappings");
        assert_eq!(memory_in(mappings), expected);
    }

    #[test]
    fn programs_get_the_names_of_what_they_are_attached_to() {
        let infos = [
            "pos:\t0\nlink_type:\traw_tracepoint\nlink_id:\t9\nprog_id:\t71\ntp_name:\ttimer_start\ncookie:\t0\n",
            "pos:\t0\nprog_type:\t26\nprog_id:\t71\nrun_time_ns:\t4200\nrun_cnt:\t42\nrecursion_misses:\t0\n",
            "pos:\t0\nflags:\t02\n",
            "prog_type:\t26\nprog_id:\t70\nrun_time_ns:\t0\nrun_cnt:\t0\n",
        ];
        let expected = [
            Program { id: 70, hook: None, runs: 0, ns: 0 },
            Program { id: 71, hook: Some("timer_start".to_owned()), runs: 42, ns: 4200 },
        ];
        assert_eq!(programs_in(infos.map(str::to_owned).into_iter()), expected);
    }

    #[test]
    fn this_process_has_memory_and_no_programs() {
        let pid = std::process::id();
        let memory = memory(pid).expect("readable");
        assert!(memory.files > 0 && memory.own > 0 && memory.rss >= memory.files + memory.own, "{memory:?}");
        assert!(peak_rss(pid).expect("readable") > 0);
        assert_eq!(programs(pid).expect("readable"), []);
    }
}
