//! Runs other programs, and prints their commands.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

use crate::{host, workspace};

/// Runs `command` after printing it, and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    eprintln!("+ {line}");
    run_named(command, &line)
}

/// The same under a name, for a command that is too long to print.
pub(crate) fn run_named(command: &mut Command, line: &str) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// The standard output of `command`; fails with its stderr unless it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The Cargo that runs this program, at the workspace root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root());
    command
}

/// Looks `program` up in `PATH`, then in the folders of system tools, which are not in every user's `PATH`, and in the
/// folder where Cargo installs programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_bin = host::cargo_home().map(|home| home.join("bin"));
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain(cargo_bin)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Makes the kernel kill the process when the thread that started it ends. No signal is blocked in it, even if this
/// process blocks some.
pub(crate) fn dies_with_us(command: &mut Command) {
    let prepare = || {
        set_pdeathsig(Signal::SIGKILL)?;
        Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
    };
    // SAFETY: between fork and exec this makes two system calls, and touches no memory but its own stack.
    unsafe { command.pre_exec(prepare) };
}

/// `command` as typed in a shell, with only the environment variables that it sets.
pub(crate) fn line(command: &Command) -> String {
    let settings = command.get_envs().filter_map(|(name, value)| {
        let value = value?.to_string_lossy().replace('\x1f', " ");
        Some(format!("{}={}", name.to_string_lossy(), quoted(&value)))
    });
    let program = [quoted(&shown_program(Path::new(command.get_program())))];
    let arguments = command.get_args().map(|argument| quoted(&argument.to_string_lossy()));
    settings.chain(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn shown_program(program: &Path) -> String {
    let is_this_cargo = env::var_os("CARGO").is_some_and(|cargo| Path::new(&cargo) == program);
    if is_this_cargo { "cargo".to_owned() } else { workspace::shown(program) }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["build", "--name=a b", ""]).env("FLAGS", "-C\x1fdebuginfo=2").env_remove("GONE");
        assert_eq!(line(&command), "FLAGS='-C debuginfo=2' /usr/bin/cargo build '--name=a b' ''");
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = run(Command::new("/bin/false").arg("--why")).expect_err("false fails");
        assert_eq!(error.to_string(), "`/bin/false --why` failed: exit status: 1");
    }

    #[test]
    fn a_missing_program_is_not_found() {
        assert_eq!(find("no-such-program-anywhere"), None);
        assert!(find("sh").is_some());
    }
}
