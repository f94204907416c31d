//! `cargo xtask fuzz`: reads randomly changed traces for a while.
//!
//! libFuzzer looks for inputs that reach new code, and needs the compiler to instrument the code for that. Stable Rust
//! can do so when LLVM's pass is named in its flags.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, FUZZ_TOOLS};
use crate::{command, host, workspace};

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run for this many seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Read this input again, instead of looking for others
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
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

/// Builds the target and runs it. Fails when it panics, or takes too much memory or too long.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require(&FUZZ_TOOLS)?;
    let target = build()?;
    let folder = workspace::target().join("fuzz");
    let [corpus, findings] = ["corpus", "findings"].map(|name| folder.join(name));
    for folder in [&corpus, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut fuzz = Command::new(target);
    fuzz.arg(format!("-rss_limit_mb={MEMORY}")).arg(format!("-timeout={TIMEOUT}"));
    fuzz.arg(format!("-artifact_prefix={}/", findings.display()));
    if let Some(input) = &args.input {
        return command::run(fuzz.arg(input));
    }
    let seeds = folder.join("seeds");
    seed(&seeds)?;
    fuzz.arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-max_len={LONGEST}"))
        .arg("-print_final_stats=1");
    let found = "the failing input is named above; repeat it with `cargo xtask fuzz --input FILE`";
    command::run(fuzz.args([&corpus, &seeds])).context(found)
}

/// Builds the target as an executable, and returns its path.
fn build() -> Result<PathBuf> {
    let triple = host_triple()?;
    let mut cargo = command::cargo();
    cargo.env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"));
    // With a named target, these flags do not affect build scripts.
    cargo.args(["build", "--locked", "--profile", "fuzz", "--target", &triple]);
    cargo.args(["--package", "tcptrace-tests", "--features", "fuzz", "--bin", "fuzz-trace"]);
    command::run(&mut cargo)?;
    Ok(workspace::target().join(triple).join("fuzz/fuzz-trace"))
}

fn host_triple() -> Result<String> {
    let about = command::output(Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what it compiles for")
}

/// Records small traces of this machine as first inputs, unless they exist.
fn seed(folder: &Path) -> Result<()> {
    /// Connections per trace.
    const CONNECTIONS: &str = "25";
    let kinds: [(&str, &[&str]); 3] =
        [("existing.tct", &[]), ("new.tct", &["--no-existing"]), ("classic.tct", &["--no-btf"])];
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let missing: Vec<_> = kinds.iter().filter(|(name, _)| !folder.join(name).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !host::is_root() {
        bail!("the first inputs are recorded from the live kernel, which needs root");
    }
    command::run(command::cargo().args(["build", "--locked", "--package", "tcptrace"]))?;
    let generator = env::current_exe().context("cannot tell where this program is")?;
    for (name, options) in missing {
        let mut record = Command::new(workspace::target().join("debug/tcptrace"));
        record.arg("record").arg("--output").arg(folder.join(name)).args(*options).arg("--");
        command::run(record.arg(&generator).args(["generate", "--connections", CONNECTIONS]))?;
    }
    Ok(())
}
