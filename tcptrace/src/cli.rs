//! The command line: parse, wire, run.

mod check;
mod completions;
mod descriptors;
mod diagnose;
mod examples;
mod export;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod interrupted;
mod live;
mod messages;
mod outlet;
mod privileges;
mod progress;
mod record;
mod replay;
mod report;
mod rows;
mod run;
mod schema;
mod select;
mod snapshot;
mod stdout;
mod study;
mod timeline;
mod top;
mod usage;
mod view;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};

use self::messages::{say, say_ready, tell};
use crate::live::Source;
use crate::model::stream::Summary;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Events were lost, or a trace is damaged.
    Lost,
    /// It failed, and has printed why.
    Failed,
    /// The exit status of the recorded command.
    Of(u8),
}

impl Outcome {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Lost => 3,
            Self::Of(code) => code,
        }
    }

    /// `Lost` where not everything was known that could be.
    fn with_helper(self, source: &Source) -> Self {
        self.unless(source.has_lost_helper())
    }

    fn unless(self, has_lost: bool) -> Self {
        match self {
            Self::Done if has_lost => Self::Lost,
            other => other,
        }
    }

    /// `Lost` where the summary counts losses or damage.
    fn of(summary: &Summary) -> Self {
        if summary.lost.is_empty() && summary.damage.is_empty() { Self::Done } else { Self::Lost }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        outcome.code().into()
    }
}

/// Follow TCP connections to their true end: who closed first, how long each socket sat in TIME_WAIT or CLOSE_WAIT,
/// and which process owns it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = examples::TCPTRACE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stream every state transition until Ctrl-C.
    #[command(after_help = examples::WATCH)]
    Watch(live::WatchArgs),
    /// Print one line per connection when it has truly ended, after its TIME_WAIT.
    #[command(after_help = examples::CONNECTIONS)]
    Connections(live::ConnectionsArgs),
    /// Record a trace to a file. It costs less than `watch`, and the file survives a crash.
    #[command(after_help = examples::RECORD)]
    Record(record::RecordArgs),
    /// Print what `watch` or `connections` would have printed, from a trace.
    #[command(after_help = examples::REPLAY)]
    Replay(replay::ReplayArgs),
    /// Count or list the sockets that exist now, by state, owner and remote end. Works without root for your own sockets.
    #[command(after_help = examples::SNAPSHOT)]
    Snapshot(snapshot::SnapshotArgs),
    /// Find what is wrong and say why, with the evidence and what to do: live, or in traces.
    #[command(after_help = examples::DIAGNOSE)]
    Diagnose(diagnose::DiagnoseArgs),
    /// Show sockets by state, owner and remote end, rates and findings on one screen, live or from traces.
    #[command(after_help = examples::TOP)]
    Top(top::TopArgs),
    /// Draw the connections of a trace on a time axis, the two ends of a connection below each other.
    #[command(after_help = examples::TIMELINE)]
    Timeline(timeline::TimelineArgs),
    /// Convert traces into JSON lines, CSV, Parquet, or a timeline for ui.perfetto.dev.
    #[command(after_help = examples::EXPORT)]
    Export(export::ExportArgs),
    /// Report what happened in a trace: where sockets piled up, who owned them, and how connections ended.
    #[command(after_help = examples::REPORT)]
    Report(report::ReportArgs),
    /// Describe every field of every output, with its unit and meaning, as text, JSON Schema or CSV.
    #[command(after_help = examples::SCHEMA)]
    Schema(schema::SchemaArgs),
    /// Show which features this kernel supports, and why others are unavailable.
    #[command(after_help = examples::CHECK)]
    Check(check::CheckArgs),
    /// Print a completion script for a shell.
    #[command(after_help = examples::COMPLETIONS)]
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// Whether its result goes to standard output.
    fn prints(&self) -> bool {
        match self {
            Self::Record(_) => false,
            Self::Export(args) => args.prints(),
            Self::Report(args) => args.prints(),
            _ => true,
        }
    }

    /// Whether it attaches to the kernel, which needs an event loop.
    fn is_live(&self) -> bool {
        match self {
            Self::Watch(_) | Self::Connections(_) | Self::Record(_) | Self::Check(_) => true,
            Self::Diagnose(args) => args.is_live(),
            Self::Top(args) => args.is_live(),
            _ => false,
        }
    }

    fn run(&self) -> Result<Outcome> {
        match self {
            Self::Watch(args) => live::watch(args),
            Self::Connections(args) => live::connections(args),
            Self::Record(args) => record::run(args),
            Self::Replay(args) => replay::run(args),
            Self::Snapshot(args) => snapshot::run(args),
            Self::Diagnose(args) => diagnose::run(args),
            Self::Top(args) => top::run(args),
            Self::Timeline(args) => timeline::run(args),
            Self::Export(args) => export::run(args),
            Self::Report(args) => report::run(args),
            Self::Schema(args) => schema::run(args),
            Self::Check(args) => check::run(args),
            Self::Completions(args) => completions::run(args),
        }
    }
}

