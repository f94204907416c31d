//! Parses arguments, and prints help and usage errors.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use clap::Parser;

use super::stdout;
use crate::output::{sanitise, sanitise_message};

/// Parses the arguments.
///
/// # Errors
/// Help, the version or a usage error, all safe for a terminal.
pub(super) fn parse<P: Parser>(args: &[OsString]) -> Result<P, clap::Error> {
    P::try_parse_from(args).map_err(|error| harmless::<P>(args, error))
}

/// clap quotes arguments unescaped. So this parses escaped ones, which clap refuses for the same reason.
fn harmless<P: Parser>(args: &[OsString], error: clap::Error) -> clap::Error {
    let safe: Vec<_> = args.iter().map(|arg| sanitise(arg.as_bytes())).collect();
    if safe.iter().all(|arg| matches!(arg, Cow::Borrowed(_))) {
        return error;
    }
    match P::try_parse_from(safe.iter().map(|arg| &**arg)) {
        Err(other) if other.kind() == error.kind() => other,
        // clap accepts the escaped ones, or refuses them for another reason.
        _ => {
            let text = error.to_string();
            let lines: Vec<_> = text.lines().map(sanitise_message).collect();
            clap::Error::raw(error.kind(), lines.join("\n").trim_start_matches("error: ").to_owned() + "\n")
        }
    }
}

/// Prints help, the version or a usage error.
///
/// # Errors
/// When help or the version cannot be printed.
pub(super) fn print(error: &clap::Error) -> Result<()> {
    if error.use_stderr() {
        // An error here cannot be reported anywhere.
        let _ = error.print();
        return Ok(());
    }
    stdout::expect_open()?;
    error.print().and_then(|()| io::stdout().flush()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use rstest::rstest;

    use super::*;
    use crate::cli::Cli;

    fn refused(args: &[&str]) -> clap::Error {
        let args: Vec<_> = ["tcptrace"].iter().chain(args).map(OsString::from).collect();
        parse::<Cli>(&args).map(drop).expect_err("they make no sense")
    }

    #[rstest]
    #[case::value(&["replay", "--since", "x\u{1b}[31m\u{202e}", "f"], ErrorKind::ValueValidation)]
    #[case::option(&["replay", "--x\u{1b}[31m", "f"], ErrorKind::UnknownArgument)]
    #[case::command(&["x\u{1b}[31m\u{202e}"], ErrorKind::InvalidSubcommand)]
    #[case::left_over(&["watch", "x\u{1b}[31m"], ErrorKind::UnknownArgument)]
    #[case::line(&["watch", "--format", "x\nerror: forged\u{1b}[31m"], ErrorKind::InvalidValue)]
    #[case::conflict(&["watch", "--comm", "x\u{1b}[31m", "-4", "-6"], ErrorKind::ArgumentConflict)]
    fn what_is_typed_is_shown_escaped(#[case] args: &[&str], #[case] expected: ErrorKind) {
        let error = refused(args);
        assert_eq!(error.kind(), expected);
        let text = error.to_string();
        assert!(text.contains("Usage") || text.contains("try '--help'"), "{text}");
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{202e}') && !text.contains("\nerror: forged"),
            "{text:?}"
        );
    }

    #[test]
    fn harmless_arguments_are_quoted_as_they_are() {
        assert!(refused(&["watch", "--duration", "größe"]).to_string().contains("größe"));
    }
}
