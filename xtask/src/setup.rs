//! `cargo xtask setup`: checks what is installed, and installs what is missing.

pub(crate) mod python;
pub(crate) mod qemu;
pub(crate) mod services;

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::ebpf::toolchain::Linker;
use crate::{command, host};

/// Version of bpf-linker to install.
const LINKER_VERSION: &str = "0.13.0";
/// Major version of the LLVM to build it with: that of Debian's rustc-web.
const LLVM: &str = "22";

/// Options of `cargo xtask setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also install what the tests run: nft, ip, ss, sysctl, tmux, tshark; a browser; Java; a Python environment with DuckDB and
    /// Spark; and the C++ compiler that fuzzing needs
    #[arg(long)]
    tests: bool,
    /// Also install QEMU for tests on other kernels, below Cargo's target directory if apt would have to remove
    /// packages
    #[arg(long)]
    vm: bool,
    /// Also install the tools that the benchmark compares with and the programs that it traces; their services are not
    /// started
    #[arg(long)]
    bench: bool,
}

/// A program, or a part of one, from outside the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    /// A program in `PATH`, an absolute path, or a Python module.
    file: &'static str,
    /// Its Debian package.
    package: &'static str,
}

/// Debian packages for building the eBPF programs.
const BPF_TOOLCHAIN: [Tool; 4] = [
    Tool { file: "/usr/bin/rustc", package: "rustc-web" },
    Tool { file: "/usr/bin/cargo", package: "cargo-web" },
    Tool { file: "/usr/lib/rustlib/bpfel-unknown-none", package: "libstd-rust-web-dev-bpf" },
    Tool { file: "/usr/lib/llvm-22/bin/llvm-config", package: "llvm-22-dev" },
];

/// Programs that the tests run.
pub(crate) const TEST_TOOLS: [Tool; 10] = [
    Tool { file: "nft", package: "nftables" },
    Tool { file: "ip", package: "iproute2" },
    Tool { file: "ss", package: "iproute2" },
    Tool { file: "sysctl", package: "procps" },
    Tool { file: "tmux", package: "tmux" },
    Tool { file: "tshark", package: "tshark" },
    Tool { file: "chromium-headless-shell", package: "chromium-headless-shell" },
    Tool { file: "java", package: "default-jre-headless" },
    Tool { file: "python3", package: "python3" },
    Tool { file: "python3 -m ensurepip", package: "python3-venv" },
];

/// The compiler with which `cargo xtask fuzz` builds libFuzzer.
pub(crate) const FUZZ_TOOLS: [Tool; 1] = [Tool { file: "c++", package: "g++" }];

/// Programs with which `cargo xtask vm` makes virtual machines.
pub(crate) const VM_TOOLS: [Tool; 3] = [
    Tool { file: "qemu-system-x86_64", package: "qemu-system-x86" },
    Tool { file: "cpio", package: "cpio" },
    Tool { file: "/usr/share/keyrings/debian-archive-keyring.gpg", package: "debian-archive-keyring" },
];

/// The same for 64-bit ARM, and the cross compiler.
pub(crate) const ARM_TOOLS: [Tool; 3] = [
    Tool { file: "qemu-system-aarch64", package: "qemu-system-arm" },
    Tool { file: "aarch64-linux-gnu-gcc", package: "gcc-aarch64-linux-gnu" },
    Tool { file: "/usr/aarch64-linux-gnu/lib/libc.a", package: "libc6-dev-arm64-cross" },
];

