//! The project's own chores, run as `cargo xtask …`: building the eBPF object, set-up, tests and the benchmark.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a development tool talks to the person who runs it")]

mod bench;
mod command;
mod ebpf;
mod fuzz;
mod host;
mod setup;
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
    /// Runs every test, the live kernel tests included (as root)
    Test(test::Args),
    /// Runs the live scenarios on other kernels, in virtual machines, and on this one (as root)
    Vm(vm::Args),
    /// Reads traces that were changed at random, for a while: nothing may panic, take long or much memory (as root)
    Fuzz(fuzz::Args),
    /// Measures what tcptrace costs, next to nothing at all and to other tools (as root)
    Bench(bench::Args),
    /// Measures how long `tcptrace snapshot` takes with many sockets, next to ss (as root)
    BenchSnapshot(bench::snapshot::Args),
    /// Measure how long it takes to study a long trace
    BenchTrace(bench::trace::Args),
    /// Holds connections on loopback: the sockets of `bench-snapshot`
    #[command(hide = true)]
    Hold(bench::snapshot::HoldArgs),
    /// Makes connections on loopback, in a network namespace of its own: the load of `bench`
    #[command(hide = true)]
    Generate(bench::generator::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Ebpf(args) => ebpf::run(&args),
        Task::Setup(args) => setup::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::BenchSnapshot(args) => bench::snapshot::run(&args),
        Task::BenchTrace(args) => bench::trace::run(&args),
        Task::Hold(args) => bench::snapshot::hold(&args),
        Task::Generate(args) => bench::generator::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
