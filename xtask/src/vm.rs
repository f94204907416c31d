//! `cargo xtask vm`: runs the live scenarios on other kernels.
//!
//! Debian's kernels boot in QEMU, each with a file tree that has the same tests as `cargo xtask test`. A table of
//! kernels and scenarios is made from their console output. The virtual machines have no network and no disk.

pub(crate) mod apt;
pub(crate) mod image;
mod kernel;
mod lives;
mod machine;
mod programs;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use self::apt::{Apt, Mirrors};
use self::image::Kernel;
use self::kernel::{Arch, Wanted};
use self::lives::Lives;
use self::machine::{Acceleration, Machine, is_over};
use self::table::Column;
use crate::outcome::{self, Outcome, Outcomes};
use crate::setup::{self, ARM_TOOLS, VM_TOOLS};
use crate::{command, host, workspace};

/// Options of `cargo xtask vm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernels: `host`, a series of Debian's such as `6.1`, or `newest`; by default host, 5.10, 6.1, 6.12 and newest
    kernels: Vec<Wanted>,
    /// Run only scenarios with one of these in their names
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    scenarios: Vec<String>,
    /// Make this many random lives on each kernel, as `cargo xtask oracle` does, instead of the scenarios
    #[arg(long, value_name = "LIVES", conflicts_with = "scenarios")]
    oracle: Option<usize>,
    /// Repeat the lives of another run
    #[arg(long, value_name = "N", requires = "oracle")]
    seed: Option<u64>,
    /// Test this program instead of building one; it must be statically linked, as that of `cargo xtask package` is
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
    /// Architecture of the virtual machines; by default that of this machine
    #[arg(long)]
    arch: Option<Arch>,
    /// How many scenarios run at the same time in a virtual machine
    #[arg(long, default_value_t = 16)]
    threads: u16,
    /// Switch a virtual machine off after this many minutes
    #[arg(long, default_value_t = 30)]
    minutes: u32,
    /// Also write the table to this file
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Also write every scenario's outcome to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The default kernels.
const ALL: [&str; 5] = ["host", "5.10", "6.1", "6.12", "newest"];

/// What the names of tests have in common that change the whole machine.
const ALONE: &str = "::alone::";

/// Scenarios at the same time where the processor is not emulated: most of them only wait.
const THREADS_OF_HOST: u16 = 96;

/// Runs the scenarios on each kernel. Fails when a scenario failed, or a kernel could not be tested.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !host::is_root() {
        bail!("fetching packages and running scenarios on this kernel need root: run `cargo xtask vm` as root");
    }
    let native = Arch::host();
    let arch = args.arch.or(native).context("this machine's architecture is not supported: choose one with --arch")?;
    let is_foreign = native != Some(arch);
    let kernels = kernels(args, is_foreign)?;
    setup::require(&VM_TOOLS)?;
    if arch == Arch::Arm64 {
        setup::require(&ARM_TOOLS)?;
        setup::require_target(arch.target())?;
    }
    let qemu = setup::qemu::find(arch.qemu()).with_context(|| format!("{} is not installed", arch.qemu()))?;
    let folder = workspace::target().join("vm").join(arch.debian());
    let programs = folder.join("tests/tests");
    let lives = args.oracle.map(|count| Lives { count, seed: args.seed });
    programs::build(arch, lives.is_some(), args.tcptrace.as_deref(), &programs)?;
    let scenarios = match lives {
        Some(_) => vec![lives::SCENARIO.to_owned()],
        None => programs::scenarios(arch, &programs, &args.scenarios)?,
    };
    let bench = Bench { args, arch, qemu, lives, scenarios, folder, programs };
    let (mut columns, mut failures) = (Vec::new(), Vec::new());
    for wanted in kernels {
        match bench.test(&wanted) {
            Ok(column) => columns.push(column),
            Err(error) => failures.push(format!("{wanted}: {error:#}")),
        }
    }
    publish(args, &columns)?;
    if !failures.is_empty() {
        bail!("not every kernel could be tested:\n{}", failures.join("\n"));
    }
    if !columns.iter().all(Column::is_good) {
        bail!("scenarios failed");
    }
    Ok(())
}

