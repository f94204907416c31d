//! Writes the man page of every command into a folder: `man DIR`. `cargo xtask man` runs it.

use std::io;
use std::path::{Path, PathBuf};
use std::{env, fs};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from).ok_or_else(|| io::Error::other("usage: man DIR"))?;
    fs::create_dir_all(&folder)?;
    let mut command = tcptrace::cli::command().disable_help_subcommand(true);
    command.build();
    let pages = command.get_subcommands().filter(|command| !command.is_hide_set());
    pages.chain([&command]).try_for_each(|command| write(command, &folder))
}

fn write(command: &Command, folder: &Path) -> io::Result<()> {
    let man = Man::new(command.clone()).source(format!("tcptrace {}", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    rest(command).to_writer(&mut page)?;
    fs::write(folder.join(man.get_filename()), page)
}

/// What stands below the options: examples keep their lines, and everything else is filled.
fn rest(command: &Command) -> Roff {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    for part in text.split("\n\n") {
        match part.strip_prefix("Examples:\n") {
            Some(examples) => {
                roff.control("SH", ["EXAMPLES"]).control("nf", []);
                for example in examples.lines() {
                    roff.text([roman(example.trim_start())]);
                }
                roff.control("fi", []);
            }
            None => {
                roff.control("SH", ["EXIT STATUS AND ENVIRONMENT"]);
                for line in part.lines() {
                    roff.text([roman(line)]).control("br", []);
                }
            }
        }
    }
    if !command.has_subcommands() {
        roff.control("SH", ["SEE ALSO"]).text([bold("tcptrace"), roman("(1)")]);
    }
    roff
}
