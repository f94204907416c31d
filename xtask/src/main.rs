//! The project's tasks, run as `cargo xtask …`: building the eBPF object, set-up, tests and the benchmark.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a development tool talks to the person who runs it")]

mod attack;
mod bench;
mod command;
mod ebpf;
mod fuzz;
mod hidden;
mod host;
mod layers;
mod man;
mod oracle;
mod outcome;
mod package;
mod scenarios;
mod setup;
mod stress;
mod summary;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of the tcptrace project")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds the eBPF object that the tcptrace crate embeds, or checks that it is up to date
    Ebpf(ebpf::Args),
    /// Installs what building the eBPF object needs (Debian, as root)
    Setup(setup::Args),
    /// Runs every test, the live kernel tests included (as root); retries up to four failures once, and reports them as
    /// flaky
    Test(test::Args),
    /// Runs the live scenarios on other kernels, in virtual machines, and on this one (as root)
    Vm(vm::Args),
    /// Checks which modules of the library use which: no dependency upwards, no cycle
    Layers(layers::Args),
    /// Writes the man pages of tcptrace and its commands
    Man(man::Args),
    /// Makes a tarball, a Debian package and an RPM of tcptrace, and checks them on request
    Package(package::Args),
    /// Has each reader of untrusted bytes read changed ones for a while; fails on a panic, or when reading takes too long or
    /// too much memory (as root)
    Fuzz(fuzz::Args),
    /// Measures the cost of tcptrace next to no tool and to other tools (as root; without root, only the study of
    /// traces)
    Bench(bench::Args),
    /// Disturbs tcptrace in many ways, and checks that it loses nothing silently (as root)
    Stress(stress::Args),
    /// Attacks tcptrace as hostile users and bad days do, and checks its promises (as root)
    Attack(attack::Args),
    /// Records for a long time while connections, processes and network namespaces come and go, memory and the ring buffer
    /// are small, and files are rotated; prints what it takes every ten seconds, and fails when that grows (as root)
    Soak(attack::soak::Args),
    /// Runs real programs, ill and well, and checks what `tcptrace diagnose` says of them (as root)
    Scenarios(scenarios::Args),
    /// Makes random connections, and compares every row with independent witnesses (as root)
    Oracle(oracle::Args),
    /// Holds connections on loopback, for `bench`
    #[command(hide = true)]
    Hold(bench::holder::HoldArgs),
    /// Makes connections on loopback, in a network namespace of its own: the load of `bench`
    #[command(hide = true)]
    Generate(bench::generator::Args),
    /// Does one thing again and again, in a network namespace of its own: the load of pairs in `bench`
    #[command(hide = true)]
    Work(bench::worker::Args),
    /// Makes connections on loopback, in a network namespace of its own: the load of `stress`
    #[command(hide = true)]
    StressLoad(stress::load::Args),
    /// Makes connections from processes and control groups with hostile names: the load of `attack`
    #[command(hide = true)]
    AttackLoad(attack::groups::LoadArgs),
    /// Makes connections at an even rate and in bursts, from processes and in network namespaces that come and go: the load
    /// of `soak`
    #[command(hide = true)]
    SoakLoad(attack::soak::load::LoadArgs),
    /// Makes connections from scripts, in a network namespace of its own: the load of `oracle`
    #[command(hide = true)]
    OraclePlay(oracle::play::Args),
    /// Continues a script as another program
    #[command(hide = true)]
    OracleResume(oracle::resume::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Ebpf(args) => ebpf::run(&args),
        Task::Setup(args) => setup::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Layers(args) => layers::run(&args),
        Task::Man(args) => man::run(&args),
        Task::Package(args) => package::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Stress(args) => stress::run(&args),
        Task::Attack(args) => attack::run(&args),
        Task::Soak(args) => attack::soak::run(&args),
        Task::SoakLoad(args) => attack::soak::load::run(&args),
        Task::Oracle(args) => oracle::run(&args),
        Task::Scenarios(args) => scenarios::run(&args),
        Task::OraclePlay(args) => oracle::play::run(&args),
        Task::OracleResume(args) => oracle::resume::run(&args),
        Task::AttackLoad(args) => attack::groups::run(&args),
        Task::StressLoad(args) => stress::load::run(&args),
        Task::Hold(args) => bench::holder::hold(&args),
        Task::Generate(args) => bench::generator::run(&args),
        Task::Work(args) => bench::worker::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
