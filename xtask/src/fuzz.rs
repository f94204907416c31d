//! `cargo xtask fuzz`: has each reader of untrusted bytes read changed ones for a while.
//!
//! libFuzzer looks for inputs that reach new code, and needs the compiler to instrument the code for that. Stable Rust
//! can do so when LLVM's pass is named in its flags.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::setup::{self, FUZZ_TOOLS};
use crate::{command, host, workspace};

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these targets; by default all, one after the other
    #[arg(value_enum)]
    targets: Vec<Target>,
    /// Run each target for this many seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Have one target read this input again, instead of looking for others
    #[arg(long, value_name = "FILE", requires = "targets")]
    input: Option<PathBuf>,
}

/// What reads untrusted bytes: each is a program in `tests/fuzz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// A trace, damaged behind its checksums too
    Trace,
    /// Records of the ring buffer, as the eBPF programs write them
    Ring,
    /// The kernel's BTF
    Btf,
    /// Answers of `sock_diag`
    Diag,
    /// Files and names below `/proc` and `/sys/fs/cgroup`, of settings, and of containers
    Files,
    /// Filters, times, sizes and conditions on the command line
    Arguments,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Ring => "ring",
            Self::Btf => "btf",
            Self::Diag => "diag",
            Self::Files => "files",
            Self::Arguments => "arguments",
        }
    }
}

/// Instruments code: libFuzzer learns which code was reached, and which values were compared.
const COVERAGE: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// Memory limit of the process, in MB.
const MEMORY: u32 = 512;

/// Time limit for an input, in seconds.
const TIMEOUT: u32 = 20;

/// Longest input, in bytes.
const LONGEST: u32 = 1 << 16;

/// Builds the targets and runs them. Fails when one panics, or takes too much memory or too long.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require(&FUZZ_TOOLS)?;
    let targets = if args.targets.is_empty() { Target::value_variants() } else { &args.targets };
    let programs = build(targets)?;
    if let Some(input) = &args.input {
        let [program] = &programs[..] else { bail!("an input belongs to one target: name it") };
        return command::run(limited(program).arg(input));
    }
    for (target, program) in targets.iter().zip(&programs) {
        println!("Fuzzing {} for {} s", target.name(), args.seconds);
        fuzz(*target, program, args.seconds)?;
    }
    Ok(())
}

/// Runs a target for a while.
fn fuzz(target: Target, program: &Path, seconds: u32) -> Result<()> {
    let name = target.name();
    let folder = workspace::target().join("fuzz").join(name);
    let [corpus, findings] = ["corpus", "findings"].map(|name| folder.join(name));
    for folder in [&corpus, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut fuzz = limited(program);
    fuzz.arg(format!("-artifact_prefix={}/", findings.display()));
    fuzz.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg("-print_final_stats=1")
        .args([&corpus, &workspace::root().join("tests/fuzz/seeds").join(name)]);
    if target == Target::Trace {
        let recorded = folder.join("recorded");
        record(&recorded)?;
        fuzz.arg(&recorded);
    }
    let found = || format!("the failing input is named above; repeat it with `cargo xtask fuzz {name} --input FILE`");
    command::run(&mut fuzz).with_context(found)
}

/// The program, with its limits of memory and time.
fn limited(program: &Path) -> Command {
    let mut fuzz = Command::new(program);
    fuzz.arg(format!("-rss_limit_mb={MEMORY}")).arg(format!("-timeout={TIMEOUT}"));
    fuzz
}

/// Builds the targets as executables, and returns their paths.
fn build(targets: &[Target]) -> Result<Vec<PathBuf>> {
    let triple = host_triple()?;
    let names: Vec<_> = targets.iter().map(|target| format!("fuzz-{}", target.name())).collect();
    let mut cargo = command::cargo();
    cargo.env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"));
    // With a named target, these flags do not affect build scripts.
    cargo.args(["build", "--locked", "--profile", "fuzz", "--target", &triple]);
    cargo.args(["--package", "tcptrace-tests", "--features", "fuzz"]);
    cargo.args(names.iter().flat_map(|name| ["--bin", name]));
    command::run(&mut cargo)?;
    let folder = workspace::target().join(triple).join("fuzz");
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

fn host_triple() -> Result<String> {
    let about = command::output(Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what it compiles for")
}

/// Records small traces of this machine as first inputs, unless tcptrace has recorded them as it is now.
fn record(folder: &Path) -> Result<()> {
    /// Connections per trace.
    const CONNECTIONS: &str = "25";
    let kinds: [(&str, &[&str]); 3] =
        [("existing.tct", &[]), ("new.tct", &["--no-existing"]), ("classic.tct", &["--no-btf"])];
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    command::run(command::cargo().args(["build", "--locked", "--package", "tcptrace"]))?;
    let tcptrace = workspace::target().join("debug/tcptrace");
    let written = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
    let is_old = |name: &str| written(&folder.join(name)).is_none_or(|at| Some(at) < written(&tcptrace));
    let old: Vec<_> = kinds.iter().filter(|(name, _)| is_old(name)).collect();
    if !old.is_empty() && !host::is_root() {
        bail!("the first inputs are recorded from the live kernel, which needs root");
    }
    let generator = env::current_exe().context("cannot tell where this program is")?;
    for (name, options) in old {
        let file = folder.join(name);
        if file.exists() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
        let mut record = Command::new(&tcptrace);
        record.arg("record").arg("--output").arg(file).args(*options).arg("--");
        command::run(record.arg(&generator).args(["generate", "--connections", CONNECTIONS]))?;
    }
    Ok(())
}
