//! `completions`: scripts for shells.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::{Args, Command};
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
    let mut command = visible(&command()).version(env!("CARGO_PKG_VERSION"));
    clap_complete::generate(args.shell, &mut command, "tcptrace", &mut script);
    io::stdout().write_all(&script).context("cannot write to standard output")?;
    Ok(Outcome::Done)
}

/// The command without its hidden options, which the generator would complete, too.
fn visible(command: &Command) -> Command {
    // clap needs a static name here. The program ends once the script is printed.
    let name: &str = command.get_name().to_owned().leak();
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned();
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set()).map(visible);
    let visible = Command::new(name).args(arguments).subcommands(commands);
    match command.get_about() {
        Some(about) => visible.about(about.clone()),
        None => visible,
    }
}
