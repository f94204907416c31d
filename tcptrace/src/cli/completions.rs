//! `completions`: what shells complete.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::Args;
use clap_complete::Shell;

use super::{Outcome, command};

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// Shell to complete in
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<Outcome> {
    // The generator panics where its writer fails, which a vector does not.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "tcptrace", &mut script);
    io::stdout().write_all(&script).context("cannot write to standard output")?;
    Ok(Outcome::Done)
}
