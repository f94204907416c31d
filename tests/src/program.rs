//! The program under test, and the result of a run.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

use serde_json::Value;

use crate::process::output;

/// The result of a run of `tcptrace`.
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything it printed on stdout.
    pub stdout: Vec<u8>,
    /// Everything it printed on stderr.
    pub stderr: String,
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Finished {
    let mut command = Command::new(binary());
    command.args(args);
    run_command(command)
}

/// Runs a command to its end.
pub fn run_command(command: Command) -> Finished {
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Finished { status: output.status, stdout: output.stdout, stderr }
}

impl Finished {
    /// Its stdout as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("UTF-8 on stdout")
    }

    /// Its rows of JSON without the summary row.
    pub fn rows(&self) -> Vec<Value> {
        let mut rows = self.all_rows();
        rows.pop_if(|row| row["event"] == "summary");
        rows
    }

    /// The summary row; fails if there is none.
    pub fn summary(&self) -> Value {
        let last = self.all_rows().pop().filter(|row| row["event"] == "summary");
        last.unwrap_or_else(|| panic!("no summary\n{}", self.stderr))
    }

    fn all_rows(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Its exit code; fails if a signal ended it.
    pub fn code(&self) -> i32 {
        let signal = self.status.signal();
        self.status.code().unwrap_or_else(|| panic!("ended by signal {signal:?}\n{}", self.stderr))
    }
}

/// A copy of the program that every user may run. Another process makes it: if a process that another test is starting
/// inherited a descriptor for writing, the copy could not be executed.
pub fn copy_for_everybody(name: &str) -> PathBuf {
    let copy = env::temp_dir().join(format!("tcptrace-{name}-{}", std::process::id()));
    let mut command = Command::new("install");
    command.args(["-m", "755"]).arg(binary()).arg(&copy);
    let finished = run_command(command);
    assert!(finished.status.success(), "{}", finished.stderr);
    copy
}

/// The program under test: `TCPTRACE_BIN`, otherwise the one that Cargo built in the profile of this test.
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
    let output = output(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    profile_dir.join("tcptrace")
}
