//! Runs the lives of `cargo xtask oracle` in a virtual machine, instead of the tests.

/// Their name in the table.
pub(super) const SCENARIO: &str = "oracle::lives";

/// Markers before and after the oracle's output.
const BEGIN: &str = "tcptrace-vm: the oracle";
const END: &str = "tcptrace-vm: no more of the oracle";

/// Lives that begin in a second. An emulated processor is slow.
const RATE: u32 = 150;
const EMULATED_RATE: u32 = 20;

/// The lives to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lives {
    pub(super) count: usize,
    pub(super) seed: Option<u64>,
}

impl Lives {
    /// The script that the virtual machine runs in its folder of tests; it prints the oracle's outcome as a test would.
    pub(super) fn script(self, is_emulated: bool) -> String {
        let rate = if is_emulated { EMULATED_RATE } else { RATE };
        let seed = self.seed.map(|seed| format!(" --seed {seed}")).unwrap_or_default();
        let count = self.count;
        format!(
            "./tcptrace check\necho 'tcptrace-vm: tests'\necho '{BEGIN}'\nresult=fail\n\
             CARGO_TARGET_DIR=/tmp ./xtask oracle --tcptrace $PWD/tcptrace --lives {count} --rate {rate}{seed} 2>&1 && result=pass\n\
             echo '{END}'\n\
             echo '{{\"outcome\":\"'$result'\",\"test\":\"live::{SCENARIO}\",\"why\":\"see the output above\"}}'\n\
             [ $result = pass ] || cat /tmp/oracle/evidence*\n"
        )
    }
}

/// The oracle's output.
pub(super) fn said(tests: &str) -> &str {
    let (_, said) = tests.split_once(BEGIN).unwrap_or(("", tests));
    said.split_once(END).map_or(said, |(said, _)| said).trim_start()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{self, Outcome};

    /// Runs the script with programs that only print and return this.
    fn run(said: &str, status: u8) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [("tcptrace", ""), ("xtask", &*format!("echo '{said}'; echo \"$@\"; exit {status}\n"))] {
            super::super::image::executable(&folder.path().join(name), format!("#!/bin/sh\n{text}").as_bytes())
                .expect("a program");
        }
        let script = Lives { count: 7, seed: Some(3) }.script(true);
        let output = std::process::Command::new("sh").arg("-c").arg(script).current_dir(&folder).output();
        String::from_utf8(output.expect("a shell").stdout).expect("text")
    }

    #[test]
    fn what_the_oracle_says_is_an_outcome() {
        for (status, is_good) in [(0, true), (1, false)] {
            let output = run("Seed: 3", status);
            let (_, tests) = output.split_once("tcptrace-vm: tests\n").expect("the tests");
            assert!(said(tests).starts_with("Seed: 3\noracle --tcptrace /"), "{output}");
            assert!(said(tests).ends_with("--lives 7 --rate 20 --seed 3\n"), "{output}");
            let outcome = outcome::read(tests).remove(&format!("live::{SCENARIO}"));
            assert_eq!(outcome == Some(Outcome::Pass), is_good, "{outcome:?}");
            assert_eq!(matches!(outcome, Some(Outcome::Fail(_))), !is_good);
        }
    }
}
