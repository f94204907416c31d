//! Completions, run in the shells themselves.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use tcptrace_tests::program::{run, run_command};
use tcptrace_tests::test;

/// Writes the completion script of a shell to a file.
fn script(shell: &str, folder: &Path) -> String {
    let finished = run(&["completions", shell]);
    assert_eq!((finished.code(), finished.stderr.as_str()), (0, ""));
    let path = folder.join(shell);
    fs::write(&path, finished.stdout).expect("a script");
    path.to_str().expect("UTF-8").to_owned()
}

/// The output of this shell script, with the completion script as `$1`; `None` if the shell is not installed.
fn printed(shell: &str, options: &[&str], code: &str) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&path).any(|folder| folder.join(shell).is_file()) {
        say_skipped(shell);
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let script = script(shell, folder.path());
    let mut command = Command::new(shell);
    command.args(options).arg("-c").arg(code.replace("$1", &script)).env("HOME", folder.path());
    let finished = run_command(command);
    assert_eq!((finished.code(), finished.stderr.as_str()), (0, ""), "{shell}");
    Some(finished.text().to_owned())
}

#[expect(clippy::print_stderr, reason = "a test that cannot be made says why")]
fn say_skipped(shell: &str) {
    eprintln!("skipped: {shell} is not installed");
}

/// Tests one shell after the other.
#[test]
fn shells() {
    every_shell();
    bash();
    zsh();
    fish();
}

/// Bash is installed everywhere.
fn bash() {
    let complete = |words: &str| {
        let code = format!(
            "set -u; source $1; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=(); \
             _tcptrace tcptrace \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; complete -p tcptrace >/dev/null; \
             echo \"${{COMPREPLY[@]}}\""
        );
        printed("bash", &["--norc"], &code).expect("bash is there")
    };
    assert_eq!(complete("tcptrace wat"), "watch\n");
    assert_eq!(complete("tcptrace watch --form"), "--format\n");
    assert_eq!(complete("tcptrace snapshot --state CLOSE_"), "CLOSE_WAIT\n");
    assert_eq!(complete("tcptrace diagnose --explain fin-t"), "fin-timeout-trap\n");
    assert_eq!(complete("tcptrace export --format par"), "parquet\n");
    assert_eq!(complete("tcptrace replay --conn"), "\n", "an older spelling is hidden");
}

fn zsh() {
    let code = "autoload -U compinit; compinit -D -u; source $1; print -r -- $_comps[tcptrace] $+functions[_tcptrace]";
    if let Some(printed) = printed("zsh", &["-f"], code) {
        assert_eq!(printed, "_tcptrace 1\n");
    }
}

fn fish() {
    let code = "source $1; complete -C 'tcptrace wat'; complete -C 'tcptrace snapshot --state CLOSE_W'; \
                complete -C 'tcptrace export --format par'";
    if let Some(printed) = printed("fish", &["--no-config"], code) {
        let words: Vec<_> = printed.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, ["watch", "CLOSE_WAIT", "parquet"]);
    }
}

/// Each script names the program that it completes.
fn every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let finished = run(&["completions", shell]);
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        assert!(finished.text().contains("tcptrace"), "{shell}");
    }
}
