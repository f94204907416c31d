//! The `tcptrace` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tcptrace::cli::main()
}
