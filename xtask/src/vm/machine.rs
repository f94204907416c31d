//! A QEMU virtual machine that boots a kernel and runs the tests.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::kernel::Arch;
use crate::command;

/// Interval of reading the console.
const INTERVAL: Duration = Duration::from_millis(200);

/// A virtual machine that has not started its first program after this time is broken.
const BOOT: Duration = Duration::from_secs(300);

/// The same with KVM, where booting takes a second.
const BOOT_BY_KVM: Duration = Duration::from_secs(20);

/// A virtual machine that says nothing for this time hangs: a test waits for half of it at most. (Random lives say nothing
/// until they are over.)
const SILENCE: Duration = Duration::from_secs(240);

/// What it says last.
const END: &str = "tcptrace-vm: end\n";

/// How instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acceleration {
    /// By the processor (KVM).
    Kvm,
    /// By QEMU (TCG), at a tenth of the speed or less.
    Tcg,
    /// By QEMU, with one processor. Each instruction advances the virtual clock by a nanosecond, so other load on the
    /// host does not stretch its time, and idle time is skipped.
    Counted,
}

impl fmt::Display for Acceleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
            Self::Counted => "TCG that counts instructions",
        })
    }
}

/// A virtual machine that is not running.
pub(super) struct Machine<'a> {
    pub(super) qemu: &'a Path,
    pub(super) arch: Arch,
    pub(super) acceleration: Acceleration,
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    pub(super) console: &'a Path,
}

impl Machine<'_> {
    fn command(&self) -> Command {
        let (board, serial) = match self.arch {
            Arch::Amd64 => ("q35", "ttyS0"),
            Arch::Arm64 => ("virt", "ttyAMA0"),
        };
        let (acceleration, processors) = match self.acceleration {
            Acceleration::Kvm => ("kvm", "2"),
            Acceleration::Tcg => ("tcg,thread=multi", "2"),
            Acceleration::Counted => ("tcg,thread=single", "1"),
        };
        let processor = match (self.acceleration, self.arch) {
            (Acceleration::Kvm, _) => "host",
            (_, Arch::Amd64) => "max",
            // Emulating ARM's pointer authentication would take half of the processor's time.
            (_, Arch::Arm64) => "max,pauth-impdef=on",
        };
        let mut qemu = Command::new(self.qemu);
        qemu.args(["-machine", board, "-accel", acceleration, "-cpu", processor, "-smp", processors, "-m", "2048"]);
        if self.acceleration == Acceleration::Counted {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial"]);
        qemu.arg(format!("file:{}", self.console.display()));
        qemu.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs);
        // A kernel panics if its timer does not tick soon enough, which takes longer on a busy host.
        let patient = if self.arch == Arch::Amd64 { " no_timer_check" } else { "" };
        qemu.args(["-append", &format!("console={serial} panic=-1 quiet loglevel=1{patient}")]);
        qemu
    }

    /// Boots it, waits until it is done, but not longer than `patience`, and switches it off. Returns its console
    /// output.
    pub(super) fn run(&self, patience: Duration) -> Result<String> {
        let mut qemu = self.command();
        eprintln!("+ {}", command::line(&qemu));
        File::create(self.console).with_context(|| format!("cannot create {}", self.console.display()))?;
        let process = qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let process = process.with_context(|| format!("cannot run `{}`", command::line(&qemu)))?;
        self.follow(Running(process), patience)
    }

    fn follow(&self, mut qemu: Running, patience: Duration) -> Result<String> {
        let begun = Instant::now();
        let (mut len, mut heard) = (0, begun);
        let boot = if self.acceleration == Acceleration::Kvm { BOOT_BY_KVM } else { BOOT };
        loop {
            let status = qemu.0.try_wait().context("cannot wait for QEMU")?;
            let shown = self.shown()?;
            if is_over(&shown) {
                return Ok(shown);
            }
            if shown.len() != len {
                (len, heard) = (shown.len(), Instant::now());
            }
            let is_up = shown.contains("tcptrace-vm: kernel ");
            if let Some(status) = status {
                let said = std::io::read_to_string(qemu.0.stderr.take().context("a pipe")?).unwrap_or_default();
                let ended = format!("the machine ended too early ({status}) {}\n{}", said.trim(), tail(&shown));
                if !is_up {
                    bail!("{}", ended.trim_end());
                }
                // The output so far shows which tests ended; the others count as failed.
                eprintln!("{ended}");
                return Ok(shown);
            }
            if !is_up && begun.elapsed() > boot {
                bail!("the machine did not start in {} s\n{}", boot.as_secs(), tail(&shown));
            }
            if begun.elapsed() > patience {
                eprintln!("The machine is switched off: it took longer than {} s.", patience.as_secs());
                return Ok(shown);
            }
            if is_up && self.acceleration != Acceleration::Counted && heard.elapsed() > SILENCE {
                eprintln!("The machine is switched off: it said nothing for {} s.", SILENCE.as_secs());
                return Ok(shown);
            }
            sleep(INTERVAL);
        }
    }

    fn shown(&self) -> Result<String> {
        let bytes = fs::read(self.console).with_context(|| format!("cannot read {}", self.console.display()))?;
        Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
    }
}

/// Whether a console shows that all tests have ended.
pub(super) fn is_over(console: &str) -> bool {
    console.contains(END)
}

/// A QEMU process that is killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last lines of a console.
fn tail(console: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<_> = console.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_both_architectures_have_no_network() {
        let paths = ["k", "i", "c"].map(Path::new);
        let line = |arch, acceleration| {
            let [kernel, initramfs, console] = paths;
            command::line(
                &Machine { qemu: Path::new("qemu"), arch, acceleration, kernel, initramfs, console }.command(),
            )
        };
        assert_eq!(
            line(Arch::Arm64, Acceleration::Tcg),
            "qemu -machine virt -accel tcg,thread=multi -cpu max,pauth-impdef=on -smp 2 -m 2048 -nodefaults \
             -display none -no-reboot -serial file:c -kernel k -initrd i -append 'console=ttyAMA0 panic=-1 quiet loglevel=1'"
        );
        assert!(line(Arch::Amd64, Acceleration::Kvm).starts_with("qemu -machine q35 -accel kvm -cpu host "));
        let counted = "qemu -machine q35 -accel tcg,thread=single -cpu max -smp 1 -m 2048 -icount shift=0,sleep=off ";
        assert!(line(Arch::Amd64, Acceleration::Counted).starts_with(counted));
    }

    #[test]
    fn only_the_end_of_a_console_is_told() {
        let console: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(tail(&console).lines().next(), Some("80"));
        assert_eq!(tail("one\ntwo\n"), "one\ntwo");
    }
}