/// The definition of the command line, from which man pages are made.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the arguments ask for.
pub fn main() -> ExitCode {
    run::survive_file_size_limit();
    let args: Vec<_> = std::env::args_os().collect();
    let cli: Cli = match usage::parse(&args) {
        Ok(cli) => cli,
        Err(error) => {
            let status = error.exit_code();
            return exit(usage::print(&error).map(|()| Outcome::Of(u8::try_from(status).unwrap_or(1))));
        }
    };
    messages::show_log();
    exit(run(&cli.command))
}

fn run(command: &Command) -> Result<Outcome> {
    if command.prints() {
        stdout::expect_open()?;
    }
    if command.is_live() {
        run::stay_small();
        descriptors::expect_room()?;
    }
    let outcome = command.run()?;
    io::stdout().flush().context("cannot write to standard output")?;
    Ok(outcome)
}

fn exit(result: Result<Outcome>) -> ExitCode {
    match result {
        Ok(outcome) => outcome.into(),
        Err(error) if is_broken_pipe(&error) => Outcome::Done.into(),
        Err(error) => {
            say(format_args!("{error:#}"));
            Outcome::Failed.into()
        }
    }
}

/// Whether the reader of our output has closed it, as `head` does. That is not a failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parse(line: &str) -> Cli {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Cli::try_parse_from(&words).map_err(|error| format!("{line}: {error}")).expect("it is accepted")
    }

    #[test]
    fn definitions_are_consistent() {
        command().debug_assert();
    }

    /// Of an example that runs other programs too, the part after `tcptrace` is parsed.
    #[test]
    fn examples_are_accepted() {
        let mut all = command();
        all.build();
        for command in all.get_subcommands().filter(|command| command.get_name() != "help").chain([&all]) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> = help.lines().filter(|line| line.starts_with("  ")).collect();
            assert!((2..=4).contains(&examples.len()), "{}: {help}", command.get_name());
            for example in examples {
                assert!(example.len() <= 100, "too wide: {example}");
                for (at, _) in example.match_indices("tcptrace ") {
                    let line = example[at..].split(['#', '|', '>', ')']).next().unwrap_or_default();
                    parse(line);
                }
            }
        }
    }

    /// Older spellings still work, and no help shows them.
    #[rstest]
    #[case("replay --from 1s --to 03:00 t", "replay --since 1s --until 03:00 t")]
    #[case("report --from 1s --to 03:00 t", "report --since 1s --until 03:00 t")]
    #[case("timeline --from 1s --to 03:00 t", "timeline --since 1s --until 03:00 t")]
    #[case("export --from 1s --until 2s --to csv t", "export --since 1s --until 2s --format csv t")]
    #[case("export --to parquet -o d t", "export --format parquet -o d t")]
    fn older_spellings_mean_the_same(#[case] old: &str, #[case] new: &str) {
        let [old, new] = [old, new].map(|line| format!("{:?}", parse(&format!("tcptrace {line}")).command));
        assert_eq!(old, new);
    }

    #[rstest]
    #[case("replay", &["--from", "--to", "--connections", "--no-color"])]
    #[case("report", &["--from", "--to", "--no-color"])]
    #[case("timeline", &["--from", "--to", "--no-color"])]
    #[case("export", &["--from", "--to", "--open"])]
    #[case("watch", &["--no-color"])]
    #[case("connections", &["--no-color"])]
    #[case("snapshot", &["--no-color"])]
    fn older_spellings_are_hidden(#[case] name: &str, #[case] hidden: &[&str]) {
        let mut all = command();
        let help = all.find_subcommand_mut(name).expect("a command").render_long_help().to_string();
        for option in hidden {
            assert!(!help.split_whitespace().any(|word| word == *option), "{option}: {help}");
        }
    }
}