/// Programs that `cargo xtask scenarios` runs.
pub(crate) const SCENARIO_TOOLS: [Tool; 20] = [
    Tool { file: "ip", package: "iproute2" },
    Tool { file: "sysctl", package: "procps" },
    Tool { file: "nft", package: "nftables" },
    Tool { file: "nginx", package: "nginx-light" },
    Tool { file: "haproxy", package: "haproxy" },
    Tool { file: "redis-server", package: "redis-server" },
    Tool { file: "redis-benchmark", package: "redis-tools" },
    Tool { file: "apache2", package: "apache2-bin" },
    Tool { file: "php-fpm8.2", package: "php8.2-fpm" },
    Tool { file: "ab", package: "apache2-utils" },
    Tool { file: "wrk", package: "wrk" },
    Tool { file: "javac", package: "default-jdk-headless" },
    Tool { file: "/usr/bin/python3", package: "python3" },
    Tool { file: "/usr/lib/python3/dist-packages/urllib3", package: "python3-urllib3" },
    Tool { file: "/usr/lib/python3/dist-packages/requests", package: "python3-requests" },
    Tool { file: "/usr/lib/python3/dist-packages/redis", package: "python3-redis" },
    Tool { file: "setpriv", package: "util-linux" },
    Tool { file: "/usr/lib/postgresql/15/bin/pgbench", package: "postgresql-15" },
    Tool { file: "pgbouncer", package: "pgbouncer" },
    Tool { file: "/usr/lib/python3/dist-packages/psycopg2", package: "python3-psycopg2" },
];

/// Programs with which `cargo xtask package` makes packages.
pub(crate) const PACKAGE_TOOLS: [Tool; 3] = [
    Tool { file: "dpkg-deb", package: "dpkg" },
    Tool { file: "rpmbuild", package: "rpm" },
    Tool { file: "tar", package: "tar" },
];

/// Programs with which it checks them.
pub(crate) const PACKAGE_CHECK_TOOLS: [Tool; 5] = [
    Tool { file: "lintian", package: "lintian" },
    Tool { file: "rpm", package: "rpm" },
    Tool { file: "debootstrap", package: "debootstrap" },
    Tool { file: "man", package: "man-db" },
    Tool { file: "systemd-analyze", package: "systemd" },
];

/// Tools that the benchmark compares with, and programs that it traces.
const BENCH_TOOLS: [Tool; 8] = [
    Tool { file: "tcpstates", package: "libbpf-tools" },
    Tool { file: "bpftrace", package: "bpftrace" },
    Tool { file: "perf", package: "linux-perf" },
    Tool { file: "ss", package: "iproute2" },
    Tool { file: "redis-server", package: "redis-server" },
    Tool { file: "redis-benchmark", package: "redis-tools" },
    Tool { file: "nginx", package: "nginx-light" },
    Tool { file: "wrk", package: "wrk" },
];

/// Installs what is missing; without the right to, lists the commands.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut tools = BPF_TOOLCHAIN.to_vec();
    tools.extend(TEST_TOOLS.iter().chain(&FUZZ_TOOLS).filter(|_| args.tests));
    tools.extend(VM_TOOLS.iter().filter(|_| args.vm));
    tools.extend(BENCH_TOOLS.iter().filter(|_| args.bench));
    let commands = [packages(&tools, Tool::is_missing), linker()].concat();
    if args.bench && can_install() && !commands.is_empty() {
        services::withhold(|| perform(&commands))?;
    } else {
        perform(&commands)?;
    }
    let more = args.tests && python::require()?;
    if commands.is_empty() && !more {
        println!("Nothing to do: everything is installed.");
    }
    Ok(())
}

/// Installs `tools` where possible, and reports success or the commands to type.
pub(crate) fn require(tools: &[Tool]) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| tool.is_missing()).map(|tool| tool.file).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Not installed, but needed: {}", missing.join(", "));
    perform(&packages(tools, Tool::is_missing))
}

/// The packages of those `tools` that are missing.
pub(crate) fn missing(tools: &[Tool]) -> Vec<&'static str> {
    tools.iter().filter(|tool| tool.is_missing()).map(|tool| tool.package).collect()
}

/// Installs Rust's standard library for `target` if it is missing.
pub(crate) fn require_target(target: &str) -> Result<()> {
    let sysroot = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target).exists() {
        return Ok(());
    }
    command::run(Command::new("rustup").args(["target", "add", target]))
}