fn kernels(args: &Args, is_foreign: bool) -> Result<Vec<Wanted>> {
    if is_foreign && args.kernels.contains(&Wanted::Host) {
        bail!("this machine's kernel is for another architecture");
    }
    if !args.kernels.is_empty() {
        return Ok(args.kernels.clone());
    }
    let all = ALL.iter().map(|name| name.parse()).collect::<Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|wanted| !is_foreign || *wanted != Wanted::Host).collect())
}

fn publish(args: &Args, columns: &[Column]) -> Result<()> {
    let text = table::markdown(columns);
    println!("\n{text}");
    if let Some(path) = &args.table {
        fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", table::json(columns));
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Settings shared by all kernels.
struct Bench<'a> {
    args: &'a Args,
    arch: Arch,
    qemu: PathBuf,
    /// What a virtual machine runs.
    lives: Option<Lives>,
    scenarios: Vec<String>,
    /// Folder for everything that is fetched or made.
    folder: PathBuf,
    /// Folder with tcptrace and the tests.
    programs: PathBuf,
}

impl Bench<'_> {
    fn test(&self, wanted: &Wanted) -> Result<Column> {
        eprintln!("\n== {wanted}: {} scenarios", self.scenarios.len());
        let column = if *wanted == Wanted::Host { self.test_here()? } else { self.test_there(wanted)? };
        for (name, outcome) in &column.outcomes {
            eprintln!("{wanted} {name}: {}", outcome.word());
        }
        Ok(column)
    }

    fn test_here(&self) -> Result<Column> {
        let tcptrace = self.programs.join("tcptrace");
        if let Some(lives) = self.lives {
            return self.live_here(lives);
        }
        let check = Command::new(&tcptrace).arg("check").output().context("cannot run tcptrace")?;
        let mut tests = Command::new(self.programs.join("live"));
        tests.env("TCPTRACE_BIN", &tcptrace).env("TCPTRACE_TEST_ACTOR", self.programs.join("actor"));
        tests.args(["--test-threads", &THREADS_OF_HOST.to_string()]).args(&self.args.scenarios);
        let record = self.folder.join("record.jsonl");
        fs::write(&record, "").with_context(|| format!("cannot create {}", record.display()))?;
        // The record has the failures.
        let _ = command::run(tests.env(outcome::RECORD, &record));
        let recorded = fs::read_to_string(&record).with_context(|| format!("cannot read {}", record.display()))?;
        Ok(Column {
            kernel: host::kernel_release(),
            version: None,
            machine: "this machine".to_owned(),
            check: String::from_utf8_lossy(&check.stdout).into_owned(),
            outcomes: self.outcomes(&recorded),
        })
    }

    fn live_here(&self, lives: Lives) -> Result<Column> {
        let script = lives.script(false);
        let shell = Command::new("bash").arg("-c").arg(script).current_dir(&self.programs).output();
        let output = shell.context("cannot run a shell")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let (check, tests) = said.split_once("tcptrace-vm: tests\n").context("the lives did not begin")?;
        eprintln!("{}", lives::said(tests));
        Ok(Column {
            kernel: host::kernel_release(),
            version: None,
            machine: "this machine".to_owned(),
            check: check.to_owned(),
            outcomes: self.outcomes(tests),
        })
    }

    fn test_there(&self, wanted: &Wanted) -> Result<Column> {
        let mirrors = Mirrors::of_this_machine()?;
        let tree = self.tree(&mirrors)?;
        let kernel = self.kernel(wanted, &mirrors)?;
        let modules = self.folder.join("modules");
        image::fresh(&modules)?;
        image::take_modules(&kernel, &modules)?;
        let initramfs = self.folder.join(format!("{}.cpio", kernel.release.0));
        let trees = [&*tree, &modules, &self.folder.join("tests")];
        let (console, how) = self.boot(&kernel, &trees, &initramfs)?;
        let said = Said::parse(&console)?;
        let mut column = Column {
            kernel: said.kernel.to_owned(),
            version: Some(kernel.version.clone()),
            machine: format!("QEMU with {how}, {}", self.arch.debian()),
            check: said.check.to_owned(),
            outcomes: self.outcomes(said.tests),
        };
        if self.lives.is_some() {
            eprintln!("{}", lives::said(said.tests));
        } else if how == Acceleration::Tcg && !column.is_good() {
            self.try_again(&mut column, &kernel, &trees, &initramfs)?;
        }
        Ok(column)
    }

    /// An emulated processor is so slow that a test can time out: failures are retried once, a few at a time, and
    /// reported as flaky.
    fn try_again(&self, column: &mut Column, kernel: &Kernel, trees: &[&Path], initramfs: &Path) -> Result<()> {
        const THREADS: u16 = 3;
        let failed = outcome::failed(&column.outcomes);
        eprintln!("Once more: {}", failed.join(", "));
        let script = script(THREADS, &[&["--exact".to_owned()], &failed[..]].concat(), &failed);
        let console = self.switch_on(Acceleration::Tcg, &script, kernel, trees, initramfs)?;
        outcome::take_second(&mut column.outcomes, outcome::read(Said::parse(&console)?.tests));
        Ok(())
    }

    /// The outcomes from the tests' records. A test without a record did not begin.
    fn outcomes(&self, recorded: &str) -> Outcomes {
        let all = self.scenarios.iter().map(|name| (format!("live::{name}"), Outcome::Unended));
        all.chain(outcome::read(recorded)).collect()
    }

    /// Boots the machine, with KVM if that works. Returns its console output.
    fn boot(&self, kernel: &Kernel, trees: &[&Path], initramfs: &Path) -> Result<(String, Acceleration)> {
        let run = |how, threads| {
            let script = match self.lives {
                Some(lives) => lives.script(how != Acceleration::Kvm),
                None => script(threads, &self.args.scenarios, &self.scenarios),
            };
            self.switch_on(how, &script, kernel, trees, initramfs).map(|shown| (shown, how))
        };
        if Arch::host() == Some(self.arch) && Path::new("/dev/kvm").exists() {
            match run(Acceleration::Kvm, THREADS_OF_HOST) {
                Ok(shown) => return Ok(shown),
                Err(error) => eprintln!("KVM does not work here ({error:#}); TCG takes longer."),
            }
        }
        // Durations of lives are compared, so other load on the host must not stretch them.
        let emulated = if self.lives.is_some() { Acceleration::Counted } else { Acceleration::Tcg };
        // QEMU does not always notice at once that a kernel changed its own code, as kernels do while they boot, and
        // where a tracepoint is attached; that kernel then crashes or hangs.
        let first = run(emulated, self.args.threads);
        match &first {
            Ok((shown, _)) if is_over(shown) => return first,
            Ok(_) => eprintln!("Once more: the tests did not end"),
            Err(error) => eprintln!("Once more: {error:#}"),
        }
        run(emulated, self.args.threads)
    }

    fn switch_on(
        &self,
        acceleration: Acceleration,
        script: &str,
        kernel: &Kernel,
        trees: &[&Path],
        initramfs: &Path,
    ) -> Result<String> {
        image::executable(&self.programs.join("run"), script.as_bytes())?;
        image::pack(trees, initramfs)?;
        let (image, console) = (kernel.image()?, initramfs.with_extension("log"));
        let qemu = &self.qemu;
        let machine = Machine { qemu, arch: self.arch, acceleration, kernel: &image, initramfs, console: &console };
        machine.run(Duration::from_secs(u64::from(self.args.minutes) * 60))
    }

    /// The file tree of programs that tests run.
    fn tree(&self, mirrors: &Mirrors) -> Result<PathBuf> {
        let tree = self.folder.join("tree");
        if !tree.join("init").exists() {
            let apt = Apt::new(self.folder.join("apt/programs"), self.arch, mirrors, kernel::PROGRAMS)?;
            image::fresh(&tree)?;
            apt.unpack(&image::PROGRAMS, true, &tree)?;
        }
        image::furnish(&tree)?;
        Ok(tree)
    }

    /// Fetches a kernel.
    fn kernel(&self, wanted: &Wanted, mirrors: &Mirrors) -> Result<Kernel> {
        let suites = wanted.suites();
        let apt = Apt::new(self.folder.join("apt").join(suites[0].name), self.arch, mirrors, suites)?;
        let names = apt.names("linux-")?;
        let release = wanted.choose(self.arch, &names).with_context(|| {
            let suites: Vec<_> = suites.iter().map(|suite| suite.name).collect();
            format!("Debian has no such kernel for {} in {}", self.arch.debian(), suites.join(", "))
        })?;
        let packages = release.packages(&names);
        let version = apt.version(&format!("linux-image-{}", release.0))?;
        let folder = self.folder.join("kernels").join(&version);
        if !folder.exists() {
            let partial = folder.with_extension("partial");
            image::fresh(&partial)?;
            apt.unpack(&packages, false, &partial)?;
            fs::rename(&partial, &folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(Kernel { release, version, folder })
    }
}

/// The script that a machine runs when it has booted, in its folder of tests. `names` are those of the tests that the
/// arguments select. Tests that change the whole machine run one by one when all others have ended.
fn script(threads: u16, arguments: &[String], names: &[String]) -> String {
    let quoted = |argument: &String| format!(" '{argument}'");
    let record = outcome::RECORD;
    let run =
        |threads, arguments: String| format!("{record}=/dev/console ./live --test-threads {threads}{arguments}\n");
    let mut script = format!(
        "./tcptrace check\necho 'tcptrace-vm: tests'\nexport TCPTRACE_BIN=$PWD/tcptrace TCPTRACE_TEST_ACTOR=$PWD/actor\n{}",
        run(threads, arguments.iter().map(quoted).collect())
    );
    let alone: String = names.iter().filter(|name| name.contains(ALONE)).map(quoted).collect();
    if !alone.is_empty() {
        script.push_str(&format!("TCPTRACE_TEST_ALONE=1 {}", run(1, format!(" '--exact'{alone}"))));
    }
    script
}

/// The parts of the console output.
struct Said<'a> {
    kernel: &'a str,
    check: &'a str,
    tests: &'a str,
}

impl<'a> Said<'a> {
    fn parse(console: &'a str) -> Result<Self> {
        let (_, rest) =
            console.split_once("tcptrace-vm: kernel ").context("the machine did not print its kernel's release")?;
        let (kernel, rest) = rest.split_once('\n').context("the machine's output ends after its kernel's release")?;
        let (check, tests) = rest.split_once("tcptrace-vm: tests\n").context("the tests did not start")?;
        Ok(Self { kernel, check, tests })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_has_three_parts() {
        let console = "Booting\ntcptrace-vm: kernel 6.1\nOK all\ntcptrace-vm: tests\ntest a ... ok\ntcptrace-vm: end\n";
        let said = Said::parse(console).expect("three parts");
        assert_eq!([said.kernel, said.check], ["6.1", "OK all\n"]);
        assert!(said.tests.starts_with("test a"));
        assert!(Said::parse("Booting\ntcptrace-vm: kernel 6.1\n").is_err());
    }

    #[test]
    fn a_machine_is_told_which_tests_to_run() {
        let script = script(3, &["--exact".to_owned(), "a::b".to_owned()], &["a::b".to_owned()]);
        assert!(script.ends_with("./live --test-threads 3 '--exact' 'a::b'\n"), "{script}");
    }

    /// A filter may select them together with others.
    #[test]
    fn tests_that_change_the_machine_come_last() {
        let last = |arguments: &[&str], names: &[&str]| {
            let [arguments, names] =
                [arguments, names].map(|all| all.iter().map(|&it| it.to_owned()).collect::<Vec<_>>());
            let script = script(3, &arguments, &names);
            script.lines().last().unwrap_or_default().to_owned()
        };
        let alone = "TCPTRACE_TEST_ALONE=1 TCPTRACE_TEST_RECORD=/dev/console ./live --test-threads 1 '--exact'";
        let names = ["a::b", "a::alone::c", "a::alone::d"];
        assert_eq!(last(&[], &names), format!("{alone} 'a::alone::c' 'a::alone::d'"));
        assert_eq!(last(&["a::"], &names), format!("{alone} 'a::alone::c' 'a::alone::d'"));
        assert!(!last(&["a::b"], &["a::b"]).contains("ALONE"));
    }
}
