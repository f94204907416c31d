//! `diagnose`: what is wrong and why, from the live kernel or from traces.

mod live;
pub(super) mod traces;

use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;

use super::select::{AcceptArgs, ColourArgs, duration};
use super::study::TraceArgs;
use super::words::rules;
use super::{Outcome, stdout};
use crate::model::stream::Summary;
use crate::output::{self, DiagnoseFormat, TextOptions};
use crate::study::diagnose::finding::Severity;
use crate::study::diagnose::rule::Rule;
use crate::study::diagnose::{Case, RULES, Selection};

/// The exit status when there is a finding that is to be one.
const FOUND: u8 = 4;

/// Arguments of `diagnose`.
#[derive(Args, Debug)]
#[command(
    mut_arg("files", |files| files
        .required(false)
        .help("Traces to diagnose, each host by itself; none: the live kernel. `-` is standard input")),
    mut_arg("since", |time| time.requires("files")),
    mut_arg("until", |time| time.requires("files")),
)]
pub(super) struct DiagnoseArgs {
    /// How long to look at the live kernel (10s, 5m); 0: one look at what exists, without eBPF
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s", conflicts_with = "files")]
    duration: Duration,
    /// Exit with status 4 if there is a finding of this severity or a higher one
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t)]
    fail_on: FailOn,
    /// Check these rules only
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = rules(), hide_possible_values = true)]
    only: Vec<&'static Rule>,
    /// Do not check these rules
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = rules(), hide_possible_values = true)]
    skip: Vec<&'static Rule>,
    /// Print what a rule looks for, when it fires and why, and what helps; nothing is looked at
    #[arg(
        long,
        value_name = "ID",
        value_parser = rules(),
        hide_possible_values = true,
        conflicts_with_all = ["files", "rules", "only", "skip"]
    )]
    explain: Option<&'static Rule>,
    /// List the rules: what they find, and what they need
    #[arg(long, conflicts_with_all = ["files", "only", "skip"])]
    rules: bool,
    /// Print what the host is set to as far as TCP depends on it, and what each setting does; no rules
    #[arg(long, conflicts_with_all = ["only", "skip", "explain", "rules"])]
    settings: bool,
    /// Print every finding in full (text only; the other formats always have all)
    #[arg(long)]
    all: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: DiagnoseFormat,
    #[command(flatten)]
    colours: ColourArgs,
    #[command(flatten)]
    accept: AcceptArgs,
    /// Use classic tracepoints only, as on a kernel without BTF
    #[arg(long, hide = true)]
    no_btf: bool,
    #[command(flatten)]
    trace: TraceArgs,
}

/// Which findings make the exit status 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Something fails now, or will within 10 minutes
    #[default]
    Critical,
    /// Or a defect that costs or grows
    Warning,
    /// Or anything worth knowing
    Note,
    /// None
    Never,
}

impl FailOn {
    fn severity(self) -> Option<Severity> {
        match self {
            Self::Critical => Some(Severity::Critical),
            Self::Warning => Some(Severity::Warning),
            Self::Note => Some(Severity::Note),
            Self::Never => None,
        }
    }
}

/// A time with its unit, or 0.
fn time(text: &str) -> Result<Duration> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text) }
}

impl DiagnoseArgs {
    /// Whether the kernel is followed for a time.
    pub(super) fn is_live(&self) -> bool {
        self.looks() && self.trace.is_empty() && self.traces()
    }

    /// Whether anything is looked at.
    fn looks(&self) -> bool {
        !self.rules && self.explain.is_none()
    }

    /// Whether the live kernel is traced, too: for settings one look is enough.
    fn traces(&self) -> bool {
        !self.duration.is_zero() && !self.settings
    }

    fn wanted(&self) -> Selection {
        let ids = |rules: &[&'static Rule]| rules.iter().map(|rule| rule.id).collect();
        Selection { only: ids(&self.only), skip: ids(&self.skip) }
    }

    fn text(&self) -> TextOptions {
        let width = stdout::terminal().map(|(columns, _)| columns);
        let (colour, full) = (self.colours.colour(), self.all);
        TextOptions { colour, zone: TimeZone::system(), width, full, ..TextOptions::default() }
    }

    fn outcome(&self, cases: &[Case], summary: &Summary) -> Outcome {
        let is_found = self.fail_on.severity().is_some_and(|severity| cases.iter().any(|case| case.reaches(severity)));
        // A problem is a problem, whatever else was lost.
        if is_found { Outcome::Of(FOUND) } else { Outcome::of(summary) }
    }
}

pub(super) fn run(args: &DiagnoseArgs) -> Result<Outcome> {
    let out = || io::BufWriter::new(io::stdout().lock());
    if let Some(rule) = args.explain {
        output::explain(out(), args.format, &args.text(), rule).context("cannot write the page")?;
        return Ok(Outcome::Done);
    }
    if args.rules {
        output::rules(out(), args.format, RULES).context("cannot write the rules")?;
        return Ok(Outcome::Done);
    }
    let (cases, summary, has_lost) = if args.trace.is_empty() {
        live::cases(args)?
    } else {
        let (cases, summary) = traces::cases(args)?;
        (cases, summary, false)
    };
    if args.settings {
        output::settings(out(), args.format, &args.text(), &cases).context("cannot write the settings")?;
        return Ok(Outcome::Done);
    }
    let outcome = args.outcome(&cases, &summary).unless(has_lost);
    output::diagnose(out(), args.format, &args.text(), &cases, outcome.code()).context("cannot write the diagnosis")?;
    Ok(outcome)
}