impl Tool {
    fn is_missing(&self) -> bool {
        match self.file.strip_prefix("python3 -m ") {
            Some(module) => !python::has(module),
            None if self.is_qemu() => qemu::find(self.file).is_none(),
            None if self.file.starts_with('/') => !Path::new(self.file).exists(),
            None => command::find(self.file).is_none(),
        }
    }

    fn is_qemu(&self) -> bool {
        self.package.starts_with("qemu-system-")
    }
}

/// A command to type as root.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    program: &'static str,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// QEMU, which apt may be unable to install.
    qemu: Option<Tool>,
}

impl Step {
    fn new(program: &'static str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { program, arguments, environment: Vec::new(), qemu: None }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = if self.program == "cargo" { command::cargo() } else { Command::new(self.program) };
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self) -> Result<()> {
        match self.qemu {
            Some(qemu) => qemu::install(qemu, &mut self.command()),
            None => command::run(&mut self.command()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&command::line(&self.command()))
    }
}

/// The commands that install the packages of missing `tools`.
fn packages(tools: &[Tool], is_missing: impl Fn(&Tool) -> bool) -> Vec<Step> {
    let (qemus, others): (Vec<&Tool>, Vec<&Tool>) =
        tools.iter().filter(|tool| is_missing(tool)).partition(|tool| tool.is_qemu());
    let mut packages: Vec<_> = others.iter().map(|tool| tool.package).collect();
    packages.dedup();
    let others = (!packages.is_empty()).then(|| apt_get("install", &packages));
    let qemus = qemus.into_iter().map(|&qemu| Step { qemu: Some(qemu), ..apt_get("install", &[qemu.package]) });
    let installs: Vec<_> = others.into_iter().chain(qemus).collect();
    let update = (!installs.is_empty()).then(|| Step::new("apt-get", &["update"]));
    update.into_iter().chain(installs).collect()
}

/// `--no-remove`: installing must not cost the user a package.
fn apt_get(verb: &str, what: &[&str]) -> Step {
    let options = [verb, "--yes", "--no-install-recommends", "--no-remove"];
    Step::new("apt-get", &[&options, what].concat()).with("DEBIAN_FRONTEND", "noninteractive")
}

fn linker() -> Vec<Step> {
    let fits = |linker: Linker| linker.version == format!("bpf-linker {LINKER_VERSION}") && linker.llvm_major() == LLVM;
    if Linker::find().is_ok_and(fits) {
        return Vec::new();
    }
    let install = ["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--no-default-features"];
    let feature = format!("llvm-{LLVM}");
    let install = Step::new("cargo", &[&install[..], &["--features", &feature]].concat());
    vec![install.with("LLVM_PREFIX", &format!("/usr/lib/{feature}"))]
}

fn can_install() -> bool {
    host::is_debian() && host::is_root()
}

fn perform(steps: &[Step]) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    if !can_install() {
        let why = if host::is_debian() { "installing needs root" } else { "this is not Debian" };
        let lines: Vec<_> = steps.iter().map(|step| format!("  {step}")).collect();
        bail!("{why}; these commands, or their equivalents, install what is missing:\n{}", lines.join("\n"));
    }
    for step in steps {
        step.run()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed_and_each_package_once() {
        let steps = packages(&TEST_TOOLS, |tool| tool.package == "iproute2");
        let lines: Vec<_> = steps.iter().map(Step::to_string).collect();
        let install =
            "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends --no-remove iproute2";
        assert_eq!(lines, ["apt-get update", install]);
    }

    #[test]
    fn qemu_is_installed_apart_since_apt_can_refuse_it() {
        let steps = packages(&VM_TOOLS, |tool| tool.package != "debian-archive-keyring");
        let last = steps.iter().map(|step| (step.arguments.last().map(String::as_str), step.qemu.is_some()));
        let expected = [("update", false), ("cpio", false), ("qemu-system-x86", true)];
        assert_eq!(last.collect::<Vec<_>>(), expected.map(|(argument, is_qemu)| (Some(argument), is_qemu)));
    }

    #[test]
    fn nothing_is_done_when_nothing_is_missing() {
        assert_eq!(packages(&TEST_TOOLS, |_| false), []);
    }
}
