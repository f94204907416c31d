//! The machine that was measured: the caption of every run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

use serde_json::{Value, json};

use crate::{command, host};

/// Properties of this machine, and the versions of other tools.
pub(super) struct Machine {
    kernel: String,
    cpus: usize,
    model: String,
    virtual_machine: bool,
    memory_bytes: Option<u64>,
    /// Load average of the last minute before the measurements.
    load: Option<f64>,
    mitigations: Vec<String>,
    peers: Vec<String>,
}

/// Tools whose versions matter, and how to print them.
const VERSIONS: [(&str, &str); 4] =
    [("bpftrace", "--version"), ("perf", "--version"), ("ss", "-V"), ("tcpstates", "--version")];

impl Machine {
    /// Reads those of this machine.
    pub(super) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name| field(&cpuinfo, name);
        Self {
            kernel: host::kernel_release(),
            cpus: available_parallelism().map_or(0, usize::from),
            model: field("model name").unwrap_or("an unknown CPU").to_owned(),
            virtual_machine: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()),
            memory_bytes: memory(&read("/proc/meminfo")),
            mitigations: mitigations(),
            peers: VERSIONS.iter().filter_map(|&(program, option)| version(program, option)).collect(),
        }
    }

    /// One line of text.
    pub(super) fn caption(&self) -> String {
        let kind = if self.virtual_machine { ", a virtual machine" } else { "" };
        let memory = self.memory_bytes.map(|bytes| format!(", {:.0} GiB", bytes as f64 / f64::from(1 << 30)));
        let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        format!(
            "Linux {} on {} CPUs ({}{}){kind}, load average before: {}; mitigations: {}; other tools: {}.",
            self.kernel,
            self.cpus,
            self.model,
            memory.unwrap_or_default(),
            self.load.map_or_else(|| "unknown".to_owned(), |load| load.to_string()),
            list(&self.mitigations),
            list(&self.peers),
        )
    }

    /// As JSON.
    pub(super) fn json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "cpus": self.cpus,
            "cpu_model": self.model,
            "virtual_machine": self.virtual_machine,
            "memory_bytes": self.memory_bytes,
            "load_average_before": self.load,
            "mitigations": self.mitigations,
            "peers": self.peers,
        })
    }
}

/// The first value of a field in `proc_cpuinfo(5)`.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let values = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    values.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn memory(meminfo: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// The kernel's mitigations for flaws of this CPU.
fn mitigations() -> Vec<String> {
    let Ok(flaws) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else { return Vec::new() };
    let described = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        mitigation(&path.file_name()?.to_string_lossy(), &text)
    };
    let mut all: Vec<_> = flaws.flatten().filter_map(|flaw| described(&flaw.path())).collect();
    all.sort();
    all
}

/// The first mitigation of a flaw; `None` if the CPU is not affected or the flaw not mitigated.
fn mitigation(flaw: &str, said: &str) -> Option<String> {
    let (_, how) = said.trim().split_once("Mitigation: ")?;
    Some(format!("{flaw} ({})", how.split([';', ',']).next().unwrap_or(how).trim()))
}

/// Name and version of the Debian package that contains a program; otherwise what the program prints.
fn version(program: &str, option: &str) -> Option<String> {
    let path = command::find(program)?;
    packaged(&path).or_else(|| {
        let said = command::output(Command::new(path).arg(option)).ok()?;
        Some(said.lines().next()?.trim().to_owned())
    })
}

fn packaged(program: &Path) -> Option<String> {
    // dpkg may know a program by its path from before `/bin` became `/usr/bin`.
    let older = Path::new("/").join(program.strip_prefix("/usr").ok()?);
    let owner = |path: &Path| command::output(Command::new("dpkg").arg("-S").arg(path)).ok();
    let owner = owner(program).or_else(|| owner(&older))?;
    let package = owner.split(':').next()?;
    let version = command::output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package])).ok()?;
    Some(format!("{package} {}", version.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_field() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor\nprocessor\t: 1\n";
        assert_eq!(field(cpuinfo, "model name"), Some("AMD EPYC"));
        assert_eq!(field(cpuinfo, "processor"), Some("0"));
        assert_eq!(field(cpuinfo, "model"), None);
    }

    #[test]
    fn memory_is_in_kib() {
        assert_eq!(memory("MemTotal:       24683000 kB\nMemFree: 1 kB\n"), Some(24_683_000 * 1024));
        assert_eq!(memory(""), None);
    }

    #[test]
    fn only_what_is_done_is_a_mitigation() {
        assert_eq!(mitigation("meltdown", "Not affected\n"), None);
        assert_eq!(mitigation("srso", "Vulnerable: Safe RET, no microcode\n"), None);
        let said = "Mitigation: Retpolines; STIBP: disabled; RSB filling\n";
        assert_eq!(mitigation("spectre_v2", said).as_deref(), Some("spectre_v2 (Retpolines)"));
    }
}
